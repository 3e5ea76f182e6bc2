"""The section `dynamics`: trajectories of diffusion models, and what emerges along them."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from diffalign import names
from diffalign.config import model_checks
from diffalign.config.fields import (
    Count,
    Distinct,
    Listed,
    Matching,
    NonEmpty,
    NonNegative,
    OneOf,
    Positive,
    Section,
    Seed,
    Text,
    Word,
)
from diffalign.config.through_training import unparsed
from diffalign.names import Vocabulary
from diffalign.specs import METHODS, PARTS, SAMPLERS
from diffalign.stimuli.captions import occurrences

if TYPE_CHECKING:
    from diffalign.config.models import ModelEntry
    from diffalign.models import Family


# a command of a shell writes the recipe, and holds 131,072 bytes
_MOST_OF_PROMPTS = 100_000


def _several(value: Any) -> Any:
    """One value, or a list of them, as a tuple."""
    return tuple(value) if isinstance(value, list) else (value,)


Steps = Annotated[int, Field(ge=2)]
Level = Annotated[float, Field(gt=0, lt=1)]
Sampler = Annotated[
    str,
    Matching(
        "euler|heun|sde|pipeline|[A-Z][A-Za-z0-9]*Scheduler",
        "is no sampler: write euler, heun, sde, pipeline (the checkpoint's own scheduler), or a class of diffusers "
        "(DDIMScheduler)",
    ),
]
Samplers = Annotated[
    tuple[Sampler, ...],
    Field(min_length=1),
    Distinct(),
    BeforeValidator(_several, json_schema_input_type=Sampler | tuple[Sampler, ...]),
]
StepCounts = Annotated[
    tuple[Steps, ...],
    Field(min_length=1),
    Distinct(),
    BeforeValidator(_several, json_schema_input_type=Steps | tuple[Steps, ...]),
]
Scales = Annotated[
    tuple[NonNegative, ...],
    Field(min_length=1),
    Distinct(),
    BeforeValidator(_several, json_schema_input_type=NonNegative | tuple[NonNegative, ...]),
]
SampleCount = Annotated[int, Field(ge=2)]


class AblationsEntry(Section):
    """Which layers are removed, and when; docs/dynamics.md."""

    windows: Count = Field(3, description="Windows that the steps are cut into; a layer is removed in one.")
    samples: SampleCount = Field(16, description="Samples of every seed that are made again.")
    parts: Annotated[NonEmpty[Annotated[str, OneOf(PARTS)]], Distinct()] = Field(
        PARTS,
        description="layer: all that a layer adds to its input. attention, mlp: what these parts of its blocks add.",
    )
    methods: Annotated[NonEmpty[Annotated[str, OneOf(METHODS)]], Distinct()] = Field(
        ("zero",), description="What stands in the place of the part: nothing, or its mean over samples at the step."
    )


class ConfigurationEntry(Section):
    """How trajectories are made. A list in the place of a sampler, of steps or of guidance is a grid."""

    models: Annotated[NonEmpty[str], Distinct()] = Field(
        description=(
            "Diffusion models: digits.sit means the last checkpoint of a model that has several. A model of family "
            "gaussian or power_law is the reference line of those with the same latents."
        )
    )
    dataset: Text | None = Field(
        None,
        description=(
            "Key of datasets: its latents give the statistics that are undone before decoding, and its images begin "
            "img2img and noising. null: defaults.dataset."
        ),
    )
    start: Literal["noise", "img2img", "noising"] = Field(
        "noise",
        description=(
            "noise: from pure noise. img2img: from images with noise up to strength. noising: images with the noise of "
            "every level; nothing is sampled."
        ),
    )
    strength: Level = Field(0.6, description="The noise level t at which img2img begins.")
    sampler: Samplers = Field(
        ("heun",),
        description=(
            "euler, heun: of the probability-flow ODE; sde: of the reverse SDE; steps equally far in t. pipeline: the "
            "scheduler of the checkpoint. Another scheduler of diffusers by its class: DDIMScheduler. A reference in "
            "closed form has none of these, and takes euler in their place."
        ),
    )
    steps: StepCounts = Field((25,), description="Steps of the sampler.")
    guidance: Scales = Field((1.0,), description="Scale of classifier-free guidance; 1 is without.")
    prompts: Annotated[Listed[Text], Distinct()] = Field((), description="Texts, for models that read prompts.")
    classes: Annotated[NonEmpty[Seed], Distinct()] | None = Field(
        None, description="Numbers of classes, for models that are conditioned on them; null takes all."
    )
    samples: SampleCount = Field(
        64, description="Samples of every seed, dealt over prompts or classes in turn; of images, the first by hash."
    )
    seeds: Annotated[NonEmpty[Seed], Distinct()] = Field(
        (0, 1, 2), description="Seeds of the noise; intervals are over them. Each has files of its own."
    )
    reference: Text | None = Field(
        None,
        description=(
            "The layer of a vision model (digits.vit_final) for the learned distance to the final image, and for "
            "alignment with it along the trajectory. null: neither."
        ),
    )
    words: Annotated[Listed[Text], Distinct()] = Field(
        (), description="Query words of the prompts, whose cross-attention maps are measured."
    )
    ablations: AblationsEntry | None = Field(
        AblationsEntry(), description="Contributions by removal; null: none. Where start is noising, there are none."
    )

    @property
    def removed(self) -> AblationsEntry | None:
        """What is removed; None also where no image is made, to which a layer could contribute."""
        return None if self.start == "noising" else self.ablations


@dataclass(frozen=True)
class Configuration:
    """One configuration: an entry with one value of each key of its grid."""

    entry: ConfigurationEntry
    sampler: str
    steps: int
    guidance: float


class DynamicsSection(Section):
    """Trajectories of diffusion models, frequencies, features and activations along them; docs/dynamics.md."""

    configurations: dict[Word, ConfigurationEntry] = Field(
        {}, description="How trajectories are made, by a name that stands in the names of files."
    )
    low: Level = Field(0.0625, description="Where the band of low frequencies ends, in cycles per pixel.")
    mid: Level = Field(0.25, description="Where the middle band ends; the high one ends at 0.5, the corner is beyond.")
    window: Literal["hann", "none"] = Field(
        "hann", description="The window before the Fourier transform of spectra and slopes; band energies have none."
    )
    wavelet: Text = Field("db2", description="An orthogonal wavelet of PyWavelets.")
    wavelet_levels: Count = Field(
        3,
        description=(
            "Levels of its decomposition of images, whose sides 2 to this power divides; of latents, "
            "which are smaller, as many as divide."
        ),
    )
    permutations: Count = Field(1000, description="Permutations of the correlations of activations with features.")
    ridge: Annotated[NonEmpty[Positive], Distinct()] = Field(
        (1e-2, 1.0, 1e2, 1e4), description="Penalties of read-outs, one of which is chosen on training samples."
    )

    def expanded(self) -> dict[str, Configuration]:
        """Every configuration by its name; keys with several values are a part of it: ``plain-euler-50steps-g2``."""
        made = {}
        for name, entry in self.configurations.items():
            for sampler, steps, guidance in itertools.product(entry.sampler, entry.steps, entry.guidance):
                words = [
                    name,
                    *([sampler] if len(entry.sampler) > 1 else []),
                    *([f"{steps}steps"] if len(entry.steps) > 1 else []),
                    *([f"g{guidance:g}"] if len(entry.guidance) > 1 else []),
                ]
                made["-".join(words)] = Configuration(entry, sampler, steps, guidance)
        return made


def check(
    section: DynamicsSection,
    declared: Collection[str],
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
) -> Iterator[str]:
    """Names that mean nothing or no diffusion model, samplers that a model has not, and keys that say nothing.

    declared: keys of all data sets. vocabularies: of the models that were not refused; one that was is passed over.
    """
    if section.mid <= section.low or section.mid >= 0.5:
        yield f"dynamics.mid: {section.mid} is not between dynamics.low, {section.low}, and 0.5 cycles per pixel"
    for name, entry in section.configurations.items():
        place = f"dynamics.configurations.{name}"
        if entry.dataset is not None and entry.dataset not in declared:
            yield f"{place}.dataset: {names.unknown('dataset', entry.dataset, declared)}"
        yield from _reference_mistakes(place, entry, entries, families, vocabularies)
        for i, text in enumerate(entry.models):
            wrong = list(unparsed(f"{place}.models[{i}]", text, vocabularies, list(entries)))
            yield from wrong
            if not wrong and names.model_word(text) in vocabularies:
                yield from _model_mistakes(f"{place}.models[{i}]", text, entry, entries, families)
        # in the layout of a recipe, whose other content is small
        size = len(shlex.quote(json.dumps({"": {"": entry.prompts}}, indent=2, ensure_ascii=False)).encode())
        if size > _MOST_OF_PROMPTS:
            yield f"{place}.prompts: {len(entry.prompts)} prompts of {size:,} bytes; at most {_MOST_OF_PROMPTS:,} bytes"
        if entry.start != "img2img" and "strength" in entry.model_fields_set:
            yield f"{place}.strength: means nothing for the start '{entry.start}', but for img2img"
        if entry.start == "noising" and "sampler" in entry.model_fields_set:
            yield f"{place}.sampler: nothing is sampled where start is 'noising'"
        if entry.start == "noising" and "ablations" in entry.model_fields_set and entry.ablations is not None:
            yield f"{place}.ablations: no layer contributes to an image where start is 'noising'; leave it out"
        for i, word in enumerate(entry.words):
            lacking = [prompt for prompt in entry.prompts if not occurrences(prompt, word)]
            if lacking or not entry.prompts:
                yield f"{place}.words[{i}]: '{word}' does not stand in {repr(lacking[0]) if lacking else 'any prompt'}"


def _model_mistakes(
    place: str,
    text: str,
    entry: ConfigurationEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
) -> Iterator[str]:
    word, _ = names.split_checkpoint(text)
    if word not in entries:
        yield f"{place}: '{text}' has a variant or a layer, which trajectories have not; write a model"
        return
    model = entries[word]
    family = families[model.family]
    if family.reads != "latents":
        yield f"{place}: '{text}' is no diffusion model, so it has no trajectories"
        return
    lacking = model_checks.lacks_decoder(model, entries, families)
    if lacking:
        yield f"{place}: '{text}' makes latents of '{model.latents}', whose family '{lacking}' has no decoder here"
    if family.conditioned_on == "prompts" and not entry.prompts and entry.start == "noise":
        yield f"{place}: '{text}' reads prompts; give some in 'prompts'"
    others = [sampler for sampler in entry.sampler if sampler not in SAMPLERS]
    if others and not (family.schedulers or family.closed_form):
        yield (
            f"{place}: family '{model.family}' has no scheduler of diffusers, so no sampler '{others[0]}'; allowed: "
            f"{', '.join(SAMPLERS)}"
        )


def _reference_mistakes(
    place: str,
    entry: ConfigurationEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
) -> Iterator[str]:
    if entry.reference is None:
        return
    wrong = list(unparsed(f"{place}.reference", entry.reference, vocabularies, list(entries)))
    yield from wrong
    model = names.model_word(entry.reference)
    if wrong or model not in vocabularies:
        return
    if names.parse_representation(entry.reference, vocabularies).layer is None:
        yield f"{place}.reference: '{entry.reference}' names no layer; write {entry.reference}_{{layer}}"
    if families[entries[model].family].reads != "pixels":
        yield f"{place}.reference: '{model}' reads no pixels, and so no images of trajectories"
