"""Plain arrays: a tensor in ``.pt``, ``.npy``, ``.npz`` and ``.safetensors``, with names inside or beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffalign.io.headers import StoreError, members_of
from diffalign.io.layouts import thingsvision
from diffalign.io.layouts.content import Content, Keys, is_numbers, listed, stacked
from diffalign.offenders import first_five

LAYOUT = "array"


def read_tensor(tensor: Any, path: Path) -> Content:
    """One tensor or array that was read from `path`: (N, D), or (N, L, D). Raises StoreError for anything else."""
    if not is_numbers(tensor):
        raise StoreError(f"{path}: holds a {type(tensor).__name__}; expected a tensor or a dictionary")
    return Content(LAYOUT, stacked(tensor), None, path)


def read_dictionary(content: Mapping[Any, Any], keys: Keys, path: Path) -> Content:
    """A dictionary of no known layout: the features and the names under the keys that a user gives. Raises StoreError
    for a key that it lacks, and for what lies there.
    """
    asked = [key for key in (keys.features, keys.names) if key is not None]
    absent = [key for key in asked if key not in content]
    if absent:
        has = first_five(sorted(map(str, content)))
        raise StoreError(f"{path}: has no key {', '.join(absent)}; it has {has}")
    names = None if keys.names is None else listed(content[keys.names], keys.names, path)
    found = content if keys.features is None else {keys.features: content[keys.features]}
    parts = {str(key): part for key, part in found.items() if is_numbers(part)}
    if not parts:
        raise StoreError(f"{path}: '{keys.features}' is a {type(content[keys.features]).__name__}; expected a tensor")
    return Content(LAYOUT, _tables(parts), names, path)


def read_safetensors(path: Path, keys: Keys) -> Content:
    """Tensors by key; ``names``, or what `keys` call them, is (N, L) uint8, UTF-8 padded with zeros. Raises StoreError
    for other names.
    """
    from safetensors import safe_open

    from diffalign.io.latents import decode_names

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    names, tensors = _apart(tensors, keys, path)
    if names is None:
        return Content(LAYOUT, _tables(tensors), None, path)
    if names.ndim != 2 or str(names.dtype) != "torch.uint8":
        raise StoreError(
            f"{path}: '{keys.names or 'names'}' is {tuple(names.shape)} of {names.dtype}; expected (N, L) uint8, UTF-8 "
            "padded with zeros"
        )
    return Content(LAYOUT, _tables(tensors), decode_names(names), path)


def read_numpy(path: Path, keys: Keys) -> Content:
    """Arrays of ``.npy`` or ``.npz``, whose ``names``, or what `keys` call them, are (N,) text; a file of thingsvision
    is one of these.

    Raises StoreError for other names.
    """
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Content("thingsvision" if thingsvision.is_written_by(path) else LAYOUT, stacked(loaded), None, path)
    with loaded:
        arrays = members_of(loaded)
    names, arrays = _apart(arrays, keys, path)
    if names is None:
        return Content(LAYOUT, _tables(arrays), None, path)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise StoreError(f"{path}: '{keys.names or 'names'}' is {names.shape} of {names.dtype}; expected (N,) text")
    return Content(LAYOUT, _tables(arrays), listed(names, "names", path), path)


def _apart(arrays: Mapping[str, Any], keys: Keys, path: Path) -> tuple[Any, dict[str, Any]]:
    """The names of a file, None where it has none, and its other arrays; of those, the one that `keys` name."""
    absent = [key for key in (keys.features, keys.names) if key is not None and key not in arrays]
    if absent:
        raise StoreError(f"{path}: has no key {', '.join(absent)}; it has {first_five(sorted(arrays))}")
    names = arrays.get(keys.names or "names")
    others = {key: array for key, array in arrays.items() if key != (keys.names or "names")}
    return names, others if keys.features is None else {keys.features: arrays[keys.features]}


def _tables(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arrays of one file those with a row an image and more than one column; a single stack by index."""
    tables = {key: array for key, array in arrays.items() if array.ndim >= 2}
    only = next(iter(tables.values())) if len(tables) == 1 else None
    return tables if only is None or only.ndim != 3 else stacked(only)
