"""Ceilings of predictions of human choices; intervals for choices correlated within triplets or people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import BOUNDS, around
from diffalign.human.triplets import Triplets
from diffalign.randomness import keyed

_DRAWS = 10_000
# with more clusters, a bootstrap is no better than the linearised standard error
_MOST_CLUSTERS = 20_000


@dataclass(frozen=True)
class Ceilings:
    """Accuracy of people in predicting people, on the triplets that were judged at least twice.

    majority: mean over triplets of the share of the most frequent choice. It is the highest accuracy on this sample,
    biased upward, since it has seen the choices. leave_one_out: share of the choices that equal the most frequent
    choice of the others on the same triplet, biased downward. triplets: number of triplets judged at least twice.
    choices: number of choices on these.
    """

    majority: float
    leave_one_out: float
    triplets: int
    choices: int


def votes(triplets: Triplets) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct triplets (G, 3), objects ascending, and the number of choices of each object as the odd one (G, 3)."""
    groups = triplets.groups
    ascending = np.sort(triplets.objects, axis=1)
    chosen = (ascending == triplets.objects[:, 2:]).argmax(axis=1)
    distinct, first = np.unique(groups, return_index=True)
    counts = np.bincount(groups * 3 + chosen, minlength=3 * len(distinct))
    return ascending[first], counts.reshape(len(distinct), 3)


def ceilings(triplets: Triplets) -> Ceilings | None:
    """The ceilings; None where no triplet was judged twice. Ties of m choices count 1/m."""
    counts = votes(triplets)[1]
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        return None
    totals = counts.sum(axis=1)
    agreed = 0.0
    for option in range(3):
        others = counts.copy()
        others[:, option] -= 1
        top = others == others.max(axis=1, keepdims=True)
        agreed += float((counts[:, option] * np.where(top[:, option], 1 / top.sum(axis=1), 0)).sum())
    return Ceilings(
        float((counts.max(axis=1) / totals).mean()),
        agreed / int(totals.sum()),
        len(counts),
        int(totals.sum()),
    )


@dataclass(frozen=True, eq=False)
class Intervals:
    """Means (L,) of credit with standard errors and 95 % bounds. method: ``bootstrap`` or ``sandwich``."""

    means: NDArray[np.float64]
    errors: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clusters: int
    method: str


def clustered(gained: NDArray[np.floating], clusters: NDArray[np.int64] | None, seed: int) -> Intervals:
    """Intervals of the mean credit of L layers, from credit (L, T) that is correlated within clusters of choices.

    clusters: (T,) the triplet or the person of each choice; None for independent choices. Clusters are drawn with
    replacement, the same draws for all layers, which give the standard error and the bounds. Beyond 20,000 clusters,
    the standard error is linearised (a sandwich) and bounds are normal. Raises ValueError for fewer than two clusters.
    """
    sums, sizes = _by_cluster(gained, clusters)
    if len(sizes) < 2:
        raise ValueError("a single cluster has no variance between clusters; at least two are needed")
    means = sums.sum(axis=1) / sizes.sum()
    if len(sizes) > _MOST_CLUSTERS:
        errors = _linearised(sums, sizes, means)
        bounds = around(means, errors)
        return Intervals(means, errors, bounds.low, bounds.high, len(sizes), "sandwich")
    draws = keyed(seed, "bootstrap", str(len(sizes)))
    values = np.empty((_DRAWS, len(sums)))
    for start in range(0, _DRAWS, 500):
        weights = draws.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=500).astype(np.float64)
        values[start : start + 500] = (weights @ sums.T) / (weights @ sizes)[:, None]
    low, high = np.quantile(values, BOUNDS, axis=0)
    return Intervals(means, values.std(axis=0, ddof=1), low, high, len(sizes), "bootstrap")


def _by_cluster(
    gained: NDArray[np.floating], clusters: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of credit (L, C) and numbers of choices (C,) of C clusters."""
    if clusters is None:
        return np.asarray(gained, np.float64), np.ones(gained.shape[1])
    index = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(index).astype(np.float64)
    return np.stack([np.bincount(index, row, len(sizes)) for row in gained]), sizes


def _linearised(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standard errors (L,) of ratios of sums over C clusters, with the correction C / (C - 1)."""
    count = len(sizes)
    residuals = sums - means[:, None] * sizes
    return np.asarray(np.sqrt(np.square(residuals).sum(axis=1) * count / (count - 1)) / sizes.sum())
