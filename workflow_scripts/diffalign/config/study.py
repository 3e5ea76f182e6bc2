"""The checked study: every section of the configuration, read as a whole before anything runs.

`load` reports every mistake at once, each with its place and the nearest allowed word. Rules talk to a `Study`; nothing
else reads the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.config import cross_references, model_checks
from diffalign.config.alignment import AlignmentSection
from diffalign.config.atlas import AtlasSection
from diffalign.config.catalogue import Entry, resolve
from diffalign.config.contrasts import ContrastsSection
from diffalign.config.datasets import DatasetEntry, Things
from diffalign.config.dynamics import DynamicsSection
from diffalign.config.exchange import ExchangeSection
from diffalign.config.fields import ConditionName, Distinct, ModelName, NonEmpty, Section, Seed, Text, Word
from diffalign.config.hardware import HardwareSection
from diffalign.config.human import HumanSection
from diffalign.config.ladder import LadderSection
from diffalign.config.mistakes import ConfigError, checked_values, is_text, read
from diffalign.config.models import ModelEntry
from diffalign.config.pairs import DefaultsSection, StudySection
from diffalign.config.samples import SamplesSection
from diffalign.config.se_cknna import SemanticEquivarianceSection
from diffalign.config.shared_space import SharedSpaceSection
from diffalign.config.site import PartitionSection, SiteSection
from diffalign.config.slurm import SlurmSection
from diffalign.config.through_training import ThroughTrainingSection
from diffalign.config.work import ComputeSection, ExtractionSection, LatentsSection, Transforms, TransformsSection
from diffalign.dataset_specs import Dataset, Texts
from diffalign.names import Representation, Vocabulary
from diffalign.specs import Compute, Model

if TYPE_CHECKING:
    from diffalign.models import Family


S = TypeVar("S", bound=Section)


class Top(Section):
    """Keys of the configuration that are no sections."""

    seed: Seed = Field(
        0, description="Seed of everything random; every draw is keyed by it and by the name of the image."
    )
    conditions: Annotated[NonEmpty[ConditionName], Distinct()] = Field(
        description=(
            "What is done to the images before a model sees them: clean, equivariance (one rotation and one scale an "
            "image), noise_0.050 (Gaussian noise of this standard deviation, in units of the range of pixels), "
            "rotate_90 (rotate_180, rotate_270) and scale_0.500 (every image alike). The conditions of se_cknna need "
            "not stand here again."
        )
    )


class Configuration(Top):
    """The study: data sets, models and analyses."""

    defaults: DefaultsSection = Field(description="What short names of files leave out, and default weights.")
    datasets: Annotated[dict[Word, DatasetEntry], Field(min_length=1)] = Field(
        description="Sets of images by name; docs/add-a-data-set.md."
    )
    models: dict[ModelName, ModelEntry] = Field(
        {},
        description=(
            "Models of your own, and changes of those of the catalogue (catalogue/*.yaml), into which they are merged "
            "by key; study.models picks from both. docs/add-a-model.md"
        ),
    )
    study: StudySection = Field(description="What rule all computes.")
    alignment: AlignmentSection = Field(description="How representations are compared; docs/metrics.md.")
    transforms: TransformsSection = Field(TransformsSection(), description="How rotations, scales and noise are drawn.")
    se_cknna: SemanticEquivarianceSection = Field(
        SemanticEquivarianceSection(),
        description="SE-CKNNA, the mean of CKNNA over transformed images, with clean beside it; docs/se-cknna.md.",
    )
    through_training: ThroughTrainingSection = Field(
        ThroughTrainingSection(),
        description="Alignment and quality of samples through training; docs/through-training.md.",
    )
    atlas: AtlasSection = Field(
        AtlasSection(), description="Layers over noise levels, beside controls; docs/through-training.md."
    )
    contrasts: ContrastsSection = Field(ContrastsSection(), description="Differences of two scores; docs/contrasts.md.")
    ladder: LadderSection = Field(
        LadderSection(), description="Pairs beside rival explanations, and what is left given them; docs/ladder.md."
    )
    human: HumanSection = Field(HumanSection(), description="Models and people; docs/human.md.")
    samples: SamplesSection = Field(
        SamplesSection(), description="Samples of class-conditional models and their quality; docs/samples.md."
    )
    dynamics: DynamicsSection = Field(
        DynamicsSection(), description="Denoising trajectories, and what emerges along them; docs/dynamics.md."
    )
    shared_space: SharedSpaceSection = Field(
        SharedSpaceSection(), description="One space for layers of several models; docs/shared-space.md."
    )
    exchange: ExchangeSection = Field(ExchangeSection(), description="Scores of others; docs/layouts.md.")
    latents: LatentsSection = Field(LatentsSection(), description="Files of latents.")
    extraction: ExtractionSection = Field(ExtractionSection(), description="Jobs of extractions.")
    compute: ComputeSection = Field(ComputeSection(), description="How the work is done; no result depends on it.")
    slurm: SlurmSection = Field(SlurmSection(), description="How a SLURM cluster is asked for GPUs; docs/cluster.md.")
    hardware: HardwareSection = Field(
        HardwareSection(), description="What jobs run on, for what they ask for and for what a study costs."
    )
    partitions: dict[Text, PartitionSection] = Field(
        {}, description="Partitions of a SLURM cluster by name, in profiles/slurm/site.yaml; docs/cluster.md."
    )
    site: SiteSection = Field(
        SiteSection(), description="What a SLURM cluster wants of every call, likewise; docs/cluster.md."
    )


@dataclass
class Sections:
    """The sections of a configuration; None for one that was refused."""

    top: Top | None
    defaults: DefaultsSection | None
    study: StudySection | None
    alignment: AlignmentSection | None
    transforms: TransformsSection | None
    se_cknna: SemanticEquivarianceSection | None
    through_training: ThroughTrainingSection | None
    atlas: AtlasSection | None
    contrasts: ContrastsSection | None
    ladder: LadderSection | None
    human: HumanSection | None
    samples: SamplesSection | None
    dynamics: DynamicsSection | None
    shared_space: SharedSpaceSection | None
    exchange: ExchangeSection | None
    latents: LatentsSection | None
    extraction: ExtractionSection | None
    compute: ComputeSection | None
    slurm: SlurmSection | None
    hardware: HardwareSection | None
    site: SiteSection | None
    partitions: Mapping[str, PartitionSection]
    datasets: Mapping[str, DatasetEntry]
    models: Mapping[str, ModelEntry]
    # model -> keys of its entry that were refused
    refused: Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Study:
    """A checked configuration.

    datasets, models: what jobs receive of each. texts, things: files about the images of data sets. conditions: all
    that are made, those of SE-CKNNA too. compared: the typed names that are compared with people.
    """

    seed: int
    default_dataset: str
    default_condition: str
    datasets: Mapping[str, Dataset]
    texts: Mapping[str, Texts]
    things: Mapping[str, Things]
    conditions: tuple[str, ...]
    transforms: Transforms
    models: Mapping[str, Model]
    study_datasets: tuple[str, ...]
    study_conditions: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    pair_figures: Literal["all"] | tuple[tuple[str, ...], ...]
    scores: tuple[str, ...]
    alignment: AlignmentSection
    se_cknna: SemanticEquivarianceSection
    through_training: ThroughTrainingSection
    atlas: AtlasSection
    contrasts: ContrastsSection
    ladder: LadderSection
    human: HumanSection
    samples: SamplesSection
    dynamics: DynamicsSection
    shared_space: SharedSpaceSection
    exchange: ExchangeSection
    compared: tuple[str, ...]
    latent_shards: int
    extraction_parts: int
    compute: Compute
    slurm: SlurmSection
    hardware: HardwareSection

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabulary of every model, for `names`."""
        return {name: model.vocabulary for name, model in self.models.items()}

    @cached_property
    def _parsed(self) -> dict[str, Representation]:
        """Typed names that were parsed: a plan asks for each of them in many jobs."""
        return {}

    @cached_property
    def _variants(self) -> dict[str, Model]:
        """The models that typed names meant, likewise."""
        return {}

    def representation(self, text: str) -> Representation:
        """Parse a typed name; raises UnknownName."""
        if text not in self._parsed:
            self._parsed[text] = names.parse_representation(text, self.vocabularies)
        return self._parsed[text]

    def checkpoint(self, text: str) -> Model:
        """The model of a checkpoint, ``digits.sit@300``, or of a model that has one. Raises UnknownName."""
        model, step = names.split_checkpoint(text)
        if model not in self.models:
            raise names.unknown("model", model, self.models)
        return self.models[model] if step is None else self.model_of(text)

    def untrained(self, text: str) -> str:
        """The bundle of the untrained twin of a typed name: of a model that is trained here, its checkpoint of step 0.

        Raises UnknownName where there is none.
        """
        representation = self.representation(text)
        model = self.models[representation.model]
        if model.training is None:
            options = {re.sub("[0-9]", "", option): option for option in (*representation.options, "untrained")}
            ordered = tuple(options[option] for option in names.OPTIONS if option in options)
            twin = replace(representation, step=None, options=ordered)
        else:
            twin = replace(representation, step=0)
        return self.bundle(twin.bundle(model.vocabulary))

    def bundle(self, text: str) -> str:
        """The canonical bundle of a typed name, whether or not it has a layer."""
        representation = self.representation(text)
        return representation.bundle(self.vocabularies[representation.model])

    def model_of(self, text: str) -> Model:
        """The model that a typed name or a bundle means, as its variant has it."""
        if text not in self._variants:
            representation = self.representation(text)
            self._variants[text] = self.models[representation.model].variant(representation)
        return self._variants[text]

    def layer(self, text: str) -> str:
        """The layer that a typed name means, the model's default where it gives none."""
        return self.representation(text).layer or self.model_of(text).default_layer

    def is_miniature(self, text: str) -> bool:
        """True where the weights of this name, or of a model whose output it reads, are random miniatures."""
        model = self.model_of(text)
        used = [model, *(self.models[other] for other in (model.latents, model.class_tokens) if other)]
        return any(each.weights.source == "miniature" for each in used)


