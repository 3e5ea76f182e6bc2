"""How scores of one pair of layers depend on the neighbours that are looked at and on the number of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import calibrate
from diffalign.alignment.metrics import Layer, Settings, measure_grid
from diffalign.randomness import shuffled


@dataclass(frozen=True)
class Measured:
    """One score and what its null says of it; NaN where the metric has no null, or the score is undefined."""

    score: float
    null_mean: float = math.nan
    null_sd: float = math.nan
    z: float = math.nan
    p: float = math.nan
    calibrated: float = math.nan


def measured(
    metrics: Iterable[str],
    a: Layer,
    b: Layer,
    settings: Settings,
    draws: int,
    alpha: float,
    seed: int,
    memory: float = 2**30,
) -> dict[str, Measured]:
    """All metrics of one pair of layers with their nulls. draws, alpha, seed: as for `calibration.calibrate`."""
    grids = measure_grid(metrics, [a], [b], settings, memory)
    nulls = calibrate(grids, [a], [b], settings, draws, alpha, seed)
    by_metric = {}
    for name, grid in grids.items():
        null = nulls.get(name)
        cells = () if null is None else (null.mean, null.sd, null.z, null.p, null.calibrated)
        by_metric[name] = Measured(*(float(values[0, 0]) for values in (grid, *cells)))
    return by_metric


def neighbor_counts(k: int, k_max: int, steps: int = 12) -> list[int]:
    """From 2 to k_max in about `steps` steps of equal ratio, k among them. Raises ValueError for k above k_max."""
    if not 2 <= k <= k_max:
        raise ValueError(f"k = {k} lies outside of 2 to k_max = {k_max}")
    return sorted({k, *np.round(np.geomspace(2, k_max, steps)).astype(int).tolist()})


def subset_sizes(count: int, k: int) -> list[int]:
    """N, N/2, N/4 … as long as there are at least 5 k images; N itself always. From small to large."""
    sizes = [count]
    while sizes[-1] // 2 >= max(5 * k, 4):
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


def nested_subset(names: Sequence[str], size: int, seed: int) -> NDArray[np.intp]:
    """Positions of `size` images, ascending, keyed by (seed, name): a larger subset contains a smaller one."""
    return np.sort(np.array(shuffled(names, seed, "subset")[:size], dtype=np.intp))
