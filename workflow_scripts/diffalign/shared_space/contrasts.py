"""Scores of two sets in a shared space on images that the space was not fitted to, and what one space gains on another.

- Intervals and p-values are over held-out images of this data set, given the transforms: other images of its source.
  They don't cover other images to fit, or other data sets. Images of one class are fitted and held out. Means over
  trainings with several seeds also cover seeds: to the variance over images that over seeds is added, s² / S, and
  Student's t has the degrees of freedom of Welch and Satterthwaite. With one seed they are unknown.
- p-values are of permutations of the pairing of held-out images, with the transforms as they are; unbiased CKA has the
  moments of all permutations. p of a mean over S seeds is twice the mean of theirs, at most 1, which is valid however
  they depend on each other (Rüschendorf 1982; Vovk and Wang 2020).
- ``own_index`` and ``own_label`` are means over images, of what an image is credited with. Pseudo-images, of which a
  score has two with 0 and two with 1 (Agresti and Coull 1998) and a difference one half of each pair of these (Agresti
  and Min 2005), keep intervals open where all are credited or none. In simulations of 40 to 200 images they held the
  mean over studies in 90 to 100 %, mostly 93 to 97 %, while a bootstrap of images held it in 7 to 96 %.
- Images that are not independent come in groups, which are fitted or held out, exchanged, resampled and left out as
  wholes (`alignment.groups`); intervals are then over groups, with Student's t. Where fewer than 20 arrangements of
  groups differ there is no p, and the reason says so. CKA, which has no moments then, is permuted. Errors of
  ``own_index`` and ``own_label`` are those of so many images as would be as uncertain if they were independent.
- ``cknna`` has the errors of `alignment.dyadic`, also of differences; ``cka`` (unbiased) its formula, and differences
  the jackknife; ``predictivity`` is bootstrapped over images, or groups.
- In 300 simulated studies of 60 images, 95 % intervals of scores held the mean over studies in 90 to 93 %, those of
  differences in 88 to 94 %, and those of differences of three trainings in 90 to 99 %. In 1000 studies of 40 images
  that have nothing in common, p was .05 or less in 3.6 to 5.5 %. In 300 studies of ten groups of 16 images to fit and
  ten held out, whose codes have nothing in common, it was in 2.7 to 4.0 %; by image it would be in all for CKA, CKNNA
  and predictivity. Where codes have much in common, intervals over groups held the mean over studies in 85 % of scores
  of predictivity and 94 to 96 % of others, and in 89 to 96 % of differences; by image, in 60 to 80 % and 62 to 91 %.
  ``own_index`` and ``own_label`` have few values, so that their p is at times larger than it needs to be.
- Each score is of a space of its own: R² can be high in one that holds little. So no single one says what is gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import moments
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import BOUNDS, jackknife
from diffalign.alignment.metrics import Layer, NeighborScores, first_lists, measure_grid
from diffalign.alignment.metrics import Settings as MetricSettings
from diffalign.alignment.preparation import FeatureError, unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.series import Drawn, against
from diffalign.alignment.settings import Preparation
from diffalign.logs import log
from diffalign.offenders import first_five
from diffalign.randomness import keyed
from diffalign.shared_space.pairing import credit_of, nearest_shares
from diffalign.shared_space.predictivity import FOLDS, Prediction, predict

if TYPE_CHECKING:
    from scipy import sparse

Array = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]
Sides = tuple[NDArray[np.float32], NDArray[np.float32]]

METRICS = ("own_index", "own_label", "cka", "cknna", "predictivity")
# the names that the engine of alignments has for two of them
_ENGINE = {"cka": "unbiased_cka", "cknna": "cknna"}
# the reference of a difference that folds of the fitted images choose
BEST_LINEAR = "best_linear"
# images are dealt into so many parts, of which the jackknife leaves out one at a time
_PARTS = 20
_ALPHA = 0.05
# mean squares of credits that are rounding
_EQUAL = 1e-12
# of metrics that end somewhere
_RANGES = {"own_index": (0.0, 1.0), "own_label": (0.0, 1.0), "predictivity": (-math.inf, 1.0)}


@dataclass(frozen=True)
class Drawing:
    """Draws of permutations and of the bootstrap, their seed and that of folds, penalties of predictions, CKNNA's k."""

    permutations: int
    bootstrap: int
    seed: int
    penalties: tuple[float, ...]
    k: int


