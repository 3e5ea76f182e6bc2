"""Texts of images, which condition diffusion models and are read by language models."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, check_texts
from diffalign.io.pickled_dictionaries import read_by_image
from diffalign.offenders import first_five
from diffalign.reasons import reason

# conditionings with a text of each image
TEXTS = ("caption", "description", "caption2")
_SYNSET = re.compile(r"n[0-9]{8}")


class CaptionError(ValueError):
    """Texts that cannot be used; the message names the file or the first five images."""


def prompt_texts(
    images: Sequence[Image],
    conditioning: str,
    given: Mapping[str, str] | None = None,
) -> tuple[list[str], list[int]]:
    """The distinct texts under a conditioning, in order of first use, and for each image the row of its text.

    ``uncond`` is the empty prompt for all; ``label`` is `label_prompt` of the label, or of the word for it; ``caption``
    and ``description`` are those of the manifest. given: in place of the manifest name -> text, the only source of
    ``caption2``, or label -> word. Raises CaptionError that names the first five images without such a text,
    ValueError for another conditioning.
    """
    if conditioning == "uncond":
        return [""], [0] * len(images)
    if conditioning == "label":
        called = [image.label if given is None else given.get(image.label, "") for image in images]
        mute = [image.name for image in images if given is None and _SYNSET.fullmatch(image.label)]
        if mute:
            raise CaptionError(
                f"the labels of {len(mute)} images are WordNet synsets, which say nothing to a text encoder, "
                f"first: {first_five(mute)}; let datasets.*.class_names name a file with a word for each"
            )
        numbers = [image.name for image, word in zip(images, called, strict=True) if word and not _said(word)]
        if numbers:
            raise CaptionError(
                f"the labels of {len(numbers)} images are numbers, which prompts leave out, first: "
                f"{first_five(numbers)}; let datasets.*.class_names name a file with a word for each"
            )
        texts = [label_prompt(word) if word else "" for word in called]
    elif conditioning in TEXTS:
        texts = [getattr(image, conditioning, "") if given is None else given.get(image.name, "") for image in images]
    else:
        raise ValueError(f"unknown conditioning '{conditioning}'; allowed: {', '.join(('uncond', 'label', *TEXTS))}")
    bare = [image.name for image, text in zip(images, texts, strict=True) if not text.strip()]
    if bare:
        raise CaptionError(
            f"{len(bare)} of {len(images)} images have no {conditioning}, first: {first_five(bare)} "
            f"(datasets.*.texts and .class_names in config.yaml name files of texts)"
        )
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return list(row_of), [row_of[text] for text in texts]


def label_prompt(word: str) -> str:
    """``a photo of a `` and the word without digits, underscores as spaces (Linhardt et al. 2024)."""
    return "a photo of a " + _said(word)


def _said(word: str) -> str:
    said = re.sub(r"[0-9]", "", word).replace("_", " ")
    return said if said.strip() else ""


def read_texts(path: Path) -> Mapping[str, str]:
    """Name -> text, from a .json mapping, a .tsv of two columns whose header begins with ``name``, or a .npy of a
    pickled dictionary, whose keys may be names of image files, as the published code of diffusion models reads it.

    Raises CaptionError for an absent or malformed file, and for a name that stands twice.
    """
    if not path.is_file():
        raise CaptionError(f"{path}: no such file; datasets.*.texts in config.yaml says where texts are")
    if path.suffix == ".npy":
        try:
            given = {name: str(text) if isinstance(text, str) else text for name, text in read_by_image(path).items()}
        except StoreError as error:
            raise CaptionError(str(error)) from error
        return _mapping(path, given)
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return _mapping(path, json.loads(content, object_pairs_hook=lambda pairs: _unique(path, pairs)))
        if path.suffix == ".tsv":
            header, *rows = csv.reader(content.splitlines(), delimiter="\t")
            if len(header) != 2 or header[0] != "name" or any(len(row) != 2 for row in rows):
                raise CaptionError(f"{path}: expected two columns, 'name' and a text, with this header")
            return _of_length(path, _unique(path, [(row[0], row[1]) for row in rows]))
    except (csv.Error, ValueError, MemoryError, RecursionError) as error:
        if isinstance(error, CaptionError):
            raise
        raise CaptionError(f"{path}: cannot be read: {reason(error)}") from error
    raise CaptionError(f"{path}: '{path.suffix}' is not known here; allowed: .json, .tsv, .npy")


def read_words(path: Path) -> Mapping[str, str]:
    """Label -> word, from lines of a label, a blank and one or more names, such as ``n01440764 tench, Tinca tinca``.

    The first name is taken. Raises CaptionError for an absent file, a label that stands twice, or one without a name.
    """
    if not path.is_file():
        raise CaptionError(f"{path}: no such file; datasets.*.class_names in config.yaml says where they are")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, MemoryError) as error:
        raise CaptionError(f"{path}: cannot be read: {reason(error)}") from error
    pairs = []
    for line in lines:
        if line.strip():
            label, _, rest = line.strip().partition("\t" if "\t" in line else " ")
            word = rest.split(",")[0].strip()
            if not word:
                raise CaptionError(f"{path}: '{first_five([label])}' has no word")
            pairs.append((label, word))
    return _unique(path, pairs)


def _mapping(path: Path, content: object) -> dict[str, str]:
    if not isinstance(content, dict):
        raise CaptionError(f"{path}: expected a mapping of names to texts, not a {type(content).__name__}")
    other = [f"{name} ({_shown(text)})" for name, text in content.items() if not isinstance(text, str)]
    if other:
        raise CaptionError(
            f"{path}: expected a mapping of names to texts; {len(other)} of {len(content)} have none: "
            f"{first_five(other)}"
        )
    return _of_length(path, content)


def _of_length(path: Path, texts: dict[str, str]) -> dict[str, str]:
    try:
        check_texts(texts, str(path))
    except StoreError as error:
        raise CaptionError(str(error)) from error
    return texts


def _shown(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _unique(path: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise CaptionError(f"{path}: {len(twice)} names stand more than once, first: {first_five(twice)}")
    return dict(pairs)


def occurrences(text: str, word: str) -> list[tuple[int, int]]:
    """Where a word, or several in a row, begins and ends in a text: as whole words, whatever their case."""
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]
