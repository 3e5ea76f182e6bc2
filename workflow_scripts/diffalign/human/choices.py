"""Compiled loops over triplets. Array operations would need many times the memory."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# similarities that differ by less than this share of the largest squared norm are ties; rounding is far smaller
TIE = 1e-12


@njit(nogil=True, cache=True)
def gather(
    objects: NDArray[np.int32], block: NDArray[np.float64], start: int, similarities: NDArray[np.float64]
) -> None:
    """Write the similarities of the pairs whose first object is a row of the block.

    objects: (T, 3). block: (B, N), similarities of objects start … start + B - 1 to all. similarities: (T, 3), written,
    of the pairs (0, 1), (0, 2), (1, 2) of each triplet.
    """
    stop = start + block.shape[0]
    for t in range(objects.shape[0]):
        a, b, c = objects[t, 0], objects[t, 1], objects[t, 2]
        if start <= a < stop:
            similarities[t, 0] = block[a - start, b]
            similarities[t, 1] = block[a - start, c]
        if start <= b < stop:
            similarities[t, 2] = block[b - start, c]


@njit(nogil=True, cache=True)
def closest_pairs(
    objects: NDArray[np.int32], similarities: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Codes (T,) of the most similar pairs of each triplet: bits 1, 2 and 4 for the pairs (0, 1), (0, 2) and (1, 2).

    similarities: (T, 3). sizes: (N,) squared norms of the rows compared, the scale of ties.
    """
    codes = np.empty(objects.shape[0], np.uint8)
    for t in range(objects.shape[0]):
        x, y, z = similarities[t, 0], similarities[t, 1], similarities[t, 2]
        size = max(sizes[objects[t, 0]], sizes[objects[t, 1]], sizes[objects[t, 2]])
        least = max(x, y, z) - TIE * size
        codes[t] = (x >= least) + 2 * (y >= least) + 4 * (z >= least)
    return codes
