"""A training: the weights of a model at each of its steps, and the losses of all steps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffalign import logs, models, training
from diffalign.devices import choose_device
from diffalign.extraction.inputs import ImageFiles
from diffalign.io import tables
from diffalign.io.atomic import make_empty, read_settings_file
from diffalign.io.checkpoints import describe, read_record
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.latents import Latents, RunningMoments
from diffalign.io.manifest import Image, read_manifest
from diffalign.io.token_files import Tokens, read_tokens
from diffalign.io.training_checkpoints import TrainingFolder
from diffalign.offenders import first_five
from diffalign.provenance import files_digest
from diffalign.specs import Compute, Model, Training
from diffalign.stimuli.class_numbers import LabelError
from diffalign.stimuli.labels import class_labels
from diffalign.training.batches import Images, held, order_of
from diffalign.training.objectives import Objective
from diffalign.training.objectives.alignment import TeacherAlignment
from diffalign.training.objectives.classification import classification
from diffalign.training.objectives.flow_matching import flow_matching
from diffalign.training.objectives.reconstruction import reconstruction

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# the part of memory_mb that images may fill; where they need more, they are read anew for every step
_HELD_SHARE = 0.5
# images a forward pass where latents are measured
_MEASURED = 100


@dataclass(frozen=True)
class Teacher:
    """Tokens of a teacher, un-pooled, and which of its layers is aligned with."""

    folder: Path
    layer: str


@dataclass(frozen=True)
class TrainingInputs:
    """What a training reads: PNG files, or latents with their statistics and the record of the autoencoder."""

    dataset_json: Path
    manifest: Path
    images: Path | None = None
    latents: Sequence[Path] = ()
    statistics: Path | None = None
    autoencoder_record: Path | None = None
    teacher: Teacher | None = None


@dataclass(frozen=True)
class TrainingOutputs:
    """Checkpoints and records, one each of every step, and the table of losses."""

    steps: Sequence[int]
    checkpoints: Sequence[Path]
    records: Sequence[Path]
    tsv: Path
    parquet: Path


class TrainingImages(Dataset[Mapping[str, Any]]):
    """One row an image, in order of name: ``name``, ``pixels`` or ``latents``, ``labels``, ``teacher``."""

    def __init__(
        self,
        names: Sequence[str],
        images: ImageFiles | Latents,
        labels: Sequence[int] | None,
        teacher: Tokens | None,
        layer: str | None,
    ) -> None:
        self._names, self._images, self._labels = names, images, labels
        self._tokens = None if teacher is None or layer is None else teacher.layers[layer]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        name = self._names[row]
        item: dict[str, Any] = {"name": name}
        if isinstance(self._images, ImageFiles):
            item["pixels"] = self._images[row]["pixels"]
        else:
            item["latents"] = self._images[name]
        if self._labels is not None:
            item["labels"] = torch.tensor(self._labels[row])
        if self._tokens is not None:
            item["teacher"] = torch.from_numpy(self._tokens[row].copy()).float()
        return item


def train(
    recipe: Path, reads: TrainingInputs, writes: TrainingOutputs, folder: TrainingFolder, compute: Compute
) -> None:
    """Train the model of a recipe, and write a checkpoint of each step that is asked for.

    folder: what a killed training goes on from; removed at the end. Raises ValueError that names the images, files or
    steps where something is wrong, before the first step; TrainingError where a loss becomes NaN.
    """
    content = read_settings_file(recipe)
    model = Model.from_recipe(content["model"])
    asked = model.training
    assert asked is not None  # the config is checked
    rows = read_manifest(reads.manifest)
    names = [row.name for row in rows]
    # refused before images are read
    order_of(names, asked.batch_size, model.seed, 1)
    on = choose_device(compute.device)
    network = models.trainable(model, on)
    labels = None if network.classes is None else _labels(rows, network.classes, reads.manifest)
    encoded = _encoded(model, names, reads)
    teacher = _teacher(names, reads)
    layer = None if reads.teacher is None else reads.teacher.layer
    pictures = encoded if encoded is not None else _pictures(model, names, reads)
    images = _in_memory(
        training.StreamedImages(names, TrainingImages(names, pictures, labels, teacher, layer), compute.workers),
        compute,
    )
    objective = _objective(model, asked, network, images, on)
    inputs = _described(reads, teacher)
    logs.log.info("%s on %s: %s, %d images, %d steps", model.name, on, asked.loss, len(names), asked.steps)
    # latents that are encoded again have other numbers by the same recipe
    read = [*reads.latents, *filter(None, (reads.statistics, None if reads.teacher is None else reads.teacher.folder))]
    key = {"recipe": content, **inputs, "read": files_digest(read)}
    # in which order the model knows them
    classes = {} if labels is None else {"classes": {row.label: row.label_index for row in rows}}
    losses = training.train(model.name, network.module, objective, asked, model.seed, images, writes.steps, folder, key)
    for step, checkpoint, record in zip(writes.steps, writes.checkpoints, writes.records, strict=True):
        state = folder.read_weights(step)
        make_empty(checkpoint)
        scaling = () if network.encode is None else _scaling(network, state, images, on)
        network.save(state, checkpoint, *scaling)
        about = {"source": "training", "step": step, "recipe": content, **inputs, **classes, "torch": torch.__version__}
        describe(record, checkpoint, about)
    columns = {"model": "string", "step": "int64", **dict.fromkeys(losses, "float64")}
    steps = range(1, asked.steps + 1)
    made = ({"model": model.name, "step": step, **{key: losses[key][step - 1] for key in losses}} for step in steps)
    tables.write(tables.frame(made, columns), writes.tsv, writes.parquet)
    folder.clear()


def _labels(rows: Sequence[Image], classes: int, manifest: Path) -> list[int]:
    """The class of every image. Raises StoreError where a class of the model has none; LabelError as `class_labels`."""
    hint = "num_classes of the architecture must be the number of classes of the data set"
    try:
        labels = class_labels(rows, "label", classes, own_classes=True)
    except LabelError as error:
        raise LabelError(f"{manifest}: {error}; {hint}") from None
    absent = [str(label) for label in sorted(set(range(classes)) - set(labels))]
    if absent:
        raise StoreError(f"{manifest}: {len(absent)} of {classes} classes have no image: {first_five(absent)}; {hint}")
    return labels


def _encoded(model: Model, names: Sequence[str], reads: TrainingInputs) -> Latents | None:
    """Latents by name; None for a model that reads images. Raises StoreError where they are of other images."""
    if reads.statistics is None:
        return None
    encoded = Latents(reads.latents, reads.statistics, model.latent_multiplier)
    check_same_names(names, sorted(encoded), reads.manifest, reads.statistics.parent)
    return encoded


def _pictures(model: Model, names: Sequence[str], reads: TrainingInputs) -> ImageFiles:
    assert reads.images is not None  # the config is checked
    assert model.input is not None
    return ImageFiles({name: reads.images / f"{name}.png" for name in names}, model.input)


def _teacher(names: Sequence[str], reads: TrainingInputs) -> Tokens | None:
    """The tokens of the teacher. Raises StoreError where it saw other images, or has no such layer.

    Images are others where they have other names, or the manifest, with the digests of their files, is another.
    """
    if reads.teacher is None:
        return None
    tokens = read_tokens(reads.teacher.folder)
    check_same_names(names, tokens.names, reads.manifest, reads.teacher.folder)
    ours = json.loads(reads.dataset_json.read_text(encoding="utf-8")).get("manifest_sha256")
    if tokens.recipe.get("images", {}).get("manifest_sha256", ours) != ours:
        raise StoreError(f"{reads.teacher.folder}: the teacher saw other images of the same names; rerun it")
    if reads.teacher.layer not in tokens.layers:
        raise StoreError(f"{reads.teacher.folder}: no layer '{reads.teacher.layer}'; there: {', '.join(tokens.layers)}")
    return tokens


def _in_memory(images: training.StreamedImages, compute: Compute) -> Images:
    """Images held in memory where they fit: batches are the same."""
    first = images.dataset[0]
    size = sum(value.numel() * value.element_size() for value in first.values() if isinstance(value, Tensor))
    needed = size * len(images.names) / 1e6
    if needed > _HELD_SHARE * compute.memory_mb:
        logs.log.info("images of %.0f MB are read for every step, by %d workers", needed, compute.workers)
        return images
    return held(images)


def _objective(
    model: Model, recipe: Training, network: models.Trainable, images: Images, on: torch.device
) -> Objective:
    if recipe.loss == "classification":
        return classification(network)
    if recipe.loss == "reconstruction":
        return reconstruction(network, recipe, model.seed)
    aligned = None
    if recipe.teacher_layer is not None:
        (example,) = images.batches([[0]], on)
        path = model.layers[recipe.teacher_layer]
        aligned = TeacherAlignment(network, recipe.teacher_layer, path, recipe, model.seed, example)
    return flow_matching(network, recipe, str(model.path), model.seed, aligned)


def _described(reads: TrainingInputs, teacher: Tokens | None) -> dict[str, Any]:
    """What a training read, for the records of its checkpoints."""
    about = {"images": json.loads(reads.dataset_json.read_text(encoding="utf-8"))}
    if reads.autoencoder_record is not None:
        about["autoencoder_weights"] = read_record(reads.autoencoder_record)
    if teacher is not None:
        about["teacher"] = teacher.recipe
    return about


def _scaling(
    network: models.Trainable, state: Mapping[str, Tensor], images: Images, on: torch.device
) -> tuple[float, float]:
    """Mean and standard deviation of all latents of an autoencoder, over images, channels and positions.

    Raises StoreError for latents that are all alike, which nothing can scale.
    """
    assert network.encode is not None
    network.module.load_state_dict(state)
    network.module.eval()
    moments = RunningMoments()
    rows = range(len(images.names))
    order = [rows[i : i + _MEASURED] for i in range(0, len(rows), _MEASURED)]
    with torch.no_grad():
        for batch in images.batches(order, on):
            encoded = network.encode(batch.tensors["pixels"])
            # one shift and one scale for all channels, as AutoencoderKL has
            moments.add(encoded.cpu().flatten(1)[:, None])
    mean, std = (float(each) for each in moments.result())
    if not std > 0:
        raise StoreError("latents of all images are alike; lower training.kl")
    return mean, std


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        given, params, resources = snakemake.input, snakemake.params, snakemake.resources
        named = dict(given.items())
        optional = {key: Path(named[key]) for key in ("images", "statistics", "autoencoder_record") if key in named}
        teacher = Teacher(Path(named["teacher"]), params.teacher_layer) if "teacher" in named else None
        train(
            Path(given.recipe),
            TrainingInputs(
                Path(given.dataset),
                Path(given.manifest),
                latents=[Path(shard) for shard in named.get("latents", ())],
                teacher=teacher,
                **optional,
            ),
            TrainingOutputs(
                params.steps,
                [Path(path) for path in snakemake.output.checkpoints],
                [Path(path) for path in snakemake.output.records],
                Path(snakemake.output.tsv),
                Path(snakemake.output.parquet),
            ),
            TrainingFolder(Path(params.state)),
            Compute(resources.device, 1, resources.workers, resources.memory_mb),
        )
