"""The section `samples`: class-conditional samples of diffusion models, and their quality."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from diffalign import names
from diffalign.config import model_checks
from diffalign.config.fields import Count, Distinct, FilePath, Listed, NonEmpty, NonNegative, Section, Seed, Text
from diffalign.io.quality_files import SEPARATORS
from diffalign.names import UnknownName, Vocabulary

if TYPE_CHECKING:
    from diffalign.config.models import ModelEntry
    from diffalign.models import Family


class SamplesSection(Section):
    """Class-conditional samples of diffusion models and their quality beside held-out images; docs/samples.md."""

    models: Annotated[Listed[str], Distinct()] = Field(
        (),
        description=(
            "Models of classes: digits.sit means all checkpoints of a model that has several, digits.sit@300 one of "
            "them. None: no samples."
        ),
    )
    dataset: Text | None = Field(
        None,
        description=(
            "Key of datasets: the held-out images that samples stand beside, with the classes of the models. null: "
            "defaults.dataset."
        ),
    )
    sampler: Literal["euler", "heun"] = Field(
        "heun",
        description=(
            "How the probability-flow ODE is integrated. euler asks the model once a step, heun twice, but once in the "
            "last."
        ),
    )
    steps: Count = Field(25, description="Steps of the sampler, equally far from each other in t = σ/(α + σ).")
    guidance: NonNegative = Field(
        1.0, description="Scale of classifier-free guidance; 1 is the conditional model, 0 the one without classes."
    )
    per_class: Annotated[int, Field(ge=2)] = Field(50, description="Samples of every class, for every seed.")
    seeds: Annotated[NonEmpty[Seed], Distinct()] = Field(
        (0, 1, 2), description="Seeds of the noise that sampling begins with; intervals are over them."
    )
    classifier: Text | None = Field(
        None, description="The layer of a model that gives a logit for each class: digits.vit_logits."
    )
    features: Text | None = Field(
        None, description="The layer of a model whose features samples and images are compared in: digits.vit_final."
    )
    neighbors: Count = Field(5, description="k of precision, recall, density and coverage.")
    table: FilePath | None = Field(
        None,
        description=(
            "A table of yours (.tsv, .csv) with the columns model, step and one a measure, such as FID, which stands "
            "in the place of measuring."
        ),
    )


def check(
    section: SamplesSection,
    declared: Collection[str],
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
) -> Iterator[str]:
    """Names that mean nothing or no model of classes, models that stand twice, and keys that are missing.

    declared: keys of all data sets. vocabularies: of the models that were not refused; one that was is passed over.
    """
    if section.dataset is not None and section.dataset not in declared:
        yield f"samples.dataset: {names.unknown('dataset', section.dataset, declared)}"
    first: dict[str, str] = {}
    for i, text in enumerate(section.models):
        place = f"samples.models[{i}]"
        model = names.model_word(text)
        if model in entries and model not in vocabularies:
            continue
        try:
            representation = names.parse_representation(text, vocabularies)
        except UnknownName as error:
            yield f"{place}: {error}"
            continue
        word, step = names.split_checkpoint(text)
        if word != representation.model:
            yield f"{place}: '{text}' has a variant or a layer, which samples have not; write {model}"
            continue
        yield from _model_mistakes(f"{place}: {model}", entries[model], entries, families)
        steps = vocabularies[model].steps if step is None else [int(step)]
        for checkpoint in [names.checkpoint_name(model, each) for each in steps] or [model]:
            if first.setdefault(checkpoint, place) != place:
                yield f"{place}: '{text}' means {checkpoint}, which stands in {first[checkpoint]}, too"
    if section.table is not None and PurePath(section.table).suffix not in SEPARATORS:
        yield f"samples.table: '{section.table}' is no table known here; its name ends in {' or '.join(SEPARATORS)}"
    for key in ("classifier", "features"):
        yield from _layer_mistakes(section, key, entries, families, vocabularies)


def _model_mistakes(
    place: str,
    entry: ModelEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
) -> Iterator[str]:
    if families[entry.family].conditioned_on != "labels":
        yield f"{place} is no diffusion model that is conditioned on classes, so it has no samples of them"
        return
    lacking = model_checks.lacks_decoder(entry, entries, families)
    if lacking:
        yield f"{place} makes latents of '{entry.latents}', whose family '{lacking}' has no decoder here"


def _layer_mistakes(
    section: SamplesSection,
    key: str,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
) -> Iterator[str]:
    text = getattr(section, key)
    if text is None:
        if section.models and section.table is None:
            yield f"samples: needs the key '{key}', or a table of quality in its place"
        return
    model = names.model_word(text)
    if model in entries and model not in vocabularies:
        return
    try:
        representation = names.parse_representation(text, vocabularies)
    except UnknownName as error:
        yield f"samples.{key}: {error}"
        return
    if representation.layer is None:
        yield f"samples.{key}: '{text}' names no layer; write {text}_{{layer}}"
    if families[entries[model].family].reads != "pixels":
        yield f"samples.{key}: '{model}' reads no pixels, and so no samples"
