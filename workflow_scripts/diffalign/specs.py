"""What jobs receive: the parts of a checked configuration that a script reads, as plain records.

Scripts and modules of models import these in place of the configuration, so that no result depends on how it is parsed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from diffalign import names
from diffalign.names import Representation, Vocabulary
from diffalign.randomness import SHARED_BY_ALL, NoiseKey


def without_defaults(record: Any) -> dict[str, Any]:
    """The fields of a record (a dataclass) that differ from their defaults, records in it likewise, as a mapping.

    Recipes and parameters are made of it, so that a new optional field changes none that is there already.
    """
    given = {}
    for each in fields(record):
        value = getattr(record, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if value != default:
            given[each.name] = without_defaults(value) if is_dataclass(value) else value
    return given


@dataclass(frozen=True)
class ImageInput:
    """The input of a model: side in pixels, resampling, and the per-channel mean and std of pixels in [0, 1].

    scaled: resampling under conditions that scale inputs; docs/config.md. crop: share of the side of a resized image
    that its centre, the input, has.
    """

    size: int
    interpolation: str
    antialias: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scaled: str = "same"
    crop: float = 1.0

    @property
    def resized(self) -> int:
        """Side in pixels that an image is resized to before its centre is taken, rounded down as in timm."""
        return math.floor(self.size / self.crop)

    def under_scale(self) -> ImageInput:
        """The same input with the resampling of conditions that scale it."""
        if self.scaled == "same":
            return self
        return replace(self, interpolation="bilinear", antialias=self.scaled == "bilinear")


@dataclass(frozen=True)
class Weights:
    """Where a checkpoint comes from: ``hub``, ``folder``, ``file``, ``url``, ``package``, ``training``, ``latents`` or
    ``miniature``; ``none`` where nothing is learned, ``precomputed`` where features are files.

    steps: step -> folder or file, for several checkpoints of a user's own training. dataset: whose latents are
    measured; None for the default one. url, sha256: of a download. statistics: the file of mean and std of latents.
    """

    source: str
    hub: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    folder: str | None = None
    path: str | None = None
    package: str | None = None
    steps: Mapping[int, str] = field(default_factory=dict)
    dataset: str | None = None
    url: str | None = None
    sha256: str | None = None
    statistics: str | None = None

    @property
    def given_statistics(self) -> str | None:
        """The place of the statistics of latents in the folder of the checkpoint; None where it has no such file."""
        named = self.statistics if self.source in STATISTICS_FROM else None
        return Path(named).name if named is not None and self.source == "file" else named

    def at(self, step: int) -> Weights:
        """The checkpoint of one step of a user's own training."""
        at = self.steps[step]
        return replace(self, folder=at) if self.source == "folder" else replace(self, path=at)


@dataclass(frozen=True)
class Training:
    """How a model is trained here; docs/training.md.

    dataset: of its images. loss: ``classification``, ``reconstruction`` or ``flow_matching``. checkpoints: steps,
    ascending. schedule: of the learning rate after `warmup` steps, ``cosine`` or ``constant``. clip: the largest norm
    of gradients. ema: decay of averaged weights, which checkpoints then hold. kl: weight of the Kullback-Leibler
    divergence of reconstruction. label_dropout, times: of flow matching. teacher: a representation with its layer,
    whose tokens the layer `teacher_layer` is aligned with (REPA, Yu et al. 2025), with this weight, through a projector
    of this width.
    """

    dataset: str
    loss: str
    steps: int
    checkpoints: tuple[int, ...] = ()
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: int = 0
    clip: float | None = None
    ema: float = 0.0
    kl: float = 1e-6
    label_dropout: float = 0.1
    times: str = "uniform"
    teacher: str | None = None
    teacher_layer: str | None = None
    teacher_weight: float = 0.5
    projector: int = 256


