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
        # products in float32 settle nearly all rows, products in float64 those whose cut lies among near-ties
        for source in (single, double):
            if len(waiting) == 0:
                break
            products = source[waiting] @ source.T
            waiting = np.array(
                [
                    i
                    for i, row in zip(waiting, products, strict=True)
                    if not _settle(double, int(i), row, k, indices, similarities)
                ],
                dtype=np.intp,
            )
        for i in waiting:
            _measure(double, int(i), np.delete(np.arange(count), i), k, indices, similarities)
    return Neighbors(indices, similarities)


def _settle(
    double: NDArray[np.float64],
    i: int,
    products: NDArray[np.floating],
    k: int,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> bool:
    """Fill row i from its best candidates; False where a row left out may, within the products' error, belong there.

    products: (N,) approximate similarities of row i with all rows.
    """
    count, width = double.shape
    products[i] = -np.inf
    candidates = min(k + _MARGIN, count - 1)
    chosen = np.argpartition(products, -candidates)[-candidates:]
    last = _measure(double, i, chosen, k, indices, similarities)
    # a bound on the error of a dot product of unit rows
    error = 4 * np.finfo(products.dtype).eps * np.sqrt(width)
    return candidates == count - 1 or bool(products[chosen].min() + error < last)


def _measure(
    double: NDArray[np.float64],
    i: int,
    chosen: NDArray[np.intp],
    k: int,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> float:
    """Fill row i with the k best of the chosen rows, measured in float64; return the similarity of the last."""
    # einsum, not a matrix product: equal rows then give equal sums wherever they stand
    exact = np.einsum("cd,d->c", double[chosen], double[i])
    best = _order(exact, chosen)[:k]
    indices[i] = chosen[best]
    similarities[i] = exact[best]
    return float(exact[best[-1]])


def _order(similarities: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions that sort by (-similarity, index)."""
    return np.lexsort((chosen, -np.round(similarities / _QUANTUM)))
