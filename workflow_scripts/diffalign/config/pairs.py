"""The sections `defaults` and `study`: which models, pairs and scores `snakemake` without a target computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ValidationError

from diffalign import names
from diffalign.config.fields import Distinct, FromList, Listed, NonEmpty, Section, mistake
from diffalign.names import Representation, UnknownName, Vocabulary


def _all_or_pairs(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError:
        raise mistake(f"{value!r} is neither 'all' nor a list of pairs such as [[dinov2, sd3]]") from None


Pair = Annotated[tuple[str, ...], Field(min_length=2, max_length=2), FromList]


class DefaultsSection(Section):
    """What short names of files leave out, and where weights come from unless an entry says it."""

    dataset: str = Field(description="Data set of the short form results/{metric}/{a}_vs_{b}.npy.")
    condition: str = Field(description="Condition of the short form.")
    weights: Literal["miniature"] | None = Field(
        None,
        description=(
            "miniature: every model of the catalogue that has one is a miniature, with random weights, the input size "
            "input.miniature and compute.batch_size; weights, input and batch_size of your own entries stand. null: "
            "weights are those of the entries."
        ),
    )


class StudySection(Section):
    """What rule all computes."""

    datasets: Annotated[NonEmpty[str], Distinct()] = Field(description="Keys of datasets.")
    conditions: Annotated[NonEmpty[str], Distinct()] = Field(("clean",), description="Words of conditions.")
    models: Annotated[NonEmpty[str], Distinct()] = Field(
        description="Names of models, with a variant where a model appears at several noise levels (sd3-t0.2)."
    )
    against: Annotated[Listed[str], Distinct()] = Field(
        (),
        description=(
            "The other side of all pairs, named likewise: vision models against diffusion models, say, without the "
            "pairs within either side."
        ),
    )
    pairs: Annotated[Literal["all"] | Listed[Pair], WrapValidator(_all_or_pairs)] = Field(
        "all",
        description=(
            "Which pairs get a layer x layer grid; all takes every pair of study.models, or where study.against names "
            "models, each of study.models with each of those. A list stands in the place of both."
        ),
    )
    pair_figures: Annotated[Literal["all"] | Listed[Pair], WrapValidator(_all_or_pairs)] = Field(
        "all",
        description=(
            "Pairs of the study whose figures (layer maps, curves over depth, nulls) are drawn with it; others "
            "are drawn on request. [] for thousands of pairs: figures are a third of the jobs and most of the files."
        ),
    )
    scores: Annotated[Listed[str], Distinct()] = Field(
        (),
        description="Single scores to write beside the grids, on the default data set and condition: dinov2_vs_sd3_b8.",
    )

    def paired(self) -> tuple[tuple[str, str], ...]:
        """Both typed names of every pair of the study."""
        if self.pairs != "all":
            return tuple((a, b) for a, b in self.pairs)
        if self.against:
            return tuple(itertools.product(self.models, self.against))
        return tuple(itertools.combinations(self.models, 2))


def check(
    section: StudySection,
    defaults: DefaultsSection | None,
    catalogue: Mapping[str, Vocabulary],
    declared: Sequence[str],
    measures_else: bool,
) -> Iterator[str]:
    """Names that parse to nothing, and pairs that stand twice. Names of refused models are passed over.

    declared: names of all models, refused ones too. measures_else: another section measures something, and there may be
    no pairs.
    """
    mistakes: list[str] = []
    first: dict[object, str] = {}
    for key in ("models", "against"):
        for i, text in enumerate(getattr(section, key)):
            place = f"study.{key}[{i}]"
            bundle = _bundle(place, text, catalogue, declared, mistakes)
            if bundle is not None and first.setdefault(bundle, place) != place:
                mistakes.append(f"{place}: '{text}' is the same as {first[bundle]}")
    for i, pair in enumerate([] if section.pairs == "all" else section.pairs):
        place = f"study.pairs[{i}]"
        both = [_bundle(f"{place}[{j}]", text, catalogue, declared, mistakes) for j, text in enumerate(pair)]
        if None not in both:
            if both[0] == both[1]:
                mistakes.append(f"{place}: both sides are {both[0]}")
            elif first.setdefault(frozenset(both), place) != place:
                mistakes.append(f"{place}: the same pair as {first[frozenset(both)]}")
    mistakes.extend(_undrawable(section, catalogue, declared))
    mistakes.extend(pair_mistakes("study.scores", "score", section.scores, catalogue, declared))
    if not section.scores and not measures_else and not section.paired():
        mistakes.append(
            "study: nothing to measure; name two models, pairs or scores, or trainings, atlases, samples or people in "
            "their sections"
        )
    if section.scores and defaults is not None and defaults.dataset not in section.datasets:
        mistakes.append(
            f"study.scores: are taken on defaults.dataset, '{defaults.dataset}', which is not among study.datasets; "
            "change one of them, or set scores: []"
        )
    yield from mistakes


def _undrawable(section: StudySection, catalogue: Mapping[str, Vocabulary], declared: Sequence[str]) -> Iterator[str]:
    """Pairs of `pair_figures` that parse to nothing, stand twice or are none of the study."""
    if section.pair_figures == "all" or not section.pair_figures:
        return
    unknown: list[str] = []
    # mistakes of the study's own pairs are told elsewhere
    study = {frozenset(_bundle("", text, catalogue, declared, []) for text in pair) for pair in section.paired()}
    first: dict[object, str] = {}
    for i, pair in enumerate(section.pair_figures):
        place = f"study.pair_figures[{i}]"
        both = frozenset(_bundle(f"{place}[{j}]", text, catalogue, declared, unknown) for j, text in enumerate(pair))
        if None in both:
            continue
        if both not in study:
            yield (
                f"{place}: '{pair[0]}' and '{pair[1]}' are no pair of the study; their figures are made on request, or "
                "add the pair to study.pairs"
            )
        elif first.setdefault(both, place) != place:
            yield f"{place}: the same pair as {first[both]}"
    yield from unknown


def _bundle(
    place: str, text: str, catalogue: Mapping[str, Vocabulary], declared: Sequence[str], mistakes: list[str]
) -> str | None:
    """The bundle of a typed name without a layer; None, with a line in `mistakes`, where it is none."""
    model = names.model_word(text)
    # a refused name may itself hold what begins a variant: ViT-S
    if {model, text} & (set(declared) - set(catalogue)):
        return None
    try:
        if model not in declared:
            raise names.unknown("model", model, declared)
        representation = names.parse_representation(text, catalogue)
    except UnknownName as error:
        mistakes.append(f"{place}: {error}")
        return None
    if representation.layer is not None:
        mistakes.append(f"{place}: '{text}' names a layer; here all layers are meant")
        return None
    return representation.bundle(catalogue[representation.model])


def pair_mistakes(
    place: str, what: str, pairs: Sequence[str], catalogue: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Iterator[str]:
    """Pairs ``a_vs_b`` that parse to nothing, stand twice or are of one representation. Names of refused models are
    passed over.
    """
    refused = set(declared) - set(catalogue)
    first: dict[object, str] = {}
    for i, text in enumerate(pairs):
        at = f"{place}[{i}]"
        sides = text.split(names.SEPARATOR)
        if refused & {*sides, *map(names.model_word, sides)}:
            continue
        try:
            both = tuple(_canonical(side, catalogue) for side in names.parse_pair(text, catalogue))
        except UnknownName as error:
            yield f"{at}: {error}"
            continue
        if both[0] == both[1]:
            yield f"{at}: both sides are {both[0]}"
        elif first.setdefault(both, at) != at:
            yield f"{at}: the same {what} as {first[both]}"


def _canonical(side: Representation, catalogue: Mapping[str, Vocabulary]) -> str:
    vocabulary = catalogue[side.model]
    return f"{side.bundle(vocabulary)}_{side.layer or side.default_layer(vocabulary)}"
