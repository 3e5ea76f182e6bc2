"""What every search of neighbours shares: types, and bounds within which products of lower precision suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# order is decided on similarities rounded to this step, so that equal rows tie on every machine
QUANTUM = 2.0**-40

Precision: TypeAlias = type[np.float32] | type[np.float64]
# a part of a block, (P, k) indices and similarities to write -> which of its rows have too many candidates, (P,)
Settle: TypeAlias = Callable[[slice, NDArray[np.int32], NDArray[np.float32]], NDArray[np.bool_]]
# rows (B,), precision of the products, most candidates a row -> what settles this block
Search: TypeAlias = Callable[[NDArray[np.intp], Precision, int], Settle]


def candidate_slack(width: int, precision: Precision) -> float:
    """How far below the k-th largest product, at most, the product of one of the k nearest rows is.

    A dot product of unit rows is off by at most γ = n u / (1 - n u), u = eps / 2, whatever the order of its sums
    (Higham 2002, section 3.1; 1.002 for norms that are not quite 1). A row that is measured as near as the k-th may
    have lost γ in its product while the k-th had gained it; both may be off by float64's γ where they are measured, and
    by half of QUANTUM where they are rounded. Raises ValueError for a width at which γ means nothing.
    """
    rounding = [width * float(np.finfo(each).eps) / 2 for each in (precision, np.float64)]
    if rounding[0] > 0.1:
        raise ValueError(f"rows of width {width} are too wide for products in {np.dtype(precision).name}")
    return 2 * 1.002 * sum(r / (1 - r) for r in rounding) + QUANTUM


def group_shape(count: int, k: int) -> tuple[int, int]:
    """(depth, groups): how the columns 0 … depth·groups - 1 of `count` are dealt into at least k disjoint groups.

    The k-th largest maximum of the groups is at most the k-th largest column, and with eight groups a neighbour hardly
    less; it takes one pass, where a partition takes several.
    """
    depth = max(1, count // (8 * k))
    return depth, count // depth


def column_step(width: int, budget: int) -> int:
    """How many rows of this width are turned to float64 at once: an eighth of the budget."""
    return max(1, budget // (8 * 8 * width))