@dataclass(frozen=True)
class FeatureFiles:
    """Where features that were made elsewhere lie; ``{dataset}``, ``{condition}`` and ``{layer}`` stand in paths.

    url, sha256: of files that are downloaded, in the place of a path. bits_per_byte: whether one holds the bits per
    byte of a language model.
    """

    path: str | None = None
    layout: str = "auto"
    names: str | None = None
    url: str | None = None
    sha256: str | None = None
    bits_per_byte: bool = False

    @property
    def file(self) -> str | None:
        """The name of the file that is downloaded: the end of its address from the first placeholder on, in which
        folders become words, since files of all layers and conditions of a model share a folder.
        """
        if self.url is None:
            return None
        parts = PurePosixPath(urlsplit(self.url).path).parts
        varies = [i for i, part in enumerate(parts) if "{" in part]
        return "_".join(parts[varies[0] :] if varies else parts[-1:]).strip("/")


def filled(text: str, dataset: str, condition: str, layer: str) -> str:
    """A path or address of feature files with its PLACEHOLDERS filled in. layer: the module path."""
    for key, value in zip(PLACEHOLDERS, (dataset, condition, layer), strict=True):
        text = text.replace("{" + key + "}", value)
    return text


@dataclass(frozen=True)
class LatentFiles:
    """Where an autoencoder's latents lie that were made elsewhere; ``{dataset}`` and ``{condition}`` stand in paths."""

    path: str
    layout: str
    names: str | None = None

    def at(self, dataset: str, condition: str) -> tuple[Path, Path | None]:
        """The folder and the names file of one data set and condition."""

        def filled(text: str) -> Path:
            return Path(text.replace("{dataset}", dataset).replace("{condition}", condition)).expanduser()

        return filled(self.path), None if self.names is None else filled(self.names)


# sources of weights beside which a file of statistics may lie
STATISTICS_FROM = ("hub", "folder", "file")
# words in braces that a path of feature files may hold
PLACEHOLDERS = ("dataset", "condition", "layer")
# conditionings of a class-conditional model: no class, or that of the image
LABEL_CONDITIONINGS = ("uncond", "label")
# texts of an image that a language model may read
TEXTS_OF_IMAGES = ("label", "caption", "description", "caption2")
# samplers that every diffusion model has, and the word for the scheduler of a checkpoint's own pipeline
SAMPLERS = ("euler", "heun", "sde")
PIPELINE = "pipeline"
# what of a layer may be removed, and what may stand in its place
PARTS = ("layer", "attention", "mlp")
METHODS = ("zero", "mean")
# ways into one space, choices of landmarks, targets of the half-shared MLP, and rules that resample grids of tokens
ALIGNMENTS = ("padded", "rbf", "half_shared", "procrustes", "cca", "ridge", "relative")
LANDMARKS = ("farthest", "kmeans", "random")
TARGETS = ("index", "permuted_index", "labels", "random")
RESAMPLING = ("nearest", "area", "bilinear")
# distances whose rounding in float32 is that of the published code of human choices
FLOAT32_DISTANCES = ("cosine", "euclidean")
# of a parameter, by precision or quantisation
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.0, "4bit": 0.5}
_OF_LATENTS = ("latent_statistics", "latents_from")
_NOT_IN_RECIPES = (
    *("default_layer", "noise", "conditionings", "embeddings", "embeddings_alone"),
    *("batch_size", *_OF_LATENTS, "device_map", "series"),
    *("parameters", "gigaflops", "memory_mb", "gpus", "runtime"),
)


