"""The section `ladder`: a pair of layers beside its rival explanations, and what is left of its score given them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from diffalign import names
from diffalign.config.atlas import LABELS, UNTRAINED
from diffalign.config.fields import Count, Distinct, Listed, NonEmpty, Section, Text
from diffalign.config.pairs import pair_mistakes
from diffalign.config.through_training import unparsed
from diffalign.names import Vocabulary

# permutations below this never reach p = .05
_FEWEST = 19


class LadderSection(Section):
    """Pairs of layers beside controls that could explain their alignment; docs/ladder.md."""

    pairs: Annotated[Listed[str], Distinct()] = Field(
        (),
        description=(
            "Pairs of layers whose ladder is part of the study: digits.vit_final_vs_digits.sit_b5. Ladders of others "
            "are made on request."
        ),
    )
    dataset: Text | None = Field(
        None, description="Key of datasets, under the default condition. null: defaults.dataset."
    )
    controls: Annotated[NonEmpty[Text], Distinct()] = Field(
        (LABELS, UNTRAINED, "pixels_p8", "colors_c4"),
        description=(
            "What two layers could share for other reasons, in the order of the rungs: labels (of the manifest; left "
            "out for a data set without one), untrained (the same layers of the untrained twins of both models; left "
            "out where neither has one), and names of models, with a layer or their default one; a language model "
            "reads the captions alone."
        ),
    )
    components: Count = Field(
        64, description="Principal components of each control but labels, at most, that count as given."
    )
    permutations: Annotated[int, Field(ge=_FEWEST)] = Field(
        99,
        description=(
            "Exchanges of residuals for metrics on lists, on each side; every one searches the neighbours of one layer "
            "again."
        ),
    )

    @property
    def of_models(self) -> list[str]:
        """The controls that are names of models."""
        return [control for control in self.controls if control not in (LABELS, UNTRAINED)]


def check(section: LadderSection, vocabularies: Mapping[str, Vocabulary], declared: Sequence[str]) -> Iterator[str]:
    """Names that parse to nothing, and pairs that stand twice. Names of refused models are passed over."""
    yield from pair_mistakes("ladder.pairs", "pair", section.pairs, vocabularies, declared)
    for i, text in enumerate(section.controls):
        # models of the defaults need not be there in a study without a ladder
        if text in section.of_models and section.pairs:
            yield from unparsed(f"ladder.controls[{i}]", text, vocabularies, declared)


def typed(section: LadderSection) -> list[str]:
    """Both sides of every pair."""
    return [side for pair in section.pairs for side in pair.split(names.SEPARATOR)]
