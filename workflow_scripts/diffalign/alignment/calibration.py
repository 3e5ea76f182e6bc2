"""From scores and their nulls to what can be claimed: z, p, calibrated scores, the maximum of a grid, many tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import nulls
from diffalign.alignment.graphs import knn_graphs
from diffalign.alignment.metrics import (
    METRICS,
    BothSides,
    ClosedForm,
    Layer,
    NeighborScores,
    NoNull,
    Permutations,
    Settings,
    error_grid,
    first_lists,
    measure_grid,
    prepare,
)
from diffalign.alignment.nulls import NullMoments
from diffalign.alignment.settings import check_draws

Grid = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the scores of a grid are worth, each (L_A, L_B); NaN where the score or its null is undefined.

    mean, sd: of the null. z: (score - mean) / sd. p: share of the null at or above the score, itself among it.
    threshold: what a score must exceed at level alpha. calibrated: (score - threshold) / (highest - threshold),
    clipped to [0, 1]. maxima: the largest score of the grid under each permutation, (K,); empty in closed form.
    maximum_p, maximum_threshold, maximum_calibrated: the same for the largest score of the grid. skewness: of the null,
    None where it is not found in closed form.
    """

    method: str
    mean: Grid
    sd: Grid
    z: Grid
    p: Grid
    threshold: Grid
    calibrated: Grid
    maxima: NDArray[np.float64]
    maximum_p: float
    maximum_threshold: float
    maximum_calibrated: float
    skewness: Grid | None = None


def calibrate_by_permutations(scores: Grid, null: NDArray[np.float64], highest: float, alpha: float) -> Calibration:
    """Calibrate a grid (L_A, L_B) by its null (K, L_A, L_B), K relabellings that all cells share.

    arXiv 2602.14486: the threshold is the ceil((1 - alpha)(K + 1))-th smallest of the score and its null together, and
    p = (1 + #{null >= score}) / (K + 1). The maximum of the grid is held against the maxima of the null. highest: the
    largest score there can be; 1 stands in where it is infinite. Raises ValueError where K is below 1/alpha - 1, for
    then no score could pass.
    """
    draws = len(null)
    check_draws(draws, alpha)
    threshold, p, calibrated = _against(scores, null, highest, alpha)
    mean, sd = null.mean(axis=0), null.std(axis=0, ddof=1)
    undefined = np.isnan(scores)
    for values in (mean, sd, threshold, p, calibrated):
        values[undefined] = np.nan
    best, maxima = np.full((1, 1), math.nan), np.full(draws, math.nan)
    if not undefined.all():
        best = np.array([[np.nanmax(scores)]])
        maxima = np.nanmax(np.where(undefined, np.nan, null).reshape(draws, -1), axis=1)
    of_best = _against(best, maxima[:, None, None], highest, alpha)
    return Calibration(
        method="permutations",
        mean=mean,
        sd=sd,
        z=_ratio(scores - mean, sd),
        p=p,
        threshold=threshold,
        calibrated=calibrated,
        maxima=maxima,
        maximum_threshold=float(of_best[0][0, 0]),
        maximum_p=math.nan if undefined.all() else float(of_best[1][0, 0]),
        maximum_calibrated=float(of_best[2][0, 0]),
    )


def calibrate_by_moments(scores: Grid, null: NullMoments, highest: float, alpha: float) -> Calibration:
    """Calibrate a grid (L_A, L_B) by the moments of its null; the maximum by Bonferroni's bound over its cells.

    Without a closed form of the skewness there are a mean, a standard deviation and z, but neither p nor threshold.
    """
    undefined = np.isnan(scores) | np.isnan(null.sd)
    mean, sd = (np.where(undefined, np.nan, values) for values in (null.mean, null.sd))
    p, threshold = null.p(scores), null.threshold(alpha)
    cells = int((~undefined).sum())
    maximum_p = maximum_threshold = maximum_calibrated = math.nan
    if cells and null.skewness is not None:
        maximum_p = min(1.0, cells * float(np.nanmin(p)))
        best = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
        maximum_threshold = float(np.nanmax(null.threshold(alpha / cells)))
        maximum_calibrated = float(_calibrated(np.asarray(scores[best]), np.asarray(maximum_threshold), highest))
    return Calibration(
        method="moments",
        mean=mean,
        sd=sd,
        z=_ratio(scores - mean, sd),
        p=np.where(undefined, np.nan, p),
        threshold=np.where(undefined, np.nan, threshold),
        calibrated=_calibrated(scores, threshold, highest),
        maxima=np.empty(0),
        maximum_p=maximum_p,
        maximum_threshold=maximum_threshold,
        maximum_calibrated=maximum_calibrated,
        skewness=None if null.skewness is None else np.where(undefined, np.nan, null.skewness),
    )


def _against(scores: Grid, null: NDArray[np.float64], highest: float, alpha: float) -> tuple[Grid, Grid, Grid]:
    """Threshold, p and calibrated score."""
    draws = len(null)
    everything = np.sort(np.concatenate([scores[None], null]), axis=0)
    threshold = everything[math.ceil((1 - alpha) * (draws + 1) - 1e-9) - 1]
    p = (1 + (null >= scores).sum(axis=0)) / (draws + 1)
    return threshold, p, _calibrated(scores, threshold, highest)


def _calibrated(scores: Grid, threshold: Grid, highest: float) -> Grid:
    top = highest if math.isfinite(highest) else 1.0
    above = _ratio(scores - threshold, np.asarray(top - threshold))
    # at the top of the range nothing is left to divide by
    return np.clip(np.where(threshold >= top, 0.0, above), 0, 1)


