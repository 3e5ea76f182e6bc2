"""Scores of two sets in a shared space on images that the space was not fitted to, and what one space gains on another.

- Intervals and p-values are over held-out images of this data set, given the transforms: other images of its source.
  They don't cover other images to fit, other data sets, or groups of images: images of one class are fitted and held
  out. Means over trainings with several seeds also cover seeds: to the variance over images that over seeds is added,
  s² / S, and Student's t has the degrees of freedom of Welch and Satterthwaite. With one seed they are unknown.
- p-values are of permutations of the pairing of held-out images, with the transforms as they are; unbiased CKA has the
  moments of all permutations. p of a mean over S seeds is twice the mean of theirs, at most 1, which is valid however
  they depend on each other (Rüschendorf 1982; Vovk and Wang 2020).
- ``own_index`` and ``own_label`` are means over images, of what an image is credited with. Pseudo-images, of which a
  score has two with 0 and two with 1 (Agresti and Coull 1998) and a difference one half of each pair of these (Agresti
  and Min 2005), keep intervals open where all are credited or none. In simulations of 40 to 200 images they held the
  mean over studies in 90 to 100 %, mostly 93 to 97 %, while a bootstrap of images held it in 7 to 96 %.
- ``cknna`` has the errors of `alignment.dyadic`, also of differences; ``cka`` (unbiased) its formula, and differences
  the jackknife; ``predictivity`` is bootstrapped over images.
- In 300 simulated studies of 60 images, 95 % intervals of scores held the mean over studies in 90 to 93 %, those of
  differences in 88 to 94 %, and those of differences of three trainings in 90 to 99 %. In 1000 studies of 40 images
  that have nothing in common, p was .05 or less in 3.6 to 5.5 %. ``own_index`` and ``own_label`` have few values, so
  that their p is at times larger than it needs to be.
- Each score is of a space of its own: R² can be high in one that holds little. So no single one says what is gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import moments, nulls
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.intervals import BOUNDS, jackknife
from diffalign.alignment.metrics import Layer, NeighborScores, first_lists, measure_grid
from diffalign.alignment.metrics import Settings as MetricSettings
from diffalign.alignment.preparation import FeatureError, unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.series import Drawn, against
from diffalign.alignment.settings import Preparation
from diffalign.logs import log
from diffalign.randomness import dealt, keyed
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
    """Images in the order of rows, sorted by name. labels: None where there are none for all, or all are the same."""

    names: tuple[str, ...]
    labels: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if list(self.names) != sorted(set(self.names)):
            raise ValueError("names of images are sorted, and each stands once")
        if self.labels is not None and len(self.labels) != len(self.names):
            raise ValueError(f"{len(self.labels)} labels for {len(self.names)} images")

    @property
    def codes(self) -> NDArray[np.int64] | None:
        """Numbers of the labels, (N,)."""
        if self.labels is None:
            return None
        return np.asarray(np.unique(np.array(self.labels), return_inverse=True)[1], np.int64)


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval, the mean of its null, and p; NaN where unknown or undefined."""

    score: float
    low: float = math.nan
    high: float = math.nan
    null_mean: float = math.nan
    p: float = math.nan


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
    """A difference of scores on the same images, with its 95 % interval."""

    difference: float
    low: float
    high: float


