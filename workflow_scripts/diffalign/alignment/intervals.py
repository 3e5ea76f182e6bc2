"""Confidence intervals: over images, by leaving out groups of them, and over repetitions such as seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# coverage of intervals
LEVEL = 0.95
# quantiles of draws that bound an interval
BOUNDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds and standard error of scores, in the shape of the scores; NaN where a replicate is undefined."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard errors of scores and the skewness of their distribution, each in the shape of the scores.

    With h_i the influence of image (or group) i on a score, and ψ_ij what a pair of them adds to h_i + h_j:
    of_single: Σ h_i³, of_pairs: 3 Σ_{i≠j} h_i h_j ψ_ij, both over the variance^(3/2); 0 for a symmetric distribution.
    """

    error: NDArray[np.float64]
    of_single: NDArray[np.float64]
    of_pairs: NDArray[np.float64]

    @classmethod
    def symmetric(cls, error: NDArray[np.float64]) -> Spread:
        """Errors of scores whose distribution is taken as symmetric."""
        return cls(error, np.zeros_like(error), np.zeros_like(error))

    def around(self, scores: NDArray[np.float64], freedom: int | None = None) -> Interval:
        """95 % intervals of scores, with bounds that skewness moves. freedom: as of the function `around`.

        A score minus its expectation, over its error, has to first order the distribution Φ(x) + φ(x) (a + b x²) with
        a = (of_single + of_pairs) / 6 and b = (2 of_single + of_pairs) / 6 (studentised U-statistics of two images:
        Zhang and Xia 2022, https://doi.org/10.1214/21-AOS2125). Hall's transformation x + a + b x² + b² x³ / 3, which
        rises everywhere, takes the skewness away (Hall 1992, "On the removal of skewness by transformation").
        """
        first, square = (self.of_single + self.of_pairs) / 6, (2 * self.of_single + self.of_pairs) / 6
        reach = quantile(freedom)
        low, high = (scores - self.error * _untransformed(end, first, square) for end in (reach, -reach))
        return Interval(low, high, self.error)


def _untransformed(value: float, first: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
    """X with x + first + square x² + square² x³ / 3 = value."""
    rest = value - first
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (np.cbrt(1 + 3 * square * rest) - 1) / square
    # the cube root loses the digits of a small skewness
    return np.where(np.abs(square) < 1e-6, rest, found)


def jackknife(
    scores: NDArray[np.float64],
    groups: NDArray[np.int64],
    measured_without: Callable[[NDArray[np.intp]], NDArray[np.float64]],
) -> Interval:
    """The delete-a-group jackknife: leave out one group of images at a time and measure again.

    A bootstrap would repeat images, which would be their own nearest neighbours. The error is the spread of the
    replicates about their own mean, sqrt((G-1)/G Σ(θ_g - mean)²). It excludes the bias of fewer images, which all
    replicates share. The interval is score ± t_{G-1} error (Kott 2001; Shao and Tu 1995, section 2.3).

    groups, measured_without: as of `replicates`.
    """
    found = replicates(groups, measured_without)
    count = len(found)
    error = np.sqrt((count - 1) / count * np.square(found - found.mean(axis=0)).sum(axis=0))
    return around(scores, error, count - 1)


def replicates(
    groups: NDArray[np.int64], measured_without: Callable[[NDArray[np.intp]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Scores without each group of images: (G, …).

    groups: (N,), the group of every image. measured_without: takes the positions of the images that are kept and
    returns their scores. Raises ValueError for a single group.
    """
    count = int(groups.max()) + 1
    if count < 2:
        raise ValueError(f"{len(groups)} images are one group: a jackknife leaves out one of at least 2")
    return np.stack([measured_without(np.flatnonzero(groups != group)) for group in range(count)])


def of_ratio(
    numerator: float, denominator: float, covariance: NDArray[np.float64], freedom: int | None = None
) -> tuple[float, float] | None:
    """The interval of a ratio of two estimates with covariance (2, 2), after Fieller (1954).

    It holds all ratios r for which numerator - r denominator does not differ significantly from 0. None where the
    denominator itself does not: the interval is then unbounded. freedom: as of `around`.
    """
    z2 = quantile(freedom) ** 2
    square = denominator**2 - z2 * covariance[1, 1]
    if square <= 0:
        return None
    middle = numerator * denominator - z2 * covariance[0, 1]
    rest = numerator**2 - z2 * covariance[0, 0]
    reach = float(np.sqrt(max(0.0, middle**2 - square * rest)))
    return (middle - reach) / square, (middle + reach) / square


def of_mean(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Interval]:
    """The mean over independent repetitions, the first axis of `values`, and its interval: ± t_{R-1} s / sqrt(R).

    The interval is of the mean of repetitions like these, and covers nothing that they share. It is NaN for a single
    one.
    """
    mean = values.mean(axis=0)
    count = len(values)
    if count < 2:
        unknown = np.full_like(mean, np.nan)
        return mean, Interval(unknown, unknown.copy(), unknown.copy())
    return mean, around(mean, values.std(axis=0, ddof=1) / np.sqrt(count), count - 1)


def around(
    scores: NDArray[np.float64], error: NDArray[np.float64], freedom: float | NDArray[np.int64] | None = None
) -> Interval:
    """Scores ± quantile x error. freedom: degrees of Student's distribution, of all scores or of each; None for the
    normal distribution.
    """
    reach = np.vectorize(quantile, otypes=[np.float64])(freedom) * error
    return Interval(scores - reach, scores + reach, error)


def quantile(freedom: float | None) -> float:
    """Half the width of a 95 % interval in standard errors. freedom: degrees, as of `around`."""
    from scipy.stats import norm, t

    return float(norm.ppf(BOUNDS[1]) if freedom is None else t.ppf(BOUNDS[1], freedom))
