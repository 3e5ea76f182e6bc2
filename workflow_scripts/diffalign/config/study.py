"""The typed study: what config.yaml says, checked as a whole before anything runs.

`load` reports every mistake at once, each with its place and the nearest allowed word. Rules talk to a
`Study`; nothing else reads the configuration.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from jsonschema import Draft202012Validator, ValidationError, validators

from diffalign import names
from diffalign.alignment.settings import PARITY, PARITY_EPS, Preparation, check_draws
from diffalign.conditions import CLEAN, separate_transforms
from diffalign.names import Representation, UnknownName, Vocabulary
from diffalign.specs import (
    FAMILY_KEYS,
    LABEL_CONDITIONINGS,
    PLACEHOLDERS,
    TEXTS_OF_IMAGES,
    Compute,
    Dataset,
    FeatureFiles,
    ImageInput,
    LatentFiles,
    Model,
    SimilarityFile,
    SourceFile,
    Texts,
    TripletFile,
    Weights,
)

if TYPE_CHECKING:
    from diffalign.models import Family


def _is_number(checker: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(checker: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# stricter than JSON Schema, to which 1.0 is an integer: a seed of 1.0 would be another seed than 1
_VALIDATOR = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number).redefine("integer", _is_integer),
)


class ConfigError(ValueError):
    """All mistakes of a configuration, one a line."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True)
class Things:
    """What is known of the objects of a data set of kind things. triplets: word -> file of choices."""

    concepts: SourceFile
    dimensions: SourceFile | None
    triplets: Mapping[str, TripletFile]
    similarities: SimilarityFile | None


@dataclass(frozen=True)
class Transforms:
    """How rotations, scales and noise are drawn; see schemas/config.schema.yaml."""

    seeding: str
    seed: int


@dataclass(frozen=True)
class Alignment:
    """Metrics and the settings that every score depends on."""

    metrics: tuple[str, ...]
    k: int
    k_max: int
    eps: float
    rbf_sigma: float
    preparation: Preparation
    permutations: int
    alpha: float
    split_selection: bool
    shards: int


@dataclass(frozen=True)
class SemanticEquivariance:
    """What SE-CKNNA is taken over; see schemas/config.schema.yaml. pairs: ``a_vs_b`` of typed names."""

    conditions: tuple[str, ...]
    reference: str
    mean_over: str
    pairs: tuple[str, ...]


@dataclass(frozen=True)
class Combined:
    """Layers whose features stand beside each other as those of one. of: typed names. transform: a file, or None."""

    of: tuple[str, ...]
    transform: str | None
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Reduction:
    """What of un-pooled features is compared with people. of: typed names with layers. triplets: at most so many."""

    of: tuple[str, ...]
    poolings: tuple[str, ...]
    components: tuple[int, ...]
    triplets: int


@dataclass(frozen=True)
class Human:
    """What is compared with people and how; see schemas/config.schema.yaml. models, baselines: typed names."""

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    baselines: tuple[str, ...]
    analyses: tuple[str, ...]
    triplets: str
    distance: str
    ties: str
    pca: int | None
    combined: Mapping[str, Combined]
    reduction: Reduction
    regression: Mapping[str, Any]
    probe: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A checked configuration."""

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
    scores: tuple[str, ...]
    alignment: Alignment
    se_cknna: SemanticEquivariance
    human: Human
    latent_shards: int
    extraction_shards: int
    compute: Compute

    @cached_property
    def catalogue(self) -> dict[str, Vocabulary]:
        """The vocabulary of every model, for `names`."""
        return {name: model.vocabulary for name, model in self.models.items()}

    def representation(self, text: str) -> Representation:
        """Parse a typed name; raises UnknownName."""
        return names.parse_representation(text, self.catalogue)

    def bundle(self, text: str) -> str:
        """The canonical bundle of a typed name, whether or not it has a layer."""
        representation = self.representation(text)
        return representation.bundle(self.models[representation.model].vocabulary)

    def model_of(self, text: str) -> Model:
        """The model that a typed name or a bundle means, as its variant has it."""
        representation = self.representation(text)
        return self.models[representation.model].variant(representation)

    def layer(self, text: str) -> str:
        """The layer that a typed name means, the model's default where it gives none."""
        return self.representation(text).layer or self.model_of(text).default_layer

    def is_miniature(self, text: str) -> bool:
        """True where the weights of this name, or of a model whose output it reads, are random miniatures."""
        model = self.model_of(text)
        used = [model, *(self.models[other] for other in (model.latents, model.class_tokens) if other)]
        return any(each.weights.source == "miniature" for each in used)


