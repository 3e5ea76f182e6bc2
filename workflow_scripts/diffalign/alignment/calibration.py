"""Calibration of scores by their nulls: z, p, calibrated scores, correction over a grid, false discovery rates.

What a study claims of all its grids is in `claims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import kernel_permutations
from diffalign.alignment.groups import Exchanges, Groups
from diffalign.alignment.intervals import Interval, Spread
from diffalign.alignment.metrics import (
    METRICS,
    BothSides,
    ClosedForm,
    Layer,
    NeighborScores,
    Permutations,
    Settings,
    error_grid,
    first_lists,
    measure_grid,
    prepare,
)
from diffalign.alignment.nulls import SMALLEST_P, NullMoments
from diffalign.alignment.settings import check_draws

Grid = NDArray[np.float64]

# a statistic of unmoved images may differ from the score by so much
_AGREES = 1e-6


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated grid. Arrays are (L_A, L_B), NaN where the score or its null is undefined.

    method: ``permutations``, ``moments``, or ``refused`` where there is no null at all. mean, sd: of the null. z:
    (score - mean) / sd. p: share of the null and the score that is at or above the score, of each cell by itself.
    threshold: a single score is significant above it, at level alpha. calibrated: (score - threshold) / (highest -
    threshold), clipped to [0, 1], of each cell by itself.

    p_adjusted: p corrected over the cells of the grid that have one, so that the chance of any cell at or below alpha
    is at most alpha where nothing is aligned: of permutations step-down by the largest scores of the null
    (`step_down`), of moments by Bonferroni. grid_threshold: a score above it is significant after this correction.
    maxima: the largest score of the grid under each permutation, (K,); empty for ``moments``. maximum_p,
    maximum_threshold, maximum_calibrated: p_adjusted and grid_threshold of the cell that has the largest score, and
    this score calibrated by them. skewness: of the null; None without a formula. reason: why p, thresholds and
    calibrated scores are NaN where the score is defined; None where they are not.
    """

    method: str
    mean: Grid
    sd: Grid
    z: Grid
    p: Grid
    threshold: Grid
    calibrated: Grid
    p_adjusted: Grid
    grid_threshold: Grid
    maxima: NDArray[np.float64]
    maximum_p: float
    maximum_threshold: float
    maximum_calibrated: float
    skewness: Grid | None = None
    reason: str | None = None


