"""The interval of a single score, by whichever way its metric has one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import intervals
from diffalign.alignment.calibration import over_images
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Layer, Settings, measure_grid

# parts of the jackknife
PARTS = 20


def interval(
    metric: str,
    pair: tuple[Layer, Layer],
    setting: Settings,
    value: NDArray[np.float64],
    groups: Groups,
    seed: int,
) -> tuple[str, intervals.Interval]:
    """The 95 % interval over images, or groups of them, and its method: by formula where there is one, else a jackknife
    that leaves out one of 20 parts, of whole groups.
    """
    found = over_images({metric: value}, [pair[0]], [pair[1]], setting, groups=groups)
    if metric in found:
        return "dyadic" if METRICS[metric].needs == "lists" else "influence", found[metric]
    parts = groups.dealt(PARTS, seed, "groups")

    def without(keep: NDArray[np.intp]) -> NDArray[np.float64]:
        rest = [[layer.restricted(keep, setting.k)] for layer in pair]
        return measure_grid([metric], rest[0], rest[1], setting)[metric]

    return f"jackknife of {int(parts.max()) + 1} groups", intervals.jackknife(value, parts, without)
