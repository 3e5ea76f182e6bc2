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
def _steps(rows: NDArray[np.float32], i: int, candidates: NDArray[np.int32], unit: float) -> NDArray[np.float64]:
    """Negative similarity of row i to each candidate, in steps of QUANTUM. unit: as in `bounds.Searched`."""
    steps = np.empty(len(candidates))
    for c in range(len(candidates)):
        j = candidates[c]
        measured = _closeness(rows, i, j) / unit if unit > 0 else _similarity(rows, i, j)
        steps[c] = -np.rint(measured / QUANTUM)
    return steps


@njit(nogil=True, cache=True)
def _settle(
    rows: NDArray[np.float32],
    i: int,
    candidates: NDArray[np.int32],
    unit: float,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
    tied: NDArray[np.bool_],
) -> int:
    """Measure the candidates of row i, in ascending order, and write the nearest; ties in order of index.

    Returns the number of candidates beyond them that are as similar as the last one.
    """
    steps = _steps(rows, i, candidates, unit)
    # a stable sort keeps ties in order of index
    best = np.argsort(steps, kind="mergesort")
    k = len(indices)
    for rank in range(k):
        indices[rank] = candidates[best[rank]]
        similarities[rank] = -steps[best[rank]] * QUANTUM
        tied[rank] = rank > 0 and steps[best[rank]] == steps[best[rank - 1]]
    further = 0
    while k + further < len(best) and steps[best[k + further]] == steps[best[k - 1]]:
        further += 1
    return further


@njit(nogil=True, cache=True)
def _list_further(
    rows: NDArray[np.float32],
    i: int,
    candidates: NDArray[np.int32],
    unit: float,
    k: int,
    further: NDArray[np.int32],
) -> None:
    """Write the candidates beyond the k nearest that are as similar as the last of these, in order of index."""
    best = np.argsort(_steps(rows, i, candidates, unit), kind="mergesort")
    for place in range(len(further)):
        further[place] = candidates[best[k + place]]


@njit(nogil=True, cache=True)
def settle_products(
    rows: NDArray[np.float32],
    queries: NDArray[np.intp],
    products: NDArray[np.floating],
    cuts: NDArray[np.floating],
    most: int,
    most_further: int,
    unit: float,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
    tied: NDArray[np.bool_],
    further: NDArray[np.int32],
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Write the nearest neighbours of each query. Candidates are the columns whose products reach its cut.

    rows: (N, D). queries: (B,). products: (B, N), -inf for a query with itself. cuts: (B,), of the type of products.
    unit: as in `bounds.Searched`. indices, similarities, tied: (B, k), and further: (B,), written as in `bounds.Found`.
    Returns (B,) whether a query has more than `most` candidates; its lists are then not written. Also returns the
    further images of each query with at most `most_further` of them, one list after another.
    """
    crowded = np.zeros(len(queries), np.bool_)
    candidates = np.empty(products.shape[1], np.int32)
    listed = 0
    for row in range(len(queries)):
        count = _reach(products[row], cuts[row], candidates)
        further[row] = 0
        if count > most:
            crowded[row] = True
        else:
            of_row = candidates[:count]
            further[row] = _settle(rows, queries[row], of_row, unit, indices[row], similarities[row], tied[row])
            if further[row] <= most_further:
                listed += further[row]
    rest = np.empty(listed, np.int32)
    start = 0
    if listed:
        # measured a second time: few layers have such images
        for row in range(len(queries)):
            if 0 < further[row] <= most_further:
                count = _reach(products[row], cuts[row], candidates)
                stop = start + further[row]
                _list_further(rows, queries[row], candidates[:count], unit, indices.shape[1], rest[start:stop])
                start = stop
    return crowded, rest


@njit(nogil=True, cache=True)
def _reach(products: NDArray[np.floating], cut: float, candidates: NDArray[np.int32]) -> int:
    """Write the columns of (N,) products that reach the cut; returns their number."""
    count = 0
    for column in range(len(products)):
        # without a branch: written always, counted if it is a candidate
        candidates[count] = column
        count += products[column] >= cut
    return count


@njit(nogil=True, cache=True)
def settle_listed(
    rows: NDArray[np.float32],
    queries: NDArray[np.intp],
    starts: NDArray[np.int64],
    candidates: NDArray[np.int32],
    most_further: int,
    unit: float,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float32],
    tied: NDArray[np.bool_],
    further: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Write the nearest neighbours of each query from a list of candidates; nothing for a query without candidates.

    rows: (N, D). queries: (B,). candidates: those of all queries, concatenated. starts: (B + 1,), where those of each
    query begin. The rest is as in `settle_products`.
    """
    listed = 0
    for row in range(len(queries)):
        of_row = candidates[starts[row] : starts[row + 1]]
        further[row] = 0
        if len(of_row):
            further[row] = _settle(rows, queries[row], of_row, unit, indices[row], similarities[row], tied[row])
            if further[row] <= most_further:
                listed += further[row]
    rest = np.empty(listed, np.int32)
    start = 0
    if listed:
        for row in range(len(queries)):
            if 0 < further[row] <= most_further:
                of_row = candidates[starts[row] : starts[row + 1]]
                stop = start + further[row]
                _list_further(rows, queries[row], of_row, unit, indices.shape[1], rest[start:stop])
                start = stop
    return rest


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
