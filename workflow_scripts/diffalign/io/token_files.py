"""How tokens that are not pooled lie on disk: a folder with one float16 array a layer, for a job that reads them in
blocks of float32.

Format 2. Format 1 had float32 arrays and no token grids: it is still read, and the grid of all its layers is unknown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import make_empty
from diffalign.io.headers import FileKind, StoreError
from diffalign.logs import log
from diffalign.offenders import first_five, flagged

KIND = FileKind("a list of un-pooled layers", 2)
_MANIFEST = "layers.json"
_LARGEST = float(np.finfo(np.float16).max)
# of a layer's scale; what float16 rounds away is noise for any analysis below it
_COARSE = 0.01

# rows and columns of positions of an image that tokens stand for, in reading order
Grid = tuple[int, int]


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of one batch of images. tokens: alias -> (B, T, C) float32, rows in the order of names. grids: alias ->
    rows and columns of the T tokens in reading order, None or absent where they have no known grid.
    """

    names: Sequence[str]
    tokens: Mapping[str, NDArray[np.float32]]
    grids: Mapping[str, Grid | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokens:
    """Of all images: alias -> (N, T, C) float16, mapped and not read; names, rows in their order; what made them; rows
    and columns of each layer's tokens, None where they have no known grid. Arrays of format 1 are float32.
    """

    layers: Mapping[str, NDArray[np.floating]]
    names: tuple[str, ...]
    recipe: Mapping[str, Any]
    grids: Mapping[str, Grid | None]

    def grid(self, alias: str) -> Grid:
        """Rows and columns of the tokens of a layer. Raises StoreError where they have no known grid, and says why."""
        known = self.grids[alias]
        if known is None:
            count = self.layers[alias].shape[1]
            bundle = self.recipe.get("bundle", "these tokens")
            raise StoreError(
                f"{bundle}, layer {alias}: its {count} tokens an image have no known grid: they are neither "
                "the positions of a map nor one for each patch of the input (class tokens, logits and merged tokens "
                "are not); ask for another layer, or rerun tokens that an older version wrote"
            )
        return known

    def blocks(self, alias: str, memory_mb: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows of images, and their tokens (B, T, C) float32, one block of at most `memory_mb` after the other."""
        stored = self.layers[alias]
        size = max(1, int(memory_mb * 2**20 / (4 * max(1, stored.shape[1] * stored.shape[2]))))
        for start in range(0, len(stored), size):
            rows = slice(start, min(start + size, len(stored)))
            yield rows, np.asarray(stored[rows], np.float32)


@dataclass
class _Layer:
    """The array of one layer while it is written, its grid, and what rounding to float16 took away."""

    alias: str
    array: NDArray[np.float16]
    grid: Grid | None
    error: float = 0.0
    squares: float = 0.0
    count: int = 0

    def put(self, rows: Sequence[int], names: Sequence[str], values: NDArray[np.float32]) -> None:
        """Round tokens (B, T, C) of these images and keep them. Raises ValueError as `write_tokens`."""
        for what, wrong in (
            ("NaN or infinite", ~np.isfinite(values)),
            (f"beyond {_LARGEST:.0f}, the largest number of float16, up to {np.abs(values).max():.6g},", _huge(values)),
        ):
            bad = np.asarray(wrong.any(axis=(1, 2)))
            if bad.any():
                raise ValueError(f"layer {self.alias}: tokens are {what} for {first_five(flagged(names, bad))}")
        rounded = values.astype(np.float16)
        self.array[rows] = rounded
        wide = values.astype(np.float64)
        self.error = max(self.error, float(np.abs(wide - rounded).max(initial=0)))
        self.squares += float(np.square(wide, out=wide).sum())
        self.count += values.size

    def close(self) -> None:
        """Write what is held back, and log the largest rounding error."""
        self.array.base.flush()  # type: ignore[union-attr]
        scale = float(np.sqrt(self.squares / max(1, self.count)))
        share = self.error / scale if scale > 0 else 0.0
        said = (self.alias, self.error, share, scale)
        message = "%s: float16 is off by at most %.2g, %.2g of the root mean square of the layer, %.3g"
        if share > _COARSE:
            log.warning(f"{message}; a few tokens are far larger than the others, or all are very small", *said)
        else:
            log.info(message, *said)


def write_tokens(folder: Path, names: Sequence[str], batches: Iterable[TokenBatch], recipe: Mapping[str, Any]) -> None:
    """Write batch by batch, as float16; the log says the largest rounding error of each layer.

    The manifest comes last, so a folder without one is not whole. Raises StoreError where the disk is too small, before
    the first batch is written; ValueError that names the layer and the images where images give other numbers of
    tokens or another grid, a grid does not hold as many tokens, or tokens are NaN, infinite or beyond float16.
    """
    make_empty(folder)
    row_of = {name: row for row, name in enumerate(names)}
    layers: dict[str, _Layer] = {}
    for batch in batches:
        if not layers:
            shapes = {alias: (len(names), *values.shape[1:]) for alias, values in batch.tokens.items()}
            _check_room(folder, shapes)
            layers = {
                alias: _Layer(alias, _created(folder, alias, shape), _fitting(alias, batch.grids.get(alias), shape[1]))
                for alias, shape in shapes.items()
            }
        rows = [row_of[name] for name in batch.names]
        for alias, values in batch.tokens.items():
            layer, grid = layers[alias], batch.grids.get(alias)
            if values.shape[1:] != layer.array.shape[1:]:
                raise ValueError(
                    f"layer {alias}: gave {values.shape[1:]} tokens and channels for {batch.names[0]}, "
                    f"{layer.array.shape[1:]} before; un-pooled features are of images of one size"
                )
            layer.put(rows, batch.names, values)
            if grid != layer.grid:
                raise ValueError(
                    f"layer {alias}: tokens lie {_laid(grid)} for {batch.names[0]}, {_laid(layer.grid)} before; "
                    "un-pooled features are of images of one shape"
                )
    for layer in layers.values():
        layer.close()
    grids = {alias: layer.grid for alias, layer in layers.items()}
    KIND.write_json(folder / _MANIFEST, layers=list(layers), grids=grids, names=list(names), recipe=recipe)


def read_tokens(folder: Path) -> Tokens:
    """Map what `write_tokens` wrote. Raises StoreError for a folder that is not whole, and names it."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise StoreError(f"{manifest}: missing, so the folder is not whole; delete it and rerun")
    content = KIND.read_json(manifest)
    layers = {}
    for alias in content["layers"]:
        with KIND.reading(folder / f"{alias}.npy"):
            layers[alias] = np.load(folder / f"{alias}.npy", mmap_mode="r", allow_pickle=False)
    of_layer = content.get("grids", {})
    grids = {alias: tuple(of_layer[alias]) if of_layer.get(alias) else None for alias in layers}
    return Tokens(layers, tuple(content["names"]), content["recipe"], grids)


def _huge(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(values) > _LARGEST)


def _laid(grid: Grid | None) -> str:
    return "on an unknown grid" if grid is None else f"on {grid[0]} x {grid[1]}"


def _fitting(alias: str, grid: Grid | None, count: int) -> Grid | None:
    if grid is not None and grid[0] * grid[1] != count:
        raise ValueError(f"layer {alias}: {count} tokens do not fill a grid of {grid[0]} x {grid[1]}")
    return grid


def _created(folder: Path, alias: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
    made: NDArray[np.float16] = np.lib.format.open_memmap(folder / f"{alias}.npy", "w+", np.float16, shape)
    return made


def _check_room(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    needed, free = 2 * sum(int(np.prod(shape)) for shape in shapes.values()), shutil.disk_usage(folder).free
    each = ", ".join(f"{alias} {' x '.join(map(str, shape))}" for alias, shape in shapes.items())
    log.info(
        "un-pooled features take %.2f GB in %s, of %.2f GB that are free: %s", needed / 1e9, folder, free / 1e9, each
    )
    if needed > free:
        raise StoreError(
            f"{folder}: un-pooled features of {len(shapes)} layers take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free; name fewer layers in human.reduction.of, or wherever else tokens of this bundle are asked for"
        )
