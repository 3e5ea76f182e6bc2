"""The grammar of names: the one module that takes representation names apart and puts them together.

    model[-noise][-conditioning][-cosine][-shared][-drawsN][-untrained][-last][_layer]

    dinov2   dinov2_b5   sd3_b8   sd3-t0.5_b8   sd3-s20-label_b8   sd3-t0.5-caption-shared-draws4_b8
    dinov2-untrained_b5   minilm-description-last_h6

    model-textlast-conditioning[-untrained]      a text encoder's last token, without an image: sd1-textlast-caption
    model-embedding                              an embedding that was given, alone: sd1-optim; as the prompt:
    sd1-s20-optim

A *typed* name may leave defaults out. A *bundle* (model and variant, without a layer) is canonical: the
noise level is always spelled, without trailing zeros, and the default conditioning never is. Files of
features and neighbours are named by bundles, so nothing is extracted twice. Representations of text or of a given
embedding alone have no noise level, and `text` is their only layer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LAYER = r"[a-z0-9.]+"
SEPARATOR = "_vs_"
# what alone stands for a representation without an image, and its only layer
TEXT = "textlast"
TEXT_LAYERS = ("text",)
CONDITIONINGS = ("uncond", "label", "caption", "description", "caption2", TEXT)
# in the order in which they stand in names; draws is followed by a number
OPTIONS = ("cosine", "shared", "draws", "untrained", "last")
# of a language model: its last token in place of the mean over tokens
LAST = "last"
_DRAWS = r"draws(?:[2-9]|[1-9][0-9])"
_AS_PROMPT = "as the prompt it follows a noise level"
_LEVEL = r"t(?:0(?:\.[0-9]+)?|1(?:\.0+)?)|s(?:[1-9][0-9]?|100)"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class UnknownName(ValueError):
    """A name that the study does not know; the message offers the nearest one it does."""


@dataclass(frozen=True)
class Vocabulary:
    """What may follow a model's name.

    layers: aliases in order of depth. default_layer: one of them. noise: the default noise level
    (``t0.5``), or None for a model without a noise axis. conditionings: allowed words, the first is
    the default; empty for a model that takes no conditioning. texts: those of them that may follow
    ``textlast``. embeddings: words of given embeddings. options: those of OPTIONS that the model takes.
    """

    layers: tuple[str, ...]
    default_layer: str
    noise: str | None = None
    conditionings: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Every word of a variant but noise levels."""
        text = (TEXT,) if self.texts else ()
        return (*self.conditionings, *self.embeddings, *text, *(o if o != "draws" else "draws4" for o in self.options))


