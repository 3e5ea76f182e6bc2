"""In which order measures appear: agreement over samples, means over seeds, and contrasts paired by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import BOUNDS
from diffalign.alignment.trainings import Mean, mean_over_trainings, paired_contrast
from diffalign.offenders import first_five, flagged
from diffalign.randomness import keyed

Array = NDArray[np.float64]

DRAWS = 1999
# sums of squared ranks are multiples of 1/4: what differs by less is rounding
_TIE = 1e-6
# an interval below this share of a difference is rounding of equal ones
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Agreement:
    """Kendall's W in [0, 1] and its p, of so many samples; NaN where no sample has an order, all its times being
    equal.
    """

    w: float
    p: float
    samples: int


def kendalls_w(times: Array, names: Sequence[str], seed: int, draws: int = DRAWS) -> Agreement:
    """How far samples agree about the order of measures: Kendall's coefficient of concordance, with ties.

    times: (N, M), one row a sample, one column a measure. names: (N,) of the samples, each once; of several seeds,
    with the seed. W = 12 Σ (R_j - mean)² / (N² (M³ - M) - N Σ_i Σ (u³ - u)), where R_j is the sum of the ranks of
    measure j and u goes over the ties of sample i (Kendall and Gibbons 1990, chapter 6). p: share of draws, in which
    the times of each sample are permuted by themselves, with at least this W, the order as it is among them; the draws
    of a sample are keyed by (seed, name), so that p does not depend on the order of samples.

    Raises ValueError for other shapes, fewer than two samples or measures, names that repeat, and that names the
    samples whose times are NaN or infinite.
    """
    from scipy.stats import rankdata

    if times.ndim != 2 or min(times.shape) < 2 or len(names) != len(times):
        raise ValueError(
            f"times have shape {times.shape}, of {len(names)} names; expected 2 samples or more x 2 measures or more"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"samples repeat, first: {first_five(sorted({n for n in names if names.count(n) > 1}))}")
    bad = ~np.asarray(np.isfinite(times).all(axis=1))
    if bad.any():
        raise ValueError(f"times are NaN or infinite for {first_five(flagged(names, bad.tolist()))}")
    samples, measures = times.shape
    ranks = np.asarray(rankdata(times, axis=1), np.float64)
    # Σ (u³ - u) of a sample is what ties take from its sum of squared ranks, times 12
    most = 12 * samples * float(np.square(ranks - (measures + 1) / 2).sum())
    if most == 0:
        return Agreement(math.nan, math.nan, samples)
    sums = np.zeros((draws + 1, measures))
    for name, own in zip(names, ranks, strict=True):
        sums[0] += own
        sums[1:] += keyed(seed, "kendalls_w", name).permuted(np.tile(own, (draws, 1)), axis=1)
    squares = np.square(sums - samples * (measures + 1) / 2).sum(axis=1)
    return Agreement(float(12 * squares[0] / most), float((squares >= squares[0] - _TIE).mean()), samples)


def order(times: Array, measures: Sequence[str]) -> str:
    """The measures in order of appearance, the largest mean time first, joined by ``<``; ``=`` where means are equal.

    times: (N, M), t of each sample and measure: noise is at 1. Raises ValueError for another shape or times that are
    NaN or infinite.
    """
    if times.ndim != 2 or times.shape[1] != len(measures) or not len(times):
        raise ValueError(f"times have shape {times.shape}; expected (N, {len(measures)}), of {', '.join(measures)}")
    means = dict(zip(measures, map(float, times.mean(axis=0)), strict=True))
    bad = [measure for measure, mean in means.items() if not math.isfinite(mean)]
    if bad:
        raise ValueError(f"times are NaN or infinite of {first_five(bad)}")
    by_time = sorted(means, key=lambda measure: -means[measure])
    pairs = itertools.pairwise(by_time)
    return by_time[0] + "".join(f"{'=' if means[a] == means[b] else '<'}{b}" for a, b in pairs)


def over_seeds(values: Mapping[int, float]) -> Mean:
    """The mean of one value a seed with its 95 % t interval; NaN bounds for a single seed.

    Of arrays, one a seed, `alignment.intervals.of_mean` does the same. Raises ValueError for no or undefined values.
    """
    return mean_over_trainings(np.array([values[seed] for seed in sorted(values)], np.float64))


@dataclass(frozen=True)
class Contrast:
    """The mean difference, first - second, over seeds that both have, with its 95 % t interval and p; NaN, but for the
    difference, of a single seed, and where all seeds differ by the same.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int


def contrasts(values: Mapping[str, Mapping[int, float]]) -> list[Contrast]:
    """The contrast of every two of several values, in the order given: measures, or models and configurations.

    values: what is compared -> seed -> value, such as a time. Samples of one seed begin with the same noise, or belong
    to one another in another way, so that differences are taken seed by seed. p: two-sided, of Student's t of the
    differences; 1 where all of them are 0. Differences that are equal and not 0, such as those of times that all are
    that of a first state, have no spread to judge by: interval and p are NaN. Raises ValueError where two share no
    seed, and for values that are NaN or infinite.
    """
    return [_contrast(a, b, values[a], values[b]) for a, b in itertools.combinations(values, 2)]


def _contrast(first: str, second: str, a: Mapping[int, float], b: Mapping[int, float]) -> Contrast:
    try:
        mean = paired_contrast(a, b)
    except ValueError as error:
        raise ValueError(f"{first} and {second}: {error}") from error
    if mean.value and mean.high - mean.low <= _ROUNDING * abs(mean.value):
        mean = replace(mean, low=math.nan, high=math.nan)
    return Contrast(first, second, mean.value, mean.low, mean.high, _p_value(mean), mean.trainings)


def _p_value(mean: Mean) -> float:
    """Two-sided p of a mean, from its t interval."""
    from scipy.stats import t

    freedom = mean.trainings - 1
    if not freedom or math.isnan(mean.low):
        return math.nan
    error = (mean.high - mean.low) / 2 / float(t.ppf(BOUNDS[1], freedom))
    if error == 0:
        return 1.0
    return float(2 * t.sf(abs(mean.value) / error, freedom))
