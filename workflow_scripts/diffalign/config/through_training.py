"""The section `through_training`: alignment of the checkpoints of trainings, and the quality of their samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from diffalign import names
from diffalign.config.fields import Distinct, Listed, NonEmpty, Section, Text
from diffalign.config.models import ModelEntry
from diffalign.names import UnknownName, Vocabulary


class ThroughTrainingSection(Section):
    """Checkpoints of trainings against one reference, and the quality of their samples; docs/through-training.md."""

    recipes: dict[Text, Annotated[NonEmpty[str], Distinct()]] = Field(
        {},
        description=(
            "What trainings have in common, by a name for figures, and the models that were trained so, each with a "
            "seed of its own: {SiT: [digits.sit, digits.sit.s1, digits.sit.s2]}. Intervals are over these trainings, "
            "and recipes are compared seed by seed. A name may have a variant, as in digits.sit-t0.3, and no step."
        ),
    )
    reference: Text | None = Field(
        None,
        description="What every checkpoint is compared with, on the default data set and condition: digits.vit_final.",
    )
    quality: Annotated[Listed[Text], Distinct()] = Field(
        (),
        description=(
            "Measures of the quality of samples, as in results/tables/sample_quality.tsv, beside alignment; the "
            "first is drawn. None: alignment alone. samples.table puts a table of your own in its place."
        ),
    )


def check(
    section: ThroughTrainingSection,
    entries: Mapping[str, ModelEntry],
    vocabularies: Mapping[str, Vocabulary],
    declared: Sequence[str],
) -> Iterator[str]:
    """Names that parse to nothing or have no checkpoints, and two trainings of a recipe with one seed. Names of refused
    models are passed over.
    """
    if section.recipes and section.reference is None:
        yield "through_training.reference: is missing; name a layer that checkpoints are compared with"
    yield from unparsed("through_training.reference", section.reference, vocabularies, declared)
    place_of: dict[str, str] = {}
    for recipe, listed in section.recipes.items():
        seeds: dict[int | None, str] = {}
        for i, text in enumerate(listed):
            place = f"through_training.recipes.{recipe}[{i}]"
            wrong = list(unparsed(place, text, vocabularies, declared))
            yield from wrong
            model = names.model_word(text)
            if wrong or model not in vocabularies:
                continue
            yield from _training_mistakes(place, text, vocabularies[model])
            if place_of.setdefault(model, place) != place:
                yield f"{place}: '{model}' is a training of {place_of[model]} already"
            seed = entries[model].seed
            if seeds.setdefault(seed, text) != text:
                yield (
                    f"{place}: '{text}' has the seed of '{seeds[seed]}', "
                    f"{'the study’s' if seed is None else seed}; give each model the seed that it was trained with"
                )


def unparsed(
    place: str, text: str | None, vocabularies: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Iterator[str]:
    """The mistake of a typed name that parses to nothing; none for the name of a refused model, or no name."""
    if text is None or names.model_word(text) in set(declared) - set(vocabularies):
        return
    try:
        if names.model_word(text) not in declared:
            raise names.unknown("model", names.model_word(text), declared)
        names.parse_representation(text, vocabularies)
    except UnknownName as error:
        yield f"{place}: {error}"


def _training_mistakes(place: str, text: str, vocabulary: Vocabulary) -> Iterator[str]:
    representation = names.parse_representation(text, {names.model_word(text): vocabulary})
    if representation.layer is not None:
        yield f"{place}: '{text}' names a layer; here all layers are meant"
    if "@" in text:
        yield f"{place}: '{text}' names a step; here all steps are meant"
    elif len(vocabulary.steps) < 2:
        yield f"{place}: '{text}' has one checkpoint; a training needs at least two"