def load(
    config: Mapping[str, Any], schema: Mapping[str, Any], families: Mapping[str, Family], metrics: Iterable[str]
) -> Study:
    """Check a configuration and turn it into a `Study`.

    config: the merged YAML, as Snakemake holds it. schema: schemas/config.schema.yaml. families: what each declares.
    metrics: the ones that exist. Raises ConfigError with every mistake and its place.
    """
    plain: dict[str, Any] = _plain(config)
    _read_exponents(plain.get("alignment"))
    sections = {section: plain.get(section) for section in ("datasets", "models")}
    declared = {name: list(map(str, part)) if isinstance(part, dict) else [] for name, part in sections.items()}
    mistakes = list(_complete(plain, families))
    mistakes += dict.fromkeys(_schema_mistakes(plain, schema))
    # what is wrong is taken out, so that the rest can be checked for what a schema cannot see
    _prune(plain, schema)
    given = copy.deepcopy(plain)
    fill_defaults(plain, schema)
    mistakes += _reference_mistakes(plain, given, declared, families, tuple(metrics))
    if mistakes:
        raise ConfigError(mistakes)
    return _study(plain)


def _complete(config: dict[str, Any], families: Mapping[str, Family]) -> Iterator[str]:
    """Let families fill in what entries of models leave out, in place; what they do not know is a mistake."""
    models = config.get("models")
    if not isinstance(models, dict):
        return
    for name, entry in list(models.items()):
        kind = families.get(str(entry.get("family"))) if isinstance(entry, dict) else None
        if kind is not None and kind.complete is not None:
            try:
                models[name] = kind.complete(entry)
            except ValueError as error:
                yield f"models.{name}: {error}"
                del models[name]


