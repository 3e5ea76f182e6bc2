"""Where the spread of a score comes from: draws of noise and trainings beside images, and what noise leaves of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import BOUNDS


@dataclass(frozen=True)
class Spread:
    """The spread of one score over n repetitions; NaN where it is unknown.

    mean: over repetitions. sd: with n - 1 in its denominator. low, high: 95 % interval of the sd of the population,
    where repetitions are draws from one that is about normal. minimum, maximum: of the repetitions.
    """

    n: int
    mean: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    minimum: float = math.nan
    maximum: float = math.nan


def over_draws(scores: Sequence[float] | NDArray[np.float64]) -> Spread:
    """The spread over independent draws: sd √((n-1)/χ²) bounds it, with χ² at 97.5 and 2.5 % of n - 1 degrees.

    Exact for normal scores (for example Kendall and Stuart, The Advanced Theory of Statistics, volume 2). Undefined
    scores leave everything but their number unknown. Raises ValueError for fewer than two.
    """
    from scipy.stats import chi2

    values = np.asarray(scores, np.float64)
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} score(s) have no spread; expected two or more")
    if not np.isfinite(values).all():
        return Spread(count)
    sd = float(values.std(ddof=1))
    low, high = (sd * math.sqrt((count - 1) / float(chi2.ppf(bound, count - 1))) for bound in BOUNDS[::-1])
    return Spread(count, float(values.mean()), sd, low, high, float(values.min()), float(values.max()))


def over_choices(scores: Sequence[float] | NDArray[np.float64]) -> Spread:
    """The spread over choices that are no draws, such as preparations: without an interval. Undefined ones are left
    out; of fewer than two nothing but their number is known.
    """
    values = np.asarray(scores, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Spread(len(values))
    return Spread(
        len(values),
        float(values.mean()),
        float(values.std(ddof=1)),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def of_ceiling(score: float, reliability_a: float, reliability_b: float) -> float:
    """A score as a share of √(reliability_a reliability_b), the correction for attenuation of Spearman (1904).

    reliability: the score of a side with itself under other noise, or with itself where it has none. NaN where one of
    them is not positive. It may exceed 1: reliabilities have errors, and the bound holds for correlations of which
    noise is independent, not for shares of neighbours.
    """
    if not (reliability_a > 0 and reliability_b > 0):
        return math.nan
    return score / math.sqrt(reliability_a * reliability_b)
