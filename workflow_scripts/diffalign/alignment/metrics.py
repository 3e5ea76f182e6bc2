"""Alignment metrics, each one function and one declaration of its properties, and the engine that measures grids.

A metric `needs` one kind of preparation per layer, which is made once and shared by all pairs and metrics that need
it: ``lists`` (nearest neighbours), ``moments`` (centred features), ``patterns`` (the same of standardised rows),
``factors`` (leading singular vectors), ``ranks`` (of all dissimilarities), ``rbf`` (kernel rows), ``regressions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import dissimilarities, dyadic, factors, moments, regression
from diffalign.alignment import neighbor_metrics as lists
from diffalign.alignment.graphs import EdgeIndex, KnnGraphs, Matches, check_pair, chunks, knn_graphs, restricted
from diffalign.alignment.neighbors import Neighbors
from diffalign.alignment.nulls import KernelCubes

if TYPE_CHECKING:
    from scipy import sparse

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What scores depend on beside the features.

    k: neighbours that a score looks at. eps: added to the denominator of CKNNA and CKA. rbf_sigma: bandwidth of the
    RBF kernel, in units of the distance between unit rows.
    """

    k: int = 10
    eps: float = 0.0
    rbf_sigma: float = 1.0


@dataclass(frozen=True)
class Score:
    """A value, or NaN with the reason why there is none."""

    value: float
    undefined: str | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of one model, as metrics may need it; what no metric needs is never made.

    lists: its nearest neighbours. rows: unit rows (N, D) float32. folds: fold of each image for cross-validation.
    factors: its leading singular vectors, and cubes: third-order sums of its kernel, where they are stored. Each is a
    function, called when it is needed.
    """

    count: int
    lists: Callable[[], Neighbors]
    rows: Callable[[], NDArray[np.float32]]
    folds: Callable[[], NDArray[np.int64]]
    factors: Callable[[], factors.Factors] | None = None
    cubes: Callable[[], KernelCubes] | None = None

    def held(self) -> Layer:
        """The same layer, whose lists and rows are made once and kept."""
        return replace(self, lists=cache(self.lists), rows=cache(self.rows))

    def restricted(self, keep: NDArray[np.intp], k: int) -> Layer:
        """The same layer of some of the images, prepared as it was with all of them. Factors are made anew."""
        return Layer(
            len(keep),
            lambda: restricted(self.lists(), keep, k),
            lambda: self.rows()[keep],
            lambda: self.folds()[keep],
        )


@dataclass(frozen=True)
class Metric:
    """What a metric promises; property tests are made from it.

    function: for ``lists`` a function of the edges that pairs of layers share, for other needs one of two prepared
    layers and eps (for ``rbf`` of two sequences of layers). label: its name in figures. symmetric: score(a, b) =
    score(b, a). orthogonal: whether rotations of the features of a layer change nothing, which they do where columns
    are standardised or the mean of a row is taken off; the scale of a layer and the order of images never matter.
    lowest, highest: its range, infinite where unbounded; highest is a function of k. undefined: why it may
    be NaN. scaled: divided by the geometric mean of both layers' values with themselves. backward: edges of A are
    turned round. includes_self: an image counts among its own k neighbours. identical: whether equal layers score
    `highest` (or 1, where that is infinite). minimum_k: the smallest k it is defined for. chance: expected score of
    independent representations as a function of (N, k), or None where it depends on the representations and must be
    estimated. shares: for ``lists``, what each shared edge adds to the score, from which its standard error follows.
    error: for ``moments``, the standard error of the score of two layers. null: how its distribution without alignment
    is found, ``permutations``, ``moments`` (closed form) or None where one permutation costs as much as the score.
    """

    function: Callable[..., Any]
    label: str
    needs: str
    symmetric: bool
    lowest: float
    highest: Callable[[int], float]
    orthogonal: bool = True
    undefined: str | None = None
    scaled: bool = False
    backward: bool = False
    includes_self: bool = False
    identical: bool = True
    minimum_k: int = 1
    chance: Callable[[int, int], float] | None = None
    null: str | None = None
    shares: Callable[[Matches], Grid] | None = None
    error: Callable[[Any, Any], float] | None = None

    @property
    def uses_k(self) -> bool:
        """Whether the score depends on k."""
        return self.needs == "lists"


def prepare(need: str, layer: Layer, settings: Settings) -> Any:
    """What metrics with this need take of one layer."""
    if need == "moments":
        return moments.moments(layer.rows())
    if need == "patterns":
        return moments.moments(moments.standardised(layer.rows()))
    if need == "factors":
        return layer.factors() if layer.factors else factors.leading_vectors(layer.rows())
    if need == "ranks":
        return dissimilarities.ranks(moments.standardised(layer.rows()))
    if need == "rbf":
        return dissimilarities.RbfRows(layer.rows(), settings.rbf_sigma)
    if need == "regressions":
        return regression.folded_rows(layer.rows(), layer.folds())
    raise ValueError(f"unknown need '{need}'; allowed: {', '.join(NEEDS)}")


def first_lists(layers: Iterable[Layer], k: int) -> list[Neighbors]:
    """The first k neighbours of every layer, so that longer lists are held one at a time."""
    found = []
    for layer in layers:
        lists = layer.lists()
        found.append(Neighbors(lists.indices[:, :k].copy(), lists.similarities[:, :k].copy()))
    return found


class NeighborScores:
    """Scores of list metrics for all pairs of layers, observed or under a relabelling of the images of B."""

    def __init__(self, metrics: Iterable[str], a: Sequence[Neighbors], b: Sequence[Neighbors], k: int) -> None:
        self.metrics = tuple(metrics)
        self._graphs: dict[int, tuple[KnnGraphs, KnnGraphs]] = {}
        self._indexes: dict[tuple[int, bool, int], EdgeIndex] = {}
        self._scales: dict[str, Grid] = {}
        for name in self.metrics:
            metric = METRICS[name]
            if k < metric.minimum_k:
                raise ValueError(f"{name} needs k of at least {metric.minimum_k}, got {k}")
            own = k - metric.includes_self
            if own not in self._graphs:
                self._graphs[own] = knn_graphs(a, own), knn_graphs(b, own)
                check_pair(*self._graphs[own])
            self._scales[name] = self._scale(metric, *self._graphs[own])
        self.k = k

    def scores(self, eps: float = 0.0, permutation: NDArray[np.intp] | None = None) -> dict[str, Grid]:
        """Metric -> (L_A, L_B); NaN where a score is undefined. permutation: image of B beside each image of A."""
        found: dict[str, Grid] = {}
        kinds: dict[tuple[int, bool], list[str]] = {}
        for name in self.metrics:
            kinds.setdefault((self.k - METRICS[name].includes_self, METRICS[name].backward), []).append(name)
        for (own, backward), names in kinds.items():
            for name, values in self._measured(names, own, backward, permutation).items():
                found[name] = values / (self._scales[name] + eps) if METRICS[name].scaled else values
        return found

    def errors(self) -> dict[str, Grid]:
        """Metric -> standard errors over images, (L_A, L_B), of the metrics that declare shares; see `dyadic`."""
        found: dict[str, Grid] = {}
        for own, (a, b) in self._graphs.items():
            parts = {
                name: dyadic.Parts(metric.shares, metric.backward, metric.scaled, self._scales[name])
                for name in self.metrics
                if (metric := METRICS[name]).shares is not None and self.k - metric.includes_self == own
            }
            found |= dyadic.errors(a, b, parts)
        return found

    def influence(self, name: str, eps: float = 0.0) -> sparse.csr_array:
        """What every edge moves the score of one pair of layers by, (N, N), of a metric that declares shares."""
        metric = METRICS[name]
        if metric.shares is None:
            raise ValueError(f"{name} declares no shares of edges")
        parts = dyadic.Parts(metric.shares, metric.backward, metric.scaled, self._scales[name])
        return dyadic.influence(*self._graphs[self.k - metric.includes_self], parts, eps)

    def _measured(
        self, names: Sequence[str], k: int, backward: bool, permutation: NDArray[np.intp] | None
    ) -> dict[str, Grid]:
        a, b = self._graphs[k]
        parts: dict[str, list[Grid]] = {name: [] for name in names}
        # observed, a pair may share most of its edges
        shared_at_most = a.count * a.k / 4 if permutation is None else a.k**2
        for part in chunks(a, b, shared_at_most):
            index = EdgeIndex(a[part], backward) if permutation is None else self._kept(k, backward, part)
            shared = index.matches(b, permutation)
            for name in names:
                parts[name].append(METRICS[name].function(shared).reshape(shared.shape))
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _kept(self, k: int, backward: bool, part: slice) -> EdgeIndex:
        """The index that all permutations share."""
        key = (k, backward, part.start)
        if key not in self._indexes:
            self._indexes[key] = EdgeIndex(self._graphs[k][0][part], backward)
        return self._indexes[key]

    def _scale(self, metric: Metric, a: KnnGraphs, b: KnnGraphs) -> Grid:
        if not metric.scaled:
            return np.ones((a.layers, b.layers))
        own = [np.array([float(metric.function(itself)[0]) for itself in side.self_matches()]) for side in (a, b)]
        return np.sqrt(np.outer(*(np.where(values > 0, values, np.nan) for values in own)))


def measure_grid(
    metrics: Iterable[str],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float = 2**30,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Grid]:
    """Scores of every layer of A (rows) with every layer of B (columns), for all metrics: metric -> (L_A, L_B).

    NaN where a score is undefined. memory: bytes that prepared layers may take at a time; no result depends on it.
    progress: wraps the rows of the grid. Raises ValueError where N differs or k does not fit.
    """
    wanted = list(dict.fromkeys(metrics))
    by_need: dict[str, list[str]] = {}
    for name in wanted:
        by_need.setdefault(METRICS[name].needs, []).append(name)
    grids: dict[str, Grid] = {}
    if "lists" in by_need:
        names = by_need.pop("lists")
        scorer = NeighborScores(names, first_lists(a, settings.k), first_lists(b, settings.k), settings.k)
        grids |= scorer.scores(settings.eps)
    if "rbf" in by_need:
        grids |= _rbf_grids(by_need.pop("rbf"), a, b, settings, memory)
    for need, names in by_need.items():
        functions = {name: partial(METRICS[name].function, eps=settings.eps) for name in names}
        grids |= _each_pair(functions, need, a, b, settings, memory, progress)
    return {name: grids[name] for name in wanted}


def error_grid(
    metrics: Sequence[str], a: Sequence[Layer], b: Sequence[Layer], settings: Settings, memory: float = 2**30
) -> dict[str, Grid]:
    """Standard errors (L_A, L_B) of metrics that declare `error`; all of them need moments."""
    functions = {name: error for name in metrics if (error := METRICS[name].error)}
    return _each_pair(functions, "moments", a, b, settings, memory)


def _each_pair(
    functions: Mapping[str, Callable[[Any, Any], float]],
    need: str,
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Grid]:
    """Functions of two prepared layers for every pair; a layer of A is prepared once for every tile of B."""
    grids = {name: np.full((len(a), len(b)), np.nan) for name in functions}
    for columns in _tiles(b, need, settings, memory):
        rows = range(len(a))
        for i in progress(rows, len(a)) if progress else rows:
            row = prepare(need, a[i], settings)
            for j, column in columns.items():
                for name, function in functions.items():
                    grids[name][i, j] = function(row, column)
    return grids


def _tiles(layers: Sequence[Layer], need: str, settings: Settings, memory: float) -> Iterator[dict[int, Any]]:
    """Prepared layers by position, as many at a time as the memory holds, at least one."""
    tile: dict[int, Any] = {}
    held = 0
    for i, layer in enumerate(layers):
        prepared = prepare(need, layer, settings)
        if tile and held + prepared.nbytes > memory:
            yield tile
            tile, held = {}, 0
        tile[i] = prepared
        held += prepared.nbytes
    yield tile


def _rbf_grids(
    names: Sequence[str], a: Sequence[Layer], b: Sequence[Layer], settings: Settings, memory: float
) -> dict[str, Grid]:
    """A kernel is evaluated once for all pairs of a tile, so both sides are held."""
    grids = {name: np.full((len(a), len(b)), np.nan) for name in names}
    for rows in _tiles(a, "rbf", settings, memory / 2):
        for columns in _tiles(b, "rbf", settings, memory / 2):
            for name in names:
                tile = METRICS[name].function(list(rows.values()), list(columns.values()), settings.eps)
                grids[name][np.ix_(list(rows), list(columns))] = tile
    return grids


def score(metric: str, value: float) -> Score:
    """A value with the reason why there is none, where it is NaN."""
    return Score(value, METRICS[metric].undefined if math.isnan(value) else None)


def _cka_rbf(a: Sequence[Any], b: Sequence[Any], eps: float) -> Grid:
    return dissimilarities.rbf_cka(a, b, unbiased=False, eps=eps)


def _unbiased_cka_rbf(a: Sequence[Any], b: Sequence[Any], eps: float) -> Grid:
    return dissimilarities.rbf_cka(a, b, unbiased=True, eps=eps)


def _predicted_by_b(a: Any, b: Any, eps: float) -> float:
    return regression.ridge(b, a, eps)


def _cka_error(a: Any, b: Any) -> float:
    return moments.cka_error(a, b, unbiased=False)


def _unbiased_cka_error(a: Any, b: Any) -> float:
    return moments.cka_error(a, b, unbiased=True)


def _one(k: int) -> float:
    return 1.0


def _unbounded(k: int) -> float:
    return math.inf


def _knn_chance(count: int, k: int) -> float:
    return k / (count - 1)


def _no_chance(count: int, k: int) -> float:
    return 0.0


_NO_SCALE = "the HSIC of a layer with itself is not positive, so the score has no scale"
_CONSTANT = "all images of a layer have the same features"

METRICS: dict[str, Metric] = {
    "cycle_knn": Metric(
        lists.cycle_knn,
        "cycle kNN",
        "lists",
        symmetric=False,
        lowest=0,
        highest=_one,
        backward=True,
        identical=False,
        null="permutations",
        shares=lists.cycle_shares,
    ),
    "mutual_knn": Metric(
        lists.mutual_knn,
        "mutual kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=_one,
        chance=_knn_chance,
        null="permutations",
        shares=lists.mutual_shares,
    ),
    "lcs_knn": Metric(
        lists.lcs_knn,
        "LCS kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=float,
        null="permutations",
        shares=lists.lcs_shares,
    ),
    "edit_distance_knn": Metric(
        lists.edit_distance_knn,
        "edit distance kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=_one,
        null="permutations",
        shares=lists.edit_distance_shares,
    ),
    # not symmetric: the last term of unbiased HSIC takes column sums of one side and row sums of the other
    "cknna": Metric(
        lists.masked_hsic,
        "CKNNA",
        "lists",
        symmetric=False,
        lowest=-math.inf,
        highest=_unbounded,
        undefined=_NO_SCALE,
        scaled=True,
        minimum_k=2,
        null="permutations",
        shares=lists.hsic_shares,
    ),
    "cknna_biased": Metric(
        lists.masked_biased_hsic,
        "biased CKNNA",
        "lists",
        symmetric=True,
        lowest=-math.inf,
        highest=_unbounded,
        undefined=_NO_SCALE,
        scaled=True,
        includes_self=True,
        minimum_k=2,
        null="permutations",
    ),
    "cka": Metric(
        moments.cka,
        "CKA",
        "moments",
        symmetric=True,
        lowest=0,
        highest=_one,
        undefined=_CONSTANT,
        null="moments",
        error=_cka_error,
    ),
    "unbiased_cka": Metric(
        moments.unbiased_cka,
        "unbiased CKA",
        "moments",
        symmetric=True,
        lowest=-math.inf,
        highest=_unbounded,
        undefined=_NO_SCALE,
        chance=_no_chance,
        null="moments",
        error=_unbiased_cka_error,
    ),
    "cka_rbf": Metric(_cka_rbf, "RBF CKA", "rbf", symmetric=True, lowest=0, highest=_one, undefined=_CONSTANT),
    "unbiased_cka_rbf": Metric(
        _unbiased_cka_rbf,
        "unbiased RBF CKA",
        "rbf",
        symmetric=True,
        lowest=-math.inf,
        highest=_unbounded,
        undefined=_NO_SCALE,
        chance=_no_chance,
        null="moments",
    ),
    "svcca": Metric(
        factors.svcca,
        "SVCCA",
        "factors",
        symmetric=True,
        lowest=0,
        highest=_one,
        orthogonal=False,
        undefined=f"a layer spans fewer than {factors.SVCCA_DIMENSIONS} dimensions",
        null="permutations",
    ),
    "procrustes": Metric(
        moments.procrustes, "Procrustes", "moments", symmetric=True, lowest=0, highest=_one, undefined=_CONSTANT
    ),
    "rsa": Metric(
        dissimilarities.rsa,
        "RSA (Spearman)",
        "ranks",
        symmetric=True,
        lowest=-1,
        highest=_one,
        orthogonal=False,
        undefined="all pairs of images are equally dissimilar",
        chance=_no_chance,
    ),
    "rsa_pearson": Metric(
        moments.rsa_pearson,
        "RSA (Pearson)",
        "patterns",
        symmetric=True,
        lowest=-1,
        highest=_one,
        orthogonal=False,
        undefined="all pairs of images are equally dissimilar",
        chance=_no_chance,
        null="moments",
    ),
    "ridge": Metric(
        regression.ridge,
        "ridge R², A predicts B",
        "regressions",
        symmetric=False,
        lowest=-math.inf,
        highest=_one,
        undefined=_CONSTANT,
        identical=False,
    ),
    "ridge_back": Metric(
        _predicted_by_b,
        "ridge R², B predicts A",
        "regressions",
        symmetric=False,
        lowest=-math.inf,
        highest=_one,
        undefined=_CONSTANT,
        identical=False,
    ),
}
NEEDS = tuple(dict.fromkeys(metric.needs for metric in METRICS.values()))
