"""Exact nearest neighbours by cosine similarity, blockwise: no N x N matrix is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# above so many candidates a row's float32 products do not tell its neighbours apart
_CROWD = 1024
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

    rows: (N, D) float32 of unit norm. Candidates come from matrix products, within a bound on their error, and are
    measured again in float64, so the lists equal a float64 brute force and do not depend on block size, threads or
    BLAS. Ties go to the smaller index. Raises ValueError unless 1 <= k <= N - 1.
    """
    count = len(rows)
    if not 1 <= k <= count - 1:
        raise ValueError(f"k = {k} neighbours need at least {k + 1} images, got {count}")
    single = np.ascontiguousarray(rows)
    double = single.astype(np.float64)
    indices = np.empty((count, k), np.int32)
    similarities = np.empty((count, k), np.float32)
    block = max(1, _BLOCK_BYTES // (8 * count))
    for start in range(0, count, block):
        waiting = np.arange(start, min(start + block, count))
        # float32 products single out the candidates of nearly all rows, float64 products those of crowded ones
        for source, crowd in ((single, _CROWD), (double, count)):
            products = source[waiting] @ source.T
            crowded = []
            for i, row in zip(waiting, products, strict=True):
                row[i] = -np.inf
                chosen = _candidates(row, k, rows.shape[1])
                if len(chosen) > k + crowd:
                    crowded.append(i)
                    continue
                # einsum, not a matrix product: equal rows then give equal sums wherever they stand
                exact = np.einsum("cd,d->c", double[chosen], double[i])
                best = _order(exact, chosen)[:k]
                indices[i], similarities[i] = chosen[best], exact[best]
            waiting = np.array(crowded, dtype=np.intp)
            if not crowded:
                break
    return Neighbors(indices, similarities)


def _candidates(products: NDArray[np.floating], k: int, width: int) -> NDArray[np.intp]:
    """Every row that may be among the k nearest, given approximate products of unit rows of this width.

    A dot product of unit rows is off by less than width * eps (Higham 2002, section 3.1). So the k-th similarity is
    above the k-th product less that error, and a row further below it than twice the error cannot belong.
    """
    cut = np.partition(products, -k)[-k]
    error = width * float(np.finfo(products.dtype).eps)
    return np.flatnonzero(products >= cut - 2 * error - _QUANTUM)


def _order(similarities: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions that sort by (-similarity, index)."""
    return np.lexsort((chosen, -np.round(similarities / _QUANTUM)))
