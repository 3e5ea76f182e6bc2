"""From scores and their nulls to what can be claimed: z, p, calibrated scores, the maximum of a grid, many tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import nulls
from diffalign.alignment.graphs import knn_graphs
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, Settings, error_grid, first_lists, prepare
from diffalign.alignment.moments import Moments
from diffalign.alignment.nulls import KernelCubes, NullMoments
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


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values: the smallest false discovery rate at which each test is a discovery (Benjamini and Hochberg 1995).

    p: (T,), NaN where there is no test. Raises ValueError for values outside [0, 1].
    """
    tested = np.flatnonzero(~np.isnan(p))
    values = p[tested]
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p-values lie between 0 and 1")
    q = np.full(len(p), np.nan)
    order = np.argsort(values)
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    q[tested[order]] = np.minimum.accumulate(scaled[::-1])[::-1]
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
    """Calibrate the grids (L_A, L_B) of several metrics; all share the same permutations. Metrics without a null are
    left out.

    scores: metric -> observed grid. draws: K permutations, keyed by (seed, number). progress: wraps them.
    """
    found: dict[str, Calibration] = {}
    by_permutations = [name for name in scores if METRICS[name].null == "permutations"]
    if by_permutations:
        check_draws(draws, alpha)
        nulls_of = _permuted(by_permutations, a, b, settings, draws, seed, progress)
        for name, null in nulls_of.items():
            found[name] = calibrate_by_permutations(scores[name], null, METRICS[name].highest(settings.k), alpha)
            if name == "mutual_knn":
                graphs = [knn_graphs(first_lists(side, settings.k), settings.k) for side in (a, b)]
                found[name] = _with_moments(found[name], scores[name], nulls.mutual_knn_moments(*graphs))
    by_moments = [name for name in scores if METRICS[name].null == "moments"]
    for name, moments_of in _moments(by_moments, a, b).items():
        # these moments are without eps, which makes scores smaller and so p larger
        found[name] = calibrate_by_moments(scores[name], moments_of, METRICS[name].highest(settings.k), alpha)
    return found


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
    found = {name: np.empty((draws, len(a), len(b))) for name in names}
    of_lists = [name for name in names if METRICS[name].needs == "lists"]
    of_factors = [name for name in names if METRICS[name].needs == "factors"]
    scorer = None
    if of_lists:
        scorer = NeighborScores(of_lists, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
    if of_factors:
        svcca = nulls.svcca_under(*([prepare("factors", layer, settings) for layer in side] for side in (a, b)))
    orders: Iterable[NDArray[np.intp]] = nulls.permutations(a[0].count, draws, seed)
    for i, order in enumerate(progress(orders, draws) if progress else orders):
        if scorer is not None:
            for name, values in scorer.scores(settings.eps, order).items():
                found[name][i] = values
        for name in of_factors:
            found[name][i] = svcca(order)
    return found


def _with_moments(calibration: Calibration, scores: Grid, exact: NullMoments) -> Calibration:
    """The mean, standard deviation and z of all N! permutations in place of those of the ones drawn."""
    return replace(calibration, mean=exact.mean, sd=exact.sd, z=_ratio(scores - exact.mean, exact.sd))


def _moments(names: Sequence[str], a: Sequence[Layer], b: Sequence[Layer]) -> dict[str, NullMoments]:
    found: dict[str, NullMoments] = {}
    if {"cka", "unbiased_cka"} & set(names):
        sums: list[list[Moments]] = []
        cubes: list[list[KernelCubes]] = []
        for side in (a, b):
            sums.append([])
            cubes.append([])
            for layer in side:
                of_layer = prepare("moments", layer, Settings())
                cubes[-1].append(layer.cubes() if layer.cubes else nulls.kernel_cubes(of_layer))
                # the features themselves are not needed again
                sums[-1].append(replace(of_layer, rows=of_layer.rows[:, :0].copy()))
        if "cka" in names:
            found["cka"] = nulls.cka_moments(sums[0], sums[1], (cubes[0], cubes[1]))
        if "unbiased_cka" in names:
            found["unbiased_cka"] = nulls.unbiased_cka_moments(sums[0], sums[1], (cubes[0], cubes[1]))
    if "unbiased_cka_rbf" in names:
        found["unbiased_cka_rbf"] = nulls.unbiased_kernel_moments(a[0].count, (len(a), len(b)))
    if "rsa_pearson" in names:
        light = []
        for side in (a, b):
            patterns = (prepare("patterns", layer, Settings()) for layer in side)
            light.append([replace(x, rows=x.rows[:, :0].copy()) for x in patterns])
        found["rsa_pearson"] = nulls.rsa_pearson_moments(light[0], light[1])
    return found


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
