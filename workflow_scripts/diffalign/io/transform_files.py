"""Files of linear maps of features that bring them closer to people: gLocal's layout and older ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffalign.human.transforms import Transform, TransformError
from diffalign.io.atomic import write_arrays
from diffalign.io.headers import members_of
from diffalign.io.pickled_arrays import unpickled
from diffalign.reasons import reason


def write_transform(path: Path, transform: Transform) -> None:
    """Write ``weights``, ``mean``, ``std`` and, where there is one, ``bias``: gLocal's layout. Needs mean and std."""
    if transform.mean is None or transform.std is None:
        raise TransformError(f"{path}: a transform is saved with its mean and std")
    arrays: dict[str, Any] = {
        "weights": transform.weights,
        "mean": np.float32(transform.mean),
        "std": np.float32(transform.std),
    }
    if transform.bias is not None:
        arrays["bias"] = transform.bias
    write_arrays(path, arrays)


def read_transform(path: Path, keys: tuple[str, ...] = ()) -> Transform:
    """Read a transform.

    ``.npz``: gLocal's, as `write_transform`, or one array as ``numpy.savez`` calls it, ``arr_0``, as of a ``.npy``.
    ``.npy``: weights (D, D), or (D, D + 1) with the bias as last column,
    which probes of human_alignment save. ``.pkl``: a dictionary of such arrays, or of gLocal's, by source, model and
    module, which are `keys`; nothing is unpickled but NumPy arrays and plain containers. Raises TransformError.
    """
    if path.suffix not in (".npz", ".npy", ".pkl"):
        raise TransformError(f"{path}: a transform is a file .npz, .npy or .pkl")
    try:
        content = unpickled(path.read_bytes()) if path.suffix == ".pkl" else _arrays(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise TransformError(f"{path}: cannot be read as a transform ({reason(error)})") from error
    if isinstance(content, Mapping) and list(content) == ["arr_0"]:
        content = content["arr_0"]
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            there = ", ".join(map(str, content)) if isinstance(content, Mapping) else "an array"
            raise TransformError(f"{path}: has no '{key}'; there: {there}")
        content = content[key]
    try:
        return _of(content, str(path))
    except (ValueError, TypeError, MemoryError) as error:
        if isinstance(error, TransformError):
            raise
        raise TransformError(f"{path}: holds no numbers ({reason(error)})") from error


def _arrays(path: Path) -> Any:
    """The array of a ``.npy``, or those of an ``.npz`` by name. Raises ValueError for a member that is no array."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return members_of(loaded)


def _of(content: Any, where: str) -> Transform:
    if isinstance(content, np.ndarray):
        if content.ndim != 2 or content.shape[1] - content.shape[0] not in (0, 1):
            raise TransformError(f"{where}: holds an array {content.shape}; expected (D, D), or (D, D + 1) with a bias")
        width = len(content)
        bias = content[:, width].astype(np.float32) if content.shape[1] > width else None
        return Transform(content[:, :width].astype(np.float32), bias, where=where)
    if not isinstance(content, Mapping) or "weights" not in content:
        there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise TransformError(f"{where}: expected weights; there: {there}")
    numbers = {key: float(content[key]) if key in content else None for key in ("mean", "std")}
    bias = np.asarray(content["bias"], np.float32) if "bias" in content else None
    return Transform(np.asarray(content["weights"], np.float32), bias, **numbers, where=where)
