"""Types of neighbour searches, and error bounds of products of lower precision."""

from __future__ import annotations

from collections.abc import Callable
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
