"""Types of neighbour searches, and error bounds of products of lower precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# similarities are rounded to this step before they are ordered, so that equal rows tie on every machine
QUANTUM = 2.0**-40

Precision: TypeAlias = type[np.float32] | type[np.float64]
# part of a block, outputs (P, k) for indices and similarities -> whether each row has too many candidates, (P,)
Settle: TypeAlias = Callable[[slice, NDArray[np.int32], NDArray[np.float32]], NDArray[np.bool_]]
# rows (B,), precision of the products, most candidates per row -> function that settles parts of this block
Search: TypeAlias = Callable[[NDArray[np.intp], Precision, int], Settle]

# unit rows of which the mean leaves less than this share of the squares are ordered by distance. Their products differ
# by little, and float32 rows are of unit norm to some 1e-8 only: at 1e-4 up to 0.1 % of neighbours would be others, at
# 1e-6 3 to 6 %, at 1e-8 three quarters and more (benchmarks/offsets.py)
COLLINEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Searched:
    """What is searched: unit rows by their products, or nearly collinear ones by their distances.

    rows: (N, D) float32. halves: None for unit rows; else half of the squared norms of the rows, (N,) float64, which
    are subtracted from products. unit: squared length of a step of the rows, as a share of the unit rows'.
    """

    rows: NDArray[np.float32]
    halves: NDArray[np.float64] | None = None
    unit: float = 1.0

    def slack(self, precision: Precision) -> float:
        """`candidate_slack` of these rows. By distance, half squares are rounded and subtracted as well, and all errors
        grow with the largest squared norm.
        """
        slack = candidate_slack(self.rows.shape[1], precision)
        if self.halves is None:
            return slack
        return (2 * slack + 8 * float(np.finfo(precision).eps)) * max(1.0, 2 * float(self.halves.max()))

    def cosines(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines of what was measured: products of unit rows, or minus half of squared distances."""
        if self.halves is None:
            return similarities
        return (1 + self.unit * similarities.astype(np.float64)).astype(np.float32)


def searched(rows: NDArray[np.float32]) -> Searched:
    """Unit rows (N, D), or, where they are nearly collinear, the rows minus their mean, scaled to a median norm of 1.

    For unit rows u, cos_ij = 1 - |u_i - u_j|² / 2, and distances do not change when the mean is subtracted in float64:
    the order by distance is that by cosine, and float32 keeps it.
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
    return Searched(single, np.einsum("nd,nd->n", single, single, dtype=np.float64) / 2, size**2)


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
