"""Scores of one pair of layers as functions of k and of the number of images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import calibrate
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Layer, Settings, measure_grid
from diffalign.randomness import shuffled


@dataclass(frozen=True)
class Measured:
    """One score with its calibration; NaN where the score or its null is undefined."""

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
    groups: Groups | None = None,
) -> dict[str, Measured]:
    """Scores of one pair of layers, calibrated: metric -> `Measured`. draws, alpha, seed: as in `calibrate`. groups: of
    images that are not independent of each other.
    """
    grids = measure_grid(metrics, [a], [b], settings, memory)
    exchanges = None if groups is None else groups.exchanges
    nulls = calibrate(grids, [a], [b], settings, draws, alpha, seed, exchanges=exchanges, memory=memory)
    by_metric = {}
    for name, grid in grids.items():
        null = nulls.get(name)
        cells = () if null is None else (null.mean, null.sd, null.z, null.p, null.calibrated)
        by_metric[name] = Measured(*(float(values[0, 0]) for values in (grid, *cells)))
    return by_metric


def neighbor_counts(k: int, k_max: int, steps: int = 12) -> list[int]:
    """Values of k from 2 to k_max in about `steps` steps of equal ratio, and k itself. Raises ValueError for k outside
    of this range.
    """
    if not 2 <= k <= k_max:
        raise ValueError(f"k = {k} lies outside of 2 to k_max = {k_max}")
    return sorted({k, *np.round(np.geomspace(2, k_max, steps)).astype(int).tolist()})


def subset_sizes(count: int, k: int) -> list[int]:
    """Numbers of images …, N/4, N/2, N, ascending: N, and its halves of at least 5 k images."""
    sizes = [count]
    while sizes[-1] // 2 >= max(5 * k, 4):
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


def nested_subset(groups: Groups, size: int, seed: int) -> NDArray[np.intp]:
    """Positions of a subset of images, ascending: of whole groups, keyed by (seed, group), of which the last makes them
    `size` or more. Larger subsets hold smaller ones.
    """
    counts = np.bincount(groups.codes, minlength=groups.count)
    order = np.array(shuffled(groups.members, seed, "subset"), dtype=np.intp)
    enough = int(np.searchsorted(np.cumsum(counts[order]), size)) + 1
    return np.flatnonzero(np.isin(groups.codes, order[:enough]))
