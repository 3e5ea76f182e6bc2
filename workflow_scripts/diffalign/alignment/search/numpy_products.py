"""Candidates of the neighbour search from NumPy's matrix products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.bounds import Found, Precision, Search, Searched, Settle, column_step, group_shape
from diffalign.alignment.search.kernels import mirror, settle_products

# rows of a block of products of all rows with themselves
_SYMMETRIC_ROWS = 1024


def numpy_search(side: Searched, k: int, budget: int) -> Search:
    """A search with NumPy's matrix products. A block must be settled before the next one is searched.

    budget: bytes for blocks.
    """
    rows = side.multiplied
    count, width = rows.shape
    depth, groups = group_shape(count, k)

    held: NDArray[np.floating] = np.empty((0, count), np.float32)

    def search(block: NDArray[np.intp], precision: Precision, most: int) -> Settle:
        nonlocal held
        if held.dtype != precision or len(held) < len(block):
            # blocks reuse memory: allocating new pages takes a tenth of the time
            held = np.empty((len(block), count), precision)
        products = held[: len(block)]
        if len(block) == count and precision is np.float32:
            _symmetric_products(rows, products)
        else:
            left = rows[block].astype(precision, copy=False)
            step = count if precision is np.float32 else column_step(width, budget)
            for start in range(0, count, step):
                right = rows[start : start + step].astype(precision, copy=False)
                np.matmul(left, right.T, out=products[:, start : start + step])
        if side.halves is not None:
            products -= side.halves.astype(precision)
        products[np.arange(len(block)), block] = -np.inf
        slack = side.slack(precision)

        def settle(part: slice, found: Found, most_further: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
            piece = products[part]
            maxima = piece[:, : depth * groups].reshape(len(piece), depth, groups).max(axis=1)
            lowest = np.partition(maxima, groups - k, axis=1)[:, groups - k].astype(np.float64) - slack
            # rounded down, in the type of the products, which are then not converted
            cuts = np.nextafter(lowest.astype(precision), precision(-np.inf))
            written = found.indices, found.similarities, found.tied, found.further
            crowded, rest = settle_products(
                side.rows, block[part], piece, cuts, most, most_further, side.unit, *written
            )
            return crowded, rest

        return settle

    return search


def _symmetric_products(rows: NDArray[np.float32], products: NDArray[np.float32]) -> None:
    """Products of all rows with all rows, computed right of the diagonal and mirrored."""
    for start in range(0, len(rows), _SYMMETRIC_ROWS):
        stop = min(start + _SYMMETRIC_ROWS, len(rows))
        np.matmul(rows[start:stop], rows[start:].T, out=products[start:stop, start:])
        mirror(products, start, stop)