def load(
    config: Mapping[str, Any],
    catalogue: Mapping[str, Entry],
    families: Mapping[str, Family],
    metrics: Collection[str],
) -> Study:
    """Check a configuration and turn it into a `Study`.

    config: the merged YAML, as Snakemake holds it. catalogue: entries of models below it, from `read_catalogue`.
    families: what each declares. metrics: the ones that exist. Raises ConfigError with every mistake and its place.
    """
    plain = checked_values(config)
    mistakes = list(_top_mistakes(plain))
    sections = _read_sections(plain, catalogue, families, mistakes)
    mistakes += cross_references.check(sections, plain, catalogue, families, metrics)
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    parts = {key: value for key, value in vars(sections).items() if key not in ("top", "refused")}
    return _study(Configuration.model_construct(**dict(sections.top or ()), **parts))


def _top_mistakes(plain: Mapping[Any, Any]) -> Iterator[str]:
    """Sections that do not exist, and required ones that are missing."""
    known = Configuration.written()
    for key in sorted(set(plain) - set(known), key=str):
        yield f"(top level): unknown key '{key}'{names.nearest(key, known)}"
    required = [name for name, field in Configuration.model_fields.items() if field.is_required()]
    missing = [repr(name) for name in required if name not in plain]
    if missing:
        yield f"(top level): missing key{'s' if len(missing) > 1 else ''} {', '.join(missing)}"


