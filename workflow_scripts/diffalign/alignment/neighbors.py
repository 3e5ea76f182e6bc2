"""Exact nearest neighbours by cosine similarity, blockwise: no N x N matrix is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# candidates beyond k that are measured again in float64
_MARGIN = 16
# order is decided on similarities rounded to this step, so that equal rows tie on every machine
_QUANTUM = 2.0**-40
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of every image, itself left out.

    indices: (N, K) int32. similarities: (N, K) float32, cosine. Ordered by (-similarity, index) in each row.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]

    @property
    def count(self) -> int:
        """N."""
        return int(self.indices.shape[0])

    @property
    def k_max(self) -> int:
        """K, the length of the lists."""
        return int(self.indices.shape[1])


def nearest_neighbors(rows: NDArray[np.float32], k: int) -> Neighbors:
    """The k nearest neighbours of each unit row.

    rows: (N, D) float32 of unit norm. Candidates come from float32 matrix products; those near the cut are measured
    again in float64, so the lists equal a float64 brute force and do not depend on block size, threads or BLAS. Ties go
    to the smaller index. Raises ValueError unless 1 <= k <= N - 1.
    """
    count, width = rows.shape
    if not 1 <= k <= count - 1:
        raise ValueError(f"k = {k} neighbours need at least {k + 1} images, got {count}")
    rows = np.ascontiguousarray(rows)
    double = rows.astype(np.float64)
    indices = np.empty((count, k), np.int32)
    similarities = np.empty((count, k), np.float32)
    candidates = min(k + _MARGIN, count - 1)
    # a bound on the error of a float32 dot product of unit rows
    error = 4 * np.finfo(np.float32).eps * np.sqrt(width)
    gathered = np.empty((candidates, width))
    block = max(1, _BLOCK_BYTES // (4 * count))
    for start in range(0, count, block):
        stop = min(start + block, count)
        approximate = rows[start:stop] @ rows.T
        approximate[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        chosen = np.argpartition(approximate, -candidates, axis=1)[:, -candidates:]
        # no row left out is closer than this
        left_out = np.take_along_axis(approximate, chosen, 1).min(axis=1)
        for i in range(start, stop):
            mine = chosen[i - start]
            # einsum, not a matrix product: equal rows then give equal sums wherever they stand
            exact = np.einsum("cd,d->c", np.take(double, mine, axis=0, out=gathered, mode="clip"), double[i])
            best = _order(exact, mine)[:k]
            if candidates < count - 1 and left_out[i - start] + error >= exact[best[-1]]:
                # a row left out may, within its error, belong in the list: then all are measured
                mine = np.delete(np.arange(count), i)
                exact = np.delete(np.einsum("cd,d->c", double, double[i]), i)
                best = _order(exact, mine)[:k]
            indices[i] = mine[best]
            similarities[i] = exact[best]
    return Neighbors(indices, similarities)


def _order(similarities: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions that sort by (-similarity, index)."""
    return np.lexsort((chosen, -np.round(similarities / _QUANTUM)))
