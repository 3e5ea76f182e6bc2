"""Odd-one-out choices as the published code computes them: every pair of rows by itself, in float32, by torch.

Rounding then decides between pairs that are nearly as similar as each other, and makes ties of some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign.human.choices import closest_pairs, gather
from diffalign.human.odd_one_out import Choices
from diffalign.human.triplets import Triplets
from diffalign.specs import FLOAT32_DISTANCES

if TYPE_CHECKING:
    import torch

# the smallest norm that torch.nn.functional.cosine_similarity divides by
_LEAST_NORM = 1e-8


def odd_one_out_float32(
    rows: NDArray[np.floating], triplets: Triplets, distance: str = "cosine", memory_mb: int = 1000
) -> Choices:
    """Choices of rows (N, D), cast to float32, on every triplet; only what is equal is a tie.

    memory_mb: for a block of distances between objects; no result depends on it. Raises ValueError for another distance
    than FLOAT32_DISTANCES, NaN and infinity, and where the number of rows is not that of objects.
    """
    import torch

    if distance not in FLOAT32_DISTANCES:
        raise ValueError(f"unknown distance '{distance}' of float32; allowed: {', '.join(FLOAT32_DISTANCES)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        x = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
    if x.ndim != 2 or not bool(torch.isfinite(x).all()):
        raise ValueError(f"features are {tuple(x.shape)}, or NaN or infinite in float32; expected finite (N, D)")
    if len(x) != triplets.count:
        raise ValueError(f"{len(x)} rows of features for {triplets.count} objects")
    if distance == "cosine":
        x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(_LEAST_NORM)
    similarities = np.empty((len(triplets), 3))
    size = max(1, int(memory_mb * 2**20 / (8 * len(x))))
    for start in range(0, len(x), size):
        block = torch.stack([_distances(x, row, distance) for row in range(start, min(start + size, len(x)))])
        gather(triplets.objects, -block.double().numpy(), start, similarities)
    # a scale of zero: what differs by rounding differs
    return Choices(closest_pairs(triplets.objects, similarities, np.zeros(len(x))))


def _distances(x: torch.Tensor, row: int, distance: str) -> torch.Tensor:
    """Distances (N,) of a row to all. x: (N, D), of norm 1 for ``cosine``.

    Sums, and no matrix product: that adds up the terms of a pair in another order.
    """
    import torch

    far: torch.Tensor
    far = 1 - (x[row] * x).sum(dim=1) if distance == "cosine" else torch.linalg.vector_norm(x[row] - x, dim=1)
    return far
