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

# unit rows of which the mean leaves less than this share of the squares are ordered by distance. Their products differ
# by little, and float32 rows are of unit norm to some 1e-8 only: at 1e-4 up to 0.1 % of neighbours would be others, at
# 1e-6 3 to 6 %, at 1e-8 three quarters and more (benchmarks/offsets.py)
COLLINEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Searched:
    """What is searched: unit rows by their products, or nearly collinear ones by their distances.

    rows: (N, D) float32 of unit norm, which are measured. unit: 0, similarity is the product; else it is minus half of
    the squared distance, in this unit. By distance also, for products that find candidates, centred: the rows minus
    their mean, divided by the root of `unit`, (N, D) float32, and halves: half of their squared norms, (N,) float64,
    which are subtracted from the products.
    """

    rows: NDArray[np.float32]
    unit: float = 0.0
    centred: NDArray[np.float32] | None = None
    halves: NDArray[np.float64] | None = None

    @property
    def multiplied(self) -> NDArray[np.float32]:
        """The rows whose products find candidates, (N, D)."""
        return self.rows if self.centred is None else self.centred

    def slack(self, precision: Precision) -> float:
        """`candidate_slack` of these rows. By distance, half squares are rounded and subtracted as well, the centred
        rows are float32 in either precision, and all errors grow with the largest squared norm.
        """
        slack = candidate_slack(self.rows.shape[1], precision)
        if self.halves is None:
            return slack
        # centred rows x are off by at most |x| eps / 2, so half a squared distance by eps / 2 (|x| + |y|)²
        rounded = 8 * float(np.finfo(precision).eps) + 8 * float(np.finfo(np.float32).eps)
        return (2 * slack + rounded) * max(1.0, 2 * float(self.halves.max()))

    def cosines(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines of what was measured: products, or minus half of squared distances."""
        if self.halves is None:
            return similarities
        return (1 + self.unit * similarities.astype(np.float64)).astype(np.float32)


def searched(rows: NDArray[np.float32]) -> Searched:
    """Unit rows (N, D) to search by products, or, where they are nearly collinear, by distances.

    For unit rows u, cos_ij = 1 - |u_i - u_j|² / 2: the order by distance is that by cosine, and differences of float32
    rows are exact in float64, so that equal distances stay equal. The unit is the squared median distance from the
    mean. Candidates come from rows minus their mean, which float32 holds as precisely as the others.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    # as precise as needed to tell whether it is near 0
    if 1 - float(mean @ mean) >= COLLINEAR:
        return Searched(rows)
    centred = rows - mean
    size = float(np.median(np.sqrt(np.einsum("nd,nd->n", centred, centred))))
    if size <= 0:
        return Searched(rows)
    single = (centred / size).astype(np.float32)
    return Searched(rows, size**2, single, np.einsum("nd,nd->n", single, single, dtype=np.float64) / 2)


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
