"""Images that a user has: a flat folder, or one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffalign.offenders import first_five
from diffalign.stimuli.class_numbers import class_numbers
from diffalign.stimuli.squares import SUFFIXES, ImageError


@dataclass(frozen=True)
class Source:
    """A file to read, the name it will have, and its class ('' and -1 for none)."""

    path: Path
    name: str
    label: str = ""
    label_index: int = -1


def flat_folder(folder: Path, labels: str = "none") -> list[Source]:
    """The images of one folder, sorted by name.

    labels: ``none``, or ``prefix`` (the name up to its last underscore; label_index is by `class_numbers` of the whole
    folder). Raises ImageError where the folder is absent or empty, where an image is a link that leads nowhere, where
    two files share a stem, and where a prefix is asked for and missing; LabelError as `class_numbers`.
    """
    paths = _images(folder)
    if not paths:
        raise ImageError(f"{folder}: no images ({', '.join(SUFFIXES)})")
    _check_stems(paths, folder)
    if labels == "none":
        sources = [Source(path, path.stem) for path in paths]
    else:
        bare = [path.name for path in paths if "_" not in path.stem]
        if bare:
            raise ImageError(
                f"{folder}: labels: prefix needs names such as n01440764_10026.png; "
                f"{len(bare)} have no underscore, first: {first_five(bare)}"
            )
        words = [path.stem.rsplit("_", 1)[0] for path in paths]
        index = class_numbers(words)
        sources = [Source(path, path.stem, word, index[word]) for path, word in zip(paths, words, strict=True)]
    return sorted(sources, key=_name)


def synset_folders(folder: Path) -> list[Source]:
    """The images below one folder a class, sorted by name; label_index is by `class_numbers` of the folders.

    Raises ImageError as `flat_folder` does.
    """
    _check_folder(folder)
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ImageError(f"{folder}: no class folders; a flat folder of images is kind: folder")
    index = class_numbers(entry.name for entry in classes)
    sources = [Source(path, path.stem, entry.name, index[entry.name]) for entry in classes for path in _images(entry)]
    if not sources:
        raise ImageError(f"{folder}: {len(classes)} class folders, none with images ({', '.join(SUFFIXES)})")
    _check_stems([source.path for source in sources], folder)
    return sorted(sources, key=_name)


def _name(source: Source) -> str:
    return source.name


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder; datasets.*.path in config.yaml says where images are")


def _images(folder: Path) -> list[Path]:
    _check_folder(folder)
    named = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    # a link to a disk that is not mounted would make a smaller data set without a word
    lost = sorted(path.name for path in named if path.is_symlink() and not path.exists())
    if lost:
        raise ImageError(
            f"{folder}: {len(lost)} images are links that lead nowhere, first: {first_five(lost)}; mend or remove them"
        )
    return sorted(path for path in named if path.is_file())


def _check_stems(paths: Sequence[Path], folder: Path) -> None:
    first: dict[str, Path] = {}
    for path in paths:
        other = first.setdefault(path.stem, path)
        if other is not path:
            raise ImageError(
                f"{folder}: two files with the stem '{path.stem}': "
                f"{other.relative_to(folder)} and {path.relative_to(folder)}; names must be unique"
            )