@dataclass(frozen=True)
class Images:
    """Images in the order of rows, sorted by name. labels: None where there are none for all, or all are the same.
    groups: of images that are not independent of each other; None where each is a group of its own.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if list(self.names) != sorted(set(self.names)):
            raise ValueError("names of images are sorted, and each stands once")
        for words, what in ((self.labels, "labels"), (self.groups, "groups")):
            if words is not None and len(words) != len(self.names):
                raise ValueError(f"{len(words)} {what} for {len(self.names)} images")

    @property
    def codes(self) -> NDArray[np.int64] | None:
        """Numbers of the labels, (N,)."""
        if self.labels is None:
            return None
        return np.asarray(np.unique(np.array(self.labels), return_inverse=True)[1], np.int64)

    @cached_property
    def units(self) -> Groups:
        """What is independent of each other: groups, of which each image may be one."""
        return Groups.of(self.names if self.groups is None else self.groups)

    @property
    def clusters(self) -> Groups | None:
        """The groups, None where each image is one."""
        return None if self.units.alone else self.units

    @property
    def freedom(self) -> float:
        """Degrees of freedom of errors over groups; of single images the normal distribution."""
        return math.inf if self.units.alone else self.units.freedom


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval, the mean of its null, and p; NaN where unknown or undefined, for a reason."""

    score: float
    low: float = math.nan
    high: float = math.nan
    null_mean: float = math.nan
    p: float = math.nan
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """One pair of transforms on held-out images. estimates: metric -> score. credits: of each image, (N,), by metric.
    prediction: of the second set from the first. rows: unit rows of both sets, and influence: of edges on CKNNA; None
    where a set has rows without direction. seed: of a training, None without one.
    """

    seed: int | None
    estimates: Mapping[str, Estimate]
    credits: Mapping[str, Float64]
    prediction: Prediction
    rows: Sides | None
    influence: sparse.csr_array | None


@dataclass(frozen=True)
class Contrast:
    """A difference of scores on the same images, with its 95 % interval; NaN where unknown, for a reason."""

    difference: float
    low: float
    high: float
    reason: str = ""


def measure(
    fitted: Sides, held_out: Sides, fit_images: Images, images: Images, seed: int | None, drawing: Drawing
) -> Measured:
    """Measure one shared space on held-out images; a regression for `predictivity` is fitted on the fitted ones.

    fitted, held_out: features of both sets in the space, (n, d) and (N, d) float32, in the order of fit_images and
    images. Rows are centred and divided by their norm for CKA and CKNNA; where one has no direction, both are NaN.
    Raises ValueError for sets of different shape, k neighbours that N images don't have, a single group, and groups
    with images on both sides.
    """
    x, y = held_out
    _check(fitted, held_out, fit_images, images, drawing)
    exchanges = images.units.exchanges
    orders = np.stack(list(exchanges.orders(drawing.permutations, drawing.seed)))
    estimates: dict[str, Estimate] = {}
    credits_of: dict[str, Float64] = {}
    there, back = nearest_shares(x, y), nearest_shares(y, x)
    for metric, codes in (("own_index", np.arange(len(x))), ("own_label", images.codes)):
        if codes is None:
            continue
        null = _permuted_pairing(there, back, codes, orders)
        credits_of[metric] = (credit_of(there, codes) + credit_of(back, codes)) / 2
        score = float(credits_of[metric].mean())
        around = _bounds(*_of_credits(credits_of[metric], 1, images), *_RANGES[metric])
        estimates[metric] = Estimate(score, *around, *_against(score, null))
    made, rows, influence = _engine(held_out, images, drawing)
    estimates |= made
    folds = fit_images.units.dealt(FOLDS, drawing.seed, "shared space folds")
    prediction = predict(fitted, held_out, folds, drawing.penalties)
    r2 = prediction.r2
    error = _bootstrap_error([prediction], np.ones(1), images, drawing)
    around = _bounds(r2, error, images.freedom, *_RANGES["predictivity"])
    estimates["predictivity"] = Estimate(r2, *around, *_against(r2, prediction.permuted(orders)))
    refusal = exchanges.refusal(_ALPHA)
    estimates = {metric: _explained(metric, each, refusal) for metric, each in estimates.items()}
    return Measured(seed, estimates, credits_of, prediction, rows, influence)


