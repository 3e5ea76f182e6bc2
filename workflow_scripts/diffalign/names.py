"""The grammar of names: the one module that takes representation names apart and puts them together.

    model[-noise][-conditioning][_layer]        dinov2   dinov2_b5   sd3_b8   sd3-t0.5_b8   sd3-s20_b8

A *typed* name may leave defaults out. A *bundle* (model and variant, without a layer) is canonical: the
noise level is always spelled, without trailing zeros, and the default conditioning never is. Files of
features and neighbours are named by bundles, so nothing is extracted twice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LAYER = r"[a-z0-9.]+"
SEPARATOR = "_vs_"
_LEVEL = r"t(?:0(?:\.[0-9]+)?|1(?:\.0+)?)|s(?:[1-9][0-9]?|100)"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class UnknownName(ValueError):
    """A name that the study does not know; the message offers the nearest one it does."""


@dataclass(frozen=True)
class Vocabulary:
    """What may follow a model's name.

    layers: aliases in order of depth. default_layer: one of them. noise: the default noise level
    (``t0.5``), or None for a model without a noise axis. conditionings: allowed words, the first is
    the default; empty for a model that takes no conditioning.
    """

    layers: tuple[str, ...]
    default_layer: str
    noise: str | None = None
    conditionings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Representation:
    """One representation with every default filled in; layer is None where all layers are meant."""

    model: str
    noise: str | None
    conditioning: str | None
    layer: str | None

    def bundle(self, vocabulary: Vocabulary) -> str:
        """The canonical name of model and variant, as it stands in file names."""
        parts = [self.model]
        if self.noise is not None:
            parts.append(self.noise)
        if vocabulary.conditionings and self.conditioning != vocabulary.conditionings[0]:
            parts.append(str(self.conditioning))
        return "-".join(parts)


def nearest(word: object, allowed: Iterable[str]) -> str:
    """``; did you mean 'cknna'?`` or, where nothing is near, the list of allowed words."""
    words = [str(a) for a in allowed]
    near = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; allowed: {', '.join(words)}" if words else ""


def unknown(what: str, word: object, allowed: Iterable[str]) -> UnknownName:
    """The error for an unknown word, in the one form that all of them take."""
    return UnknownName(f"unknown {what} '{word}'{nearest(word, allowed)}")


def canonical_noise(text: str) -> str:
    """``t0.50`` -> ``t0.5``, ``s20`` -> ``s20``.

    ``t`` is the noise level σ/(α + σ) in [0, 1]; ``s`` is a published img2img strength in per cent, 1 to 100.
    Raises UnknownName for anything else.
    """
    if not re.fullmatch(_LEVEL, text):
        raise UnknownName(
            f"'{text}' is no noise level: write t and a number in [0, 1] (t0.5), or s and a strength in per cent (s20)"
        )
    return f"t{float(text[1:]):.12f}".rstrip("0").rstrip(".") if text[0] == "t" else text


def parse_representation(text: str, catalogue: Mapping[str, Vocabulary]) -> Representation:
    """Take a typed name apart; the layer is None if the name has none.

    Raises UnknownName, with the nearest known word, for an unknown model, variant or layer.
    """
    head, underscore, layer = text.partition("_")
    model, *variant = head.split("-")
    if model not in catalogue:
        raise unknown("model", model, catalogue)
    vocabulary = catalogue[model]
    noise: str | None = None
    conditioning: str | None = None
    for part in variant:
        if re.fullmatch(r"[ts][0-9.]+", part):
            if vocabulary.noise is None:
                raise UnknownName(f"'{text}': {model} has no noise level, so '-{part}' means nothing")
            if noise is not None:
                raise UnknownName(f"'{text}' gives two noise levels, '{noise}' and '{part}'")
            if conditioning is not None:
                raise UnknownName(f"'{text}': the noise level stands before the conditioning, '-{part}-{conditioning}'")
            noise = canonical_noise(part)
        elif part in vocabulary.conditionings:
            if conditioning is not None:
                raise UnknownName(f"'{text}' gives two conditionings, '{conditioning}' and '{part}'")
            conditioning = part
        elif vocabulary.conditionings:
            raise UnknownName(f"'{text}': {model} has no variant '{part}'{nearest(part, vocabulary.conditionings)}")
        else:
            raise UnknownName(f"'{text}': {model} has no variants, so '-{part}' means nothing")
    if underscore and layer not in vocabulary.layers:
        raise UnknownName(f"{model} has no layer '{layer}'; it has {listed_layers(vocabulary.layers)}")
    return Representation(
        model,
        noise if noise is not None else vocabulary.noise,
        conditioning if conditioning is not None else next(iter(vocabulary.conditionings), None),
        layer if underscore else None,
    )


def parse_pair(text: str, catalogue: Mapping[str, Vocabulary]) -> tuple[Representation, Representation]:
    """Take ``{a}_vs_{b}`` apart. Raises UnknownName as `parse_representation` does."""
    a, separator, b = text.partition(SEPARATOR)
    if not separator:
        raise UnknownName(f"'{text}' is no pair: write a_vs_b, for example dinov2_vs_sd3_b8")
    return parse_representation(a, catalogue), parse_representation(b, catalogue)


def print_pair(a: str, b: str) -> str:
    """``a_vs_b``, the name of a pair of typed names or bundles."""
    return f"{a}{SEPARATOR}{b}"


def bundle_pattern(model: str, vocabulary: Vocabulary) -> str:
    """Regular expression of the canonical bundles of one model, for wildcard constraints."""
    noise = r"-(?:t0(?:\.[0-9]*[1-9])?|t1|s[1-9][0-9]?|s100)" if vocabulary.noise else ""
    return re.escape(model) + noise + _alternatives(vocabulary.conditionings[1:])


def typed_pattern(model: str, vocabulary: Vocabulary) -> str:
    """Regular expression of the typed names of one model, without a layer."""
    noise = f"(?:-(?:{_LEVEL}))?" if vocabulary.noise else ""
    return re.escape(model) + noise + _alternatives(vocabulary.conditionings)


def any_of(words: Iterable[str]) -> str:
    """Regular expression that matches exactly these words, longest first."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w))) + ")"


