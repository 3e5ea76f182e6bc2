"""Class-conditional samples: names of images, their noise keyed by name, and images of latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffalign.io.manifest import Image
from diffalign.models import Denoiser
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five, flagged
from diffalign.randomness import keyed, one_each
from diffalign.sampling.trajectories import CLASS_TOKENS, StepNoise, first_level, guided, levels, trajectory


@dataclass(frozen=True)
class Sampler:
    """How samples are made. method: one of `SAMPLERS`. steps: of the integration. guidance: the scale of `guided`."""

    method: str
    steps: int
    guidance: float


def sample_names(classes: int, per_class: int) -> dict[str, int]:
    """Name -> class of `per_class` samples of each class, in order of name: ``class_3_00007`` of ten classes.

    The first samples of a class have the same names whatever `per_class` is.
    """
    digits = len(str(classes - 1))
    return {f"class_{label:0{digits}d}_{n:05d}": label for label in range(classes) for n in range(per_class)}


def check_classes(images: Sequence[Image], classes: int, model: str) -> None:
    """Raise ValueError where the classes of a data set are not those that a model can be asked for, 0 to classes - 1,
    and where one has a single image.

    Classes of the data set are those of its manifest, which may not leave one out: measures of quality compare samples
    of all classes with images of all classes, of which diversity takes pairs.
    """
    unlabelled = [image.name for image in images if image.label_index < 0]
    if unlabelled:
        raise ValueError(f"{len(unlabelled)} images have no class, first: {first_five(unlabelled)}")
    counts = Counter(image.label_index for image in images)
    there, asked = set(counts), set(range(classes))
    if there != asked:
        absent = [str(label) for label in sorted(asked - there)]
        beyond = [str(label) for label in sorted(there - asked)]
        parts = [
            *([f"without images of {len(absent)} of them, first: {first_five(absent)}"] if absent else []),
            *([f"with {len(beyond)} others, first: {first_five(beyond)}"] if beyond else []),
        ]
        raise ValueError(f"{model} has classes 0 to {classes - 1}, but the data set is {' and '.join(parts)}")
    single = [str(label) for label, count in sorted(counts.items()) if count == 1]
    if single:
        raise ValueError(
            f"{len(single)} classes of the data set have one image, first: {first_five(single)}; diversity is of "
            "pairs, so take a larger sample"
        )


def starting_noise(
    names: Sequence[str], shape: Sequence[int], model: str, seed: int | Sequence[int], what: str = "latents"
) -> Tensor:
    """Standard normal noise (B, *shape) float32, keyed by (seed, model, name of the sample).

    seed: one for all samples, or one for each.
    model: without the step of a checkpoint, so that all checkpoints of a training begin with the same noise.
    what: ``latents`` or ``class_tokens``, or either of a step, which are all drawn apart.
    """
    purpose = f"sampling\x00{what}\x00{model}"
    each = one_each(seed, names)
    draws = [keyed(own, purpose, name).standard_normal(tuple(shape), dtype=np.float32) for own, name in each]
    return torch.from_numpy(np.stack(draws))


def noise_shapes(denoiser: Denoiser, side: int) -> list[tuple[str, tuple[int, ...]]]:
    """What noise of a sample is of: ``latents`` (C, side, side) and, where there are any, ``class_tokens`` (D,)."""
    width = denoiser.class_token_width
    tokens = [] if width is None else [(CLASS_TOKENS, (width,))]
    return [("latents", (denoiser.latent_channels, side, side)), *tokens]


def step_noise(
    names: Sequence[str],
    shapes: Sequence[tuple[str, Sequence[int]]],
    model: str,
    seed: int | Sequence[int],
    device: torch.device,
) -> StepNoise:
    """The noise of any step: keyed by (seed, model, step, name of the sample), apart from `starting_noise`.

    shapes: of one sample, ``latents`` and, where a model has them, ``class_tokens``, in this order. seed: one for all
    samples, or one for each.
    """

    def draw(step: int) -> list[Tensor]:
        return [
            starting_noise(names, shape, model, seed, f"{what} of step {step}").to(device) for what, shape in shapes
        ]

    return draw


def noise_levels(denoiser: Denoiser, side: int, steps: int, device: torch.device) -> list[NoiseLevel]:
    """The noise levels of `steps` steps of a model of classes, from the one at which it can begin to t = 0.

    Raises ValueError for a model without classes.
    """
    _, null = _conditions(denoiser, [0], device)
    latents = torch.zeros(1, denoiser.latent_channels, side, side, device=device)
    if denoiser.class_token_width is not None:
        null[CLASS_TOKENS] = torch.zeros(1, denoiser.class_token_width, device=device)
    return levels(denoiser, steps, first_level(denoiser, latents, null))


def class_samples(
    denoiser: Denoiser,
    at: Sequence[NoiseLevel],
    labels: Mapping[str, int],
    side: int,
    model: str,
    seed: int,
    sampler: Sampler,
    device: torch.device,
) -> Tensor:
    """Latents (B, C, side, side) float32 of one batch, in the scale that the model reads.

    at: from `noise_levels`. labels: name of a sample -> class. Raises ValueError for a model without classes, and as
    `trajectory`.
    """
    names = list(labels)
    asked, null = _conditions(denoiser, list(labels.values()), device)
    noise = starting_noise(names, (denoiser.latent_channels, side, side), model, seed).to(device)
    width = denoiser.class_token_width
    tokens = None if width is None else starting_noise(names, (width,), model, seed, CLASS_TOKENS).to(device)
    predict = guided(denoiser.predict, null, sampler.guidance)
    of_steps = step_noise(names, noise_shapes(denoiser, side), model, seed, device)
    *_, last = trajectory(predict, at, noise, asked, names, sampler.method, tokens, of_steps)
    return last.latents


def _conditions(
    denoiser: Denoiser, labels: Sequence[int], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The conditioning on these classes, and that on none."""
    if denoiser.classes is None:
        raise ValueError("the model is not conditioned on classes, so it has no samples of them")
    null = torch.full((len(labels),), denoiser.classes, device=device)
    return {"labels": torch.tensor(labels, device=device)}, {"labels": null}


def images(latents: Tensor, decode: Callable[[Tensor], Tensor], names: Sequence[str]) -> NDArray[np.uint8]:
    """Images (B, H, W, 3) of latents as their autoencoder gives them; 255 in [0, 1] is 255, rounded to the nearest.

    decode: `Loaded.decode`. Raises ValueError that names the first five images that are NaN or infinite.
    """
    decoded = decode(latents).float().cpu()
    bad = ~decoded.flatten(1).isfinite().all(1)
    if bad.any():
        raise ValueError(f"decoded images are NaN or infinite for {first_five(flagged(names, bad.tolist()))}")
    whole = (decoded.clamp(0, 1) * 255).round().to(torch.uint8)
    made: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).contiguous().numpy()
    return made
