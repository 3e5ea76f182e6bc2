"""The scores that figures of one pair of models draw, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffalign.alignment.metrics import METRICS
from diffalign.io.matrices import CalibratedMatrix


def depths(count: int) -> NDArray[np.float64]:
    """Relative depth (L,) of so many layers: 0 is the first and 1 the last."""
    return np.arange(count) / max(1, count - 1)


def grid_of(matrix: CalibratedMatrix, name: str) -> NDArray[np.float64]:
    """A grid (L_A, L_B) of the null of a matrix, ``mean`` or ``p``, say; NaN where the metric has no null."""
    null = matrix.calibration.null
    return np.full(matrix.values.shape, np.nan) if null is None else np.asarray(getattr(null, name))


def not_significant(matrix: CalibratedMatrix) -> NDArray[np.bool_]:
    """The cells (L_A, L_B) that were tested and are not significant after correction over the grid. False where there
    is no p, which claims nothing either way.
    """
    return ~matrix.significant & np.isfinite(grid_of(matrix, "p_adjusted"))


def highest(matrix: CalibratedMatrix) -> float:
    """The highest possible score; 1 for a metric without an upper end, which identical layers have."""
    top = METRICS[matrix.metric].highest(matrix.recipe["k"])
    return top if math.isfinite(top) else 1.0


def facts(matrix: CalibratedMatrix) -> dict[str, Any]:
    """What all rows of a matrix share."""
    recipe = matrix.recipe
    return {
        "metric": matrix.metric,
        **{key: recipe[key] for key in ("dataset", "condition")},
        "a": matrix.bundle("a"),
        "b": matrix.bundle("b"),
        **{key: recipe[key] for key in ("n", "groups", "k", "leak")},
        "miniature": matrix.miniature,
    }


def table(matrices: Sequence[CalibratedMatrix]) -> pd.DataFrame:
    """One row a cell of every matrix: layers and their relative depths, score with its interval over images, null mean,
    threshold and p of the single score, p corrected over the grid, whether the cell is significant after it, calibrated
    score (0 where it is not), p of the largest score of the grid, and whether the cell has it.
    """
    parts = []
    for matrix in matrices:
        rows, columns = (side.ravel() for side in np.indices(matrix.values.shape))
        null = matrix.calibration.null
        best = np.zeros(matrix.values.shape, np.bool_)
        if matrix.best is not None:
            best[matrix.best] = True
        grids = {
            "score": matrix.values,
            "low": matrix.calibration.low,
            "high": matrix.calibration.high,
            "null_mean": grid_of(matrix, "mean"),
            **{name: grid_of(matrix, name) for name in ("threshold", "p", "p_adjusted")},
            "calibrated": matrix.calibrated,
        }
        part = {
            **facts(matrix),
            "layer_a": np.array(matrix.layers("a"), object)[rows],
            "layer_b": np.array(matrix.layers("b"), object)[columns],
            "depth_a": depths(matrix.values.shape[0])[rows],
            "depth_b": depths(matrix.values.shape[1])[columns],
            **{name: np.asarray(grid).ravel() for name, grid in grids.items()},
            "maximum_p": np.nan if null is None else null.maximum_p,
            "significant": matrix.significant.ravel(),
            "largest": best.ravel(),
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
