"""The neighbour file: lists of every layer of a bundle, readable without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.exact import Neighbors, Ties
from diffalign.alignment.ties import joined
from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError, members_of, packed
from diffalign.offenders import first_five, flagged

# format 2 says which neighbours are equally similar, and searched nearly collinear rows by distance
KIND = FileKind("a neighbour file", 2)
# of the ties of a layer, which has these members where it has ties
_TIES = ("tied", "counts", "rest", "unlisted")


@dataclass(frozen=True)
class NeighborFile:
    """The header of a neighbour file; `layer` reads one layer's lists."""

    path: Path
    names: tuple[str, ...]
    layers: tuple[str, ...]
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def layer(self, alias: str) -> Neighbors:
        """The lists of one layer. Raises StoreError where the file has no such layer, and for lists that are not of its
        images.
        """
        if alias not in self.layers:
            raise StoreError(f"{self.path}: no layer '{alias}'; it has {', '.join(self.layers)}")
        found = _read_layer(self.path, alias)
        count = len(self.names)
        if found.indices.ndim != 2 or found.indices.shape != found.similarities.shape or len(found.indices) != count:
            raise StoreError(f"{self.path}: layer {alias} has lists of shape {found.indices.shape} for {count} images")
        outside = (found.indices < 0) | (found.indices >= count)
        if outside.any():
            names = first_five(flagged(self.names, np.asarray(outside.any(axis=1))))
            raise StoreError(
                f"{self.path}: layer {alias} lists image number {found.indices[outside][0]} of {count}, for {names}; "
                "delete the file and rerun"
            )
        return found


@dataclass(frozen=True)
class NeighborWriter:
    """Writes the lists of one layer after the other, so that no more than one layer is held; the header comes last."""

    _archive: zipfile.ZipFile
    _layers: list[str] = field(default_factory=list)

    def add(self, alias: str, neighbors: Neighbors) -> None:
        """Write the lists of one layer."""
        self._layers.append(alias)
        self._write(f"{alias}.indices", neighbors.indices)
        self._write(f"{alias}.similarities", neighbors.similarities)
        if neighbors.ties is not None:
            self._write(f"{alias}.tied", np.packbits(neighbors.ties.tied, axis=1))
            for member in _TIES[1:]:
                self._write(f"{alias}.{member}", getattr(neighbors.ties, member))

    def finish(
        self, names: Sequence[str], settings: Mapping[str, Any], recipe: Mapping[str, Any], rows: range | None = None
    ) -> None:
        """Write the header: names of all images, the preparation, the recipe; rows: those that a part has lists of."""
        header = KIND.header(names=list(names), layers=self._layers, settings=dict(settings), recipe=dict(recipe))
        if rows is not None:
            header["rows"] = [rows.start, rows.stop]
        for name, member in packed(header).items():
            self._write(name, member)

    def _write(self, name: str, array: NDArray[Any]) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def writing(path: Path) -> Iterator[NeighborWriter]:
    """A writer of a neighbour file, which is whole or absent afterwards."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        yield NeighborWriter(archive)


def merge_parts(parts: Sequence[Path], path: Path) -> None:
    """Write the lists of parts, in the order of their rows, as one file: to the byte what one search had written.

    Raises StoreError that names the part which differs from the first, or whose rows do not follow those before it.
    """
    headers = [_read_header(part) for part in parts]
    first = {key: value for key, value in headers[0].items() if key != "rows"}
    end = 0
    for part, header in zip(parts, headers, strict=True):
        other = [key for key, value in first.items() if header.get(key) != value]
        if other:
            raise StoreError(
                f"{part}: its {' and '.join(other)} differ from those of {parts[0]}; delete both and rerun"
            )
        start, stop = header.get("rows", (None, None))
        if start != end:
            raise StoreError(f"{part}: holds the lists of rows {start} to {stop}; expected them to begin at row {end}")
        end = stop
    if end != len(first["names"]):
        raise StoreError(f"{parts[-1]}: the lists end at row {end} of {len(first['names'])}; parts are missing")
    with writing(path) as file:
        for alias in first["layers"]:
            file.add(alias, joined([_read_layer(part, alias) for part in parts]))
        file.finish(first["names"], first["settings"], first["recipe"])


def read_neighbors(path: Path) -> NeighborFile:
    """Read the header of a neighbour file. Raises StoreError for anything else, and for a part."""
    header = _read_header(path)
    if "rows" in header:
        raise StoreError(f"{path}: holds the lists of rows {header['rows'][0]} to {header['rows'][1]} only")
    with KIND.reading(path):
        return NeighborFile(path, tuple(header["names"]), tuple(header["layers"]), header["settings"], header["recipe"])


def _read_layer(path: Path, alias: str) -> Neighbors:
    with KIND.reading(path):
        with np.load(path, allow_pickle=False) as archive:
            ties = [f"{alias}.{member}" for member in _TIES] if f"{alias}.tied" in archive.files else []
            found = members_of(archive, [f"{alias}.indices", f"{alias}.similarities", *ties])
        indices, similarities = found[f"{alias}.indices"], found[f"{alias}.similarities"]
        if not ties:
            return Neighbors(indices, similarities)
        packed_ties, counts, rest, unlisted = (found[name] for name in ties)
        tied = np.unpackbits(packed_ties, axis=1, count=indices.shape[1]).astype(np.bool_)
        return Neighbors(indices, similarities, Ties(tied, counts, rest, unlisted))


def _read_header(path: Path) -> dict[str, Any]:
    header = KIND.read_archive(path, members=())[0]
    if header["format"] < KIND.format:
        raise StoreError(
            f"{path}: format {header['format']} does not say which neighbours are equally similar; delete it and rerun"
        )
    return header