def measure_fitted(fitted: Sides, images: Images, prediction: Prediction, drawing: Drawing) -> dict[str, float]:
    """Scores on the images that a space was fitted to, without null and interval, since they are not independent of it.

    `predictivity` is that of folds of these images.
    """
    x, y = fitted
    there, back = nearest_shares(x, y), nearest_shares(y, x)
    scores = {
        metric: float((credit_of(there, codes) + credit_of(back, codes)).mean() / 2)
        for metric, codes in (("own_index", np.arange(len(x))), ("own_label", images.codes))
        if codes is not None
    }
    layers = _layers(fitted, images, drawing)
    for metric, engine in _ENGINE.items():
        scores[metric] = math.nan
        if not isinstance(layers, str):
            grid = measure_grid([engine], layers[:1], layers[1:], MetricSettings(drawing.k))
            scores[metric] = float(grid[engine][0, 0])
    return {**scores, "predictivity": prediction.cross_validated}


def over_seeds(metric: str, runs: Sequence[Measured], images: Images, drawing: Drawing) -> Estimate:
    """The mean of one metric over trainings, with the interval and p of the docstring of this module."""
    single = [run.estimates[metric] for run in runs]
    mean = compare(metric, runs, [], images, drawing)
    low, high = np.clip((mean.low, mean.high), *_RANGES.get(metric, (-math.inf, math.inf)))
    null_mean, p = (float(np.mean([getattr(each, key) for each in single])) for key in ("null_mean", "p"))
    reason = next((each.reason for each in single if each.reason), mean.reason)
    return Estimate(mean.difference, float(low), float(high), null_mean, float(np.minimum(2 * p, 1)), reason)


def compare(
    metric: str, runs: Sequence[Measured], others: Sequence[Measured], images: Images, drawing: Drawing
) -> Contrast:
    """The mean of one metric over runs less that over others, on the same images; the mean itself without others.

    The interval covers images or groups and, where runs or others are trainings, seeds; it is NaN where there is one
    training alone. Raises ValueError for a metric that was not measured.
    """
    everything = [*runs, *others]
    if missing := [run for run in everything if metric not in run.estimates]:
        raise ValueError(f"{metric} was not measured in {len(missing)} of {len(everything)} runs")
    weights = np.concatenate(
        [np.full(len(side), sign / max(1, len(side))) for side, sign in ((runs, 1.0), (others, -1.0))]
    )
    values = np.array([run.estimates[metric].score for run in everything])
    difference = float(weights @ values)
    if math.isnan(difference):
        return Contrast(math.nan, math.nan, math.nan, f"{metric} is undefined")
    center, error, freedom = _over_images(metric, everything, weights, images, drawing)
    center = difference if center is None else center
    terms = [(error**2, freedom)]
    for side, of_side in ((runs, values[: len(runs)]), (others, values[len(runs) :])):
        if side and side[0].seed is not None:
            if len(side) < 2:
                return Contrast(difference, math.nan, math.nan, "one training tells no variance over trainings")
            terms.append((float(of_side.var(ddof=1)) / len(side), len(side) - 1))
    total = sum(variance for variance, _ in terms)
    spread = sum(variance**2 / degrees for variance, degrees in terms)
    low, high = _bounds(center, math.sqrt(total), total**2 / spread if spread > 0 else math.inf)
    return Contrast(difference, low, high, f"{metric} has no error over images" if math.isnan(low) else "")


