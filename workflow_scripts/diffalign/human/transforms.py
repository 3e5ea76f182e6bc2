"""Linear transforms of features that were trained on human choices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class TransformError(ValueError):
    """A transform cannot be read or does not fit. The message names the file."""


@dataclass(frozen=True, eq=False)
class Transform:
    """x ↦ ((x - mean) / std) @ weights + bias. weights: (D, E) float32. bias: (E,) or None.

    mean, std: scalars. None: the mean and std of the features that are transformed, as for files without them. where:
    the file, for messages. Raises TransformError for arrays that do not fit together.
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
