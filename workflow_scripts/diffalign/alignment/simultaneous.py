"""Tests and bands of several differences at once, by the distribution of the largest of their |t|."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import LEVEL, around, quantile
from diffalign.alignment.nulls import SMALLEST_P
from diffalign.randomness import keyed

# draws of the largest |t|: a multiple of 1 / (1 - LEVEL), less one, so that bands and adjusted p agree
DRAWS = 19_999
# standard deviations of a draw that are held at a time
_BLOCK = 2_000_000


@dataclass(frozen=True, eq=False)
class Tested:
    """Differences with error, each by itself and all M together. Arrays are (M,), NaN where a difference is undefined.

    low, high: 95 % interval. p: two-sided, of `SMALLEST_P` at least. band_low, band_high: all M differences lie within
    their bands with a probability of 95 %. p_adjusted: at most .05 where the band excludes 0, and else above it.
    family: number of differences that bands and adjusted p are corrected over.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    band_low: NDArray[np.float64]
    band_high: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    family: int


def tested(
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    correlation: NDArray[np.float64],
    freedom: int | None,
    seed: int,
) -> Tested:
    """Test M differences (M,) against 0, single-step: bands are value ± c error with c the 95 % quantile of max |t|.

    t is normal with this correlation (M, M), or multivariate t with `freedom` degrees (Hothorn, Bretz and Westfall
    2008, "Simultaneous inference in general parametric models"). Its largest |t| is drawn `DRAWS` times, keyed by the
    seed; p_adjusted is (1 + #{max |t| >= |t|}) / (draws + 1). A difference whose error is 0 is certain: it counts in no
    family, and p is 1 where it is 0. Raises ValueError for another one, which nothing can be said of.
    """
    certain = errors == 0
    if (values[certain] != 0).any():
        raise ValueError(f"a difference of {values[certain & (values != 0)][0]:.3g} has an error of 0")
    interval = around(values, errors, freedom)
    t = np.abs(np.divide(values, errors, out=np.zeros_like(values), where=errors > 0))
    t[np.isnan(values) | np.isnan(errors)] = np.nan
    counted = np.flatnonzero(~np.isnan(t) & ~certain)
    p = np.where(certain, 1.0, np.maximum(_two_sided(t, freedom), SMALLEST_P))
    critical, adjusted = quantile(freedom), p.copy()
    if len(counted) > 1:
        maxima = _maxima(correlation[np.ix_(counted, counted)], freedom, seed)
        critical = max(critical, float(maxima[math.ceil(LEVEL * (DRAWS + 1)) - 1]))
        beyond = DRAWS - np.searchsorted(maxima, t[counted], side="left")
        adjusted[counted] = np.maximum(p[counted], (1 + beyond) / (DRAWS + 1))
    reach = critical * errors
    return Tested(interval.low, interval.high, p, values - reach, values + reach, adjusted, len(counted))


def _two_sided(t: NDArray[np.float64], freedom: int | None) -> NDArray[np.float64]:
    from scipy.stats import norm
    from scipy.stats import t as student

    return np.asarray(2 * (norm.sf(t) if freedom is None else student.sf(t, freedom)), np.float64)


def _maxima(correlation: NDArray[np.float64], freedom: int | None, seed: int) -> NDArray[np.float64]:
    """Draws of the largest |t|, ascending: (DRAWS,)."""
    eigenvalues, vectors = np.linalg.eigh(correlation)
    # the symmetric root: signs of eigenvectors are for the linear algebra library to choose
    root = (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
    generator = keyed(seed, "simultaneous", "normal")
    scales = np.ones(DRAWS)
    if freedom is not None:
        scales = np.sqrt(keyed(seed, "simultaneous", "chi2").chisquare(freedom, DRAWS) / freedom)
    drawn = []
    for part in np.array_split(np.arange(DRAWS), max(1, DRAWS * len(root) // _BLOCK)):
        normal = generator.standard_normal((len(part), len(root))) @ root.T
        drawn.append(np.abs(normal).max(axis=1) / scales[part])
    return np.sort(np.concatenate(drawn))