def _over_images(
    metric: str, runs: Sequence[Measured], weights: Float64, images: Images, drawing: Drawing
) -> tuple[float | None, float, float]:
    """Middle of an interval (None for the weighted sum itself), standard error over images, degrees of freedom."""
    if metric in ("own_index", "own_label"):
        values = weights @ np.stack([run.credits[metric] for run in runs])
        return _of_credits(values, round(float(weights.sum())), images)
    if metric == "predictivity":
        return None, _bootstrap_error([run.prediction for run in runs], weights, images, drawing), images.freedom
    if metric == "cknna":
        influences = [run.influence for run in runs if run.influence is not None]
        covariances = Covariances(influences, images.clusters)
        return None, math.sqrt(float(covariances.of(weights[None, :])[0, 0])), images.freedom
    sides = [run.rows for run in runs if run.rows is not None]

    def without(keep: NDArray[np.intp]) -> Float64:
        scores = [moments.unbiased_cka(moments.moments(x[keep]), moments.moments(y[keep])) for x, y in sides]
        return np.array([weights @ np.array(scores)])

    dealt_out = images.units.dealt(_PARTS, drawing.seed, "shared space jackknife")
    return None, float(jackknife(np.zeros(1), dealt_out, without).error[0]), int(dealt_out.max())


def _of_credits(values: Float64, total: int, images: Images) -> tuple[float, float, float]:
    """Mean and standard error of values (N,) with pseudo-images, and degrees of freedom.

    total: 1 for a score in [0, 1], which has two pseudo-images with 0 and two with 1. 0 for a difference, which has two
    with 0 on average and a sum of squares of 1. Of images in groups, those that would be as uncertain if they were
    independent have pseudo-images beside them.
    """
    pseudo, squares, number = (2.0, 2.0, 4) if total else (0.0, 1.0, 2)
    images_each = _images_each(values, images.units)
    count = len(values) / images_each + number
    mean = (float(values.sum()) / images_each + pseudo) / count
    variance = (float(values @ values) / images_each + squares) / count - mean**2
    return mean, math.sqrt(max(variance, 0.0) / count), images.freedom


def _images_each(values: Float64, groups: Groups) -> float:
    """How many images of groups tell as much of the mean of values (N,) as an independent one: the variance of the mean
    over groups by that over images, between 1 and that of groups whose images are all alike, which it is where all
    values are the same (the design effect of Kish 1965, section 5.4).
    """
    if groups.alone:
        return 1.0
    sizes = groups.sums(np.ones(len(values)))
    most = float(sizes @ sizes) / len(values)
    apart = values - values.mean()
    over_images = float(apart @ apart)
    if over_images <= _EQUAL * len(values):
        return most
    of_groups = groups.sums(apart)
    return min(most, max(1.0, groups.count / groups.freedom * float(of_groups @ of_groups) / over_images))


def _bounds(
    middle: float, error: float, freedom: float, lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float]:
    """Bounds of middle ± t error, within a range."""
    from scipy.stats import t

    reach = float(t.ppf(BOUNDS[1], freedom)) * error
    return max(lowest, middle - reach), min(highest, middle + reach)


def _explained(metric: str, estimate: Estimate, refusal: str | None) -> Estimate:
    """The estimate with the reason why its interval or p is missing. refusal: why no p can be small; None where one
    can.
    """
    reason = estimate.reason
    if not reason and math.isnan(estimate.low):
        reason = f"{metric} is undefined" if math.isnan(estimate.score) else f"{metric} has no error over images"
    if refusal is None:
        return replace(estimate, reason=reason)
    # of few arrangements one is the score itself, so that their mean is no chance either
    return replace(estimate, null_mean=math.nan, p=math.nan, reason=reason or refusal)


def _against(score: float, null: Float64) -> tuple[float, float]:
    """Mean of a null (K,), and p: the share of the score and its null that are at or above the score."""
    if math.isnan(score):
        return math.nan, math.nan
    # sums in another order
    above = null >= score - 1e-9 * max(1.0, abs(score))
    return float(null.mean()), float((1 + above.sum()) / (len(null) + 1))


def _permuted_pairing(
    there: sparse.csr_array, back: sparse.csr_array, codes: NDArray[np.int64], orders: NDArray[np.intp]
) -> Float64:
    """Mean credit (K,) where image i of the first set belongs to image order[i] of the second, for orders (K, N)."""
    entries = (there + back.T).tocoo()
    scores = np.empty(len(orders))
    for i, order in enumerate(orders):
        of_second = np.empty_like(codes)
        of_second[order] = codes
        scores[i] = entries.data[codes[entries.row] == of_second[entries.col]].sum()
    return scores / (2 * len(codes))


