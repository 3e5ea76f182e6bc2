"""Whether the points of two sets that belong together are nearest to each other in a shared space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.shared_space.affinity import check_rows, rows_in, squared_distances

Array = NDArray[np.floating[Any]]

# distances that differ by less, as a share of squared norms, are equal
_TIE = 1e-12


@dataclass(frozen=True)
class Pairing:
    """Shares in [0, 1]. own_cluster: None where there are no clusters; by chance, Σ p_k² of shares p_k of clusters.
    own_index: by chance 1 / N.
    """

    own_cluster: float | None
    own_index: float


def pairing(
    x_new: Array, y_new: Array, clusters: NDArray[np.integer[Any]] | None = None, memory_mb: int = 512
) -> Pairing:
    """How often the nearest neighbour of a point, in the other set, is of its own cluster, and is its own partner.

    x_new, y_new: (N, d), rows i of both being one thing. clusters: (N,) of both. Neighbours are looked for from x in y
    and from y in x, and both shares are averaged. Points that are equally near share the credit, so that sets that
    collapse into a point score at chance.

    Raises ValueError for sets of different shape, rows that are NaN or infinite, and another number of clusters.
    """
    check_rows(x_new, "features of the first set")
    check_rows(y_new, "features of the second set")
    if x_new.shape != y_new.shape:
        raise ValueError(f"sets have shapes {x_new.shape} and {y_new.shape}; rows must belong to one another")
    if clusters is not None and clusters.shape != (len(x_new),):
        raise ValueError(f"clusters have shape {clusters.shape}; expected ({len(x_new)},)")
    known = None if clusters is None else np.asarray(np.unique(clusters, return_inverse=True)[1], np.int64)
    there = _credits(x_new, y_new, known, memory_mb)
    back = _credits(y_new, x_new, known, memory_mb)
    own_index, own_cluster = (float(np.mean([a, b])) for a, b in zip(there, back, strict=True))
    return Pairing(None if known is None else own_cluster, own_index)


def _credits(x: Array, y: Array, clusters: NDArray[np.int64] | None, memory_mb: int) -> tuple[float, float]:
    """Shares of rows of x whose nearest row of y has their number, and has their cluster (0 without clusters)."""
    size = rows_in(memory_mb, x, y)
    middle = y.mean(axis=0, dtype=np.float64)
    largest = float(np.square(y - middle).sum(axis=1).max())
    index, cluster = 0.0, 0.0
    for begin in range(0, len(x), size):
        block = x[begin : begin + size]
        distances = squared_distances(block, y).numpy()
        rounding = _TIE * (np.square(block - middle).sum(axis=1) + largest)
        nearest = distances <= (distances.min(axis=1) + rounding)[:, None]
        tied = nearest.sum(axis=1)
        rows = np.arange(len(block))
        index += float((nearest[rows, begin + rows] / tied).sum())
        if clusters is not None:
            own = clusters[begin : begin + size, None] == clusters[None, :]
            cluster += float(((nearest & own).sum(axis=1) / tied).sum())
    return index / len(x), cluster / len(x)
