"""The manifest: one row an image, sorted by name; every later step joins on its names."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from diffalign.io.atomic import write_json, write_text
from diffalign.io.headers import StoreError
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.reasons import reason


@dataclass(frozen=True)
class Image:
    """One image of a data set.

    name: file stem, the key that everything joins on. label and label_index: its class, '' and -1 where it has none.
    caption, description: texts of it, '' where there is none. sha256: of the PNG file. source: the file it was
    made from. notes: what was converted on the way, '' for nothing. rotation: degrees counter-clockwise by which the
    PNG was turned. scale: share of the side that a model's input will have; the PNG is not scaled. group: what it
    shares with images that are not independent of it, such as the photograph that they are crops of; its own name, in
    place of '', where there are none.
    """

    name: str
    label: str
    label_index: int
    caption: str
    sha256: str
    source: str
    notes: str
    rotation: int = 0
    scale: float = 1.0
    description: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)


# characters of a text: what the module csv reads in one cell
LONGEST_TEXT = 131_072
COLUMNS = tuple(f.name for f in fields(Image))
_TYPES: Mapping[str, Callable[[str], Any]] = {"label_index": int, "rotation": int, "scale": float}


def print_manifest(images: Iterable[Image]) -> str:
    """The manifest as tab-separated text, sorted by name."""
    rows = sorted(images, key=lambda image: image.name)
    check_unique([image.name for image in rows], "manifest")
    for key in ("label", "caption", "description", "group"):
        check_texts({image.name: getattr(image, key) for image in rows}, "manifest")
    text = io.StringIO()
    plain = csv.writer(text, delimiter="\t", lineterminator="\n")
    # a carriage return alone ends a row for the reader, but needs no quotes for the writer
    quoted = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for cells in map(astuple, rows):
        (quoted if any("\r" in cell for cell in cells if isinstance(cell, str)) else plain).writerow(cells)
    return text.getvalue()


def write_manifest(path: Path, spec_path: Path, images: Iterable[Image], spec: Mapping[str, Any]) -> None:
    """Write the manifest, and dataset.json: what the images are made of (`spec`), with the sha256 of the manifest."""
    write_text(path, print_manifest(images))
    write_json(spec_path, {**spec, "manifest_sha256": file_sha256(path)})


def made_of(
    name: str, condition: str, entry: Mapping[str, Any], seed: int, download: Path | None = None
) -> dict[str, Any]:
    """What images or texts are made of, for `write_manifest`: the data set and its entry, the seed of a sample, and the
    record of a download, where there is one.
    """
    downloaded = {} if download is None else {"download": json.loads(download.read_text(encoding="utf-8"))}
    return {"dataset": name, "condition": condition, **entry, "seed": seed, **downloaded}


def read_manifest(path: Path) -> list[Image]:
    """Read a manifest. Raises StoreError for wrong columns, no rows, duplicate or unsorted names."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, delimiter="\t")
            header = tuple(next(reader, ()))
            if header != COLUMNS:
                raise StoreError(f"{path}: columns are {first_five(header)}; expected {', '.join(COLUMNS)}")
            images = [
                Image(**{column: _TYPES.get(column, str)(word) for column, word in zip(COLUMNS, row, strict=True)})
                for row in reader
            ]
    except StoreError:
        raise
    except (csv.Error, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as a manifest ({reason(error)})") from error
    if not images:
        raise StoreError(f"{path}: holds no images")
    names = [image.name for image in images]
    check_unique(names, str(path))
    if names != sorted(names):
        raise StoreError(f"{path}: names are not sorted")
    return images


def groups_of(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The group of every image, in the order of names. Raises StoreError that names the first five missing ones."""
    return tuple(image.group for image in _rows_of(path, names))


def labels_of(path: Path, names: Sequence[str]) -> list[str]:
    """The label of every image, in the order of names. Raises StoreError that names the first five missing ones."""
    return [image.label for image in _rows_of(path, names)]


def _rows_of(path: Path, names: Sequence[str]) -> list[Image]:
    rows = {image.name: image for image in read_manifest(path)}
    missing = [name for name in names if name not in rows]
    if missing:
        raise StoreError(f"{path}: lacks {len(missing)} of {len(names)} images, first: {first_five(missing)}")
    return [rows[name] for name in names]


def check_texts(texts: Mapping[str, str], where: str) -> None:
    """Raise StoreError that names the first five images whose text is longer than a text can be, or is no text: halves
    of characters, which JSON may hold and UTF-8 may not.
    """
    long = [f"{name} ({len(text):,} characters)" for name, text in texts.items() if len(text) > LONGEST_TEXT]
    if long:
        raise StoreError(
            f"{where}: {len(long)} of {len(texts)} texts are longer than {LONGEST_TEXT:,} characters, "
            f"first: {first_five(long)}"
        )
    halves = [name for name, text in texts.items() if any("\ud800" <= character <= "\udfff" for character in text)]
    if halves:
        raise StoreError(
            f"{where}: {len(halves)} of {len(texts)} texts hold half a character (a lone surrogate), "
            f"first: {first_five(halves)}"
        )


def check_unique(names: Sequence[str], where: str) -> None:
    """Raise StoreError that names the first five names that stand more than once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise StoreError(f"{where}: {len(twice)} names stand more than once, first: {first_five(twice)}")
