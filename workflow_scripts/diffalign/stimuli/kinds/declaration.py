"""What a kind of data set declares, and the rows that it lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from diffalign.dataset_specs import Dataset, SourceFile
from diffalign.io import manifest
from diffalign.stimuli import squares
from diffalign.stimuli.folders import Source

# keys that every data set with rows may have
_OF_ROWS = frozenset({"size", "texts", "class_names"})


@dataclass(frozen=True)
class Supplied:
    """What listing the rows takes beside the entry. seed: of a split and of a sample. download: the folder of
    a data set of the hub. concepts: the list of those of THINGS.
    """

    seed: int = 0
    download: Path | None = None
    concepts: SourceFile | None = None


@dataclass(frozen=True)
class Stimulus:
    """One row of a data set, as `io.manifest.Image` has it. picture: reads the image, a square of the data set's size,
    and what was converted on the way; None for a row without one. group: '' for a row that is independent of all
    others.
    """

    name: str
    label: str
    label_index: int
    caption: str
    description: str
    source: str
    picture: Callable[[], tuple[Picture, str]] | None = None
    group: str = ""

    def in_manifest(self, sha256: str = "", notes: str = "") -> manifest.Image:
        """The row of the manifest. sha256: of its PNG file, '' where it has none."""
        return manifest.Image(
            *(self.name, self.label, self.label_index, self.caption, sha256, self.source, notes),
            description=self.description,
            group=self.group,
        )


@dataclass(frozen=True)
class Listing:
    """The rows of a data set, in order of name, and their names, which are known before a row is read."""

    names: Sequence[str]
    rows: Iterable[Stimulus]


@dataclass(frozen=True)
class PartMasks:
    """Which part of what it shows each pixel of an image belongs to.

    parts: their names, of which the i-th has the value i + 1; 0 is none of them. read: a row of the manifest -> its
    mask (size, size) uint8, in the square of the image.
    """

    parts: tuple[str, ...]
    read: Callable[[manifest.Image], NDArray[np.uint8]]


def _always(_: Dataset) -> bool:
    return True


def _by_rule(dataset: Dataset) -> bool:
    return dataset.groups is not None


def _no_mistakes(_: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return iter(())


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set.

    rows: lists all its rows, of which `kinds.rows` takes a split and a sample; None for a kind whose names only
    features know. keys: of an entry, beside kind, size, texts and class_names. needs: those of them that no entry can
    do without; size is needed by every data set with images. mistakes: (key, message) of what contradicts itself in an
    entry as it was given; the key is '' for the entry as a whole. has_images: whether a data set has any.
    has_transformed: whether its folder holds the images of other conditions, too. has_groups: whether rows of a data
    set may have more than one image a group. part_masks: the masks of the parts of clean images, for rows of their
    manifest, whose files are looked at before one is read; None for a kind without. images_alone: whether image files
    are all that is read of the folder of an entry.
    """

    rows: Callable[[Dataset, Supplied], Listing] | None
    keys: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    mistakes: Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]] = _no_mistakes
    has_images: Callable[[Dataset], bool] = _always
    has_transformed: bool = False
    has_groups: Callable[[Dataset], bool] = _by_rule
    part_masks: Callable[[Dataset, Sequence[manifest.Image]], PartMasks] | None = None
    images_alone: bool = False

    def __post_init__(self) -> None:
        unread = self.needs - self.keys
        if unread:
            raise ValueError(f"a kind of data set needs {', '.join(sorted(unread))}, which it does not read")

    @property
    def known(self) -> frozenset[str]:
        """Every key that an entry of this kind may have."""
        return self.keys | {"kind"} | (frozenset() if self.rows is None else _OF_ROWS)


def of_file(
    source: Source, root: Path, read: Callable[[Path], tuple[Picture, str]], caption: str = "", description: str = ""
) -> Stimulus:
    """The row of an image file below `root`. read: a path -> its square picture and what was converted."""

    def picture() -> tuple[Picture, str]:
        return read(source.path)

    at = str(source.path.relative_to(root))
    return Stimulus(source.name, source.label, source.label_index, caption, description, at, picture)


def of_files(sources: Sequence[Source], root: Path, read: Callable[[Path], tuple[Picture, str]]) -> Listing:
    """The rows of image files below `root`, which have no texts."""
    return Listing([source.name for source in sources], (of_file(source, root, read) for source in sources))


def square(dataset: Dataset, path: Path, content: bytes | None = None) -> tuple[Picture, str]:
    """An image as a square of the data set's size, and what was converted; path, content: as of `squares.read_rgb`."""
    assert dataset.size is not None  # the config is checked
    image, notes = squares.read_rgb(path, content)
    try:
        made = squares.make_square(image, dataset.size, dataset.square)
    except squares.ImageError as error:
        raise squares.ImageError(f"{path}: {error}") from error
    except MemoryError as error:
        raise squares.ImageError(f"{path}: is {image.width} x {image.height} px, which memory does not hold") from error
    if min(image.size) >= dataset.size:
        return made, notes
    enlarged = f"enlarged from {image.width} x {image.height} px"
    return made, f"{notes}; {enlarged}" if notes else enlarged