def _read_sections(
    plain: Mapping[str, Any],
    catalogue: Mapping[str, Entry],
    families: Mapping[str, Family],
    mistakes: list[str],
) -> Sections:
    def section(name: str, kind: type[S]) -> S | None:
        field = Configuration.model_fields[name]
        if name in plain:
            return read(kind, plain[name], name, mistakes)
        default: S | None = None if field.is_required() else field.default
        return default

    top = {key: value for key, value in plain.items() if key in Top.model_fields}
    given = _model_entries(plain, catalogue, families, mistakes)
    entries = _read_entries("models", given, ModelName, ModelEntry, mistakes)
    return Sections(
        read(Top, top, "", mistakes) if "conditions" in top else None,
        section("defaults", DefaultsSection),
        section("study", StudySection),
        section("alignment", AlignmentSection),
        section("transforms", TransformsSection),
        section("se_cknna", SemanticEquivarianceSection),
        section("through_training", ThroughTrainingSection),
        section("atlas", AtlasSection),
        section("contrasts", ContrastsSection),
        section("ladder", LadderSection),
        section("human", HumanSection),
        section("samples", SamplesSection),
        section("dynamics", DynamicsSection),
        section("shared_space", SharedSpaceSection),
        section("exchange", ExchangeSection),
        section("latents", LatentsSection),
        section("extraction", ExtractionSection),
        section("compute", ComputeSection),
        section("slurm", SlurmSection),
        section("hardware", HardwareSection),
        section("site", SiteSection),
        _read_entries("partitions", plain.get("partitions", {}), Text, PartitionSection, mistakes),
        _read_entries("datasets", plain.get("datasets", {}), Word, DatasetEntry, mistakes),
        entries,
        {name: set(given[name]) - entry.model_fields_set for name, entry in entries.items()},
    )


