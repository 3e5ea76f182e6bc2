"""The section `atlas`: every layer of a diffusion model at every noise level, beside controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from diffalign import names
from diffalign.config.fields import Count, Distinct, Listed, NonEmpty, Section, Text
from diffalign.config.through_training import unparsed
from diffalign.names import Vocabulary

# controls that are no models
LABELS, UNTRAINED = "labels", "untrained"
# the noise level without an image
PURE_NOISE = 1.0
# of names that share noise between models or images: pure noise of one's own is none of these
SHARING = ("commonnoise", "shared")


class AtlasSection(Section):
    """Layer x noise level maps of diffusion models against one reference, with controls; docs/through-training.md."""

    models: Annotated[Listed[str], Distinct()] = Field(
        (), description="Names without a noise level or layer: digits.sit, digits.sit@300, sd3-caption."
    )
    levels: Annotated[NonEmpty[Annotated[float, Field(ge=0, le=1)]], Distinct()] = Field(
        (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        description="Noise levels t, one pass each.",
    )
    negative_control: bool = Field(
        True,
        description=(
            "Whether t = 1, pure noise keyed by model, is measured even where levels leaves it out. There is no image "
            "at it, so it must lie at chance; tables, figures and findings say where it does not. false saves a pass "
            "of model and twin each, and leaves the nulls of the atlas unchecked."
        ),
    )
    dataset: Text | None = Field(
        None, description="Key of datasets, under the default condition. null: defaults.dataset."
    )
    reference: Text | None = Field(None, description="What all are compared with: digits.vit_final.")
    controls: Annotated[NonEmpty[Text], Distinct()] = Field(
        (LABELS, "pixels_p8", UNTRAINED),
        description=(
            "What layers could share for other reasons: labels (of the manifest), untrained (the same layer and level "
            "of the untrained twin), and names of models, with a layer or with all of them. Maps and lines show what "
            "each reaches by itself; the share beyond controls leaves out what all of them explain."
        ),
    )
    components: Count = Field(
        64,
        description="Principal components of each control but labels, at most, that the share leaves out.",
    )

    @property
    def passes(self) -> tuple[float, ...]:
        """The noise levels of an atlas, with pure noise where it is the negative control."""
        if self.negative_control and PURE_NOISE not in self.levels:
            return (*self.levels, PURE_NOISE)
        return tuple(self.levels)

    @property
    def of_models(self) -> list[str]:
        """The controls that are names of models."""
        return [control for control in self.controls if control not in (LABELS, UNTRAINED)]


def check(section: AtlasSection, vocabularies: Mapping[str, Vocabulary], declared: Sequence[str]) -> Iterator[str]:
    """Names that parse to nothing, and models without noise levels. Names of refused models are passed over."""
    if section.models and section.reference is None:
        yield "atlas.reference: is missing; name a layer that models are compared with"
    yield from unparsed("atlas.reference", section.reference, vocabularies, declared)
    for i, text in enumerate(section.controls):
        if text in section.of_models and section.models:
            yield from unparsed(f"atlas.controls[{i}]", text, vocabularies, declared)
    for i, text in enumerate(section.models):
        place = f"atlas.models[{i}]"
        wrong = list(unparsed(place, text, vocabularies, declared))
        yield from wrong
        model = names.model_word(text)
        if wrong or model not in vocabularies:
            continue
        representation = names.parse_representation(text, vocabularies)
        if representation.layer is not None:
            yield f"{place}: '{text}' names a layer; here all layers are meant"
        if vocabularies[model].noise is None or representation.text:
            yield f"{place}: '{text}' has no noise levels"
        elif names.has_noise_level(text):
            yield f"{place}: '{text}' names a noise level; atlas.levels says which are meant"
        elif "untrained" in representation.options:
            yield f"{place}: '{text}' is an untrained twin, which every atlas has beside its model"
