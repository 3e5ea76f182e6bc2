"""The section `contrasts`: which differences of two scores of the same images a study names."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from diffalign import names
from diffalign.config.fields import Distinct, Listed, NonEmpty, Section, Text, Word
from diffalign.config.through_training import unparsed
from diffalign.names import UnknownName, Vocabulary


class ContrastsSection(Section):
    """Differences of two scores of the same images, with intervals, p and bands over families; docs/contrasts.md."""

    families: dict[Word, Annotated[NonEmpty[Text], Distinct()]] = Field(
        {},
        description=(
            "Name -> contrasts a_vs_b_minus_c_vs_d, each side a name as elsewhere (sd3-t0.2_b8). Bands and adjusted p "
            "hold for all contrasts of a family together, for each metric by itself: what one question asks belongs "
            "into one family, and a contrast of a family of its own is corrected for nothing."
        ),
    )
    layers: Annotated[Listed[Text], Distinct()] = Field(
        (),
        description=(
            "Contrasts at every layer, each a family: a and c name no layer and have the same layers (a model at two "
            "noise levels, a checkpoint, an untrained twin); b and d may name one."
        ),
    )
    dataset: Text | None = Field(
        None, description="Key of datasets, under the default condition. null: defaults.dataset."
    )

    @property
    def typed(self) -> list[str]:
        """All names that the contrasts consist of, each once; none of a text that is no contrast."""
        found: dict[str, None] = {}
        for text in (*(text for texts in self.families.values() for text in texts), *self.layers):
            with contextlib.suppress(UnknownName):
                found |= dict.fromkeys(names.split_contrast(text))
        return list(found)


def check(section: ContrastsSection, vocabularies: Mapping[str, Vocabulary], declared: Sequence[str]) -> Iterator[str]:
    """Contrasts that parse to nothing, stand twice, or are of one pair. Names of refused models are passed over."""
    for family, texts in section.families.items():
        first: dict[object, str] = {}
        for i, text in enumerate(texts):
            place = f"contrasts.families.{family}[{i}]"
            sides = yield from _sides(place, text, vocabularies, declared)
            if sides is not None and first.setdefault(sides, place) != place:
                yield f"{place}: the same contrast as {first[sides]}"
    for i, text in enumerate(section.layers):
        place = f"contrasts.layers[{i}]"
        if (yield from _sides(place, text, vocabularies, declared)) is None:
            continue
        a, _, c, _ = (names.parse_representation(name, vocabularies) for name in names.split_contrast(text))
        if a.layer or c.layer:
            yield f"{place}: '{text}' names a layer on the left of a pair; here all layers are meant"
        elif (of_a := a.layers(vocabularies[a.model])) != (of_c := c.layers(vocabularies[c.model])):
            yield (
                f"{place}: both left sides need the same layers; {a.model} has {names.listed_layers(of_a)}, {c.model} "
                f"has {names.listed_layers(of_c)}"
            )


def _sides(
    place: str, text: str, vocabularies: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Generator[str, None, tuple[str, ...] | None]:
    """Mistakes of one contrast. Returns its four sides in canonical spelling; None where it has a mistake, or where a
    model is refused.
    """
    try:
        typed = names.split_contrast(text)
    except UnknownName as error:
        yield f"{place}: {error}"
        return None
    wrong = [line for name in dict.fromkeys(typed) for line in unparsed(place, name, vocabularies, declared)]
    yield from wrong
    if wrong or {names.model_word(name) for name in typed} - set(vocabularies):
        return None
    sides = tuple(_canonical(name, vocabularies) for name in typed)
    if sides[:2] == sides[2:]:
        yield f"{place}: both pairs are {names.print_pair(sides[0], sides[1])}"
        return None
    return sides


def _canonical(text: str, vocabularies: Mapping[str, Vocabulary]) -> str:
    side = names.parse_representation(text, vocabularies)
    vocabulary = vocabularies[side.model]
    return f"{side.bundle(vocabulary)}_{side.layer or side.default_layer(vocabulary)}"
