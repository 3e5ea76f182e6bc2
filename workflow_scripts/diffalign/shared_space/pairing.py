"""Whether the points of two sets that belong together are nearest to each other in a shared space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.shared_space.affinity import check_rows, row_blocks, rows_in, squared_distances

if TYPE_CHECKING:
    from scipy import sparse

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
    both = nearest_shares(x_new, y_new, memory_mb), nearest_shares(y_new, x_new, memory_mb)

    def own(codes: NDArray[np.integer[Any]]) -> float:
        return float(np.mean([credit_of(shares, codes).mean() for shares in both]))

    return Pairing(None if clusters is None else own(clusters), own(np.arange(len(x_new))))


def nearest_shares(x: Array, y: Array, memory_mb: int = 512) -> sparse.csr_array:
    """Which row of y (M, d) is nearest to each row of x (N, d): (N, M), rows sum to 1, equally near rows share."""
    from scipy import sparse

    size, near_by = rows_in(memory_mb, x, y), rounding(x, y)
    parts = []
    for begin in range(0, len(x), size):
        rows = slice(begin, begin + size)
        nearest = is_nearest(squared_distances(x[rows], y).numpy(), near_by[rows])
        parts.append(sparse.csr_array(nearest / nearest.sum(axis=1, keepdims=True)))
    return sparse.csr_array(sparse.vstack(parts))


def credit_of(shares: sparse.csr_array, codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The share of each row's nearest that have its code, (N,). shares: of `nearest_shares`. codes: (N,)."""
    entries = shares.tocoo()
    own = codes[entries.row] == codes[entries.col]
    # by counts, since the shares of a row are equal, so that a row whose nearest all have its code has exactly 1
    counts = [np.bincount(rows, minlength=shares.shape[0]) for rows in (entries.row[own], entries.row)]
    return np.asarray(counts[0] / counts[1], np.float64)


def rounding(x: Array, y: Array) -> NDArray[np.float64]:
    """By how much squared distances of each row of x (N, d) to rows of y (M, d) may differ and be equal, (N,)."""
    middle = y.mean(axis=0, dtype=np.float64)
    largest = max(float(np.square(block - middle).sum(axis=1).max()) for _, block in row_blocks(y, 2**22))
    norms = [np.square(block - middle).sum(axis=1) for _, block in row_blocks(x, 2**22)]
    return _TIE * (np.concatenate(norms) + largest)


def is_nearest(distances: NDArray[np.float64], near_by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each column is the nearest of its row, or equally near. distances: (N, M). near_by: of `rounding`."""
    return np.asarray(distances <= (distances.min(axis=1) + near_by)[:, None])
