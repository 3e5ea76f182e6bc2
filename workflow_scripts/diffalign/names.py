"""The grammar of representation names. No other module parses or builds them.

    model[@step][-noise][-conditioning][-cosine][-shared|-commonnoise][-drawsN|-redrawN][-untrained][-last]
         [_layer]

    dinov2   dinov2_b5   sd3_b8   sd3-t0.5_b8   sd3-s20-label_b8   sd3-t0.5-caption-shared-draws4_b8
    dinov2-untrained_b5   minilm-description-last_h6   digits.sit@300-t0.5_b3

    model-textlast-conditioning[-untrained]      last token of the text encoder, without an image: sd1-textlast-caption
    model-embedding                              a given embedding, without an image: sd1-optim; as a prompt:
                                                 sd1-s20-optim

A *typed* name may omit defaults. A *bundle* (model and variant, without a layer) is canonical: it always has the step,
of a model with several checkpoints, and the noise level, without trailing zeros, and never the default conditioning.
Files of features and neighbours are named by bundles, so nothing is extracted twice. Representations without an image
have no noise level and only the layer `text`. A *checkpoint* is a model, with its step where it has several:
``digits.sit@300``; a bare name means the last step.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LAYER = r"[a-z0-9.]+"
SEPARATOR = "_vs_"
# between the two pairs of a contrast
MINUS = "_minus_"
CONTRAST_FORM = "a_vs_b_minus_c_vs_d, for example sd3-t0.2_vs_dinov2_minus_sd3-t0.5_vs_dinov2"
# marks a representation without an image, and its only layer
TEXT = "textlast"
TEXT_LAYERS = ("text",)
CONDITIONINGS = ("uncond", "label", "caption", "description", "caption2", TEXT)
# in the order of names; those of NUMBERED are followed by a number
OPTIONS = ("cosine", "shared", "commonnoise", "draws", "redraw", "untrained", "last")
# options of which a name has one at most, and why
_EXCLUSIVE = {
    ("shared", "commonnoise"): "'-shared' is one noise for all images, '-commonnoise' one an image for all models",
    ("draws", "redraw"): "'-draws' is the mean over several draws of noise, '-redraw' another single one",
}
# the last token of a language model instead of the mean over tokens
LAST = "last"
# options with a number: pattern, example, and the numbers that there are
NUMBERED = {
    "draws": (r"draws(?:[2-9]|[1-9][0-9])", "draws4", "draws2 to draws99"),
    "redraw": (r"redraw[1-9][0-9]?", "redraw1", "redraw1 to redraw99"),
}
_AS_PROMPT = "as the prompt it follows a noise level"
_STEP = r"0|[1-9][0-9]*"
_LEVEL = r"t(?:0(?:\.[0-9]+)?|1(?:\.0+)?)|s(?:[1-9][0-9]?|100)"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class UnknownName(ValueError):
    """A name is unknown. The message offers the nearest known one."""


@dataclass(frozen=True)
class Vocabulary:
    """The variants and layers of a model.

    layers: aliases in order of depth. default_layer: one of them. noise: default noise level (``t0.5``); None for a
    model without noise levels. conditionings: allowed words, the first is the default; empty for a model without
    conditioning. texts: conditionings that may follow ``textlast``. embeddings: words of given embeddings. options:
    the subset of OPTIONS that the model has. steps: of its checkpoints, ascending; empty for a model with one.
    """

    layers: tuple[str, ...]
    default_layer: str
    noise: str | None = None
    conditionings: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All words of variants, without noise levels."""
        text = (TEXT,) if self.texts else ()
        options = (NUMBERED[option][1] if option in NUMBERED else option for option in self.options)
        return (*self.conditionings, *self.embeddings, *text, *options)


