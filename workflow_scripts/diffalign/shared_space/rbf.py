"""Affinities to landmarks as features: alike for sets that differ by shift, rotation and isotropic scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.shared_space.affinity import affinity_blocks, check_rows, scale, total_variance

Array = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rbf:
    """Features x (N, D) become their affinities to m landmarks. landmarks: (m, D) float32. variance: of the set that
    it was fitted to, which with gamma sets the unit of distances; both stay as they are for other rows.
    """

    landmarks: Float32
    gamma: float
    variance: float

    def apply(self, x: Array, memory_mb: int = 1024) -> Float32:
        """exp(-‖x_i - landmark_j‖² / (2 γ variance)), (N, m) float32, block by block of at most memory_mb.

        Raises ValueError for another width than that of landmarks, and for rows that are NaN or infinite.
        """
        check_rows(x)
        if x.shape[1] != self.landmarks.shape[1]:
            raise ValueError(f"features have {x.shape[1]} columns and landmarks {self.landmarks.shape[1]}")
        made = np.empty((len(x), len(self.landmarks)), np.float32)
        for begin, block in affinity_blocks(x, self.landmarks, self.gamma, self.variance, memory_mb):
            made[begin : begin + len(block)] = block
        return made


def fit_rbf(x: Array, rows: Sequence[int] | NDArray[np.int64], c: float, memory_mb: int = 1024) -> Rbf:
    """Affinities to these rows of x (N, D), at the scale where their mean over x is c: auto-scaling.

    rows: of landmarks, each once; two sets become comparable where landmarks are the same names in the same order.
    Raises ValueError for rows that repeat or don't exist, and what `scale` raises.
    """
    chosen = np.asarray(rows, np.int64)
    if not chosen.size or len(np.unique(chosen)) < len(chosen) or chosen.min() < 0 or chosen.max() >= len(x):
        raise ValueError(
            f"landmarks must be different rows of 0 … {len(x) - 1}; there are {len(chosen)}: {chosen[:5]} …"
        )
    single = np.asarray(x, np.float32)
    landmarks = single[chosen]
    return Rbf(landmarks, scale(single, landmarks, c, memory_mb), total_variance(single))