@dataclass(frozen=True)
class Representation:
    """One representation with every default filled in; layer is None where all layers are meant.

    text: whether it is of a text or a given embedding alone; noise is None then. options: canonical, ``draws`` with
    its number.
    """

    model: str
    noise: str | None
    conditioning: str | None
    layer: str | None
    text: bool = False
    options: tuple[str, ...] = ()

    @property
    def draws(self) -> int:
        """How many draws of noise are averaged."""
        return next((int(option.removeprefix("draws")) for option in self.options if option.startswith("draws")), 1)

    def bundle(self, vocabulary: Vocabulary) -> str:
        """The canonical name of model and variant, as it stands in file names."""
        parts = [self.model]
        if self.noise is not None:
            parts.append(self.noise)
        if self.text and self.conditioning not in vocabulary.embeddings:
            parts.append(TEXT)
        if self.conditioning is not None and (self.text or self.conditioning != vocabulary.conditionings[0]):
            parts.append(self.conditioning)
        return "-".join([*parts, *self.options])

    def layers(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """Its layers in order of depth."""
        return TEXT_LAYERS if self.text else vocabulary.layers

    def default_layer(self, vocabulary: Vocabulary) -> str:
        """The layer that its name means where none is given."""
        return TEXT_LAYERS[0] if self.text else vocabulary.default_layer


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
    parts = _sorted_variant(text, model, variant, vocabulary)
    noise, conditioning = parts.get("noise level"), parts.get("conditioning")
    options = tuple(parts[option] for option in OPTIONS if option in parts)
    alone = TEXT in parts or (conditioning in vocabulary.embeddings and noise is None)
    if alone:
        _check_alone(text, parts, vocabulary)
    representation = Representation(
        model,
        None if alone else vocabulary.noise if noise is None else canonical_noise(noise),
        conditioning if conditioning is not None else next(iter(vocabulary.conditionings), None),
        layer if underscore else None,
        alone,
        options,
    )
    layers = representation.layers(vocabulary)
    if underscore and layer not in layers:
        hint = f"; {_AS_PROMPT}" if alone and TEXT not in parts else ""
        raise UnknownName(f"{head if alone else model} has no layer '{layer}'; it has {listed_layers(layers)}{hint}")
    return representation


def model_word(text: str) -> str:
    """The model that a name or bundle begins with, whether there is such a model or not."""
    return re.split("[-_]", text)[0]


def _sorted_variant(text: str, model: str, variant: Sequence[str], vocabulary: Vocabulary) -> dict[str, str]:
    """Kind of part -> part. Raises UnknownName for an unknown part, two of one kind, and another order than theirs."""
    kinds = ("noise level", TEXT, "conditioning", *OPTIONS)
    parts: dict[str, str] = {}
    for part in variant:
        kind = _kind(text, model, part, vocabulary)
        if kind in parts:
            raise UnknownName(f"'{text}' gives two {kind}s, '{parts[kind]}' and '{part}'")
        parts[kind] = part
    ordered = [kind for kind in kinds if kind in parts]
    if ordered != list(parts):
        right = "-".join(parts[kind] for kind in ordered)
        raise UnknownName(f"'{text}': parts of a variant stand in the order '-{right}'")
    return parts


def _kind(text: str, model: str, part: str, vocabulary: Vocabulary) -> str:
    """What a part of a variant is: a noise level, textlast, a conditioning or one of OPTIONS."""
    if re.fullmatch(r"[ts][0-9.]+", part):
        if vocabulary.noise is None:
            raise UnknownName(f"'{text}': {model} has no noise level, so '-{part}' means nothing")
        canonical_noise(part)
        return "noise level"
    if part in vocabulary.conditionings or part in vocabulary.embeddings:
        return "conditioning"
    if part == TEXT and vocabulary.texts:
        return TEXT
    if re.fullmatch(r"draws[0-9]+", part) and "draws" in vocabulary.options:
        if not re.fullmatch(_DRAWS, part):
            raise UnknownName(f"'{text}': '{part}' is no number of draws; write draws2 to draws99")
        return "draws"
    if part in vocabulary.options and part != "draws":
        return part
    if vocabulary.words:
        raise UnknownName(f"'{text}': {model} has no variant '{part}'{nearest(part, vocabulary.words)}")
    raise UnknownName(f"'{text}': {model} has no variants, so '-{part}' means nothing")


def _check_alone(text: str, parts: Mapping[str, str], vocabulary: Vocabulary) -> None:
    """Raise UnknownName where a representation without an image is given what only one with an image has."""
    if TEXT not in parts:
        for option in OPTIONS:
            if option in parts:
                raise UnknownName(f"'{text}': an embedding alone takes no '-{parts[option]}'; {_AS_PROMPT}")
        return
    if "noise level" in parts:
        raise UnknownName(f"'{text}': {TEXT} reads no image, so '-{parts['noise level']}' means nothing")
    if parts.get("conditioning") not in vocabulary.texts:
        raise UnknownName(f"'{text}': {TEXT} is followed by what is read: {', '.join(vocabulary.texts)}")
    for option in OPTIONS:
        if option in parts and option != "untrained":
            raise UnknownName(f"'{text}': {TEXT} reads no image, so '-{parts[option]}' means nothing")


def is_variant_word(word: str) -> bool:
    """Whether a word has a meaning of its own in variants, so that no given embedding may be called by it."""
    return word in (*CONDITIONINGS, *OPTIONS) or re.fullmatch(r"draws[0-9]+|[ts][0-9.]+", word) is not None


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
    """Regular expression of the canonical bundles of one model that see images, for wildcard constraints."""
    noise = r"-(?:t0(?:\.[0-9]*[1-9])?|t1|s[1-9][0-9]?|s100)" if vocabulary.noise else ""
    conditioning = _alternatives((*vocabulary.conditionings[1:], *vocabulary.embeddings))
    return re.escape(model) + noise + conditioning + _options(vocabulary.options)


def text_pattern(model: str, vocabulary: Vocabulary) -> str:
    """Regular expression of the bundles of one model of text or of a given embedding alone; ``(?!)`` for none."""
    forms = []
    if vocabulary.texts:
        untrained = tuple(option for option in vocabulary.options if option == "untrained")
        forms.append(f"{TEXT}-{any_of(vocabulary.texts)}{_options(untrained)}")
    if vocabulary.embeddings:
        forms.append(any_of(vocabulary.embeddings))
    return f"{re.escape(model)}-(?:{'|'.join(forms)})" if forms else "(?!)"


def name_pattern(models: Iterable[str], layer: bool = False) -> str:
    """Regular expression of names that begin with one of these models, for wildcard constraints.

    It stands in the pattern of nearly every file, so it leaves the rest of a name to `parse_representation`.
    """
    return any_of(models) + r"(?:-[a-z0-9.]+)*" + (f"(?:_{LAYER})?" if layer else "")


def _options(options: Iterable[str]) -> str:
    allowed = set(options)
    patterns = {option: _DRAWS if option == "draws" else option for option in OPTIONS}
    return "".join(f"(?:-{pattern})?" for option, pattern in patterns.items() if option in allowed)


def any_of(words: Iterable[str]) -> str:
    """Regular expression that matches exactly these words, longest first."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w))) + ")"


def any_path(patterns: Iterable[str]) -> str:
    """Regular expression of what one of these matches: patterns of paths whose last slash is before their file. Files
    and folders that many share stand in it once, so that it is compiled in no time.
    """
    by_folder: dict[str, dict[str, None]] = {}
    for pattern in patterns:
        folder, _, file = pattern.rpartition("/")
        by_folder.setdefault(folder, {})[file] = None
    by_files: dict[str, list[str]] = {}
    for folder, files in by_folder.items():
        by_files.setdefault("|".join(files), []).append(folder)
    return "(?:" + "|".join(f"(?:{'|'.join(folders)})/(?:{files})" for files, folders in by_files.items()) + ")"


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