def measure(
    fitted: Sides, held_out: Sides, fit_names: Sequence[str], images: Images, seed: int | None, drawing: Drawing
) -> Measured:
    """Measure one shared space on held-out images; a regression for `predictivity` is fitted on the fitted ones.

    fitted, held_out: features of both sets in the space, (n, d) and (N, d) float32, in the order of fit_names and
    images. Rows are centred and divided by their norm for CKA and CKNNA; where one has no direction, both are NaN.
    Raises ValueError for sets of different shape, and k neighbours that N images don't have.
    """
    x, y = held_out
    _check(fitted, held_out, len(fit_names), images, drawing)
    orders = np.stack(list(nulls.permutations(len(x), drawing.permutations, drawing.seed)))
    estimates: dict[str, Estimate] = {}
    credits_of: dict[str, Float64] = {}
    there, back = nearest_shares(x, y), nearest_shares(y, x)
    for metric, codes in (("own_index", np.arange(len(x))), ("own_label", images.codes)):
        if codes is None:
            continue
        null = _permuted_pairing(there, back, codes, orders)
        credits_of[metric] = (credit_of(there, codes) + credit_of(back, codes)) / 2
        score = float(credits_of[metric].mean())
        around = _bounds(*_of_credits(credits_of[metric], 1), *_RANGES[metric])
        estimates[metric] = Estimate(score, *around, *_against(score, null))
    made, rows, influence = _engine(held_out, images, drawing)
    estimates |= made
    folds = dealt(fit_names, FOLDS, drawing.seed, "shared space folds")
    prediction = predict(fitted, held_out, folds, drawing.penalties)
    r2 = prediction.r2
    around = _bounds(
        r2, _bootstrap_error([prediction], np.ones(1), images, drawing), math.inf, *_RANGES["predictivity"]
    )
    estimates["predictivity"] = Estimate(r2, *around, *_against(r2, prediction.permuted(orders)))
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
        if layers is not None:
            grid = measure_grid([engine], layers[:1], layers[1:], MetricSettings(drawing.k))
            scores[metric] = float(grid[engine][0, 0])
    return {**scores, "predictivity": prediction.cross_validated}


def over_seeds(metric: str, runs: Sequence[Measured], images: Images, drawing: Drawing) -> Estimate:
    """The mean of one metric over trainings, with the interval and p of the docstring of this module."""
    single = [run.estimates[metric] for run in runs]
    mean = compare(metric, runs, [], images, drawing)
    low, high = np.clip((mean.low, mean.high), *_RANGES.get(metric, (-math.inf, math.inf)))
    null_mean, p = (float(np.mean([getattr(each, key) for each in single])) for key in ("null_mean", "p"))
    return Estimate(mean.difference, float(low), float(high), null_mean, float(np.minimum(2 * p, 1)))