def _layers(sides: Sides, images: Images, drawing: Drawing) -> list[Layer] | str:
    """Both sets as layers of the engine of alignments; why there are none where a row has no direction."""
    layers = []
    for side in sides:
        try:
            rows = unit_rows(side, images.names, Preparation(center=True))
        except FeatureError as error:
            log.warning("no CKA and CKNNA in this space: %s", error)
            return str(error)
        lists = _listed(rows, drawing.k)
        layers.append(rows_layer(rows, images.names, lists, drawing.seed))
    return layers


def _listed(rows: NDArray[np.float32], k: int) -> Callable[[], Any]:
    return lambda: nearest_neighbors(rows, k)


def _engine(
    sides: Sides, images: Images, drawing: Drawing
) -> tuple[dict[str, Estimate], Sides | None, sparse.csr_array | None]:
    """CKA and CKNNA as the engine of alignments measures them."""
    layers = _layers(sides, images, drawing)
    if isinstance(layers, str):
        return {metric: Estimate(math.nan, reason=layers) for metric in _ENGINE}, None, None
    settings = MetricSettings(drawing.k)
    drawn = Drawn(drawing.permutations, _ALPHA, drawing.seed)
    found = against(list(_ENGINE.values()), layers[:1], layers[1], settings, drawn, groups=images.units)
    estimates = {}
    for metric, engine in _ENGINE.items():
        row, null = found[engine].row(0), found[engine].null
        around = _bounds(row["score"], row["error"], images.freedom)
        reason = null.reason if null is not None and null.reason else ""
        if not reason and metric == "cka" and math.isnan(row["error"]) and not math.isnan(row["score"]):
            reason = moments.CONCENTRATED
        estimates[metric] = Estimate(row["score"], *around, row["null_mean"], row["p"], reason)
    influence = None
    if not math.isnan(estimates["cknna"].score):
        lists = first_lists(layers[:1], drawing.k), first_lists(layers[1:], drawing.k)
        influence = NeighborScores(["cknna"], *lists, drawing.k).influence("cknna")
    return estimates, (layers[0].rows(), layers[1].rows()), influence


def _bootstrap_error(predictions: Sequence[Prediction], weights: Float64, images: Images, drawing: Drawing) -> float:
    """Standard deviation of a weighted sum of R² over bootstrap samples of images or groups, the same for all
    predictions. A bootstrap of G groups is too narrow by sqrt((G - 1) / G), which is made up for.
    """
    units = images.units
    count = units.count
    draws = keyed(drawing.seed, "shared space bootstrap", str(count))
    often = draws.multinomial(count, np.full(count, 1 / count), size=drawing.bootstrap).astype(np.float64)
    left, total = (
        np.stack([units.sums(getattr(each, key)) for each in predictions], axis=1) for key in ("unexplained", "total")
    )
    # a sample may hold groups alone that do not vary
    if not (total.sum(axis=0) > 0).all() or not (often @ total > 0).all():
        return math.nan
    wider = 1.0 if units.alone else math.sqrt(count / units.freedom)
    return wider * float(((1 - (often @ left) / (often @ total)) @ weights).std(ddof=1))


def _check(fitted: Sides, held_out: Sides, fit_images: Images, images: Images, drawing: Drawing) -> None:
    """Raise ValueError for sets of different shape, too few images for the neighbours that are asked for, a single
    group, and groups that are both fitted and held out.
    """
    held = set(images.units.members)
    both = [group for group in fit_images.units.members if group in held]
    if both:
        raise ValueError(f"{len(both)} groups are both fitted and held out, first: {first_five(both)}")
    for each, which in ((fit_images, "fitted"), (images, "held-out")):
        if each.units.count < 2:
            raise ValueError(f"{len(each.names)} {which} images are 1 group; at least 2 are needed")
    for sides, of, which in ((fitted, fit_images, "fitted"), (held_out, images, "held-out")):
        number = len(of.names)
        if sides[0].shape != sides[1].shape or len(sides[0]) != number:
            raise ValueError(
                f"{which} images are {number}, and their features in the shared space have shapes {sides[0].shape} and "
                f"{sides[1].shape}; expected ({number}, d) of both"
            )
        if drawing.k >= number:
            raise ValueError(f"k = {drawing.k} neighbours need at least {drawing.k + 1} {which} images, got {number}")
