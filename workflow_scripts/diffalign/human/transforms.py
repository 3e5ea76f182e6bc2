"""Linear maps of features that bring them closer to people: files of gLocal's layout and older ones."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import write_arrays


class TransformError(ValueError):
    """A transform that cannot be read or does not fit; the message names the file."""


@dataclass(frozen=True, eq=False)
class Transform:
    """x ↦ ((x - mean) / std) @ weights + bias. weights: (D, E) float32. bias: (E,) or None.

    mean, std: one number each; None, the mean and std of all features that it is applied to, as for files without them.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None
    mean: float | None = None
    std: float | None = None
    where: str = "transform"

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or not np.isfinite(self.weights).all():
            raise TransformError(f"{self.where}: weights are {self.weights.shape}, or not finite; expected (D, E)")
        if self.bias is not None and self.bias.shape != self.weights.shape[1:]:
            raise TransformError(f"{self.where}: a bias {self.bias.shape} does not fit weights {self.weights.shape}")
        if (self.mean is None) != (self.std is None) or (self.std is not None and not self.std > 0):
            raise TransformError(f"{self.where}: mean {self.mean} and std {self.std}; expected both, std above 0")

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Transformed rows (N, E) of rows (N, D). Raises TransformError for another width."""
        if rows.ndim != 2 or rows.shape[1] != len(self.weights):
            raise TransformError(
                f"{self.where}: takes features of {len(self.weights)} dimensions, these have {rows.shape[-1]}"
            )
        x = np.asarray(rows, np.float64)
        mean, std = (x.mean(), x.std()) if self.mean is None or self.std is None else (self.mean, self.std)
        if not std > 0:
            raise TransformError(f"{self.where}: all features are equal, so their std is no scale")
        moved = (x - mean) / std @ self.weights
        return moved if self.bias is None else moved + self.bias


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

    ``.npz``: gLocal's, as `write_transform`. ``.npy``: weights (D, D), or (D, D + 1) with the bias as last column,
    which probes of human_alignment save. ``.pkl``: a dictionary of such arrays, or of gLocal's, by source, model and
    module, which are `keys`; nothing is unpickled but NumPy arrays and plain containers. Raises TransformError.
    """
    if path.suffix not in (".npz", ".npy", ".pkl"):
        raise TransformError(f"{path}: a transform is a file .npz, .npy or .pkl")
    try:
        if path.suffix == ".pkl":
            content = _Unpickler(io.BytesIO(path.read_bytes())).load()
        else:
            content = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise TransformError(f"{path}: cannot be read as a transform ({error})") from error
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            there = ", ".join(map(str, content)) if isinstance(content, Mapping) else "an array"
            raise TransformError(f"{path}: has no '{key}'; there: {there}")
        content = content[key]
    return _of(content, str(path))


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


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays in plain containers, and refuses everything else."""

    _ALLOWED = frozenset(
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("collections", "OrderedDict"),
            ("collections", "defaultdict"),
            ("builtins", "dict"),
            # of protocol 2, bytes are text in this encoding
            ("_codecs", "encode"),
        )
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it would load {module}.{name}, which is not data")
        return super().find_class(module, name)
