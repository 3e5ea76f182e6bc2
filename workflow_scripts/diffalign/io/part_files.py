"""Files of masks of parts: a folder with one 8-bit PNG an image, whose values are numbers of parts, and parts.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffalign.io.atomic import make_empty
from diffalign.io.headers import FileKind, StoreError
from diffalign.offenders import first_five

KIND = FileKind("a list of part masks", 1)
_MANIFEST = "parts.json"
# the colours in which a viewer shows the values 0, 1, 2 …; they carry no meaning
_COLORS = (
    *((0, 0, 0), (140, 86, 75), (255, 187, 120), (44, 160, 44), (31, 119, 180), (214, 39, 40), (148, 103, 189)),
    *((23, 190, 207), (188, 189, 34), (227, 119, 194), (127, 127, 127)),
)


@dataclass(frozen=True)
class Parts:
    """Masks of the parts of images.

    names: of the images, sorted. parts: names of the parts, of which the i-th has the value i + 1; 0 is none of them.
    size: side of every mask in pixels. recipe: what they were made of.
    """

    folder: Path
    names: tuple[str, ...]
    parts: tuple[str, ...]
    size: int
    recipe: Mapping[str, Any]

    def mask(self, name: str) -> NDArray[np.uint8]:
        """The mask (size, size) of an image. Raises StoreError for an image without one, and for a broken file."""
        if name not in self.names:
            raise StoreError(f"{self.folder}: no mask of '{name}'; there: {first_five(self.names)}")
        path = self.folder / f"{name}.png"
        with KIND.reading(path), Image.open(path) as image:
            values = np.asarray(image)
        if values.shape != (self.size, self.size) or values.dtype != np.uint8 or values.max() > len(self.parts):
            raise StoreError(
                f"{path}: holds {values.dtype} {values.shape} up to {values.max()}, expected uint8 "
                f"{(self.size, self.size)} up to {len(self.parts)}; delete the folder and rerun"
            )
        return values


def write_parts(
    folder: Path, parts: Sequence[str], masks: Iterable[tuple[str, NDArray[np.uint8]]], recipe: Mapping[str, Any]
) -> None:
    """Write the masks (size, size) of images, in order of name; parts.json comes last.

    Raises ValueError that names the image for a mask of another size than the first, or with a value of no part.
    """
    make_empty(folder)
    names: list[str] = []
    size = 0
    palette = [channel for color in _COLORS for channel in color]
    for name, mask in masks:
        size = size or len(mask)
        if mask.shape != (size, size):
            raise ValueError(f"the mask of '{name}' is {mask.shape}; expected {(size, size)}")
        if mask.max() > len(parts):
            raise ValueError(f"the mask of '{name}' has the value {mask.max()}; there are {len(parts)} parts")
        image = Image.fromarray(np.asarray(mask, np.uint8)).convert("L")
        image.putpalette(palette)
        image.save(folder / f"{name}.png", bits=8)
        names.append(name)
    KIND.write_json(folder / _MANIFEST, parts=list(parts), names=names, size=size, recipe=recipe)


def read_parts(folder: Path) -> Parts:
    """What `write_parts` wrote; masks are read one by one. Raises StoreError for a folder that is not whole."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise StoreError(f"{path}: missing, so the folder is not whole; delete it and rerun")
    content = KIND.read_json(path)
    with KIND.reading(path):
        return Parts(folder, tuple(content["names"]), tuple(content["parts"]), int(content["size"]), content["recipe"])