def _alternatives(words: tuple[str, ...]) -> str:
    return f"(?:-{any_of(words)})?" if words else ""


def expand_layers(layers: Mapping[str, str]) -> dict[str, str]:
    """``{"b{0..2}": "blocks.{}"}`` -> ``{"b0": "blocks.0", "b1": "blocks.1", "b2": "blocks.2"}``, order kept.

    Raises UnknownName for an alias outside [a-z0-9.], an empty range, a range whose path lacks ``{}``; a repetition.
    """
    expanded: dict[str, str] = {}
    origin: dict[str, str] = {}
    for alias, path in layers.items():
        match = _RANGE.search(alias)
        if match is None:
            entries = {alias: path}
        else:
            first, last = int(match[1]), int(match[2])
            if first > last:
                raise UnknownName(f"layer range '{alias}' is empty")
            if "{}" not in path:
                raise UnknownName(f"layer range '{alias}' needs {{}} in its module path, got '{path}'")
            entries = {alias.replace(match[0], str(i)): path.replace("{}", str(i)) for i in range(first, last + 1)}
        for name, target in entries.items():
            if not re.fullmatch(LAYER, name):
                raise UnknownName(f"layer alias '{name}' may hold only a-z, 0-9 and '.'")
            if name in expanded:
                raise UnknownName(
                    f"layer alias '{name}' is given twice, by '{origin[name]}' and by '{alias}' "
                    "(files are merged: to extract fewer layers, use 'take')"
                )
            expanded[name] = target
            origin[name] = alias
    return expanded


def resolve_layer(request: int | str, layers: Mapping[str, str], model: str) -> str:
    """The alias of a layer asked for by number (blocks ``b0``…, negative from the end), alias or module path.

    Raises UnknownName that lists what exists.
    """
    blocks = [alias for alias in layers if re.fullmatch(r"b[0-9]+", alias)]
    if isinstance(request, int):
        if -len(blocks) <= request < len(blocks):
            return blocks[request]
    elif request in layers:
        return request
    else:
        by_path = {path: alias for alias, path in layers.items()}
        if request in by_path:
            return by_path[request]
    raise UnknownName(f"{model} has no layer '{request}'; it has {listed_layers(tuple(layers))}")


def take_layers(requests: Iterable[int | str] | None, layers: Mapping[str, str], model: str) -> dict[str, str]:
    """The requested ones of a model's layers, in order of depth; all of them for None. Raises UnknownName."""
    if requests is None:
        return dict(layers)
    taken = {resolve_layer(request, layers, model) for request in requests}
    return {alias: path for alias, path in layers.items() if alias in taken}


def listed_layers(layers: tuple[str, ...]) -> str:
    """``embed, b0 … b23, final``: runs of numbered layers are shortened."""
    runs: list[list[str]] = []
    for layer in layers:
        stem, number = _numbered(layer)
        if runs and number is not None:
            last_stem, last_number = _numbered(runs[-1][-1])
            if last_stem == stem and last_number == number - 1:
                runs[-1].append(layer)
                continue
        runs.append([layer])
    return ", ".join(f"{run[0]} … {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def _numbered(layer: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*?)([0-9]+)", layer)
    return (match[1], int(match[2])) if match else (layer, None)