def compare(
    metric: str, runs: Sequence[Measured], others: Sequence[Measured], images: Images, drawing: Drawing
) -> Contrast:
    """The mean of one metric over runs less that over others, on the same images; the mean itself without others.

    The interval covers images and, where runs or others are trainings, seeds; it is NaN where there is one training
    alone. Raises ValueError for a metric that was not measured.
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
        return Contrast(math.nan, math.nan, math.nan)
    center, error, freedom = _over_images(metric, everything, weights, images, drawing)
    center = difference if center is None else center
    terms = [(error**2, freedom)]
    for side, of_side in ((runs, values[: len(runs)]), (others, values[len(runs) :])):
        if side and side[0].seed is not None:
            if len(side) < 2:
                return Contrast(difference, math.nan, math.nan)
            terms.append((float(of_side.var(ddof=1)) / len(side), len(side) - 1))
    total = sum(variance for variance, _ in terms)
    spread = sum(variance**2 / degrees for variance, degrees in terms)
    low, high = _bounds(center, math.sqrt(total), total**2 / spread if spread > 0 else math.inf)
    return Contrast(difference, low, high)


def _over_images(
    metric: str, runs: Sequence[Measured], weights: Float64, images: Images, drawing: Drawing
) -> tuple[float | None, float, float]:
    """Middle of an interval (None for the weighted sum itself), standard error over images, degrees of freedom."""
    if metric in ("own_index", "own_label"):
        return _of_credits(weights @ np.stack([run.credits[metric] for run in runs]), round(float(weights.sum())))
    if metric == "predictivity":
        return None, _bootstrap_error([run.prediction for run in runs], weights, images, drawing), math.inf
    if metric == "cknna":
        influences = [run.influence for run in runs if run.influence is not None]
        return None, math.sqrt(float(Covariances(influences).of(weights[None, :])[0, 0])), math.inf
    sides = [run.rows for run in runs if run.rows is not None]

    def without(keep: NDArray[np.intp]) -> Float64:
        scores = [moments.unbiased_cka(moments.moments(x[keep]), moments.moments(y[keep])) for x, y in sides]
        return np.array([weights @ np.array(scores)])

    parts = min(_PARTS, len(images.names))
    dealt_out = dealt(images.names, parts, drawing.seed, "shared space jackknife")
    return None, float(jackknife(np.zeros(1), dealt_out, without).error[0]), parts - 1


def _of_credits(values: Float64, total: int) -> tuple[float, float, float]:
    """Mean and standard error of values (N,) with pseudo-images, and degrees of freedom.

    total: 1 for a score in [0, 1], which has two pseudo-images with 0 and two with 1. 0 for a difference, which has two
    with 0 on average and a sum of squares of 1.
    """
    pseudo, squares, number = (2.0, 2.0, 4) if total else (0.0, 1.0, 2)
    count = len(values) + number
    mean = (float(values.sum()) + pseudo) / count
    variance = (float(values @ values) + squares) / count - mean**2
    return mean, math.sqrt(max(variance, 0.0) / count), math.inf


def _bounds(
    middle: float, error: float, freedom: float, lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float]:
    """Bounds of middle ± t error, within a range."""
    from scipy.stats import t

    reach = float(t.ppf(BOUNDS[1], freedom)) * error
    return max(lowest, middle - reach), min(highest, middle + reach)


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


def _layers(sides: Sides, images: Images, drawing: Drawing) -> list[Layer] | None:
    """Both sets as layers of the engine of alignments; None where a row has no direction."""
    layers = []
    for side in sides:
        try:
            rows = unit_rows(side, images.names, Preparation(center=True))
        except FeatureError as error:
            log.warning("no CKA and CKNNA in this space: %s", error)
            return None
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
    if layers is None:
        return {metric: Estimate(math.nan) for metric in _ENGINE}, None, None
    settings = MetricSettings(drawing.k)
    drawn = Drawn(drawing.permutations, _ALPHA, drawing.seed)
    found = against(list(_ENGINE.values()), layers[:1], layers[1], settings, drawn)
    estimates = {}
    for metric, engine in _ENGINE.items():
        row = found[engine].row(0)
        estimates[metric] = Estimate(
            row["score"], *_bounds(row["score"], row["error"], math.inf), row["null_mean"], row["p"]
        )
    influence = None
    if not math.isnan(estimates["cknna"].score):
        lists = first_lists(layers[:1], drawing.k), first_lists(layers[1:], drawing.k)
        influence = NeighborScores(["cknna"], *lists, drawing.k).influence("cknna")
    return estimates, (layers[0].rows(), layers[1].rows()), influence


def _bootstrap_error(predictions: Sequence[Prediction], weights: Float64, images: Images, drawing: Drawing) -> float:
    """Standard deviation of a weighted sum of R² over bootstrap samples of images, the same for all predictions."""
    count = len(images.names)
    draws = keyed(drawing.seed, "shared space bootstrap", str(count))
    often = draws.multinomial(count, np.full(count, 1 / count), size=drawing.bootstrap).astype(np.float64)
    left, total = (np.stack([getattr(each, key) for each in predictions], axis=1) for key in ("unexplained", "total"))
    if not (total.sum(axis=0) > 0).all():
        return math.nan
    return float(((1 - (often @ left) / (often @ total)) @ weights).std(ddof=1))


def _check(fitted: Sides, held_out: Sides, count: int, images: Images, drawing: Drawing) -> None:
    """Raise ValueError for sets of different shape, and too few images for the neighbours that are asked for."""
    for sides, number, which in ((fitted, count, "fitted"), (held_out, len(images.names), "held-out")):
        if sides[0].shape != sides[1].shape or len(sides[0]) != number:
            raise ValueError(
                f"{which} images are {number}, and their features in the shared space have shapes {sides[0].shape} and "
                f"{sides[1].shape}; expected ({number}, d) of both"
            )
        if drawing.k >= number:
            raise ValueError(f"k = {drawing.k} neighbours need at least {drawing.k + 1} {which} images, got {number}")
