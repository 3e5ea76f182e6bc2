"""Plain arrays: a tensor in ``.pt``, ``.npy``, ``.npz`` and ``.safetensors``, with names inside or beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffalign.io.headers import StoreError
from diffalign.io.layouts import thingsvision
from diffalign.io.layouts.content import Content, stacked

LAYOUT = "array"


def read_tensor(tensor: Any, path: Path) -> Content:
    """One tensor that was read from `path`: (N, D), or (N, L, D)."""
    return Content(LAYOUT, stacked(tensor), None, path)


def read_safetensors(path: Path) -> Content:
    """Tensors by key; ``names`` is (N, L) uint8, UTF-8 padded with zeros. Raises StoreError for other names."""
    from safetensors import safe_open

    from diffalign.io.latents import decode_names

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    names = tensors.pop("names", None)
    if names is None:
        return Content(LAYOUT, _tables(tensors), None, path)
    if names.ndim != 2 or str(names.dtype) != "torch.uint8":
        raise StoreError(
            f"{path}: 'names' is {tuple(names.shape)} of {names.dtype}; expected (N, L) uint8, UTF-8 padded with zeros"
        )
    return Content(LAYOUT, _tables(tensors), decode_names(names), path)


def read_numpy(path: Path) -> Content:
    """Arrays of ``.npy`` or ``.npz``, whose ``names`` are (N,) text; a file of thingsvision is one of these.

    Raises StoreError for other names.
    """
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Content("thingsvision" if thingsvision.is_written_by(path) else LAYOUT, stacked(loaded), None, path)
    with loaded:
        arrays = {key: loaded[key] for key in loaded.files}
    names = arrays.pop("names", None)
    if names is None:
        return Content(LAYOUT, _tables(arrays), None, path)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise StoreError(f"{path}: 'names' is {names.shape} of {names.dtype}; expected (N,) text")
    decoded = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    return Content(LAYOUT, _tables(arrays), decoded.tolist(), path)


def _tables(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arrays of one file those with a row an image and more than one column; a single stack by index."""
    tables = {key: array for key, array in arrays.items() if array.ndim >= 2}
    only = next(iter(tables.values())) if len(tables) == 1 else None
    return tables if only is None or only.ndim != 3 else stacked(only)
