"""The key `training` of a model: how it is trained here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from diffalign import names
from diffalign.config.datasets import DatasetEntry, share_images
from diffalign.config.fields import Count, Distinct, Listed, NonNegative, Positive, Section, Seed, Text, Word
from diffalign.names import UnknownName, Vocabulary
from diffalign.specs import Training

if TYPE_CHECKING:
    from diffalign.config.models import ModelEntry
    from diffalign.models import Family

Share = Annotated[float, Field(ge=0, lt=1)]


class TrainingEntry(Section):
    """How a model is trained. Its seed is that of the model; docs/training.md."""

    dataset: Word = Field(description="The data set of the images, under the condition clean.")
    loss: Literal["classification", "reconstruction", "flow_matching"] = Field(
        description=(
            "classification: cross-entropy of the labels. reconstruction: the squared error of pixels, and kl times "
            "the divergence of the posterior from a standard normal. flow_matching: the squared error of the velocity."
        )
    )
    steps: Count = Field(description="Steps of the optimiser.")
    checkpoints: Annotated[Listed[Seed], Distinct()] = Field(
        (),
        description=(
            "Steps whose weights are kept, each a representation of its own: digits.sit@300. 0 is the model before any "
            "training. Empty keeps 0 and the last."
        ),
    )
    batch_size: Count = Field(128, description="Images a step; unlike elsewhere, the result depends on it.")
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="sgd has a momentum of 0.9.")
    learning_rate: Positive = Field(0.001, description="The highest learning rate.")
    weight_decay: NonNegative = Field(0.0, description="Decay of weights, by the rule of the optimiser.")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="The learning rate after warmup; cosine falls to 0 at the last step."
    )
    warmup: Seed = Field(0, description="Steps in which the learning rate rises linearly from 0.")
    clip: Positive | None = Field(None, description="The largest norm of all gradients; null does not clip them.")
    ema: Share = Field(
        0.0,
        description=(
            "Decay of an exponential moving average of the weights, which checkpoints hold in place of the weights; 0 "
            "keeps the weights themselves."
        ),
    )
    kl: NonNegative = Field(1e-6, description="For reconstruction, the weight of the divergence of the posterior.")
    label_dropout: Share = Field(
        0.1, description="For flow_matching, the share of labels replaced by the null label, for guidance."
    )
    times: Literal["uniform", "lognormal"] = Field(
        "uniform",
        description="For flow_matching, how noise levels are drawn; lognormal: the logistic of a standard normal.",
    )
    teacher: Text | None = Field(
        None,
        description=(
            "For flow_matching, a model with its layer (digits.vit_b5) whose patch tokens of the clean image a layer "
            "is aligned with through a projector, as REPA does."
        ),
    )
    teacher_layer: str | None = Field(None, description="The layer of this model that is aligned with the teacher.")
    teacher_weight: Positive = Field(0.5, description="The weight of the alignment beside the loss of the velocity.")
    projector: Count = Field(256, description="The width of the projector, which is no part of checkpoints.")

    def record(self) -> Training:
        """What jobs receive."""
        kept = tuple(sorted(self.checkpoints)) or (0, self.steps)
        return Training(**{**dict(self), "checkpoints": kept})


_OF_LOSS = {
    "kl": "reconstruction",
    "label_dropout": "flow_matching",
    "times": "flow_matching",
    "teacher": "flow_matching",
    "teacher_layer": "flow_matching",
    "teacher_weight": "flow_matching",
    "projector": "flow_matching",
}


def check(place: str, entry: ModelEntry, families: Mapping[str, Family], datasets: Collection[str]) -> Iterator[str]:
    """Mistakes of one model: keys of another loss, losses of another family, steps, and the data set."""
    training, is_trained = entry.training, entry.weights is not None and entry.weights.source == "training"
    if training is None or not is_trained:
        if is_trained:
            yield f"{place}.weights: from 'training' needs the key 'training' of the model"
        elif training is not None:
            yield f"{place}.training: means nothing unless weights are from training; say weights: {{from: training}}"
        return
    kind = families.get(entry.family)
    if kind is not None and training.loss not in kind.trains:
        allowed = f"allowed: {', '.join(kind.trains)}" if kind.trains else "nothing of this family is trained here"
        yield f"{place}.training.loss: family '{entry.family}' has no loss '{training.loss}'; {allowed}"
    if kind is not None and not entry.architecture:
        yield f"{place}: a model that is trained needs the key 'architecture'"
    if training.dataset not in datasets:
        yield f"{place}.training.dataset: {names.unknown('dataset', training.dataset, datasets)}"
    for key, loss in _OF_LOSS.items():
        if key in training.model_fields_set and getattr(training, key) is not None and training.loss != loss:
            yield f"{place}.training.{key}: means nothing for the loss '{training.loss}', but for {loss}"
    beyond = [step for step in training.checkpoints if step > training.steps]
    if beyond:
        yield f"{place}.training.checkpoints: {beyond[0]} lies beyond the last step, {training.steps}"
    if training.warmup > training.steps:
        yield f"{place}.training.warmup: {training.warmup} steps are more than all {training.steps}"
    if (training.teacher is None) != (training.teacher_layer is None):
        yield f"{place}.training: 'teacher' and 'teacher_layer' belong together; give both or neither"


def check_held_out(
    place: str,
    typed: Iterable[str],
    dataset: str,
    entries: Mapping[str, ModelEntry],
    datasets: Mapping[str, DatasetEntry],
) -> Iterator[str]:
    """Models that were trained on images of the data set that a section measures them on."""
    for model in dict.fromkeys(map(names.model_word, typed)):
        training = entries[model].training if model in entries else None
        if training is None or not {training.dataset, dataset} <= datasets.keys():
            continue
        seen = training.dataset
        if seen == dataset:
            yield f"{place}.dataset: '{model}' is trained on '{seen}'; name held-out images"
        elif share_images(datasets[seen], datasets[dataset]):
            yield (
                f"{place}.dataset: '{model}' is trained on '{seen}', which may share images with '{dataset}'; give one "
                "the part train and the other the part held_out of a split, with the same held_out"
            )


def check_teacher(
    place: str,
    training: TrainingEntry | None,
    layers: Collection[str],
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
) -> Iterator[str]:
    """Mistakes of a teacher: a name that means nothing or has no layer, and a model that reads no pixels.

    layers: of the model that is trained. vocabularies: of the models that were not refused; a teacher that was is
    passed over.
    """
    if training is None or training.teacher is None or training.teacher_layer is None:
        return
    if training.teacher_layer not in layers:
        yield f"{place}.training.teacher_layer: {names.unknown('layer', training.teacher_layer, layers)}"
    word = names.model_word(training.teacher)
    if word in entries and word not in vocabularies:
        return
    try:
        teacher = names.parse_representation(training.teacher, vocabularies)
    except UnknownName as error:
        yield f"{place}.training.teacher: {error}"
        return
    if teacher.layer is None:
        yield f"{place}.training.teacher: '{training.teacher}' names no layer; write {training.teacher}_{{layer}}"
    if families[entries[teacher.model].family].reads != "pixels":
        yield f"{place}.training.teacher: '{teacher.model}' reads no pixels; a teacher gives tokens of clean images"
    elif entries[teacher.model].sees_centre:
        yield f"{place}.training.teacher: the tokens of '{teacher.model}' are of the centre of images (input.crop)"