def _read_entries(place: str, given: Any, key: Any, kind: type[S], mistakes: list[str]) -> dict[str, S]:
    """Every entry of a section by itself, so that one that is refused leaves the others."""
    if not isinstance(given, dict):
        problem = "is empty; expected: object" if given is None else f"{given!r} is not of type 'object'"
        mistakes.append(f"{place}: {problem}")
        return {}
    entries: dict[str, S] = {}
    for name, value in given.items():
        wrong_name = is_text(name, key)
        if wrong_name is not None:
            mistakes.append(f"{place}: {wrong_name}")
            continue
        entry = read(kind, value, f"{place}.{name}", mistakes)
        if entry is not None:
            entries[name] = entry
    return entries


def _model_entries(
    plain: Mapping[str, Any], catalogue: Mapping[str, Entry], families: Mapping[str, Family], mistakes: list[str]
) -> Any:
    """The catalogue and the user's entries, completed by their families; what is no mapping as it is."""
    own, defaults = plain.get("models", {}), plain.get("defaults")
    if not isinstance(own, dict):
        return own
    weights = defaults.get("weights") if isinstance(defaults, dict) else None
    entries = resolve(catalogue, own, weights, mistakes)
    for name, entry in list(entries.items()):
        kind = families.get(str(entry.get("family"))) if isinstance(entry, dict) else None
        if model_checks.leaves_layers_to_no_family(entry, families):
            mistakes.append(f"models.{name}.family: {names.unknown('family', entry['family'], families)}")
            del entries[name]
        if kind is not None and kind.complete is not None:
            try:
                entries[name] = kind.complete(entry)
            except ValueError as error:
                mistakes.append(f"models.{name}: {error}")
                del entries[name]
    return entries


def _study(configuration: Configuration) -> Study:
    study, seed = configuration.study, configuration.seed
    semantic, transforms = configuration.se_cknna.resolved(), configuration.transforms
    sets = configuration.datasets.items()
    return Study(
        seed=seed,
        default_dataset=configuration.defaults.dataset,
        default_condition=configuration.defaults.condition,
        datasets={name: entry.record() for name, entry in sets},
        texts={name: entry.text_files() for name, entry in sets},
        things={name: Things.of(entry) for name, entry in sets if entry.kind == "things"},
        # clean stands beside the mean of the others
        conditions=tuple(dict.fromkeys([*configuration.conditions, CLEAN, *semantic.conditions])),
        transforms=Transforms(transforms.seeding, seed if transforms.seed is None else transforms.seed),
        models={name: entry.record(name, seed) for name, entry in configuration.models.items()},
        study_datasets=study.datasets,
        study_conditions=study.conditions,
        pairs=study.paired(),
        pair_figures=study.pair_figures,
        scores=study.scores,
        alignment=configuration.alignment.resolved(),
        se_cknna=semantic,
        through_training=configuration.through_training,
        atlas=configuration.atlas,
        contrasts=configuration.contrasts,
        ladder=configuration.ladder,
        human=configuration.human,
        samples=configuration.samples,
        dynamics=configuration.dynamics,
        shared_space=configuration.shared_space,
        exchange=configuration.exchange,
        compared=configuration.human.compared([*study.models, *study.against]),
        latent_shards=configuration.latents.shards,
        extraction_parts=configuration.extraction.parts,
        compute=configuration.compute.record(),
        slurm=configuration.slurm,
        hardware=configuration.hardware,
    )