def _prune(config: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Remove what the schema refuses, in place; whole sections may go."""
    validator = _VALIDATOR(schema)
    # a section that has lost a required key is refused in its turn, so a few rounds are needed
    while errors := [e for e in validator.iter_errors(config) if e.absolute_path or e.validator != "required"]:
        for error in errors:
            path = list(error.absolute_path)
            if error.validator == "additionalProperties":
                for key in set(error.instance) - set(error.schema.get("properties", {})):
                    del error.instance[key]
            elif "propertyNames" in error.absolute_schema_path:
                _remove(config, [*path, error.instance])
            elif path:
                _remove(config, path)


def _remove(config: dict[str, Any], path: Sequence[str | int]) -> None:
    """Delete the entry at a path, or the nearest dictionary entry around it."""
    holder: Any = config
    last: tuple[dict[str, Any], Any] | None = None
    for step in path:
        if isinstance(holder, dict):
            last = (holder, step)
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            return
    if last is not None:
        last[0].pop(last[1], None)


def fill_defaults(config: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Set the defaults of the schema in place (the recipe of the jsonschema documentation)."""
    set_properties = _VALIDATOR.VALIDATORS["properties"]

    def properties(
        validator: Any, properties: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict):
            for key, subschema in properties.items():
                if "default" in subschema:
                    instance.setdefault(key, copy.deepcopy(subschema["default"]))
        yield from set_properties(validator, properties, instance, schema)

    filling = validators.extend(_VALIDATOR, {"properties": properties})  # type: ignore[no-untyped-call]
    for _ in filling(schema).iter_errors(config):
        pass


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _read_exponents(alignment: object) -> None:
    """Make numbers of ``eps: 1e-6`` and the like, in place: YAML 1.1 reads them as text."""
    for key in ("eps", "clamp", "alpha", "rbf_sigma"):
        value = alignment.get(key) if isinstance(alignment, dict) else None
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+", value):
            cast("dict[str, Any]", alignment)[key] = float(value)


def _place(path: Iterable[str | int]) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return text.lstrip(".") or "(top level)"


def _schema_mistakes(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    errors = sorted(_VALIDATOR(schema).iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    for error in errors:
        place = _place(error.absolute_path)
        if error.validator == "additionalProperties":
            allowed = error.schema.get("properties", {})
            for key in sorted(set(error.instance) - set(allowed), key=str):
                yield f"{place}: unknown key '{key}'{names.nearest(key, allowed)}"
        elif error.validator == "required":
            # a key may be required always, or by the value of another: one line for all of a place
            here = [e for e in errors if e.validator == "required" and e.absolute_path == error.absolute_path]
            missing = list(dict.fromkeys(key for e in here for key in e.validator_value if key not in e.instance))
            yield f"{place}: missing key{'s' if len(missing) > 1 else ''} {', '.join(repr(m) for m in missing)}"
        elif error.validator == "type" and error.instance is None:
            yield f"{place}: is empty; expected: {error.validator_value}"
        elif error.validator == "enum":
            yield f"{place}: '{error.instance}' is not allowed{names.nearest(error.instance, error.validator_value)}"
        elif "message" in error.schema:
            yield f"{place}: {error.instance!r} {error.schema['message']}"
        else:
            yield f"{place}: {error.message}"


def _reference_mistakes(
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    declared: Mapping[str, Sequence[str]],
    families: Mapping[str, Family],
    metrics: Sequence[str],
) -> Iterator[str]:
    """What a schema cannot see: words that name other entries, and values that contradict each other.

    config: with defaults, but without what the schema refused. given: the same before defaults were filled in, to tell
    an option that was asked for. declared: names of all data sets and models, refused ones too.
    """
    datasets, models = given.get("datasets", {}), config.get("models", {})
    yield from _word_mistakes(config, given, declared["datasets"], metrics)
    for name, dataset in datasets.items():
        yield from _dataset_mistakes(name, dataset)
    catalogue: dict[str, Vocabulary] = {}
    for name, model in models.items():
        broken = list(_model_mistakes(name, model, given["models"][name], models, families))
        yield from broken
        if not broken:
            catalogue[name] = _model(name, model, config["seed"]).vocabulary
    # without any model left, every name would be reported in vain
    if catalogue:
        for_people = bool(config.get("human", {}).get("datasets"))
        yield from _study_mistakes(
            config.get("study", {}), config.get("defaults", {}), catalogue, declared["models"], for_people
        )
        wanted = config.get("se_cknna", {}).get("pairs", [])
        yield from _pair_mistakes("se_cknna.pairs", "pair", wanted, catalogue, declared["models"])
        yield from _human_mistakes(config, catalogue, declared["models"])
    if CLEAN in config.get("se_cknna", {}).get("conditions", []):
        yield "se_cknna.conditions: 'clean' stands beside the mean and is no part of it; leave it out"


def _human_mistakes(
    config: Mapping[str, Any], catalogue: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Iterator[str]:
    """Data sets that people said nothing of, names that parse to nothing or stand twice."""
    human, datasets = config.get("human", {}), config.get("datasets", {})
    of_people = [name for name, entry in datasets.items() if entry["kind"] == "things"]
    for i, name in enumerate(human.get("datasets", [])):
        place = f"human.datasets[{i}]"
        if name not in datasets:
            yield f"{place}: {names.unknown('data set', name, datasets)}"
        elif name not in of_people:
            yield f"{place}: '{name}' is not of kind things, so people chose nothing of it"
        elif human["triplets"] not in datasets[name]["triplets"]:
            known = datasets[name]["triplets"]
            yield f"human.triplets: data set '{name}': {names.unknown('file of triplets', human['triplets'], known)}"
        elif "regression" in human["analyses"] and not datasets[name]["dimensions"]:
            yield f"human.analyses: regression needs the key 'dimensions' of the data set '{name}'"
    if human.get("distance") == "correlation" and (human["pca"] or human["reduction"]["of"]):
        yield "human.distance: 'correlation' of principal components depends on their signs, which are arbitrary"
    composed = [
        (f"human.combined.{name}.of[{i}]", text)
        for name, entry in human.get("combined", {}).items()
        for i, text in enumerate(entry["of"])
    ]
    composed += [(f"human.reduction.of[{i}]", text) for i, text in enumerate(human.get("reduction", {}).get("of", []))]
    composed += [(f"human.grid[{i}]", text) for i, grid in enumerate(human.get("grid", [])) for text in _of_grid(grid)]
    for place, text in composed:
        try:
            names.parse_representation(text, catalogue)
        except UnknownName as error:
            yield f"{place}: {error}"
    for key in ("models", "baselines"):
        first: dict[str, str] = {}
        listed = human.get(key, [])
        for i, text in enumerate([] if listed == "all" else listed):
            place = f"human.{key}[{i}]"
            if names.model_word(text) in set(declared) - set(catalogue):
                continue
            try:
                found = names.parse_representation(text, catalogue)
            except UnknownName as error:
                yield f"{place}: {error}"
                continue
            if found.layer is not None:
                yield f"{place}: '{text}' names a layer; here all layers are meant"
            bundle = found.bundle(catalogue[found.model])
            if first.setdefault(bundle, place) != place:
                yield f"{place}: '{text}' is the same as {first[bundle]}"


def _word_mistakes(
    config: Mapping[str, Any], given: Mapping[str, Any], datasets: Sequence[str], metrics: Sequence[str]
) -> Iterator[str]:
    defaults, study, alignment = (config.get(section, {}) for section in ("defaults", "study", "alignment"))
    known = [*config.get("conditions", []), CLEAN, *config.get("se_cknna", {}).get("conditions", [])]
    groups = [
        ("defaults.dataset", "dataset", [defaults.get("dataset")], datasets),
        ("defaults.condition", "condition", [defaults.get("condition")], known),
        ("study.datasets[{}]", "dataset", study.get("datasets", []), datasets),
        ("study.conditions[{}]", "condition", study.get("conditions", []), known),
        ("alignment.metrics[{}]", "metric", alignment.get("metrics", []), metrics),
    ]
    for place, what, words, allowed in groups:
        for i, word in enumerate(words):
            # a section that the schema refused allows nothing and has been reported
            if word is not None and allowed and word not in allowed:
                yield f"{place.format(i)}: {names.unknown(what, word, allowed)}"
    if alignment:
        yield from _alignment_mistakes(alignment, given.get("alignment", {}))


_DATASET_KEYS = {
    "photographs": {"kind", "size", "per_photograph", "texts", "words"},
    "folder": {"kind", "size", "path", "square", "sample", "labels", "texts", "words"},
    "synsets": {"kind", "size", "path", "square", "sample", "texts", "words"},
    "transformed": {"kind", "size", "path", "sample", "labels", "texts", "words"},
    "table": {
        *("kind", "size", "path", "square", "sample", "texts", "words"),
        *("columns", "caption_index", "prompt", "hub"),
    },
    "precomputed": {"kind"},
    "things": {
        *("kind", "size", "path", "square", "texts", "words"),
        *("concepts", "dimensions", "triplets", "similarities"),
    },
}
# which kinds read what they are of from a folder
_OF_A_FOLDER = ("folder", "synsets", "transformed")


def _dataset_mistakes(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    kind = given["kind"]
    for key in sorted(set(given) - _DATASET_KEYS[kind]):
        yield f"datasets.{name}.{key}: means nothing for kind '{kind}'"
    if kind == "table":
        yield from _table_mistakes(name, given)
    if kind in _OF_A_FOLDER and not given.get("path"):
        yield f"datasets.{name}: kind '{kind}' needs a path"
    if kind == "things" and given.get("path") and not given.get("size"):
        yield f"datasets.{name}: with images (path), kind 'things' needs a size"
    if kind == "things":
        for key in ("concepts", "triplets"):
            if not given.get(key):
                yield f"datasets.{name}: kind 'things' needs the key '{key}'"


def _table_mistakes(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    if bool(given.get("path")) == bool(given.get("hub")):
        yield f"datasets.{name}: kind 'table' needs a path or a repository of the hub, one of the two"
    columns = given.get("columns") or {}
    if not any(columns.get(key) for key in ("image", "caption", "description", "label")):
        yield f"datasets.{name}.columns: says neither where images are nor where texts are"
    if columns.get("image") and not given.get("size"):
        yield f"datasets.{name}: missing key 'size'"
    for key in () if columns.get("image") else ("size", "square"):
        if given.get(key):
            yield f"datasets.{name}.{key}: means nothing without images; say columns.image"


def _study_mistakes(
    study: Mapping[str, Any],
    defaults: Mapping[str, Any],
    catalogue: Mapping[str, Vocabulary],
    declared: Sequence[str],
    for_people: bool,
) -> Iterator[str]:
    """Names that parse to nothing, and pairs that stand twice. Names of refused models are passed over.

    for_people: models are compared with people, so pairs may be none.
    """
    mistakes: list[str] = []
    refused = set(declared) - set(catalogue)

    def bundle(place: str, text: str) -> str | None:
        model = names.model_word(text)
        if model in refused:
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

    first: dict[object, str] = {}
    for key in ("models", "against"):
        for i, text in enumerate(study.get(key, [])):
            place = f"study.{key}[{i}]"
            found = bundle(place, text)
            if found is not None and first.setdefault(found, place) != place:
                mistakes.append(f"{place}: '{text}' is the same as {first[found]}")
    for i, pair in enumerate([] if study.get("pairs", "all") == "all" else study["pairs"]):
        place = f"study.pairs[{i}]"
        both = [bundle(f"{place}[{j}]", text) for j, text in enumerate(pair)]
        if None not in both:
            if both[0] == both[1]:
                mistakes.append(f"{place}: both sides are {both[0]}")
            elif first.setdefault(frozenset(both), place) != place:
                mistakes.append(f"{place}: the same pair as {first[frozenset(both)]}")
    mistakes.extend(_pair_mistakes("study.scores", "score", study.get("scores", []), catalogue, declared))
    if (
        study
        and not study["scores"]
        and not for_people
        and (len([*study.get("models", []), *study["against"]]) < 2 if study["pairs"] == "all" else not study["pairs"])
    ):
        mistakes.append("study: nothing to measure; name two models, pairs or scores")
    default = defaults.get("dataset")
    if study.get("scores") and default is not None and default not in study.get("datasets", [default]):
        mistakes.append(
            f"study.scores: are taken on defaults.dataset, '{default}', which is not among study.datasets; "
            "change one of them, or set scores: []"
        )
    yield from mistakes


def _pair_mistakes(
    place: str, what: str, pairs: Sequence[str], catalogue: Mapping[str, Vocabulary], declared: Sequence[str]
) -> Iterator[str]:
    """Pairs ``a_vs_b`` that parse to nothing, stand twice or are of one representation. Names of refused models are
    passed over.
    """
    refused = set(declared) - set(catalogue)
    first: dict[object, str] = {}
    for i, text in enumerate(pairs):
        at = f"{place}[{i}]"
        if refused & {names.model_word(side) for side in text.split(names.SEPARATOR)}:
            continue
        try:
            sides = tuple(_canonical(side, catalogue) for side in names.parse_pair(text, catalogue))
        except UnknownName as error:
            yield f"{at}: {error}"
            continue
        if sides[0] == sides[1]:
            yield f"{at}: both sides are {sides[0]}"
        elif first.setdefault(sides, at) != at:
            yield f"{at}: the same {what} as {first[sides]}"


def _canonical(side: Representation, catalogue: Mapping[str, Vocabulary]) -> str:
    vocabulary = catalogue[side.model]
    return f"{side.bundle(vocabulary)}_{side.layer or side.default_layer(vocabulary)}"


def _model_mistakes(
    name: str,
    model: Mapping[str, Any],
    given: Mapping[str, Any],
    models: Mapping[str, Any],
    families: Mapping[str, Family],
) -> Iterator[str]:
    place = f"models.{name}"
    if model["family"] not in families:
        yield f"{place}.family: {names.unknown('family', model['family'], families)}"
    else:
        yield from _input_mistakes(place, model, given, models, families[model["family"]])
    weights = model.get("weights") or {"from": None}
    if weights["from"] == "hub" and not weights["hub"]:
        yield f"{place}.weights: from 'hub' needs the key 'hub', a repository id such as owner/name"
    if weights["from"] == "folder" and not weights["folder"]:
        yield f"{place}.weights: from 'folder' needs the key 'folder', a path"
    if weights["from"] == "file" and not weights["path"]:
        yield f"{place}.weights: from 'file' needs the key 'path', a checkpoint's file"
    if weights["from"] == "package" and not weights["package"]:
        yield f"{place}.weights: from 'package' needs the key 'package', the name that Python imports it by"
    if weights["from"] == "miniature" and not model["miniature"]:
        yield f"{place}.weights: from 'miniature' needs the key 'miniature' of the model, its widths"
    try:
        layers = names.expand_layers(model["layers"])
    except UnknownName as error:
        yield f"{place}.layers: {error}"
        return
    try:
        taken = names.take_layers(model["take"], layers, name)
    except UnknownName as error:
        yield f"{place}.take: {error}"
        taken = layers
    try:
        default = names.resolve_layer(model["default_layer"], layers, name)
    except UnknownName as error:
        yield f"{place}.default_layer: {error}"
    else:
        if default not in taken:
            yield f"{place}.default_layer: '{default}' is not among the layers that 'take' names"


def _input_mistakes(
    place: str, model: Mapping[str, Any], given: Mapping[str, Any], models: Mapping[str, Any], kind: Family
) -> Iterator[str]:
    """What a family that reads pixels, latents, or finished features needs, and which options mean nothing to it."""
    reads = kind.reads
    drawn = ["posterior", "latent_statistics", "latents_from", "seeding", "seed"]
    if reads == "pixels":
        needed, idle = ["input"], ["latents", "noise", "conditionings", "embeddings", "features"]
        if "latent" not in model["layers"]:
            idle += drawn
    elif reads == "texts":
        needed = ["conditionings"]
        idle = ["input", "latents", "noise", "embeddings", "features", *drawn]
    elif reads == "latents":
        needed = ["latents", "noise", "conditionings"]
        idle = ["input", "posterior", "latent_statistics", "latents_from", "features"]
    else:
        needed = ["features"]
        idle = ["weights", "miniature", "precision", "input", "latents", "noise", "conditionings", "embeddings", *drawn]
        idle += ["batch_size"]
    yield from _learning_mistakes(place, model, kind)
    for key in needed:
        if not model[key]:
            yield f"{place}: family '{model['family']}' reads {reads} and needs the key '{key}'"
    for key in idle:
        if given.get(key):
            yield f"{place}.{key}: means nothing for this model of family '{model['family']}', which reads {reads}"
    if model["latents"] and model["latents"] not in models:
        yield f"{place}.latents: {names.unknown('model', model['latents'], models)}"
    elif model["latents"] and not _takes_latent(models[model["latents"]]):
        yield f"{place}.latents: '{model['latents']}' has, or takes, no layer 'latent', so it is no autoencoder"
    yield from _family_mistakes(place, model, given, models, kind)
    yield from _feature_mistakes(place, model["features"])
    for source, allowed in (("features", PLACEHOLDERS), ("latents_from", PLACEHOLDERS[:2])):
        for key in ("path", "names"):
            for word in re.findall(r"\{([^{}]*)\}", (model[source] or {}).get(key) or ""):
                if word not in allowed:
                    yield f"{place}.{source}.{key}: {names.unknown('placeholder', word, allowed)}"
    yield from _variant_mistakes(place, model)


def _learning_mistakes(place: str, model: Mapping[str, Any], kind: Family) -> Iterator[str]:
    """Weights of a family in which nothing is learned, or none where something is."""
    source = (model.get("weights") or {"from": None})["from"]
    if source == "none" and kind.has_weights:
        yield f"{place}.weights: from 'none' means that nothing is learned; models of '{model['family']}' have weights"
    if source not in ("none", None) and not kind.has_weights:
        yield f"{place}.weights: nothing of family '{model['family']}' is learned; say {{from: none}}"


def _feature_mistakes(place: str, features: Mapping[str, Any] | None) -> Iterator[str]:
    """Files of features that lie nowhere or in two places, and what goes with a download alone."""
    if not features:
        return
    if (features["path"] is None) == (features["url"] is None):
        yield f"{place}.features: needs one of 'path' and 'url'"
    if features["sha256"] is not None and features["url"] is None:
        yield f"{place}.features.sha256: is of a download, and there is no url"
    if features["url"] is not None and not FeatureFiles(url=features["url"]).file:
        yield f"{place}.features.url: '{features['url']}' names no file"
    if features["quality"] and features["layout"] != "platonic":
        yield f"{place}.features.quality: only files of layout platonic have it, not of '{features['layout']}'"


def _variant_mistakes(place: str, model: Mapping[str, Any]) -> Iterator[str]:
    """Noise levels and words that names could not hold."""
    if model["noise"]:
        try:
            names.canonical_noise(model["noise"])
        except UnknownName as error:
            yield f"{place}.noise: {error}"
    if model["conditionings"][:1] == [names.TEXT]:
        yield f"{place}.conditionings: '{names.TEXT}' reads no image, so it is no default and cannot stand first"
    for word in model["embeddings"]:
        if names.is_variant_word(word):
            yield f"{place}.embeddings: '{word}' means something else in names; choose another word"


def _family_mistakes(
    place: str, model: Mapping[str, Any], given: Mapping[str, Any], models: Mapping[str, Any], kind: Family
) -> Iterator[str]:
    """Keys that only some families know, and what a class-conditional model may be told."""
    for key in kind.needs:
        if not model[key]:
            yield f"{place}: family '{model['family']}' needs the key '{key}'"
    for key, default in FAMILY_KEYS.items():
        if given.get(key, default) != default and key not in (*kind.needs, *kind.takes):
            yield f"{place}.{key}: means nothing for family '{model['family']}'"
    if kind.conditioned_on == "labels":
        for word in model["conditionings"]:
            if word not in LABEL_CONDITIONINGS:
                yield f"{place}.conditionings: a class-conditional model takes no '{word}'; allowed: uncond, label"
        if given.get("embeddings"):
            yield f"{place}.embeddings: means nothing for a class-conditional model"
    if kind.reads == "texts":
        for word in model["conditionings"]:
            if word not in TEXTS_OF_IMAGES:
                yield (
                    f"{place}.conditionings: a language model reads no '{word}'; allowed: {', '.join(TEXTS_OF_IMAGES)}"
                )
    tokens = model["class_tokens"]
    if tokens is not None and tokens not in models:
        yield f"{place}.class_tokens: {names.unknown('model', tokens, models)}"
    elif tokens is not None and models[tokens]["latents"]:
        yield f"{place}.class_tokens: '{tokens}' reads latents; expected a model that gives one vector an image"


def _takes_latent(model: Mapping[str, Any]) -> bool:
    if model["features"]:
        return False
    try:
        layers = names.expand_layers(model["layers"])
        return "latent" in names.take_layers(model["take"], layers, "")
    except UnknownName:
        # reported where that model is checked
        return True


def _model(name: str, entry: Mapping[str, Any], seed: int) -> Model:
    every = names.expand_layers(entry["layers"])
    weights = entry.get("weights")
    return Model(
        name=name,
        family=entry["family"],
        weights=Weights("precomputed")
        if weights is None
        else Weights(
            weights["from"],
            weights["hub"],
            weights["revision"],
            tuple(weights["files"]),
            weights["folder"],
            weights["path"],
            weights["package"],
        ),
        layers=names.take_layers(entry["take"], every, name),
        default_layer=names.resolve_layer(entry["default_layer"], every, name),
        input=None
        if entry["input"] is None
        else ImageInput(
            entry["input"]["size"],
            entry["input"]["interpolation"],
            entry["input"]["antialias"],
            tuple(entry["input"]["mean"]),
            tuple(entry["input"]["std"]),
            entry["input"]["scaled"],
        ),
        latents=entry["latents"],
        noise=None if entry["noise"] is None else names.canonical_noise(entry["noise"]),
        conditionings=tuple(entry["conditionings"]),
        embeddings=entry["embeddings"],
        posterior=entry["posterior"],
        latent_statistics=entry["latent_statistics"],
        latents_from=None if entry["latents_from"] is None else LatentFiles(**entry["latents_from"]),
        seeding=entry["seeding"],
        seed=seed if entry["seed"] is None else entry["seed"],
        batch_size=entry["batch_size"],
        precision=entry["precision"],
        series=entry["series"],
        # a miniature of a model with an architecture overrides its widths
        miniature={**entry["architecture"], **entry["miniature"]} if entry["miniature"] else {},
        features=None if entry["features"] is None else FeatureFiles(**entry["features"]),
        **{key: entry[key] for key in FAMILY_KEYS},
    )


_PREPARATION_KEYS = tuple(each.name for each in fields(Preparation))


def _alignment(entry: Mapping[str, Any]) -> Alignment:
    parity = entry["parity"]
    asked = Preparation(**{key: entry[key] for key in _PREPARATION_KEYS})
    return Alignment(
        metrics=tuple(entry["metrics"]),
        k=entry["k"],
        k_max=entry["k_max"],
        eps=PARITY_EPS if parity else entry["eps"],
        rbf_sigma=entry["rbf_sigma"],
        preparation=PARITY[parity] if parity else asked,
        permutations=entry["permutations"],
        alpha=entry["alpha"],
        split_selection=entry["split_selection"],
        shards=entry["shards"],
    )


def _alignment_mistakes(alignment: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Numbers that contradict each other, and options that a parity sets."""
    if alignment["k"] > alignment["k_max"]:
        yield f"alignment.k: {alignment['k']} is more than the lists hold (alignment.k_max = {alignment['k_max']})"
    if alignment["parity"]:
        for key in (*_PREPARATION_KEYS, "eps"):
            # what config.yaml spells out as the default asks for nothing
            if given.get(key) and given[key] not in ("exact", "layer"):
                yield f"alignment.{key}: is set by parity '{alignment['parity']}'; give one of the two"
    elif alignment["clamp"] is None:
        for key, default in (("clamp_rule", "exact"), ("clamp_over", "layer")):
            if alignment[key] != default:
                yield f"alignment.{key}: means nothing without alignment.clamp"
    try:
        check_draws(alignment["permutations"], alignment["alpha"])
    except ValueError as error:
        yield f"alignment.permutations: {error}"


def _semantic_equivariance(entry: Mapping[str, Any]) -> SemanticEquivariance:
    asked = tuple(entry["conditions"])
    return SemanticEquivariance(
        conditions=separate_transforms(asked) if entry["mean_over"] == "transforms" else asked,
        reference=entry["reference"],
        mean_over=entry["mean_over"],
        pairs=tuple(entry["pairs"]),
    )


# keys of a data set that say nothing of how its images are made
_NOT_OF_IMAGES = ("texts", "words", "concepts", "dimensions", "triplets", "similarities")


def _things(entry: Mapping[str, Any]) -> Things:
    dimensions = entry["dimensions"]
    return Things(
        SourceFile(**entry["concepts"]),
        None if dimensions is None else SourceFile(**dimensions),
        {word: TripletFile(**file) for word, file in entry["triplets"].items()},
        None if entry["similarities"] is None else SimilarityFile(**entry["similarities"]),
    )


def _of_grid(grid: Mapping[str, Any]) -> list[str]:
    """The names of every model of a grid at every noise level under every conditioning."""
    axes = [grid["models"], grid["noise"], grid["conditionings"]]
    return ["-".join(parts) for parts in itertools.product(*(axis for axis in axes if axis))]


def _human(entry: Mapping[str, Any], study: Mapping[str, Any]) -> Human:
    settings = {key: value for key, value in entry.items() if key != "grid"}
    listed = [*study["models"], *study["against"]] if entry["models"] == "all" else entry["models"]
    asked = [*listed, *(name for grid in entry["grid"] for name in _of_grid(grid))]
    lists = {key: tuple(entry[key]) for key in ("datasets", "baselines", "analyses")}
    combined = {
        name: Combined(tuple(each["of"]), each["transform"], tuple(each["keys"]))
        for name, each in entry["combined"].items()
    }
    reduced = entry["reduction"]
    reduction = Reduction(
        tuple(reduced["of"]), tuple(reduced["poolings"]), tuple(reduced["components"]), reduced["triplets"]
    )
    return Human(**{**settings, **lists, "models": tuple(asked), "combined": combined, "reduction": reduction})


def _study(config: Mapping[str, Any]) -> Study:
    study, alignment, compute = config["study"], config["alignment"], config["compute"]
    semantic = _semantic_equivariance(config["se_cknna"])
    if study["pairs"] != "all":
        pairs = tuple((a, b) for a, b in study["pairs"])
    elif study["against"]:
        pairs = tuple(itertools.product(study["models"], study["against"]))
    else:
        pairs = tuple(itertools.combinations(study["models"], 2))
    return Study(
        seed=config["seed"],
        default_dataset=config["defaults"]["dataset"],
        default_condition=config["defaults"]["condition"],
        datasets={
            name: Dataset(**{key: value for key, value in entry.items() if key not in _NOT_OF_IMAGES})
            for name, entry in config["datasets"].items()
        },
        texts={name: Texts(entry["texts"], entry["words"]) for name, entry in config["datasets"].items()},
        things={name: _things(entry) for name, entry in config["datasets"].items() if entry["kind"] == "things"},
        # clean stands beside the mean of the others
        conditions=tuple(dict.fromkeys([*config["conditions"], CLEAN, *semantic.conditions])),
        transforms=Transforms(
            config["transforms"]["seeding"],
            config["seed"] if config["transforms"]["seed"] is None else config["transforms"]["seed"],
        ),
        models={name: _model(name, entry, config["seed"]) for name, entry in config["models"].items()},
        study_datasets=tuple(study["datasets"]),
        study_conditions=tuple(study["conditions"]),
        pairs=pairs,
        scores=tuple(study["scores"]),
        alignment=_alignment(alignment),
        se_cknna=semantic,
        human=_human(config["human"], config["study"]),
        latent_shards=config["latents"]["shards"],
        extraction_shards=config["extraction"]["shards"],
        compute=Compute(**compute),
    )
