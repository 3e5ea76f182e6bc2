"""SE-CKNNA: the mean of CKNNA over transformed images, compared with clean images, with intervals over images.

All conditions show the same images, so their scores are correlated. Errors of the mean and of the change follow from
the influence of every edge on all scores (`dyadic`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import Calibration, calibrate_by_permutations, without_p
from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import around, of_ratio
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, Settings, first_lists

METRIC = "cknna"
Pair = tuple[Layer, Layer]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95 % interval over images; NaN where undefined."""

    value: float
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class UnderConditions:
    """Scores under each condition, and their mean."""

    conditions: Mapping[str, Estimate]
    mean: Estimate


@dataclass(frozen=True, eq=False)
class SemanticEquivariance:
    """The alignment of two layers on transformed images.

    clean: score on clean images, not part of the mean. change: mean - clean. relative: change / clean, without a
    standard error; its interval is NaN where clean does not differ significantly from 0. null: calibration of the mean;
    None where the mean is undefined. null_means: mean of the null of each condition, NaN where undefined; that of clean
    images is under "". above: the same four less the means of their nulls.
    """

    transformed: UnderConditions
    clean: Estimate
    change: Estimate
    relative: Estimate
    null: Calibration | None
    null_means: Mapping[str, float]
    above: AboveNull


@dataclass(frozen=True, eq=False)
class AboveNull:
    """Scores less the mean of their nulls, whose own error is left aside: it is sd / sqrt(draws).

    A score of unrelated layers is then 0 on average, so that a relative change is not one of chance alone.
    """

    mean: Estimate
    clean: Estimate
    change: Estimate
    relative: Estimate


class _Scores:
    """CKNNA of several pairs of layers of the same images."""

    def __init__(self, pairs: Mapping[str, Pair], settings: Settings, groups: Groups | None) -> None:
        self.names = list(pairs)
        self.freedom = (groups.count if groups else next(iter(pairs.values()))[0].count) - 1
        self.eps = settings.eps
        self.scorers = [
            NeighborScores([METRIC], first_lists([a], settings.k), first_lists([b], settings.k), settings.k)
            for a, b in pairs.values()
        ]
        self.values = self.under(None)
        self._covariances: Covariances | None = None
        if np.isfinite(self.values).all():
            influences = [scorer.influence(METRIC, settings.eps) for scorer in self.scorers]
            self._covariances = Covariances(influences, None if groups is None or groups.alone else groups)

    def under(self, order: NDArray[np.intp] | None) -> NDArray[np.float64]:
        """All scores (C,), with the images of the second layers relabelled."""
        return np.array([float(scorer.scores(self.eps, order)[METRIC][0, 0]) for scorer in self.scorers])

    def covariance(self, *weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Covariances of weighted sums of scores; None where a score is undefined."""
        return None if self._covariances is None else self._covariances.of(np.stack(weights))

    def estimate(self, weights: NDArray[np.float64]) -> Estimate:
        """The weighted sum of the scores."""
        # undefined scores of weight 0 do not count
        value = float(weights[weights != 0] @ self.values[weights != 0])
        covariance = self.covariance(weights)
        if covariance is None:
            return Estimate(value)
        error = np.sqrt(np.maximum(covariance[:1, :1], 0))
        interval = around(np.array([[value]]), error, self.freedom)
        return Estimate(value, float(error[0, 0]), float(interval.low[0, 0]), float(interval.high[0, 0]))

    def mean_of(self, names: Iterable[str]) -> NDArray[np.float64]:
        """Weights (C,) of the mean of some scores."""
        chosen = np.isin(self.names, list(names))
        return np.asarray(chosen / chosen.sum(), np.float64)


def under_conditions(pairs: Mapping[str, Pair], settings: Settings, groups: Groups | None = None) -> UnderConditions:
    """CKNNA of the pair of layers of each condition, and the mean.

    With a layer on clean images as the first of every pair and the same layer on transformed images as the second, this
    is the robustness of the layer.
    """
    return _under_conditions(_Scores(pairs, settings, groups), pairs)


def semantic_equivariance(
    clean: Pair,
    transformed: Mapping[str, Pair],
    settings: Settings,
    draws: int,
    alpha: float,
    seed: int,
    progress: Callable[[Iterable[NDArray[np.intp]], int], Iterable[NDArray[np.intp]]] | None = None,
    groups: Groups | None = None,
) -> SemanticEquivariance:
    """Measure two layers on clean images and under every condition.

    clean, transformed: both layers; those of all conditions have the same images in the same order. draws: number of
    relabellings in the null of the mean, shared by all conditions and keyed by (seed, number). groups: of images that
    are not independent of each other. progress: wraps the iteration over relabellings.
    """
    scores = _Scores({"": clean, **transformed}, settings, groups)
    mean, alone = scores.mean_of(transformed), scores.mean_of([""])
    of_transformed = _under_conditions(scores, transformed)
    of_clean = scores.estimate(alone)
    relative = _relative(of_transformed.mean, of_clean, scores.covariance(mean, alone), scores.freedom)
    null, null_means = None, np.full(len(scores.names), np.nan)
    whole = groups or Groups.of([str(i) for i in range(clean[0].count)])
    if not math.isnan(of_transformed.mean.value):
        orders: Iterable[NDArray[np.intp]] = whole.exchanges.orders(draws, seed)
        all_drawn = np.stack([scores.under(order) for order in (progress(orders, draws) if progress else orders)])
        drawn, null_means = all_drawn[:, 1:].mean(axis=1), all_drawn.mean(axis=0)
        null = calibrate_by_permutations(
            np.array([[of_transformed.mean.value]]),
            drawn[:, None, None],
            METRICS[METRIC].highest(settings.k),
            alpha,
        )
        refusal = whole.exchanges.refusal(alpha)
        null = null if refusal is None else without_p(null, refusal)
    change = scores.estimate(mean - alone)
    above_mean = _less(of_transformed.mean, float(mean[1:] @ null_means[1:]))
    above_clean = _less(of_clean, float(null_means[0]))
    above = AboveNull(
        above_mean,
        above_clean,
        _less(change, float(mean[1:] @ null_means[1:] - null_means[0])),
        _relative(above_mean, above_clean, scores.covariance(mean, alone), scores.freedom),
    )
    by_name = dict(zip(scores.names, null_means.tolist(), strict=True))
    return SemanticEquivariance(of_transformed, of_clean, change, relative, null, by_name, above)


def _less(estimate: Estimate, null_mean: float) -> Estimate:
    return Estimate(estimate.value - null_mean, estimate.error, estimate.low - null_mean, estimate.high - null_mean)


def _relative(mean: Estimate, clean: Estimate, covariance: NDArray[np.float64] | None, freedom: int) -> Estimate:
    """Mean / clean - 1, with Fieller's interval. covariance: of both; None where a score is undefined. freedom: as of
    `intervals.of_ratio`.
    """
    relative = mean.value / clean.value - 1 if clean.value else math.nan
    if covariance is None or (bounds := of_ratio(mean.value, clean.value, covariance, freedom)) is None:
        return Estimate(relative)
    return Estimate(relative, math.nan, bounds[0] - 1, bounds[1] - 1)


def _under_conditions(scores: _Scores, names: Iterable[str]) -> UnderConditions:
    names = list(names)
    each = {name: scores.estimate(scores.mean_of([name])) for name in names}
    return UnderConditions(each, scores.estimate(scores.mean_of(names)))
