"""How tokens that are not pooled lie on disk: a folder with one array a layer, for a job that reads them in blocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import make_empty
from diffalign.io.headers import FileKind, StoreError
from diffalign.logs import log
from diffalign.offenders import first_five, flagged

KIND = FileKind("a list of un-pooled layers", 1)
_MANIFEST = "layers.json"


@dataclass(frozen=True)
class Tokens:
    """Of all images: alias -> (N, T, C) float32, mapped and not read; names, rows in their order; what made them."""

    layers: Mapping[str, NDArray[np.float32]]
    names: tuple[str, ...]
    recipe: Mapping[str, Any]


def write_tokens(
    folder: Path,
    names: Sequence[str],
    batches: Iterable[tuple[Sequence[str], Mapping[str, NDArray[np.float32]]]],
    recipe: Mapping[str, Any],
) -> None:
    """Write batch by batch: the names of its images, and alias -> (B, T, C).

    The manifest comes last, so a folder without one is not whole. Raises StoreError where the disk is too small, before
    the first batch is written; ValueError where images give other numbers of tokens, or tokens are NaN or infinite.
    """
    make_empty(folder)
    row_of = {name: row for row, name in enumerate(names)}
    arrays: dict[str, NDArray[np.float32]] = {}
    for in_batch, tokens in batches:
        if not arrays:
            shapes = {alias: (len(names), *values.shape[1:]) for alias, values in tokens.items()}
            _check_room(folder, shapes)
            arrays = {alias: _created(folder, alias, shape) for alias, shape in shapes.items()}
        rows = [row_of[name] for name in in_batch]
        for alias, values in tokens.items():
            if values.shape[1:] != arrays[alias].shape[1:]:
                raise ValueError(
                    f"layer {alias}: gave {values.shape[1:]} tokens and channels for {in_batch[0]}, "
                    f"{arrays[alias].shape[1:]} before; un-pooled features are of images of one size"
                )
            bad = np.asarray(~np.isfinite(values).all(axis=(1, 2)))
            if bad.any():
                raise ValueError(f"layer {alias}: tokens are NaN or infinite for {first_five(flagged(in_batch, bad))}")
            arrays[alias][rows] = values
    for array in arrays.values():
        array.base.flush()  # type: ignore[union-attr]
    KIND.write_json(folder / _MANIFEST, layers=list(arrays), names=list(names), recipe=recipe)


def read_tokens(folder: Path) -> Tokens:
    """Map what `write_tokens` wrote. Raises StoreError for a folder that is not whole, and names it."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise StoreError(f"{manifest}: missing, so the folder is not whole; delete it and rerun")
    content = KIND.read_json(manifest)
    layers = {alias: np.load(folder / f"{alias}.npy", mmap_mode="r") for alias in content["layers"]}
    return Tokens(layers, tuple(content["names"]), content["recipe"])


def _created(folder: Path, alias: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.lib.format.open_memmap(folder / f"{alias}.npy", "w+", np.float32, shape)
    return made


def _check_room(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    needed, free = 4 * sum(int(np.prod(shape)) for shape in shapes.values()), shutil.disk_usage(folder).free
    each = ", ".join(f"{alias} {' x '.join(map(str, shape))}" for alias, shape in shapes.items())
    log.info(
        "un-pooled features take %.2f GB in %s, of %.2f GB that are free: %s", needed / 1e9, folder, free / 1e9, each
    )
    if needed > free:
        raise StoreError(
            f"{folder}: un-pooled features of {len(shapes)} layers take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free; name fewer layers in human.reduction.of"
        )