@dataclass(frozen=True)
class Model:
    """One model: its family, weights, input, layers (alias -> module path, in order of depth) and defaults.

    embeddings: word -> file of given embeddings, one an image. path: ``linear`` or ``cosine``, for families that
    choose. training: how it is trained here. step, draws, redraw, untrained and last are set by a name: which of
    several checkpoints, how many draws of noise features are the mean of, which single draw they are of, whether the
    architecture has the weights that it begins with, and whether features are the last token in place of the mean.
    parameters: their number. gigaflops: 10^9 operations of a pass over one image. memory_mb, gpus, runtime (minutes):
    what its extraction asks for; None where the plan says it.
    """

    name: str
    family: str
    weights: Weights
    layers: Mapping[str, str]
    default_layer: str
    input: ImageInput | None = None
    latents: str | None = None
    noise: str | None = None
    conditionings: tuple[str, ...] = ()
    embeddings: Mapping[str, str] = field(default_factory=dict)
    embeddings_alone: str = "mean"
    path: str | None = None
    draws: int = 1
    redraw: int = 0
    untrained: bool = False
    last: bool = False
    posterior: str = "mode"
    latent_statistics: str = "fixed"
    latents_from: LatentFiles | None = None
    seeding: str = "name"
    seed: int = 0
    batch_size: int | None = None
    miniature: Mapping[str, Any] = field(default_factory=dict)
    features: FeatureFiles | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    latent_multiplier: float = 1.0
    strength_steps: int = 100
    class_tokens: str | None = None
    tokens: str = "patches"
    interpolate_positions: bool = False
    context: int | None = None
    exclude_bos: bool = False
    quantization: str | None = None
    device_map: str | None = None
    precision: str = "float32"
    series: str | None = None
    training: Training | None = None
    step: int | None = None
    reads: tuple[str, ...] = ()
    trained_towards: tuple[str, ...] = ()
    parameters: float | None = None
    gigaflops: float | None = None
    memory_mb: int | None = None
    gpus: int | None = None
    runtime: int | None = None

    @property
    def weights_mb(self) -> float:
        """Megabytes of its weights as they are held, by its number of parameters; 0 where that is not known, and for a
        miniature.
        """
        if self.parameters is None or self.weights.source == "miniature":
            return 0.0
        held = _BYTES[self.precision if self.quantization is None else self.quantization]
        return self.parameters * held / 2**20

    @property
    def own_classes(self) -> bool:
        """Whether its classes are those of a data set here, and not of a published training: of models that are trained
        here, and of miniatures.
        """
        return self.weights.source in ("training", "miniature")

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of its checkpoints, ascending; empty for a model with one."""
        return tuple(sorted(self.weights.steps)) if self.training is None else self.training.checkpoints

    def at_step(self, step: int) -> Model:
        """This model at one of its steps."""
        return replace(self, step=step, weights=self.weights.at(step) if self.weights.steps else self.weights)

    @property
    def checkpoint(self) -> str:
        """What its checkpoint is named by: the model, with its step where it has several."""
        return names.checkpoint_name(self.name, self.step)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of all its checkpoints."""
        return tuple(names.checkpoint_name(self.name, step) for step in self.steps) or (self.name,)

    @property
    def vocabulary(self) -> Vocabulary:
        """What may follow this model's name."""
        conditionings = tuple(word for word in self.conditionings if word != names.TEXT)
        allowed = {
            "cosine": self.path == "linear",
            "shared": self.latents is not None and self.seeding not in SHARED_BY_ALL,
            "commonnoise": self.latents is not None and self.seeding == "name",
            "draws": self.latents is not None,
            "redraw": self.latents is not None,
            # of a model that is trained here, the first checkpoint
            "untrained": self.features is None and self.training is None,
            names.LAST: self.reads_texts,
        }
        return Vocabulary(
            tuple(self.layers),
            self.default_layer,
            self.noise,
            conditionings,
            tuple(word for word in conditionings if word != "uncond") if names.TEXT in self.conditionings else (),
            tuple(self.embeddings),
            tuple(option for option in names.OPTIONS if allowed[option]),
            self.steps,
        )

    def variant(self, representation: Representation) -> Model:
        """This model as a name means it: its step, noise, path, draws and weights, or the text or embedding alone."""
        if representation.text:
            alone = {"layers": {layer: layer for layer in names.TEXT_LAYERS}, "default_layer": names.TEXT_LAYERS[0]}
            changes: dict[str, Any] = {**alone, "latents": None, "noise": None, "path": None, "seeding": "name"}
        else:
            changes = {
                "noise": representation.noise,
                "draws": representation.draws,
                "redraw": representation.redraw,
            }
            if "cosine" in representation.options:
                changes["path"] = "cosine"
            if "shared" in representation.options:
                changes["seeding"] = "constant"
            if "commonnoise" in representation.options:
                changes["seeding"] = "common"
        options = representation.options
        at = self if representation.step is None else self.at_step(representation.step)
        return replace(at, **changes, untrained="untrained" in options, last=names.LAST in options)

    def recipe(self) -> dict[str, Any]:
        """Everything that a feature of this model depends on, as plain JSON; keys at their defaults are left out.

        What changes no feature is left out, too: defaults of names (layer, noise level, conditioning), the batch size,
        the statistics that others normalise its latents with, the widths of a miniature that is not used, the seed
        where nothing is drawn, and other checkpoints of its training.
        """
        entry = without_defaults(replace(self, weights=replace(self.weights, steps={})))
        if self.training is not None:
            entry["training"] = without_defaults(replace(self.training, checkpoints=()))
        idle = list(_NOT_IN_RECIPES)
        draws_nothing = self.latents is None and self.posterior == "mode"
        if draws_nothing and not self.untrained and self.training is None:
            idle += ["seed", "seeding"]
        if self.weights.source != "miniature":
            idle.append("miniature")
        return {key: value for key, value in entry.items() if key not in idle}

    @property
    def built(self) -> Mapping[str, Any]:
        """The architecture of the checkpoint that is loaded: the model's own, or that of its miniature."""
        return self.miniature if self.weights.source == "miniature" else self.architecture

    @property
    def noise_key(self) -> NoiseKey:
        """What its noise and its posterior samples are keyed by, beside the image."""
        return NoiseKey(self.seeding, self.seed, self.name)

    @property
    def noise_draws(self) -> range:
        """The numbers of the draws of noise that its features are the mean of: 0, or those that its name asks for."""
        return range(self.redraw, self.redraw + 1) if self.redraw else range(self.draws)

    @property
    def initial_seed(self) -> int | None:
        """What the weights of an untrained twin are drawn by; None for a trained model."""
        return self.seed if self.untrained else None

    def prompt_spec(self) -> dict[str, Any]:
        """The recipe of its prompts, which depend on nothing that images pass through."""
        bare: dict[str, Any] = {
            "layers": {},
            "latents": None,
            "noise": None,
            "path": None,
            "draws": 1,
            "redraw": 0,
            "seeding": "name",
        }
        return replace(self, **bare).recipe()

    @property
    def reads_texts(self) -> bool:
        """Whether, as an entry of the catalogue, it is a language model: it reads texts, and no image."""
        return bool(self.conditionings) and self.latents is None and self.input is None

    @property
    def is_autoencoder(self) -> bool:
        """Whether other models can read its latents."""
        return "latent" in self.layers and self.features is None

    def encoder(self) -> dict[str, Any]:
        """The recipe of an autoencoder's latents: with their statistics, without the layers they do not depend on."""
        statistics = {key: value for key, value in without_defaults(self).items() if key in _OF_LATENTS}
        entry = {**self.recipe(), "layers": {"latent": self.layers["latent"]}, **statistics}
        if self.latents_from is not None and self.latents_from.layout == "lightningdit":
            entry["posterior"] = "unknown: as it is in the files"
        return entry

    @classmethod
    def from_recipe(cls, entry: Mapping[str, Any]) -> Model:
        """The model that `recipe` described, without its defaults of names."""
        records: dict[str, type[Any]] = {
            "weights": Weights,
            "input": ImageInput,
            "features": FeatureFiles,
            "latents_from": LatentFiles,
            "training": Training,
        }
        made = {key: _record(records[key], value) for key, value in entry.items() if key in records}
        return cls(**{**entry, **made, "default_layer": ""})


def _record(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    """A record of plain JSON, in which a tuple is a list."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


@dataclass(frozen=True)
class Compute:
    """How the work is done; no result depends on it."""

    device: str
    batch_size: int
    workers: int
    memory_mb: int = 2000
    compile: bool = False
    verified: int = 5
