"""Confidence intervals over images, by leaving out groups of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds and standard error of scores, in the shape of the scores; NaN where a replicate is undefined."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    error: NDArray[np.float64]


def groups_of(order: Sequence[int], groups: int) -> NDArray[np.int64]:
    """The group (N,) of every image, given the images in a random order: groups are dealt out in turn.

    Raises ValueError where there are fewer images than groups, or fewer than two groups.
    """
    if not 2 <= groups <= len(order):
        raise ValueError(f"{groups} groups of {len(order)} images: at least 2 groups and an image in each are needed")
    dealt = np.empty(len(order), np.int64)
    dealt[np.asarray(order)] = np.arange(len(order)) % groups
    return dealt


def jackknife(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    measured_without: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    level: float = 0.95,
) -> Interval:
    """The delete-a-group jackknife: leave out one group at a time and measure again.

    Images are left out, never drawn twice: a repeated image would be its own nearest neighbour. The replicates' spread
    about their own mean gives the error, sqrt((G-1)/G Σ(θ_g - mean)²), so what a score loses with fewer images, which
    all replicates lose alike, does not enter; the interval is score ± t_{G-1} error (Kott 2001; Shao and Tu 1995,
    section 2.3).

    measured_without: scores of the images given by position, in the shape of `scores`.
    """
    count = int(groups.max()) + 1
    replicates = np.stack([measured_without(np.flatnonzero(groups != group)) for group in range(count)])
    error = np.sqrt((count - 1) / count * np.square(replicates - replicates.mean(axis=0)).sum(axis=0))
    return around(scores, error, level, count - 1)


def around(
    scores: NDArray[np.float64], error: NDArray[np.float64], level: float = 0.95, freedom: int | None = None
) -> Interval:
    """Scores ± a quantile times the error: of the normal distribution, or of Student's with so many degrees."""
    from scipy.stats import norm, t

    quantile = norm.ppf((1 + level) / 2) if freedom is None else t.ppf((1 + level) / 2, freedom)
    reach = float(quantile) * error
    return Interval(scores - reach, scores + reach, error)
