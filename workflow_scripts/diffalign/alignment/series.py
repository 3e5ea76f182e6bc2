"""Layers of many bundles against one reference: scores with errors and nulls, and the best layer chosen on half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import Calibration, calibrate, over_images
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import Interval
from diffalign.alignment.metrics import Layer, Settings, measure_grid

_CELLS = ("mean", "sd", "z", "p", "threshold", "calibrated")


@dataclass(frozen=True)
class Drawn:
    """How nulls are drawn: permutations, their level and their seed."""

    draws: int
    alpha: float
    seed: int


@dataclass(frozen=True, eq=False)
class Against:
    """Scores (L, 1) of layers against a reference, NaN where undefined; interval: over images, and null: both None for
    metrics without one.
    """

    scores: NDArray[np.float64]
    interval: Interval | None
    null: Calibration | None

    def row(self, layer: int) -> dict[str, float]:
        """One layer: score, error, low, high, null_mean, null_sd, z, p, threshold and calibrated score."""
        cells = {key: math.nan if self.null is None else float(getattr(self.null, key)[layer, 0]) for key in _CELLS}
        named = {f"null_{key}" if key in ("mean", "sd") else key: value for key, value in cells.items()}
        bounds = {
            key: math.nan if self.interval is None else float(getattr(self.interval, key)[layer, 0])
            for key in ("error", "low", "high")
        }
        return {"score": float(self.scores[layer, 0]), **bounds, **named}

    @property
    def maximum_p(self) -> float:
        """The p of the largest score among all layers; NaN without a null."""
        return math.nan if self.null is None else self.null.maximum_p


def against(
    metrics: Sequence[str],
    layers: Sequence[Layer],
    reference: Layer,
    settings: Settings,
    drawn: Drawn,
    memory: float = 2**30,
    groups: Groups | None = None,
) -> dict[str, Against]:
    """Measure layers against a reference: metric -> `Against`.

    Scores, nulls and intervals are those of `measure_grid`, `calibrate` and `over_images`, which matrices of two
    models have. groups: of images that are not independent of each other.
    """
    scores = measure_grid(metrics, layers, [reference], settings, memory)
    how = (drawn.draws, drawn.alpha, drawn.seed)
    exchanges = None if groups is None else groups.exchanges
    nulls = calibrate(scores, layers, [reference], settings, *how, exchanges=exchanges, memory=memory)
    intervals = over_images(scores, layers, [reference], settings, memory, groups)
    return {name: Against(grid, intervals.get(name), nulls.get(name)) for name, grid in scores.items()}