def calibrate_by_permutations(scores: Grid, null: NDArray[np.float64], highest: float, alpha: float) -> Calibration:
    """Calibrate a grid (L_A, L_B) by its null (K, L_A, L_B), from K relabellings shared by all cells.

    arXiv 2602.14486: the threshold is the ceil((1 - alpha)(K + 1))-th smallest of the score and its null together, and
    p = (1 + #{null >= score}) / (K + 1). The maximum of the grid is compared with the maxima of the null. highest: the
    highest possible score; 1 replaces infinity. Raises ValueError where K is below 1/alpha - 1, since no score could
    be significant then.
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
    maximum_threshold = float(of_best[0][0, 0])
    return Calibration(
        method="permutations",
        mean=mean,
        sd=sd,
        z=_ratio(scores - mean, sd),
        p=p,
        threshold=threshold,
        calibrated=calibrated,
        p_adjusted=step_down(scores, null),
        grid_threshold=np.where(undefined, np.nan, maximum_threshold),
        maxima=maxima,
        maximum_threshold=maximum_threshold,
        maximum_p=math.nan if undefined.all() else float(of_best[1][0, 0]),
        maximum_calibrated=float(of_best[2][0, 0]),
    )


def calibrate_by_moments(scores: Grid, null: NullMoments, highest: float, alpha: float) -> Calibration:
    """Calibrate a grid (L_A, L_B) by the moments of its null, and correct over its cells by Bonferroni.

    The largest score need not be the cell with the smallest p: cells have nulls of their own. Without a skewness, p and
    thresholds are NaN. So is the threshold of a grid with so many cells that the smallest p of moments is not below
    alpha after correction; no score of it is significant.
    """
    undefined = np.isnan(scores) | np.isnan(null.sd)
    mean, sd, p, threshold = (
        np.where(undefined, np.nan, values) for values in (null.mean, null.sd, null.p(scores), null.threshold(alpha))
    )
    cells = int((~np.isnan(p)).sum())
    p_adjusted = np.minimum(1.0, cells * p)
    resolved = cells * SMALLEST_P <= alpha
    grid_threshold = np.where(np.isnan(p) | (not resolved), np.nan, null.threshold(alpha / max(1, cells)))
    maximum_p = maximum_threshold = maximum_calibrated = math.nan
    if cells:
        best = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
        maximum_p, maximum_threshold = float(p_adjusted[best]), float(grid_threshold[best])
        maximum_calibrated = float(_calibrated(np.asarray(scores[best]), np.asarray(maximum_threshold), highest))
        if not resolved and not math.isnan(maximum_p):
            maximum_calibrated = 0.0
    return Calibration(
        method="moments",
        mean=mean,
        sd=sd,
        z=_ratio(scores - mean, sd),
        p=p,
        threshold=threshold,
        calibrated=_calibrated(scores, threshold, highest),
        p_adjusted=p_adjusted,
        grid_threshold=grid_threshold,
        maxima=np.empty(0),
        maximum_p=maximum_p,
        maximum_threshold=maximum_threshold,
        maximum_calibrated=maximum_calibrated,
        skewness=None if null.skewness is None else np.where(undefined, np.nan, null.skewness),
    )


def step_down(scores: Grid, null: NDArray[np.float64]) -> Grid:
    """Correct p over the cells of a grid: p of every cell (L_A, L_B), NaN where the score is undefined.

    Westfall and Young 1993, step-down max-T: the j-th largest score is compared with the largest of the null among the
    cells whose scores are not larger, p = (1 + #{largest >= score}) / (K + 1), and no p is below that of a larger
    score. null: (K, L_A, L_B), from relabellings shared by all cells, so that their dependence is kept.
    """
    adjusted = np.full(scores.size, np.nan)
    values = scores.ravel()
    # from the smallest score to the largest; equal scores share the largest of all of them
    cells = np.flatnonzero(~np.isnan(values))
    cells = cells[np.argsort(values[cells], kind="stable")]
    largest = np.maximum.accumulate(null.reshape(len(null), -1)[:, cells], axis=1)
    last = np.searchsorted(values[cells], values[cells], side="right") - 1
    p = (1 + (largest[:, last] >= values[cells]).sum(axis=0)) / (len(null) + 1)
    # in the order of falling scores p never falls
    adjusted[cells] = np.maximum.accumulate(p[::-1])[::-1]
    return adjusted.reshape(scores.shape)


def _against(scores: Grid, null: NDArray[np.float64], highest: float, alpha: float) -> tuple[Grid, Grid, Grid]:
    """Threshold, p and calibrated score of each cell."""
    draws = len(null)
    everything = np.sort(np.concatenate([scores[None], null]), axis=0)
    threshold = everything[math.ceil((1 - alpha) * (draws + 1) - 1e-9) - 1]
    p = (1 + (null >= scores).sum(axis=0)) / (draws + 1)
    return threshold, p, _calibrated(scores, threshold, highest)


def _calibrated(scores: Grid, threshold: Grid, highest: float) -> Grid:
    top = highest if math.isfinite(highest) else 1.0
    above = _ratio(scores - threshold, np.asarray(top - threshold))
    # a threshold at the top of the range leaves nothing to divide by
    return np.clip(np.where(threshold >= top, 0.0, above), 0, 1)


def _ratio(numerator: Grid, denominator: Grid) -> Grid:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def false_discovery_rates(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values (T,): the smallest false discovery rate at which each test is rejected (Benjamini and Hochberg 1995).

    p: (T,), NaN where no test was made. Raises ValueError for values outside [0, 1].
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
    exchanges: Exchanges | None = None,
    memory: float = 2**30,
) -> dict[str, Calibration]:
    """Calibrate the grids (L_A, L_B) of several metrics by their declared nulls. All share their permutations.

    scores: metric -> observed grid. draws: number K of permutations, keyed by (seed, number). progress: wraps the
    iteration over permutations. exchanges: which images are relabelled; None for all, each by itself. memory: bytes of
    kernels. Metrics that declare `NoNull` have no calibration.

    Moments are of all N! orders, and hold where the null has the shape that they imply (`nulls.pearson_holds`). Linear
    CKA is permuted where they do not, all layers of a pair alike, and where images come in groups; if that is too
    costly (`kernel_permutations.refusal`), p is refused, with the reason. So it is where too few arrangements differ.

    Raises ValueError where the null of a metric has another shape than its scores, is undefined although the score is
    not, or where the declared statistic is not the score when no image is relabelled.
    """
    calibrations: dict[str, Calibration] = {}
    sides = BothSides(a, b, settings)
    relabelled = Groups.of([str(i) for i in range(sides.count)]).exchanges if exchanges is None else exchanges
    permuted = {name: null for name in scores if isinstance(null := METRICS[name].null, Permutations)}
    if permuted:
        check_draws(draws, alpha)
        observed = {name: scores[name] for name in permuted}
        for name, values in _permuted(observed, a, b, settings, relabelled, draws, seed, progress).items():
            _check_defined(name, scores[name], values)
            calibration = calibrate_by_permutations(scores[name], values, METRICS[name].highest(settings.k), alpha)
            exact = permuted[name].exact
            if exact is not None and relabelled.is_free:
                calibration = _with_moments(
                    calibration, scores[name], _checked_moments(name, scores[name], exact(*sides.graphs))
                )
            calibrations[name] = calibration
    for name in scores:
        closed = METRICS[name].null
        if isinstance(closed, ClosedForm):
            calibrations[name] = _closed(name, closed, scores[name], sides, relabelled, draws, alpha, seed, memory)
    refusal = relabelled.refusal(alpha)
    return {
        name: calibrations[name] if refusal is None else without_p(calibrations[name], refusal)
        for name in scores
        if name in calibrations
    }


def _closed(
    name: str,
    closed: ClosedForm,
    scores: Grid,
    sides: BothSides,
    exchanges: Exchanges,
    draws: int,
    alpha: float,
    seed: int,
    memory: float,
) -> Calibration:
    """The calibration of a metric with a closed form: by it, or by permutations where it does not hold."""
    highest, by_moments = METRICS[name].highest(sides.settings.k), None
    reason = "moments are of relabellings of single images, and images come in groups"
    if exchanges.is_free:
        known = _checked_moments(name, scores, closed.moments(sides))
        by_moments = calibrate_by_moments(scores, known, highest, alpha)
        outside = known.outside(scores)
        if not outside.any():
            return by_moments
        reason = (
            f"few images make up most of the similarities, so that moments do not tell the null, in "
            f"{int(outside.sum())} of {outside.size} pairs of layers"
        )
    if closed.by_kernels:
        refusal = kernel_permutations.refusal(sides.count, scores.size, draws, memory)
        if refusal is None:
            check_draws(draws, alpha)
            null = _permuted_kernels(name, scores, sides, list(exchanges.orders(draws, seed)), memory)
            return calibrate_by_permutations(scores, null, highest, alpha)
        reason = f"{reason}; {refusal}"
    if by_moments is None:
        return replace(_refused(scores), reason=reason)
    # the largest score may be one without a p
    return replace(_without_largest(by_moments), reason=reason)


def _permuted_kernels(
    name: str, scores: Grid, sides: BothSides, orders: Sequence[NDArray[np.intp]], memory: float
) -> NDArray[np.float64]:
    """Linear CKA (K, L_A, L_B) under each order."""
    read = [[partial(prepare, "moments", layer, sides.settings) for layer in side] for side in (sides.a, sides.b)]
    null = kernel_permutations.permuted_cka([name], read[0], read[1], orders, sides.settings.eps, memory)[name]
    _check_defined(name, scores, null)
    return kernel_permutations.tied(null, scores)


def _refused(scores: Grid) -> Calibration:
    """A calibration without a null."""
    unknown = np.full_like(scores, np.nan)
    grids = (unknown,) * 8
    return Calibration("refused", *grids, np.empty(0), math.nan, math.nan, math.nan)


def without_p(calibration: Calibration, reason: str) -> Calibration:
    """The calibration without what a significance rests on."""
    unknown = np.full_like(calibration.p, np.nan)
    return replace(
        _without_largest(calibration),
        p=unknown,
        threshold=unknown,
        calibrated=unknown,
        p_adjusted=unknown,
        grid_threshold=unknown,
        reason=calibration.reason or reason,
    )


def _without_largest(calibration: Calibration) -> Calibration:
    return replace(calibration, maximum_p=math.nan, maximum_threshold=math.nan, maximum_calibrated=math.nan)


def _permuted(
    observed: Mapping[str, Grid],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    exchanges: Exchanges,
    draws: int,
    seed: int,
    progress: Callable[[Iterable[NDArray[np.intp]], int], Iterable[NDArray[np.intp]]] | None,
) -> dict[str, NDArray[np.float64]]:
    """Scores under permutations, metric -> (K, L_A, L_B). observed: metric -> (L_A, L_B)."""
    # NaN, so that scores that are not filled in are refused
    permuted = {name: np.full((draws, len(a), len(b)), np.nan) for name in observed}
    on_lists = [name for name in observed if METRICS[name].uses_k]
    scorer = None
    if on_lists:
        scorer = NeighborScores(on_lists, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
    statistics: dict[str, Callable[[NDArray[np.intp]], Grid]] = {}
    measured_again: list[str] = []
    for name, scores in observed.items():
        null = METRICS[name].null
        if isinstance(null, Permutations) and null.statistic is not None:
            prepared = [[prepare(METRICS[name].needs, layer, settings) for layer in side] for side in (a, b)]
            statistics[name] = null.statistic(prepared[0], prepared[1], settings.eps)
            _check_statistic(name, scores, statistics[name](np.arange(a[0].count)))
        elif name not in on_lists:
            measured_again.append(name)
    orders: Iterable[NDArray[np.intp]] = exchanges.orders(draws, seed)
    for i, order in enumerate(progress(orders, draws) if progress else orders):
        if scorer is not None:
            for name, values in scorer.scores(settings.eps, order).items():
                permuted[name][i] = values
        for name, statistic in statistics.items():
            values = statistic(order)
            _check_shape(name, observed[name], np.shape(values))
            permuted[name][i] = values
        if measured_again:
            moved = [layer.relabelled(order) for layer in b]
            for name, values in measure_grid(measured_again, a, moved, settings).items():
                permuted[name][i] = values
    return permuted


def _check_statistic(name: str, scores: Grid, unmoved: Grid) -> None:
    """Raise ValueError unless the statistic of the identity is the score."""
    _check_shape(name, scores, np.shape(unmoved))
    apart = ~np.isclose(unmoved, scores, rtol=_AGREES, atol=_AGREES, equal_nan=True)
    if apart.any():
        row, column = np.argwhere(apart)[0]
        raise ValueError(
            f"{name}: the statistic of unmoved images is {unmoved[row, column]:.6g} for layers {row} and {column}, the "
            f"score {scores[row, column]:.6g}"
        )


def _checked_moments(name: str, scores: Grid, moments: NullMoments) -> NullMoments:
    """The moments of a null. Raises ValueError for another shape, and where they are undefined although the score is
    not. A null without variance has no skewness.
    """
    _check_shape(name, scores, moments.mean.shape)
    _check_where(name, scores, np.isfinite(moments.mean))
    _check_where(name, scores, np.isfinite(moments.sd))
    if moments.skewness is not None:
        _check_where(name, scores, (moments.sd == 0) | ~np.isnan(moments.skewness))
    return moments


def _check_defined(name: str, scores: Grid, null: NDArray[np.float64]) -> None:
    """Raise ValueError where a null (K, L_A, L_B) is undefined although the score is not."""
    _check_where(name, scores, np.asarray(np.isfinite(null).all(axis=0)))


def _check_where(name: str, scores: Grid, defined: NDArray[np.bool_]) -> None:
    """Raise ValueError for a score whose null is not defined (L_A, L_B)."""
    missing = ~defined & ~np.isnan(scores)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(f"{name}: the null is undefined for layers {row} and {column}, although the score is not")


def _check_shape(name: str, scores: Grid, shape: tuple[int, ...]) -> None:
    """Raise ValueError for a null that has not the shape of the scores."""
    if shape != scores.shape:
        raise ValueError(f"{name}: the null has shape {shape}, the scores {scores.shape}")


def _with_moments(calibration: Calibration, scores: Grid, exact: NullMoments) -> Calibration:
    """The calibration with the mean, standard deviation and z of all N! permutations in place of those drawn."""
    return replace(calibration, mean=exact.mean, sd=exact.sd, z=_ratio(scores - exact.mean, exact.sd))


def over_images(
    scores: Mapping[str, Grid],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float = 2**30,
    groups: Groups | None = None,
) -> dict[str, Interval]:
    """95 % intervals over images of scores of every layer of A with every layer of B: metric -> (L_A, L_B).

    Only metrics with a formula have one: those on lists that declare shares, and linear CKA, whose errors are NaN where
    a few images make most of a kernel (`moments.cka_error`). For single pairs of layers `intervals.jackknife` serves
    the others. groups: of images that are not independent; intervals are then over groups.
    """
    clusters = None if groups is None or groups.alone else groups
    spreads: dict[str, Spread] = {}
    on_lists = [name for name in scores if METRICS[name].shares is not None]
    if on_lists:
        scorer = NeighborScores(on_lists, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
        spreads |= scorer.spreads(clusters)
    on_moments = [name for name in scores if METRICS[name].error is not None]
    if on_moments:
        errors = error_grid(on_moments, a, b, settings, memory, clusters)
        spreads |= {name: Spread.symmetric(error) for name, error in errors.items()}
    freedom = a[0].count - 1 if groups is None else groups.freedom
    return {name: spread.around(scores[name], freedom) for name, spread in spreads.items()}
