"""Checks of entries of models: keys that a family does not read, what it needs, and names of other models."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from diffalign import names
from diffalign.config.models import FeatureFilesEntry, ModelEntry, WeightsEntry
from diffalign.config.step_files import StepError, mistake_in
from diffalign.names import UnknownName
from diffalign.offenders import first_five
from diffalign.provenance import file_of
from diffalign.randomness import PUBLISHED_SEED
from diffalign.specs import LABEL_CONDITIONINGS, PLACEHOLDERS, STATISTICS_FROM, TEXTS_OF_IMAGES

if TYPE_CHECKING:
    from diffalign.models import Family


def family_keys(families: Mapping[str, Family]) -> list[str]:
    """The keys of an entry that only some families know, as these declare them."""
    declared = {key for kind in families.values() for key in (*kind.needs, *kind.takes)}
    return [key for key in ModelEntry.model_fields if key in declared]


def leaves_layers_to_no_family(entry: Any, families: Mapping[str, Family]) -> bool:
    """Whether an entry leaves out layers, which its family might know, and there is no such family."""
    if not isinstance(entry, dict) or "family" not in entry or str(entry["family"]) in families:
        return False
    return not {"layers", "default_layer"} <= set(entry)


def lacks_decoder(entry: ModelEntry, entries: Mapping[str, ModelEntry], families: Mapping[str, Family]) -> str:
    """The family of the autoencoder that makes the latents of a model, where that family has no decoder; else empty,
    also where the autoencoder or its family is unknown, which is reported where the entry is checked.
    """
    autoencoder = entries.get(str(entry.latents))
    family = families.get(autoencoder.family) if autoencoder is not None else None
    return "" if autoencoder is None or family is None or family.decodes else autoencoder.family


def check(
    name: str,
    entry: ModelEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    datasets: Collection[str],
    refused: Collection[str] = (),
) -> Iterator[str]:
    """Mistakes that one key does not show: keys that a family does not read, and names of other models.

    entries: of all models that were read. datasets: keys of all data sets. refused: keys of this entry that were
    reported already, so that none of them is said to be missing.
    """
    place = f"models.{name}"
    if entry.family not in families:
        yield f"{place}.family: {names.unknown('family', entry.family, families)}"
    else:
        yield from _input_mistakes(place, entry, entries, families, refused)
        yield from _family_mistakes(place, entry, entries, families, refused)
    yield from _weights_mistakes(place, entry)
    yield from _dataset_mistakes(place, entry.weights, datasets)
    yield from _feature_mistakes(place, entry.features)
    yield from _variant_mistakes(place, entry)
    yield from _layer_mistakes(place, name, entry)
    yield from _leak_mistakes(place, name, entry, entries)
    yield from _seeding_mistakes(place, entry, entries)


def _seeding_mistakes(place: str, entry: ModelEntry, entries: Mapping[str, ModelEntry]) -> Iterator[str]:
    """A published rule of seeding that is followed by half: with another seed, or with another latent."""
    if entry.seeding != "published":
        return
    if entry.seed not in (None, PUBLISHED_SEED):
        yield f"{place}.seed: {entry.seed} is not the seed of the published rule of seeding, {PUBLISHED_SEED}"
    autoencoder = entries.get(entry.latents or "")
    if autoencoder and (autoencoder.posterior, autoencoder.seeding) != ("sample", "published"):
        yield (
            f"{place}.seeding: 'published' draws the sample of the posterior before the noise, so "
            f"models.{entry.latents} needs posterior: sample and seeding: published"
        )


def _leak_mistakes(place: str, name: str, entry: ModelEntry, entries: Mapping[str, ModelEntry]) -> Iterator[str]:
    for key in ("reads", "trained_towards"):
        for i, other in enumerate(getattr(entry, key)):
            if other not in entries:
                yield f"{place}.{key}[{i}]: {names.unknown('model', other, entries)}"
            elif other == name:
                yield f"{place}.{key}[{i}]: '{other}' is this model itself"


def _weights_mistakes(place: str, entry: ModelEntry) -> Iterator[str]:
    weights = entry.weights
    if weights is None:
        return
    needs = {
        "hub": ("hub", "a repository id such as owner/name"),
        "folder": ("folder", "a path"),
        "file": ("path", "a checkpoint's file"),
        "url": ("url", "an address such as https://host/path/last.pt"),
        "package": ("package", "the name that Python imports it by"),
    }
    key, what = needs.get(weights.source, ("source", ""))
    if not getattr(weights, key):
        yield f"{place}.weights: from '{weights.source}' needs the key '{key}', {what}"
    if weights.steps:
        yield from _step_mistakes(place, weights)
    if weights.source == "url" and weights.url and not file_of(weights.url):
        yield f"{place}.weights.url: '{weights.url}' names no file"
    if weights.sha256 is not None and weights.url is None:
        yield f"{place}.weights.sha256: is of a download, and there is no url"
    # a miniature stands in the place of what an entry says
    if weights.statistics is not None and weights.source != "miniature":
        yield from _statistics_mistakes(place, entry, weights)
    if weights.source == "miniature" and not entry.miniature:
        yield f"{place}.weights: from 'miniature' needs the key 'miniature' of the model, its widths"


def _statistics_mistakes(place: str, entry: ModelEntry, weights: WeightsEntry) -> Iterator[str]:
    """A file of statistics that no latents are normalised by, or that several checkpoints would have each its own."""
    key = f"{place}.weights.statistics"
    if weights.source not in STATISTICS_FROM:
        allowed = ", ".join(STATISTICS_FROM)
        yield f"{key}: no file lies beside weights from '{weights.source}'; from one of {allowed} it does"
    elif weights.source == "folder" and weights.steps:
        yield f"{key}: folders of several steps would have one each; name one file for all with from: file"
    elif entry.latents is None and "latent" not in entry.layers:
        yield f"{key}: means nothing for a model that neither reads latents nor gives any"
    elif entry.latents is None and entry.latents_from is not None:
        yield f"{key}: means nothing beside latents_from, whose folder has its own"
    elif entry.latents is None and entry.latent_statistics == "measured":
        yield f"{key}: means nothing under latent_statistics: measured"


def _dataset_mistakes(place: str, weights: WeightsEntry | None, datasets: Collection[str]) -> Iterator[str]:
    """A data set of weights that are not of latents, or that does not exist."""
    if weights is None or weights.dataset is None:
        return
    # a miniature stands in the place of what an entry says
    if weights.source not in ("latents", "miniature"):
        yield f"{place}.weights.dataset: means nothing for weights from '{weights.source}', but from latents"
    elif weights.dataset not in datasets:
        yield f"{place}.weights.dataset: {names.unknown('dataset', weights.dataset, datasets)}"


def _step_mistakes(place: str, weights: WeightsEntry) -> Iterator[str]:
    if weights.source not in ("folder", "file"):
        yield f"{place}.weights.steps: means nothing for weights from '{weights.source}', but from folder or file"
        return
    wrong = mistake_in(weights.stepped)
    if wrong:
        yield f"{place}.weights.{'folder' if weights.source == 'folder' else 'path'}: {wrong}"
        return
    try:
        weights.record()
    except StepError as error:
        yield f"{place}.weights.steps: {error}"


def _layer_mistakes(place: str, name: str, entry: ModelEntry) -> Iterator[str]:
    try:
        layers = names.expand_layers(entry.layers)
    except UnknownName as error:
        yield f"{place}.layers: {error}"
        return
    try:
        taken = names.take_layers(entry.take, layers, name)
    except UnknownName as error:
        yield f"{place}.take: {error}"
        taken = layers
    try:
        default = names.resolve_layer(entry.default_layer, layers, name)
    except UnknownName as error:
        yield f"{place}.default_layer: {error}"
    else:
        if default not in taken:
            yield f"{place}.default_layer: '{default}' is not among the layers that 'take' names"


_DRAWN = ("posterior", "latent_statistics", "latents_from", "seeding", "seed")


def _needed_and_idle(entry: ModelEntry, kind: Family) -> tuple[list[str], list[str]]:
    """Keys that a model needs, and those that mean nothing to it, by what its family reads."""
    reads = kind.reads
    if reads == "pixels":
        idle = ["latents", "noise", "conditionings", "embeddings", "features"]
        drawn = [key for key in _DRAWN if key != "seed" or entry.training is None]
        return ["input"], idle + (drawn if "latent" not in entry.layers else [])
    if reads == "texts":
        return ["conditionings"], ["input", "latents", "noise", "embeddings", "features", *_DRAWN]
    if reads == "latents":
        idle = ["input", "posterior", "latent_statistics", "latents_from", "features"]
        if kind.conditioned_on is None:
            return ["latents", "noise"], [*idle, "conditionings", "embeddings"]
        return ["latents", "noise", "conditionings"], idle
    idle = ["weights", "miniature", "precision", "input", "latents", "noise", "conditionings", "embeddings"]
    return ["features"], [*idle, *_DRAWN, "batch_size"]


def _input_mistakes(
    place: str,
    entry: ModelEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    refused: Collection[str],
) -> Iterator[str]:
    """Keys that a model needs or that mean nothing to it, and an autoencoder that is none."""
    kind = families[entry.family]
    source = None if entry.weights is None else entry.weights.source
    if source == "none" and kind.has_weights:
        yield f"{place}.weights: from 'none' means that nothing is learned; models of '{entry.family}' have weights"
    if source not in ("none", None) and not kind.has_weights:
        yield f"{place}.weights: nothing of family '{entry.family}' is learned; say {{from: none}}"
    if source == "latents" and not kind.fitted:
        known = ", ".join(name for name, family in families.items() if family.fitted)
        yield f"{place}.weights: from 'latents' is for families that are fitted to latents: {known}"
    if entry.input is not None and entry.input.interpolation == "nearest" and entry.input.antialias:
        yield f"{place}.input.antialias: interpolation 'nearest' averages over no pixels; say antialias: false"
    needed, idle = _needed_and_idle(entry, kind)
    for key in needed:
        if not getattr(entry, key) and key not in refused:
            yield f"{place}: family '{entry.family}' reads {kind.reads} and needs the key '{key}'"
    if entry.gpus is not None and entry.gpus > 1 and entry.device_map is None:
        yield f"{place}.gpus: {entry.gpus} GPUs are used only where device_map spreads the model over them"
    if entry.sees_centre and "latent" in entry.layers:
        yield f"{place}.input.crop: latents are of whole images; leave the key out for an autoencoder"
    for key in idle:
        if key in entry.model_fields_set and getattr(entry, key):
            yield f"{place}.{key}: means nothing for this model of family '{entry.family}', which reads {kind.reads}"
    if entry.latents and entry.latents not in entries:
        yield f"{place}.latents: {names.unknown('model', entry.latents, entries)}"
    elif entry.latents and not _takes_latent(entries[entry.latents]):
        yield f"{place}.latents: '{entry.latents}' has, or takes, no layer 'latent', so it is no autoencoder"


def _family_mistakes(
    place: str,
    entry: ModelEntry,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    refused: Collection[str],
) -> Iterator[str]:
    """Keys that only some families know, and the conditionings of a model."""
    kind = families[entry.family]
    for key in kind.needs:
        if not getattr(entry, key) and key not in refused:
            yield f"{place}: family '{entry.family}' needs the key '{key}'"
    # a training begins from an architecture, also where checkpoints hold a configuration
    of_training = ("architecture",) if entry.training is not None else ()
    for key in family_keys(families):
        is_given = key in entry.model_fields_set and getattr(entry, key) != ModelEntry.model_fields[key].default
        if is_given and key not in (*kind.needs, *kind.takes, *of_training):
            yield f"{place}.{key}: means nothing for family '{entry.family}'"
    if kind.conditioned_on == "labels":
        for word in entry.conditionings:
            if word not in LABEL_CONDITIONINGS:
                yield f"{place}.conditionings: a class-conditional model takes no '{word}'; allowed: uncond, label"
        if entry.embeddings:
            yield f"{place}.embeddings: means nothing for a class-conditional model"
    if kind.reads == "texts":
        allowed = ", ".join(TEXTS_OF_IMAGES)
        for word in entry.conditionings:
            if word not in TEXTS_OF_IMAGES:
                yield f"{place}.conditionings: a language model reads no '{word}'; allowed: {allowed}"
        yield from _hidden_states(place, entry)
    tokens = entry.class_tokens
    if tokens is not None and tokens not in entries:
        yield f"{place}.class_tokens: {names.unknown('model', tokens, entries)}"
    elif tokens is not None and entries[tokens].latents:
        yield f"{place}.class_tokens: '{tokens}' reads latents; expected a model that gives one vector an image"


def _hidden_states(place: str, entry: ModelEntry) -> Iterator[str]:
    """Layers of a language model that are no numbers of hidden states."""
    try:
        layers = names.expand_layers(entry.layers)
    except UnknownName:
        # reported where layers are checked
        return
    other = [f"{alias}: {path}" for alias, path in layers.items() if not re.fullmatch("0|[1-9][0-9]*", path)]
    if other:
        yield (
            f"{place}.layers: layers of a language model are numbers of its hidden states, 0 for the embeddings, not "
            f"{first_five(other)}"
        )


def _feature_mistakes(place: str, features: FeatureFilesEntry | None) -> Iterator[str]:
    """Files of features that lie nowhere or in two places, and keys of a download."""
    if features is None:
        return
    if (features.path is None) == (features.url is None):
        yield f"{place}.features: needs one of 'path' and 'url'"
    if features.sha256 is not None and features.url is None:
        yield f"{place}.features.sha256: is of a download, and there is no url"
    if features.url is not None and not file_of(features.url):
        yield f"{place}.features.url: '{features.url}' names no file"
    if "{" in (features.url or ""):
        if features.sha256 is not None:
            yield f"{place}.features.sha256: is of one file, and the url is of several"
        if "{" in urlsplit(str(features.url))._replace(path="").geturl():
            yield f"{place}.features.url: placeholders stand in the path of an address, not in '{features.url}'"
    if features.bits_per_byte and features.layout != "platonic":
        yield f"{place}.features.bits_per_byte: only files of layout platonic have it, not of '{features.layout}'"


def _variant_mistakes(place: str, entry: ModelEntry) -> Iterator[str]:
    """Placeholders of paths, noise levels, and words that names could not hold."""
    for key, source, allowed in (
        ("features", entry.features, PLACEHOLDERS),
        ("latents_from", entry.latents_from, PLACEHOLDERS[:2]),
    ):
        for part in ("path", "names", "url"):
            for word in re.findall(r"\{([^{}]*)\}", getattr(source, part, None) or ""):
                if word not in allowed:
                    yield f"{place}.{key}.{part}: {names.unknown('placeholder', word, allowed)}"
    if entry.noise:
        try:
            names.canonical_noise(entry.noise)
        except UnknownName as error:
            yield f"{place}.noise: {error}"
    if entry.conditionings[:1] == (names.TEXT,):
        yield f"{place}.conditionings: '{names.TEXT}' reads no image, so it is no default and cannot stand first"
    for word in entry.embeddings:
        if names.is_variant_word(word):
            yield f"{place}.embeddings: '{word}' means something else in names; choose another word"


def _takes_latent(entry: ModelEntry) -> bool:
    if entry.features:
        return False
    try:
        return "latent" in names.take_layers(entry.take, names.expand_layers(entry.layers), "")
    except UnknownName:
        # reported where that model is checked
        return True
