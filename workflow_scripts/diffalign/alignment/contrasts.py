"""Contrasts: the paired difference of two scores of the same images, and its error over images or groups of them.

Two scores of the same images depend on each other, so that the error of their difference is no sum of theirs: it is
that of the difference of what each image, edge or part of the images contributes to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import replicates
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, Settings, first_lists, measure_grid, prepare
from diffalign.alignment.moments import CONCENTRATED
from diffalign.alignment.ties import ListsTooShort

if TYPE_CHECKING:
    from scipy import sparse

# parts of the jackknife
PARTS = 20
# layers that are held at a time: both pairs of a contrast
_HELD = 4
# a difference and an error below this share of the scores are rounding of float32 features
_ROUNDING = 1e-5

Pair: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """The score of one pair of layers minus that of another. A layer is a key of its own; equal keys are one layer."""

    first: Pair
    second: Pair


@dataclass(frozen=True, eq=False)
class Differences:
    """M contrasts of one metric.

    scores: (M, 2), of the first and of the second pair. values: (M,), their differences. errors: (M,) standard errors.
    correlation: (M, M) of the differences, from first-order influences; 0 with those that are certain or undefined.
    freedom: degrees of Student's distribution. method: of the errors. Values and errors are NaN where a score is
    undefined, errors also for the reason that `refused` gives, else None.
    """

    scores: NDArray[np.float64]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    correlation: NDArray[np.float64]
    freedom: int
    method: str
    refused: str | None = None


class _OfContrast(NamedTuple):
    """Both scores, the error of their difference, and the influence on it of every image, group or part (U,)."""

    scores: tuple[float, float]
    error: float
    influence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _OfPair:
    """What contrasts need of one pair: scores; of metrics on lists, influences (N, N) of edges; of metrics without a
    formula, scores without each part of the images (G,).
    """

    scores: dict[str, float]
    edges: dict[str, sparse.csr_array]
    without: dict[str, NDArray[np.float64]]


def method_of(metric: str) -> str:
    """How the error of a difference is found: by the influence of edges between images (``dyadic``) or of images
    (``influence``), or by ``jackknife``.
    """
    if METRICS[metric].shares is not None:
        return "dyadic"
    return "jackknife" if METRICS[metric].difference is None else "influence"


def differences(
    metrics: Sequence[str],
    contrasts: Sequence[Contrast],
    layer: Callable[[str], Layer],
    settings: Settings,
    groups: Groups,
    seed: int,
    progress: Callable[[Iterable[Contrast], int], Iterable[Contrast]] | None = None,
) -> dict[str, Differences]:
    """Measure contrasts: metric -> `Differences`, in the order of `contrasts`.

    layer: key -> layer, all of the same images. groups: of images that are not independent; errors are over groups.
    seed: deals whole groups into the 20 parts of the jackknife, the same for all pairs. progress: wraps the iteration.

    Errors of a difference, from the difference of both influences: of metrics on lists by the dyadic variance of edges
    (`dyadic.Covariances`); of linear CKA by
    `moments.cka_difference`; of others by a delete-a-group jackknife in which both scores lack the same images
    (`intervals.replicates`). Where both pairs are one, or one the other way round and the metric is symmetric, the
    difference is 0 and its error 0.
    """
    measured = _Measured(metrics, layer, settings, groups, seed)
    found: dict[str, list[_OfContrast]] = {name: [] for name in metrics}
    left = Counter(pair for contrast in contrasts for pair in (contrast.first, contrast.second))
    of_pair: dict[Pair, _OfPair] = {}
    for contrast in progress(contrasts, len(contrasts)) if progress else contrasts:
        for pair in (contrast.first, contrast.second):
            if pair not in of_pair:
                of_pair[pair] = measured.of_pair(pair)
        for name in metrics:
            found[name].append(measured.of_contrast(name, contrast, of_pair))
        for pair in (contrast.first, contrast.second):
            left[pair] -= 1
            if not left[pair]:
                of_pair.pop(pair, None)
    return {name: _together(name, found[name], measured.freedom(name), measured.refused.get(name)) for name in metrics}


class _Measured:
    """Scores and influences of pairs and contrasts."""

    def __init__(
        self, metrics: Sequence[str], layer: Callable[[str], Layer], settings: Settings, groups: Groups, seed: int
    ) -> None:
        self.metrics, self.settings, self.groups = metrics, settings, groups
        self.clusters = None if groups.alone else groups
        self.on_lists = [name for name in metrics if method_of(name) == "dyadic"]
        self.left_out = [name for name in metrics if method_of(name) == "jackknife"]
        # metric -> why differences have no error
        self.refused: dict[str, str] = {}
        self.parts = groups.dealt(PARTS, seed, "groups")
        self.layer = lru_cache(maxsize=_HELD)(lambda key: layer(key).held())
        self.moments: Callable[[str], Any] = lru_cache(maxsize=_HELD)(
            lambda key: prepare("moments", self.layer(key), settings)
        )

    def freedom(self, metric: str) -> int:
        """Degrees of freedom of the error: parts, or groups, of which each image may be one, less one."""
        return int(self.parts.max()) if method_of(metric) == "jackknife" else self.groups.freedom

    def of_pair(self, pair: Pair) -> _OfPair:
        """What contrasts need of one pair."""
        a, b = self.layer(pair[0]), self.layer(pair[1])
        scores = {name: float(grid[0, 0]) for name, grid in measure_grid(self.metrics, [a], [b], self.settings).items()}
        edges = {}
        defined = [name for name in self.on_lists if np.isfinite(scores[name])]
        if defined:
            k, eps = self.settings.k, self.settings.eps
            scorer = NeighborScores(defined, first_lists([a], k), first_lists([b], k), k)
            edges = {name: scorer.influence(name, eps) for name in defined}
        without = {name: self._without(name, a, b) for name in self.left_out}
        return _OfPair(scores, edges, without)

    def _without(self, metric: str, a: Layer, b: Layer) -> NDArray[np.float64]:
        """Scores without each part of the images (G,), NaN where lists of some of the images are too short."""

        def rest(keep: NDArray[np.intp]) -> NDArray[np.float64]:
            sides = [[side.restricted(keep, self.settings.k)] for side in (a, b)]
            return np.asarray(measure_grid([metric], sides[0], sides[1], self.settings)[metric][0, 0])

        try:
            return replicates(self.parts, rest)
        except ListsTooShort as error:
            self.refused[metric] = str(error)
            return np.full(int(self.parts.max()) + 1, np.nan)

    def of_contrast(self, metric: str, contrast: Contrast, of_pair: dict[Pair, _OfPair]) -> _OfContrast:
        """One contrast by one metric."""
        one, other = of_pair[contrast.first], of_pair[contrast.second]
        scores = one.scores[metric], other.scores[metric]
        both = (contrast.first, contrast.second)
        pairs = [tuple(sorted(pair)) if METRICS[metric].symmetric else pair for pair in both]
        method = method_of(metric)
        units = int(self.parts.max()) + 1 if method == "jackknife" else self.groups.count
        if not np.isfinite(scores).all():
            return _OfContrast(scores, np.nan, np.zeros(units))
        if pairs[0] == pairs[1]:
            return _OfContrast((scores[0], scores[0]), 0.0, np.zeros(units))
        if method == "dyadic":
            together = Covariances([one.edges[metric] - other.edges[metric]], self.clusters)
            error, influence = float(np.sqrt(together.of(np.eye(1))[0, 0])), together.at_unit[0]
        elif method == "jackknife":
            apart = one.without[metric] - other.without[metric]
            influence = np.sqrt((units - 1) / units) * (apart - apart.mean())
            error = float(np.sqrt(influence @ influence))
        else:
            sides = [tuple(map(self.moments, pair)) for pair in both]
            declared = METRICS[metric].difference
            assert declared is not None
            error, influence = declared(sides[0], sides[1], self.clusters)
            if np.isnan(error):
                self.refused[metric] = CONCENTRATED
        if max(error, abs(scores[0] - scores[1])) <= _ROUNDING * max(map(abs, scores)):
            return _OfContrast((scores[0], scores[0]), 0.0, np.zeros(units))
        if np.isnan(error):
            return _OfContrast(scores, np.nan, np.zeros(units))
        return _OfContrast(scores, error, influence)


def _together(metric: str, found: Sequence[_OfContrast], freedom: int, refused: str | None) -> Differences:
    scores = np.array([each.scores for each in found])
    influences = np.stack([each.influence for each in found])
    norms = np.linalg.norm(influences, axis=1, keepdims=True)
    unit = np.divide(influences, norms, out=np.zeros_like(influences), where=norms > 0)
    method = method_of(metric)
    return Differences(
        scores,
        scores[:, 0] - scores[:, 1],
        np.array([each.error for each in found]),
        unit @ unit.T,
        freedom,
        f"jackknife of {freedom + 1} groups" if method == "jackknife" else method,
        refused,
    )
