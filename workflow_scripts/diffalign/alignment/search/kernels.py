"""Compiled loops over neighbour lists. Array operations would need many times the memory."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffalign.alignment.search.bounds import QUANTUM

# side of the squares in which a matrix is mirrored
_TILE = 32


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _similarity(rows: NDArray[np.float32], i: int, j: int) -> float:
    """Dot product of two rows in float64. The order of summation depends only on their width."""
    total = 0.0
    for d in range(rows.shape[1]):
        total += np.float64(rows[i, d]) * np.float64(rows[j, d])
    return total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _closeness(rows: NDArray[np.float32], i: int, j: int) -> float:
    """Minus half of the squared distance of two rows in float64, summed as `_similarity`."""
    total = 0.0
    for d in range(rows.shape[1]):
        total += (np.float64(rows[i, d]) - np.float64(rows[j, d])) ** 2
    return -total / 2


@njit(nogil=True, cache=True)
def _settle(
    rows: NDArray[np.float32],
    i: int,
    candidates: NDArray[np.int32],
    by_distance: bool,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> None:
    """Measure the candidates of row i, in ascending order, and write the nearest; ties in order of index."""
    steps = np.empty(len(candidates))
    for c in range(len(candidates)):
        measured = _closeness(rows, i, candidates[c]) if by_distance else _similarity(rows, i, candidates[c])
        steps[c] = -np.rint(measured / QUANTUM)
    # a stable sort keeps ties in order of index
    best = np.argsort(steps, kind="mergesort")
    for rank in range(len(indices)):
        indices[rank] = candidates[best[rank]]
        similarities[rank] = -steps[best[rank]] * QUANTUM


@njit(nogil=True, cache=True)
def settle_products(
    rows: NDArray[np.float32],
    queries: NDArray[np.intp],
    products: NDArray[np.floating],
    cuts: NDArray[np.floating],
    most: int,
    by_distance: bool,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Write the nearest neighbours of each query. Candidates are the columns whose products reach its cut.

    rows: (N, D). queries: (B,). products: (B, N), -inf for a query with itself. cuts: (B,), of the type of products.
    by_distance: whether similarity is minus half of the squared distance, else the product.
    indices, similarities: (B, k), written. Returns (B,) whether a query has more than `most` candidates; its
    lists are then not written.
    """
    crowded = np.zeros(len(queries), np.bool_)
    candidates = np.empty(products.shape[1], np.int32)
    for row in range(len(queries)):
        count = 0
        for column in range(products.shape[1]):
            # without a branch: written always, counted if it is a candidate
            candidates[count] = column
            count += products[row, column] >= cuts[row]
        if count > most:
            crowded[row] = True
        else:
            _settle(rows, queries[row], candidates[:count], by_distance, indices[row], similarities[row])
    return crowded


@njit(nogil=True, cache=True)
def settle_listed(
    rows: NDArray[np.float32],
    queries: NDArray[np.intp],
    starts: NDArray[np.int64],
    candidates: NDArray[np.int32],
    by_distance: bool,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
) -> None:
    """Write the nearest neighbours of each query from a list of candidates; nothing for a query without candidates.

    rows: (N, D). queries: (B,). candidates: those of all queries, concatenated. starts: (B + 1,), where those of each
    query begin. by_distance: as in `settle_products`. indices, similarities: (B, k), written.
    """
    for row in range(len(queries)):
        listed = candidates[starts[row] : starts[row + 1]]
        if len(listed):
            _settle(rows, queries[row], listed, by_distance, indices[row], similarities[row])


@njit(nogil=True, cache=True)
def mirror(products: NDArray[np.float32], start: int, stop: int) -> None:
    """Copy the rows start … stop - 1 right of column `stop` to the lower triangle: products[j, i] = products[i, j]."""
    for left in range(stop, products.shape[1], _TILE):
        for top in range(start, stop, _TILE):
            for j in range(left, min(left + _TILE, products.shape[1])):
                for i in range(top, min(top + _TILE, stop)):
                    products[j, i] = products[i, j]


@njit(nogil=True, cache=True)
def reverse_edges(targets: NDArray[np.int32]) -> NDArray[np.int64]:
    """Position (L N k,) of the edge j -> i in the same layer, for each edge i -> j of targets (L, N, k), or -1."""
    layers, count, k = targets.shape
    reverse = np.full(layers * count * k, -1, np.int64)
    for layer in range(layers):
        for i in range(count):
            for rank in range(k):
                j = targets[layer, i, rank]
                for back in range(k):
                    if targets[layer, j, back] == i:
                        reverse[(layer * count + i) * k + rank] = (layer * count + j) * k + back
                        break
    return reverse
