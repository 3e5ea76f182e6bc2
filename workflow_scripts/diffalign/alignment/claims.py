"""What a study claims: first grids (a pair of models under one metric), then cells of the grids that passed.

Every cell has a p that is corrected over its grid (`calibration.Calibration.p_adjusted`), so the smallest of a grid
tests that no cell of it is aligned. Benjamini and Hochberg (1995) control the false discovery rate among the m grids of
the study, of all pairs of models and all metrics; where R of them pass at level q, the cells of these are tested at the
level q R / m (Benjamini and Bogomolov 2014). This controls the expected share, among grids that passed, of those with a
false cell. `benchmarks/claims.py` simulates it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import false_discovery_rates


def smallest(p_adjusted: NDArray[np.float64]) -> float:
    """The p of a grid from those of its cells; NaN where no cell has one."""
    tested = p_adjusted[~np.isnan(p_adjusted)]
    return float(tested.min()) if tested.size else math.nan


def corrected(p_adjusted: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Give every cell its q, the smallest level at which it is claimed: one array a grid, NaN where there is no p.

    The smallest q of a grid is that of the grid itself.

    p_adjusted: one array a grid, corrected within the grid; NaN where there is no p, and a grid without any does not
    count. A cell is claimed at level q where its p is at most q R(q) / m, which rises with q, so
    q = min over r of max(m p / r, smallest level at which r grids pass). Raises ValueError for p outside [0, 1].
    """
    grids = np.array([smallest(p) for p in p_adjusted])
    grids = grids[~np.isnan(grids)]
    # rises: at the r-th level, r grids pass
    levels = np.sort(false_discovery_rates(grids))
    passing = np.arange(1, len(grids) + 1)
    found = []
    for p in p_adjusted:
        q = np.full(p.shape, np.nan)
        tested = ~np.isnan(p)
        # few values, many cells: permutations give multiples of 1 / (K + 1)
        values, of = np.unique(p[tested], return_inverse=True)
        each = [min(1.0, float(np.maximum(len(grids) * value / passing, levels).min())) for value in values]
        q[tested] = np.array(each)[of] if each else []
        found.append(q)
    return found
