"""Masks of parts that a user drew: one picture an image, whose values are numbers of parts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffalign.offenders import first_five
from diffalign.reasons import reason
from diffalign.stimuli.squares import ImageError, make_square

PARTS_TABLE = "parts.tsv"
_COLUMNS = ["value", "part"]
# one byte a pixel: grey, or numbers of colours
_MODES = ("L", "P")


@dataclass(frozen=True)
class FolderMasks:
    """parts: names, by value. read: a name of an image -> its mask (size, size) uint8, of which the i-th part has the
    value i + 1 and 0 is none.
    """

    parts: tuple[str, ...]
    read: Callable[[str], NDArray[np.uint8]]


def folder_masks(folder: Path, images: Mapping[str, Path], size: int, square: str) -> FolderMasks:
    """The masks of images, each in the square that `squares.make_square` makes of its image.

    folder: ``{image name}.png``, 8-bit and of the size of the image, and parts.tsv. images: name -> file.
    Raises ImageError that names the first five images without a mask, those whose mask has another size, and masks that
    are not 8-bit, before one is read; for a mask with a value that parts.tsv does not list, when it is read.
    """
    part_of = _read_parts(folder / PARTS_TABLE)
    _check_masks(folder, images)
    values = sorted(part_of)

    def read(name: str) -> NDArray[np.uint8]:
        path = folder / f"{name}.png"
        try:
            with Image.open(path) as image:
                drawn = np.asarray(image)
        except Exception as error:  # Pillow has many ways to refuse a file
            raise ImageError(f"{path}: cannot be read as a mask ({reason(error)})") from error
        unknown = sorted({int(value) for value in np.unique(drawn)} - {0, *values})
        if unknown:
            raise ImageError(
                f"{path}: has the values {first_five([str(value) for value in unknown])}, which {PARTS_TABLE} does not "
                f"list ({', '.join(map(str, values))}, and 0 for none)"
            )
        numbers = np.zeros(256, np.uint8)
        numbers[values] = np.arange(1, len(values) + 1)
        return square_mask(numbers[drawn], size, square)

    return FolderMasks(tuple(part_of[value] for value in values), read)


def square_mask(mask: NDArray[np.uint8], size: int, square: str) -> NDArray[np.uint8]:
    """A mask (H, W) as (size, size), the square that `make_square` makes of its image.

    Each value goes through `make_square` as a black and white picture; a pixel has the value that is strongest there,
    of equal ones the lowest.
    """
    values = np.unique(mask)
    strengths = [
        np.asarray(make_square(Image.fromarray(np.where(mask == value, 255, 0).astype(np.uint8)), size, square))
        for value in values
    ]
    chosen: NDArray[np.uint8] = values[np.argmax(strengths, axis=0)]
    return chosen


def _read_parts(path: Path) -> dict[int, str]:
    """Value -> part. Raises ImageError that names the line."""
    if not path.is_file():
        raise ImageError(f"{path}: missing; it says which part each value of a mask is, in columns value and part")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file, delimiter="\t")) or [[]]
    except (csv.Error, ValueError, MemoryError) as error:
        raise ImageError(f"{path}: cannot be read as a table ({reason(error)})") from error
    if header != _COLUMNS:
        raise ImageError(f"{path}: columns are {first_five(header)}; expected {', '.join(_COLUMNS)}")
    part_of: dict[int, str] = {}
    for number, line in enumerate(lines, 2):
        value, part = line if len(line) == 2 else ("", "")
        if not value.isdecimal() or not 1 <= int(value) <= 255 or not part:
            raise ImageError(f"{path}, line {number}: expected a value from 1 to 255 and a part, got {line}")
        if int(value) in part_of or part in part_of.values():
            raise ImageError(f"{path}, line {number}: {value} or '{part}' stands there twice")
        part_of[int(value)] = part
    if not part_of:
        raise ImageError(f"{path}: lists no part")
    return part_of


def _check_masks(folder: Path, images: Mapping[str, Path]) -> None:
    missing = [name for name in images if not (folder / f"{name}.png").is_file()]
    if missing:
        raise ImageError(f"{folder}: {len(missing)} of {len(images)} images have no mask: {first_five(missing)}")
    other, deep = [], []
    for name, path in images.items():
        mask, image = _header(folder / f"{name}.png"), _header(path)
        if mask[0] not in _MODES:
            deep.append(f"{name} ({mask[0]})")
        elif mask[1] != image[1]:
            other.append(f"{name} ({' x '.join(map(str, mask[1]))}, image {' x '.join(map(str, image[1]))})")
    if deep:
        raise ImageError(f"{folder}: {len(deep)} masks are not 8-bit pictures of one channel: {first_five(deep)}")
    if other:
        raise ImageError(f"{folder}: {len(other)} masks are not of the size of their image: {first_five(other)}")


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Mode and size of a picture, which is not read whole."""
    try:
        with Image.open(path) as image:
            return image.mode, image.size
    except Exception as error:  # Pillow has many ways to refuse a file
        raise ImageError(f"{path}: cannot be read as an image ({reason(error)})") from error