def _ratio(numerator: Grid, denominator: Grid) -> Grid:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def false_discovery_rates(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values: the smallest false discovery rate at which each test is a discovery (Benjamini and Hochberg 1995).

    p: (T,), NaN where there is no test. Raises ValueError for values outside [0, 1].
    """
    from scipy.stats import false_discovery_control

    tested = ~np.isnan(p)
    q = np.full(len(p), np.nan)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def calibrate(
    scores: Mapping[str, Grid],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    draws: int,
    alpha: float,
    seed: int,
    progress: Callable[[Iterable[NDArray[np.intp]], int], Iterable[NDArray[np.intp]]] | None = None,
) -> dict[str, Calibration]:
    """Calibrate the grids (L_A, L_B) of several metrics by the nulls that they declare; all share their permutations.

    scores: metric -> observed grid. draws: K permutations, keyed by (seed, number). progress: wraps them. Metrics that
    declare `NoNull` have no calibration. Raises ValueError where a null is undefined although the score is not,
    TypeError for a metric that declares none.
    """
    for name in scores:
        if not isinstance(METRICS[name].null, Permutations | ClosedForm | NoNull):
            raise TypeError(f"the metric '{name}' declares no null: give Permutations, ClosedForm or NoNull")
    calibrations: dict[str, Calibration] = {}
    permuted = {name: null for name in scores if isinstance(null := METRICS[name].null, Permutations)}
    if permuted:
        check_draws(draws, alpha)
        for name, values in _permuted(list(permuted), a, b, settings, draws, seed, progress).items():
            _check_defined(name, scores[name], values)
            found = calibrate_by_permutations(scores[name], values, METRICS[name].highest(settings.k), alpha)
            exact = permuted[name].exact
            if exact is not None:
                graphs = [knn_graphs(first_lists(side, settings.k), settings.k) for side in (a, b)]
                found = _with_moments(found, scores[name], exact(graphs[0], graphs[1]))
            calibrations[name] = found
    sides = BothSides(a, b)
    for name in scores:
        closed = METRICS[name].null
        if isinstance(closed, ClosedForm):
            moments = closed.moments(sides)
            if moments.mean.shape != scores[name].shape:
                raise ValueError(f"{name}: the null has shape {moments.mean.shape}, the scores {scores[name].shape}")
            # these moments are without eps, which makes scores smaller and so p larger
            calibrations[name] = calibrate_by_moments(scores[name], moments, METRICS[name].highest(settings.k), alpha)
    return {name: calibrations[name] for name in scores if name in calibrations}


def _permuted(
    names: Sequence[str],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    draws: int,
    seed: int,
    progress: Callable[[Iterable[NDArray[np.intp]], int], Iterable[NDArray[np.intp]]] | None,
) -> dict[str, NDArray[np.float64]]:
    """Metric -> (K, L_A, L_B)."""
    nulls_of = {name: np.full((draws, len(a), len(b)), np.nan) for name in names}
    of_lists = [name for name in names if METRICS[name].needs == "lists"]
    scorer = None
    if of_lists:
        scorer = NeighborScores(of_lists, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
    statistics: dict[str, Callable[[NDArray[np.intp]], Grid]] = {}
    others: list[str] = []
    for name in names:
        null = METRICS[name].null
        if isinstance(null, Permutations) and null.statistic is not None:
            prepared = [[prepare(METRICS[name].needs, layer, settings) for layer in side] for side in (a, b)]
            statistics[name] = null.statistic(prepared[0], prepared[1])
        elif name not in of_lists:
            others.append(name)
    orders: Iterable[NDArray[np.intp]] = nulls.permutations(a[0].count, draws, seed)
    for i, order in enumerate(progress(orders, draws) if progress else orders):
        if scorer is not None:
            for name, values in scorer.scores(settings.eps, order).items():
                nulls_of[name][i] = values
        for name, statistic in statistics.items():
            nulls_of[name][i] = statistic(order)
        if others:
            for name, values in measure_grid(others, a, [layer.relabelled(order) for layer in b], settings).items():
                nulls_of[name][i] = values
    return nulls_of


def _check_defined(name: str, scores: Grid, null: NDArray[np.float64]) -> None:
    """Raise ValueError where a null is undefined although the score is not."""
    missing = np.isnan(null).any(axis=0) & ~np.isnan(scores)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(f"{name}: the null is undefined for layers {row} and {column}, although the score is not")


def _with_moments(calibration: Calibration, scores: Grid, exact: NullMoments) -> Calibration:
    """The mean, standard deviation and z of all N! permutations in place of those of the ones drawn."""
    return replace(calibration, mean=exact.mean, sd=exact.sd, z=_ratio(scores - exact.mean, exact.sd))


def standard_errors(
    metrics: Iterable[str],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float = 2**30,
) -> dict[str, Grid]:
    """Standard errors over images of every layer of A with every layer of B: metric -> (L_A, L_B).

    Of the metrics that have a closed form: those on lists that declare shares, and linear CKA. Others are left out;
    `intervals.jackknife` serves single pairs of layers.
    """
    wanted = list(metrics)
    found: dict[str, Grid] = {}
    of_lists = [name for name in wanted if METRICS[name].shares is not None]
    if of_lists:
        scorer = NeighborScores(of_lists, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
        found |= scorer.errors()
    of_moments = [name for name in wanted if METRICS[name].error is not None]
    if of_moments:
        found |= error_grid(of_moments, a, b, settings, memory)
    return found
