"""The section `human`: models and people."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ValidationError

from diffalign import names
from diffalign.config.datasets import WORDS_ALONE, DatasetEntry, words_alone
from diffalign.config.fields import (
    Count,
    Distinct,
    FilePath,
    Listed,
    NonEmpty,
    NonNegative,
    Positive,
    Section,
    Word,
    mistake,
)
from diffalign.names import UnknownName, Vocabulary
from diffalign.specs import FLOAT32_DISTANCES


def _all_or_names(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise mistake(f"{value!r} is neither 'all' nor a list of names such as [dinov2, sd3-t0.2]") from None


FoldRule = Literal["name", "published"]
_FOLD_RULE = (
    "How objects are dealt to folds. name: by (seed, name). published: KFold(shuffle=True, random_state=42) of "
    "scikit-learn over the list of concepts."
)


class Grid(Section):
    """Every one of some models at every noise level under every conditioning."""

    models: NonEmpty[str] = Field(description="Names of models.")
    noise: Annotated[Listed[str], Distinct()] = Field(
        (), description="Noise levels: t0.2, or s20 for a published strength. None: the default of each model."
    )
    conditionings: Annotated[Listed[str], Distinct()] = Field(
        (), description="Conditionings: uncond, label, … None: the default of each model."
    )

    def names(self) -> list[str]:
        """The typed names of the grid."""
        axes = [self.models, self.noise, self.conditionings]
        return ["-".join(parts) for parts in itertools.product(*(axis for axis in axes if axis))]


class Combined(Section):
    """Layers whose features are concatenated, or go through a transform."""

    of: NonEmpty[str] = Field(description="Names, with their layers: [sd3_b8, dinov2].")
    transform: FilePath | None = Field(
        None, description="A linear map, as a probe writes it, or a published one (.npz of gLocal, .npy, .pkl)."
    )
    keys: Listed[str] = Field((), description="Its keys in a .pkl: source, model and module.")


class Reduction(Section):
    """Odd-one-out accuracy of tokens before they are averaged, by pooling and principal components."""

    of: Annotated[Listed[str], Distinct()] = Field(
        (), description="Names with layers: [sd1-s20_up1, sd1-s20_mid, dinov2_b5]. Those of one bundle share a pass."
    )
    poolings: Annotated[NonEmpty[Literal["mean", "max", "none"]], Distinct()] = Field(
        ("mean", "max", "none"),
        description="How tokens of an image become one vector; none concatenates all of them.",
    )
    components: Listed[Count] = Field(
        (20, 50, 100, 150, 200, 500, 1000),
        description="Principal components, fitted to all objects, beside all of them and the features as they are.",
    )
    triplets: Count = Field(
        100_000, description="At most so many choices, the first of the permutation of RandomState(42)."
    )


class Regression(Section):
    """Ridge regression from features to the dimensions of a data set."""

    folds: Annotated[int, Field(ge=2)] = Field(5, description="Folds over objects, of two objects at least.")
    fold_rule: FoldRule = Field("name", description=_FOLD_RULE)
    alphas: NonEmpty[Positive] = Field(
        (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0),
        description="Penalties; every dimension takes its own, by leave-one-out inside of the other folds.",
    )


class Probe(Section):
    """A linear map of features that is trained on choices."""

    folds: Annotated[int, Field(ge=2)] = Field(
        3, description="Folds over objects, of two objects at least; each is reported on once."
    )
    fold_rule: FoldRule = Field("name", description=_FOLD_RULE)
    inner: Annotated[int, Field(ge=2)] = Field(
        4, description="Parts of the other objects; one ends the training and chooses among the grid."
    )
    pca: Count | None = Field(None, description="Principal components, fitted to the training objects of each fold.")
    bias: bool = Field(False, description="Whether the map has a bias.")
    regularisation: NonEmpty[NonNegative] = Field(
        (0.001,), description="λ of the Frobenius norm; with learning_rate, a grid."
    )
    learning_rate: NonEmpty[Positive] = Field((0.0001,), description="Learning rates.")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="sgd has a momentum of 0.9.")
    batch_size: Count = Field(256, description="Triplets a step.")
    max_epochs: Count = Field(100, description="Passes over the training triplets at most.")
    min_epochs: Count = Field(3, description="And at least.")
    patience: Count = Field(5, description="Epochs without gain that end the training.")
    min_delta: NonNegative = Field(0.0001, description="A smaller gain of the loss is none.")
    clip: Positive = Field(1.0, description="Norm that gradients are clipped to.")


class HumanSection(Section):
    """What is compared with people, and how; docs/human.md."""

    datasets: Annotated[Listed[str], Distinct()] = Field(
        (), description="Data sets of kind things on which rule all compares models with people; none for none."
    )
    models: Annotated[Literal["all"] | Annotated[Listed[str], Distinct()], WrapValidator(_all_or_names)] = Field(
        "all", description="Names of models and variants; all takes those of study.models and of study.against."
    )
    grid: Listed[Grid] = Field(
        (),
        description=(
            "Beside models, every model of an entry at every noise level under every conditioning; all layers of each "
            "come from one pass."
        ),
    )
    baselines: Annotated[Listed[str], Distinct()] = Field(
        (), description="Names drawn as one line each (their best layer) in every figure, such as dinov2-untrained."
    )
    analyses: Annotated[Listed[Literal["odd_one_out", "regression", "probe"]], Distinct()] = Field(
        ("odd_one_out",),
        description="What rule all computes of every model; each can be asked for by its file, too.",
    )
    triplets: str = Field("test", description="Which of the data set's files of choices.")
    distance: Literal["cosine", "euclidean", "dot", "correlation"] = Field(
        "cosine",
        description="Distance that finds the most similar pair. correlation is the cosine of rows less their own mean.",
    )
    ties: Literal["fair", "published"] = Field(
        "fair",
        description=(
            "fair: a choice among m equal pairs counts 1/m. published: the first of two equal pairs counts as chosen, "
            "and nothing where all three are equal."
        ),
    )
    precision: Literal["float64", "float32"] = Field(
        "float64",
        description=(
            "Of the distances that choices of features are predicted by. float64: pairs tie where they differ by less "
            "than 10⁻¹² of the largest squared norm. float32: as torch computes every pair by itself, where what is "
            "equal after rounding ties, as published; of cosine and euclidean."
        ),
    )
    pca: Count | None = Field(
        None,
        description="Principal components that choices are predicted from; fitted on all objects, null for none.",
    )
    combined: dict[Word, Combined] = Field(
        {},
        description=(
            "By a word of yours, layers whose features are concatenated, or that go through a transform; docs/human.md "
            "says how their odd-one-out accuracy, regression and probe are asked for."
        ),
    )
    reduction: Reduction = Field(Reduction(), description="Odd-one-out accuracy of tokens before they are averaged.")
    regression: Regression = Field(Regression(), description="Ridge regression onto the dimensions of a data set.")
    probe: Probe = Field(Probe(), description="A linear map of features that is trained on choices.")

    def compared(self, listed: Sequence[str]) -> tuple[str, ...]:
        """The typed names that are compared with people. listed: study.models and study.against."""
        asked = listed if self.models == "all" else self.models
        return (*asked, *(name for grid in self.grid for name in grid.names()))


def check(
    section: HumanSection,
    datasets: Mapping[str, DatasetEntry],
    catalogue: Mapping[str, Vocabulary],
    declared: Sequence[str],
) -> Iterator[str]:
    """Data sets without human choices, names that parse to nothing or stand twice.

    declared: names of all models, refused ones too.
    """
    for i, name in enumerate(section.datasets):
        yield from _dataset_mistakes(section, f"human.datasets[{i}]", name, datasets)
    if section.distance == "correlation" and (section.pca or section.reduction.of):
        yield "human.distance: 'correlation' of principal components depends on their signs, which are arbitrary"
    if section.precision == "float32" and section.distance not in FLOAT32_DISTANCES:
        allowed = " and ".join(FLOAT32_DISTANCES)
        yield f"human.precision: float32 is of the distances {allowed}, not of '{section.distance}'"
    yield from _caption_mistakes(section, datasets, catalogue)
    composed = [
        (f"human.combined.{name}.of[{i}]", text)
        for name, entry in section.combined.items()
        for i, text in enumerate(entry.of)
    ]
    composed += [(f"human.reduction.of[{i}]", text) for i, text in enumerate(section.reduction.of)]
    composed += [(f"human.grid[{i}]", text) for i, grid in enumerate(section.grid) for text in grid.names()]
    for place, text in composed:
        try:
            names.parse_representation(text, catalogue)
        except UnknownName as error:
            yield f"{place}: {error}"
    for key in ("models", "baselines"):
        listed = getattr(section, key)
        if listed != "all":
            yield from _bundle_mistakes(f"human.{key}", listed, catalogue, declared)


def _caption_mistakes(
    section: HumanSection, datasets: Mapping[str, DatasetEntry], catalogue: Mapping[str, Vocabulary]
) -> Iterator[str]:
    """Diffusion models that are told captions of a data set that has words alone; once for each list of names."""
    bare = [name for name in section.datasets if name in datasets and words_alone(datasets[name])]
    listed = [("human.baselines", section.baselines)]
    listed += [] if section.models == "all" else [("human.models", section.models)]
    listed += [(f"human.grid[{i}]", tuple(grid.names())) for i, grid in enumerate(section.grid)]
    for place, typed in listed:
        told = next((text for text in typed if _is_told_captions(text, catalogue)), None)
        if bare and told is not None:
            yield f"{place}: '{told}': {WORDS_ALONE.format(dataset=bare[0])}"


def _is_told_captions(text: str, catalogue: Mapping[str, Vocabulary]) -> bool:
    try:
        found = names.parse_representation(text, catalogue)
    except UnknownName:
        # reported elsewhere
        return False
    return found.conditioning == "caption" and (found.noise is not None or found.text)


def _dataset_mistakes(
    section: HumanSection, place: str, name: str, datasets: Mapping[str, DatasetEntry]
) -> Iterator[str]:
    if name not in datasets:
        yield f"{place}: {names.unknown('data set', name, datasets)}"
    elif datasets[name].kind != "things":
        yield f"{place}: '{name}' is not of kind things, so there are no human choices of it"
    elif section.triplets not in datasets[name].triplets:
        known = datasets[name].triplets
        yield f"human.triplets: data set '{name}': {names.unknown('file of triplets', section.triplets, known)}"
    elif "regression" in section.analyses and not datasets[name].dimensions:
        yield f"human.analyses: regression needs the key 'dimensions' of the data set '{name}'"


def _bundle_mistakes(
    key: str, listed: Sequence[str], catalogue: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Iterator[str]:
    first: dict[str, str] = {}
    for i, text in enumerate(listed):
        place = f"{key}[{i}]"
        if names.model_word(text) in set(declared) - set(catalogue):
            continue
        try:
            representation = names.parse_representation(text, catalogue)
        except UnknownName as error:
            yield f"{place}: {error}"
            continue
        if representation.layer is not None:
            yield f"{place}: '{text}' names a layer; here all layers are meant"
        bundle = representation.bundle(catalogue[representation.model])
        if first.setdefault(bundle, place) != place:
            yield f"{place}: '{text}' is the same as {first[bundle]}"
