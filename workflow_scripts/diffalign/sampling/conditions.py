"""What samples of a trajectory are conditioned on: classes, prompts, or nothing, by the name of the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign.io.manifest import Image
from diffalign.models import Denoiser, find_family
from diffalign.offenders import first_five
from diffalign.randomness import sample, uniform
from diffalign.sampling.classes import sample_names
from diffalign.specs import Model
from diffalign.stimuli.labels import class_labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# which images of a data set are taken is the same for all seeds of trajectories
_IMAGES_SEED = 0


@dataclass(frozen=True)
class Asked:
    """Which samples there are and what each is asked for.

    groups: name, ascending -> its class, prompt or photograph. prompts: distinct texts; None for a model without them.
    rows: name -> the number of its prompt, or its class; empty for a model that is conditioned on neither.
    """

    groups: Mapping[str, str]
    rows: Mapping[str, int]
    prompts: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Conditioning of samples by name. tensors: one row a text or class. row_of: name -> row.

    null: the row that stands for no condition; None where there is nothing to leave out.
    """

    tensors: Mapping[str, Tensor]
    row_of: Mapping[str, int]
    null: int | None

    def of(self, names: Sequence[str]) -> dict[str, Tensor]:
        """One row a name."""
        return self._rows([self.row_of.get(name, 0) for name in names])

    def none(self, count: int) -> dict[str, Tensor]:
        """The null conditioning of `count` samples; empty where there is none."""
        return {} if self.null is None else self._rows([self.null] * count)

    def _rows(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {key: values[rows] for key, values in self.tensors.items()}


def asked_from_noise(
    model: Model, denoiser: Denoiser, samples: int, prompts: Sequence[str] | None, classes: Sequence[int] | None
) -> Asked:
    """Samples that begin with noise, dealt in turn over prompts or classes: ``class_3_00007``, ``prompt_0_00007``, and
    ``sample_00007`` of a model that is conditioned on neither.

    prompts: of models that read them; none are the empty prompt. classes: of models that are conditioned on them; None
    is all. A configuration of several models may have both. The first samples of a class or prompt have the same names,
    and so the same noise, whatever `samples` is. Raises ValueError for no samples, fewer than prompts or named classes,
    and classes that the model lacks.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples; expected at least 1")
    if denoiser.classes is not None:
        labels = list(range(denoiser.classes)) if classes is None else sorted(set(classes))
        beyond = [str(label) for label in labels if not 0 <= label < denoiser.classes]
        if beyond:
            raise ValueError(f"{model.name} has classes 0 to {denoiser.classes - 1}, not {first_five(beyond)}")
        _check_enough(samples, len(labels) if classes is not None else 1, "classes")
        names = sample_names(denoiser.classes, -(-samples // len(labels)))
        place = {label: number for number, label in enumerate(labels)}
        dealt = {
            name: label
            for name, label in names.items()
            if label in place and int(name.rsplit("_", 1)[1]) * len(labels) + place[label] < samples
        }
        return Asked({name: name.rsplit("_", 1)[0] for name in dealt}, dealt)
    if find_family(model.family).conditioned_on == "prompts":
        texts = tuple(dict.fromkeys(prompts or ("",)))
        _check_enough(samples, len(texts), "prompts")
        digits = len(str(len(texts) - 1))
        rows = {f"prompt_{n % len(texts):0{digits}d}_{n // len(texts):05d}": n % len(texts) for n in range(samples)}
        rows = dict(sorted(rows.items()))
        return Asked({name: texts[row] for name, row in rows.items()}, rows, texts)
    names_alone = [f"sample_{n:05d}" for n in range(samples)]
    return Asked(dict(zip(names_alone, names_alone, strict=True)), {})


def asked_of_images(
    model: Model,
    denoiser: Denoiser,
    samples: int,
    images: Sequence[Image],
    prompts: Sequence[str] | None,
    classes: Sequence[int] | None,
) -> Asked:
    """Samples that begin with images, a sample of the data set by `randomness.sample`, each its own group.

    classes: only images of these; None for all. A model of classes is asked for that of the image, or for none where
    no image has a class. Of several prompts each image has one, keyed by its name. Raises ValueError for no images and
    more samples than images, LabelError for classes that are not the model's.
    """
    if samples < 1:
        raise ValueError(f"{samples} images; expected at least 1")
    if classes is not None:
        images = [image for image in images if image.label_index in classes]
    if samples > len(images):
        of = "" if classes is None else f" of classes {', '.join(map(str, classes))}"
        raise ValueError(f"{samples} images{of} are asked for, and the data set has {len(images)}")
    names = sorted(sample([image.name for image in images], samples, _IMAGES_SEED))
    groups = {name: name for name in names}
    if denoiser.classes is not None:
        by_name = {image.name: image for image in images}
        taken = [by_name[name] for name in names]
        labelled = any(image.label_index >= 0 for image in images)
        asked = "label" if labelled else "uncond"
        labels = class_labels(taken, asked, denoiser.classes, model.own_classes)
        return Asked(groups, dict(zip(names, labels, strict=True)))
    if find_family(model.family).conditioned_on == "prompts":
        texts = tuple(dict.fromkeys(prompts or ("",)))
        return Asked(groups, {name: int(uniform(_IMAGES_SEED, "prompt", name) * len(texts)) for name in names}, texts)
    return Asked(groups, {})


def conditioning(model: Model, denoiser: Denoiser, asked: Asked, weights: Path, device: torch.device) -> Conditioning:
    """The tensors of what is asked, on the device, and those that stand for no condition.

    Prompts are embedded by the model's family, beside the empty prompt, which is none; of classes the null label is.
    """
    import torch

    if denoiser.classes is not None:
        labels = torch.arange(denoiser.classes + 1, device=device)
        return Conditioning({"labels": labels}, asked.rows, denoiser.classes)
    if asked.prompts is None:
        return Conditioning({}, {}, None)
    texts = list(dict.fromkeys(("", *asked.prompts)))
    embedded = find_family(model.family).embed_prompts(model, weights, texts, device)
    tensors = {key: values.to(device) for key, values in embedded.items() if key != "text"}
    row_of = {name: texts.index(asked.prompts[row]) for name, row in asked.rows.items()}
    return Conditioning(tensors, row_of, 0)


def _check_enough(samples: int, needed: int, what: str) -> None:
    if samples < needed:
        raise ValueError(f"{samples} samples are fewer than the {needed} {what} that they are dealt over")
