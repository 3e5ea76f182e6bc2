"""Types of neighbour searches, and error bounds of products of lower precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# similarities are rounded to this step before they are ordered, so that equal rows tie on every machine: it is ten
# times the error of a sum of 1000 products in float64, and far below what float32 rows can tell apart
QUANTUM = 2.0**-40

Precision: TypeAlias = type[np.float32] | type[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """The lists of some queries, written by a search.

    indices: (Q, k) int32. similarities: (Q, k) float32. tied: (Q, k), whether a neighbour is as similar as the one
    before it. further: (Q,) int32, number of images beyond the list that are as similar as its last one.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]
    tied: NDArray[np.bool_]
    further: NDArray[np.int32]

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Found:
        """Those of some queries: a view for a slice."""
        return Found(self.indices[rows], self.similarities[rows], self.tied[rows], self.further[rows])

    def put(self, rows: NDArray[np.intp], found: Found) -> None:
        """Write the lists of the queries at these positions."""
        self.indices[rows], self.similarities[rows] = found.indices, found.similarities
        self.tied[rows], self.further[rows] = found.tied, found.further


def empty_lists(count: int, k: int) -> Found:
    """Room for the lists of `count` queries."""
    return Found(
        np.empty((count, k), np.int32),
        np.empty((count, k), np.float32),
        np.empty((count, k), np.bool_),
        np.zeros(count, np.int32),
    )


# part of a block, its lists to write, most further images of a list to return -> whether each row has too many
# candidates, (P,), and the further images of the others, one list after another
Settle: TypeAlias = Callable[[slice, Found, int], tuple[NDArray[np.bool_], NDArray[np.int32]]]
# rows (B,), precision of the products, most candidates per row -> function that settles parts of this block
Search: TypeAlias = Callable[[NDArray[np.intp], Precision, int], Settle]


def candidate_slack(width: int, precision: Precision) -> float:
    """Upper bound of how far the product of one of the k nearest rows lies below the k-th largest product.

    A dot product of unit rows has an error of at most γ = n u / (1 - n u), u = eps / 2, in any order of summation
    (Higham 2002, section 3.1; the factor 1.002 covers norms that are not exactly 1). The errors of the two products
    compared may have opposite signs. Measured again, both may also differ by γ of float64 and by half of QUANTUM.
    Raises ValueError for a width at which the bound is useless.
    """
    rounding = [width * float(np.finfo(each).eps) / 2 for each in (precision, np.float64)]
    if rounding[0] > 0.1:
        raise ValueError(f"rows of width {width} are too wide for products in {np.dtype(precision).name}")
    return 2 * 1.002 * sum(r / (1 - r) for r in rounding) + QUANTUM


def group_shape(count: int, k: int) -> tuple[int, int]:
    """(depth, groups): the columns 0 … depth·groups - 1 of `count` form at least k disjoint groups.

    The k-th largest maximum of the groups is a lower bound of the k-th largest column, and a close one with eight
    groups per neighbour. It takes one pass over the columns; a partition takes several.
    """
    depth = max(1, count // (8 * k))
    return depth, count // depth


def column_step(width: int, budget: int) -> int:
    """Number of rows of this width to convert to float64 at once: an eighth of the budget."""
    return max(1, budget // (8 * 8 * width))