@dataclass(frozen=True)
class Representation:
    """A representation with all defaults filled in. layer: None means all layers.

    text: whether it is a text or a given embedding without an image; noise is None then. options: canonical words,
    ``draws`` and ``redraw`` with their number. step: of the checkpoint, None for a model with one and for an untrained
    twin.
    """

    model: str
    noise: str | None
    conditioning: str | None
    layer: str | None
    text: bool = False
    options: tuple[str, ...] = ()
    step: int | None = None

    @property
    def draws(self) -> int:
        """Number of noise draws that are averaged."""
        return self._number("draws", 1)

    @property
    def redraw(self) -> int:
        """Which draw of noise stands in the place of the first, which is 0."""
        return self._number("redraw", 0)

    def _number(self, option: str, without: int) -> int:
        numbers = (re.fullmatch(rf"{option}([0-9]+)", word) for word in self.options)
        return next((int(number[1]) for number in numbers if number), without)

    def bundle(self, vocabulary: Vocabulary) -> str:
        """The canonical name of model and variant, as in file names."""
        parts = [checkpoint_name(self.model, self.step)]
        if self.noise is not None:
            parts.append(self.noise)
        if self.text and self.conditioning not in vocabulary.embeddings:
            parts.append(TEXT)
        if self.conditioning is not None and (self.text or self.conditioning != vocabulary.conditionings[0]):
            parts.append(self.conditioning)
        return "-".join([*parts, *self.options])

    def layers(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The layers in order of depth."""
        return TEXT_LAYERS if self.text else vocabulary.layers

    def default_layer(self, vocabulary: Vocabulary) -> str:
        """The layer of a name without one."""
        return TEXT_LAYERS[0] if self.text else vocabulary.default_layer


def nearest(word: object, allowed: Iterable[str]) -> str:
    """``; did you mean 'cknna'?``, or the list of allowed words where none is similar."""
    return _nearest(str(word), tuple(str(a) for a in allowed))


@cache
def _nearest(word: str, words: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; allowed: {', '.join(words)}" if words else ""


def unknown(what: str, word: object, allowed: Iterable[str]) -> UnknownName:
    """The error for an unknown word. All such messages have this form."""
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
    """Parse a typed name. The layer is None if the name has none.

    Raises UnknownName, with the nearest known word, for an unknown model, variant or layer.
    """
    head, underscore, layer = text.partition("_")
    checkpoint, *variant = head.split("-")
    model, at, step = checkpoint.partition("@")
    if model not in catalogue:
        raise _unknown_model(text, model, catalogue)
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
        _step(text, model, step if at else None, parts, vocabulary),
    )
    layers = representation.layers(vocabulary)
    if underscore and layer not in layers:
        hint = f"; {_AS_PROMPT}" if alone and TEXT not in parts else ""
        raise UnknownName(f"{head if alone else model} has no layer '{layer}'; it has {listed_layers(layers)}{hint}")
    return representation


def _unknown_model(text: str, model: str, catalogue: Iterable[str]) -> UnknownName:
    """The error for a model that does not exist; of a text that no name could be, such as ViT-S, all of it."""
    if not re.search("[^a-z0-9.]", model):
        return unknown("model", model, catalogue)
    allowed = "names of models hold only a-z, 0-9 and '.'; '-' begins a variant, '_' a layer"
    return UnknownName(f"unknown model '{text}': {allowed}{nearest(text.lower(), catalogue)}")


def _step(text: str, model: str, step: str | None, parts: Mapping[str, str], vocabulary: Vocabulary) -> int | None:
    """The step that a name means, the last where it gives none. Raises UnknownName for one that does not exist."""
    fixed = "an untrained twin" if "untrained" in parts else None
    if parts.get("conditioning") in vocabulary.embeddings and "noise level" not in parts:
        fixed = "an embedding alone"
    if step is None:
        return None if fixed else next(reversed(vocabulary.steps), None)
    if not vocabulary.steps:
        raise UnknownName(f"'{text}': {model} has one checkpoint and no steps, so '@{step}' means nothing")
    if fixed:
        raise UnknownName(f"'{text}': {fixed} has no step, so '@{step}' means nothing")
    if not re.fullmatch(_STEP, step) or int(step) not in vocabulary.steps:
        raise UnknownName(f"{model} has no checkpoint of step '{step}'; it has {listed_steps(vocabulary.steps)}")
    return int(step)


def listed_steps(steps: Sequence[int]) -> str:
    """``0, 100, 300``: steps for a message; of many, the first, the last and how many there are."""
    if len(steps) <= 12:
        return ", ".join(map(str, steps))
    return f"{steps[0]}, {steps[1]}, {steps[2]} … {steps[-1]} ({len(steps)} steps)"


def checkpoint_name(model: str, step: int | None) -> str:
    """``digits.sit@300``, or the model alone where it has one checkpoint."""
    return model if step is None else f"{model}@{step}"


def split_checkpoint(text: str) -> tuple[str, str | None]:
    """The model and the step of ``digits.sit@300`` as they stand there; None without a step. Neither need exist."""
    model, at, step = text.partition("@")
    return model, step if at else None


def model_word(text: str) -> str:
    """The model of a name or bundle. It need not exist."""
    return re.split("[-_@]", text)[0]


def has_noise_level(text: str) -> bool:
    """Whether a typed name gives a noise level. It need not exist."""
    return any(re.fullmatch(_LEVEL, part) for part in text.partition("_")[0].split("-")[1:])


def _sorted_variant(text: str, model: str, variant: Sequence[str], vocabulary: Vocabulary) -> dict[str, str]:
    """Kind of part -> part. Raises UnknownName for an unknown part, two parts of one kind, and another order."""
    kinds = ("noise level", TEXT, "conditioning", *OPTIONS)
    parts: dict[str, str] = {}
    for part in variant:
        kind = _kind(text, model, part, vocabulary)
        if kind in parts:
            raise UnknownName(f"'{text}' gives two {kind}s, '{parts[kind]}' and '{part}'")
        parts[kind] = part
    ordered = [kind for kind in kinds if kind in parts]
    for both, why in _EXCLUSIVE.items():
        if set(both) <= set(parts):
            raise UnknownName(f"'{text}': {why}; give one")
    if ordered != list(parts):
        right = "-".join(parts[kind] for kind in ordered)
        raise UnknownName(f"'{text}': parts of a variant stand in the order '-{right}'")
    return parts


def _kind(text: str, model: str, part: str, vocabulary: Vocabulary) -> str:
    """The kind of a part of a variant: noise level, textlast, conditioning or one of OPTIONS."""
    if re.fullmatch(r"[ts][0-9.]+", part):
        if vocabulary.noise is None:
            raise UnknownName(f"'{text}': {model} has no noise level, so '-{part}' means nothing")
        canonical_noise(part)
        return "noise level"
    if part in vocabulary.conditionings or part in vocabulary.embeddings:
        return "conditioning"
    if part == TEXT and vocabulary.texts:
        return TEXT
    for option, (pattern, _, allowed) in NUMBERED.items():
        if re.fullmatch(rf"{option}[0-9]+", part) and option in vocabulary.options:
            if not re.fullmatch(pattern, part):
                raise UnknownName(f"'{text}': '{part}' is no number of {option}; write {allowed}")
            return option
    if part in vocabulary.options and part not in NUMBERED:
        return part
    if part == "untrained" and 0 in vocabulary.steps:
        raise UnknownName(f"'{text}': the untrained twin of {model} is its first checkpoint; write {model}@0")
    if vocabulary.words:
        raise UnknownName(f"'{text}': {model} has no variant '{part}'{nearest(part, vocabulary.words)}")
    raise UnknownName(f"'{text}': {model} has no variants, so '-{part}' means nothing")


def _check_alone(text: str, parts: Mapping[str, str], vocabulary: Vocabulary) -> None:
    """Raise UnknownName for parts that a representation without an image cannot have."""
    if TEXT not in parts:
        for option in OPTIONS:
            if option in parts:
                raise UnknownName(f"'{text}': an embedding alone takes no '-{parts[option]}'; {_AS_PROMPT}")
        return
    if "noise level" in parts:
        raise UnknownName(f"'{text}': {TEXT} reads no image, so '-{parts['noise level']}' means nothing")
    if parts.get("conditioning") not in vocabulary.texts:
        raise UnknownName(f"'{text}': {TEXT} is followed by a text: {', '.join(vocabulary.texts)}")
    for option in OPTIONS:
        if option in parts and option != "untrained":
            raise UnknownName(f"'{text}': {TEXT} reads no image, so '-{parts[option]}' means nothing")


def is_variant_word(word: str) -> bool:
    """Whether a word is reserved in variants, so that given embeddings cannot have it as a name."""
    return word in (*CONDITIONINGS, *OPTIONS) or re.fullmatch(r"(?:draws|redraw)[0-9]+|[ts][0-9.]+", word) is not None


def parse_pair(text: str, catalogue: Mapping[str, Vocabulary]) -> tuple[Representation, Representation]:
    """Parse ``{a}_vs_{b}``. Raises UnknownName as `parse_representation` does."""
    a, separator, b = text.partition(SEPARATOR)
    if not separator:
        raise UnknownName(f"'{text}' is no pair: write a_vs_b, for example dinov2_vs_sd3_b8")
    return parse_representation(a, catalogue), parse_representation(b, catalogue)


def print_pair(a: str, b: str) -> str:
    """``a_vs_b``, the name of a pair."""
    return f"{a}{SEPARATOR}{b}"


def split_contrast(text: str) -> tuple[str, str, str, str]:
    """The four names of ``{a}_vs_{b}_minus_{c}_vs_{d}`` as they stand there; none need exist.

    Raises UnknownName for another form.
    """
    pairs = [pair.split(SEPARATOR) for pair in text.split(MINUS)]
    if [len(pair) for pair in pairs] != [2, 2]:
        raise UnknownName(f"'{text}' is no contrast: write {CONTRAST_FORM}")
    (a, b), (c, d) = pairs
    return a, b, c, d


def print_contrast(a: str, b: str, c: str, d: str) -> str:
    """``a_vs_b_minus_c_vs_d``, the name of a contrast."""
    return f"{print_pair(a, b)}{MINUS}{print_pair(c, d)}"


def bundle_pattern(model: str, vocabulary: Vocabulary) -> str:
    """Regular expression of the canonical bundles with images of one model, for wildcard constraints."""
    noise = r"-(?:t0(?:\.[0-9]*[1-9])?|t1|s[1-9][0-9]?|s100)" if vocabulary.noise else ""
    conditioning = _alternatives((*vocabulary.conditionings[1:], *vocabulary.embeddings))
    options = tuple(option for option in vocabulary.options if option != "untrained" or not vocabulary.steps)
    trained = re.escape(model) + _at_step(vocabulary) + noise + conditioning + _options(options)
    if options == vocabulary.options:
        return trained
    # an untrained twin has no step
    return f"(?:{trained}|{re.escape(model)}{noise}{conditioning}{_options(vocabulary.options, required='untrained')})"


def text_pattern(model: str, vocabulary: Vocabulary) -> str:
    """Regular expression of the bundles without images of one model; ``(?!)`` for none."""
    forms = []
    if vocabulary.texts:
        text, at = f"-{TEXT}-{any_of(vocabulary.texts)}", _at_step(vocabulary)
        untrained = tuple(option for option in vocabulary.options if option == "untrained")
        forms += [f"{at}{text}", *([f"{text}-untrained"] if untrained else [])] if at else [text + _options(untrained)]
    if vocabulary.embeddings:
        forms.append(f"-{any_of(vocabulary.embeddings)}")
    return f"{re.escape(model)}(?:{'|'.join(forms)})" if forms else "(?!)"


def _at_step(vocabulary: Vocabulary) -> str:
    return f"@{any_of(map(str, vocabulary.steps))}" if vocabulary.steps else ""


def name_pattern(models: Iterable[str], layer: bool = False) -> str:
    """Regular expression of names of these models, for wildcard constraints.

    The pattern of nearly every file contains it, so it is short: `parse_representation` checks the rest of a name.
    """
    return checkpoint_pattern(models) + "(?:-[a-z0-9.]+)*" + (f"(?:_{LAYER})?" if layer else "")


def checkpoint_pattern(models: Iterable[str]) -> str:
    """Regular expression of checkpoints of these models, whether or not a step exists."""
    return any_of(models) + "(?:@[0-9]+)?"


def _options(options: Iterable[str], required: str | None = None) -> str:
    allowed = set(options)
    patterns = {
        option: NUMBERED[option][0] if option in NUMBERED else option for option in OPTIONS if option in allowed
    }
    for first, second in _EXCLUSIVE:
        if {first, second} <= allowed:
            patterns[first] = f"(?:{patterns[first]}|{patterns.pop(second)})"
    return "".join(f"(?:-{pattern}){'' if option == required else '?'}" for option, pattern in patterns.items())


def any_of(words: Iterable[str]) -> str:
    """Regular expression of these words, longest first."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=lambda w: (-len(w), w))) + ")"


def _alternatives(words: tuple[str, ...]) -> str:
    return f"(?:-{any_of(words)})?" if words else ""


def expand_layers(layers: Mapping[str, str]) -> dict[str, str]:
    """``{"b{0..2}": "blocks.{}"}`` -> ``{"b0": "blocks.0", "b1": "blocks.1", "b2": "blocks.2"}``, in the same order.

    Raises UnknownName for an alias outside [a-z0-9.], an empty range, a range whose path lacks ``{}``, and a repeated
    alias.
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
    """The alias of a layer given by number (blocks ``b0``…, negative from the end), alias or module path.

    Raises UnknownName, which lists the layers.
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
    """The requested layers of a model, in order of depth; all for None. Raises UnknownName."""
    if requests is None:
        return dict(layers)
    taken = {resolve_layer(request, layers, model) for request in requests}
    return {alias: path for alias, path in layers.items() if alias in taken}


def listed_layers(layers: tuple[str, ...]) -> str:
    """``embed, b0 … b23, final``: layers for a message, with consecutive numbers shortened."""
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
