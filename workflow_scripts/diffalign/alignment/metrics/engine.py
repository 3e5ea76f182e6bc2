"""Scores of grids of layers. Each layer is prepared once and shared by all pairs and metrics with the same need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import clustered, dissimilarities, dyadic, factors, moments, regression
from diffalign.alignment.graphs import (
    EdgeIndex,
    KnnGraphs,
    Matches,
    are_tied,
    broken_graphs,
    check_pair,
    chunks,
    knn_graphs,
    stacked,
    unstacked,
)
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import Spread
from diffalign.alignment.metrics.declaration import NEEDS, Grid, Layer, Metric, Score, Settings, first_lists
from diffalign.alignment.metrics.registry import METRICS
from diffalign.alignment.search.exact import Neighbors

if TYPE_CHECKING:
    from scipy import sparse

# tolerance of the declared range
_ROUNDING = 1e-6
# random orders of equally similar neighbours, for metrics that depend on the order of lists; even
BREAKS = 8
# HSIC of a layer with itself below this share of its squared kernel is 0: edges of the same similarity and credit
_VANISHED = 1e-10
# scores with ties are rounded to so many decimals
_DECIMALS = 12

Sides: TypeAlias = tuple[KnnGraphs, KnnGraphs]
# neighbours in a list, and whether ties are broken at random
_Kind: TypeAlias = tuple[int, bool]


def prepare(need: str, layer: Layer, settings: Settings) -> Any:
    """One layer, prepared for the metrics with this need. Raises ValueError for an unknown need.

    Lists are not prepared per layer: see `NeighborScores`.
    """
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
    raise ValueError(f"unknown need '{need}'; allowed: {', '.join(known for known in NEEDS if known != 'lists')}")


class NeighborScores:
    """Scores of metrics on lists for all pairs of layers, observed or with the images of B relabelled.

    metrics: names. a, b: lists of every layer. k: neighbours per image. Equally similar neighbours share places, or are
    put in random orders for metrics that depend on the order: `BREAKS` of them, other ones on each side, and the same
    under all relabellings. Raises ValueError where k is below the smallest of a metric, N differs, lists
    are shorter than k, or images that share the last places of a list are not kept.
    """

    def __init__(self, metrics: Iterable[str], a: Sequence[Neighbors], b: Sequence[Neighbors], k: int) -> None:
        self.metrics = tuple(metrics)
        self._graphs: dict[_Kind, Sides] = {}
        self._kinds: dict[str, _Kind] = {}
        self._indexes: dict[tuple[_Kind, bool, int], EdgeIndex] = {}
        self._scales: dict[str, Grid] = {}
        for name in self.metrics:
            metric = METRICS[name]
            if k < metric.minimum_k:
                raise ValueError(f"{name} needs k of at least {metric.minimum_k}, got {k}")
            own = k - metric.includes_self
            kind = own, metric.ordered and (are_tied(a, own) or are_tied(b, own))
            self._kinds[name] = kind
            if kind not in self._graphs:
                self._graphs[kind] = _broken_sides(a, b, own) if kind[1] else (knn_graphs(a, own), knn_graphs(b, own))
                check_pair(*self._graphs[kind])
            self._scales[name] = self._scale(metric, *self._graphs[kind])
        self.k = k

    def scores(self, eps: float = 0.0, permutation: NDArray[np.intp] | None = None) -> dict[str, Grid]:
        """Metric -> (L_A, L_B), NaN where a score is undefined. permutation: image of B that each image of A is paired
        with, (N,).
        """
        scores: dict[str, Grid] = {}
        by_matches: dict[tuple[_Kind, bool], list[str]] = {}
        for name in self.metrics:
            by_matches.setdefault((self._kinds[name], METRICS[name].backward), []).append(name)
        for (kind, backward), names in by_matches.items():
            tied = kind[1] or any(side.credit is not None for side in self._graphs[kind])
            for name, values in self._measured(names, kind, backward, permutation).items():
                scaled = values / (self._scales[name] + eps) if METRICS[name].scaled else values
                # sums of credit depend on the order of images by rounding, and equal scores must tie in a null
                scores[name] = np.round(scaled, _DECIMALS) if tied else scaled
        return scores

    def spreads(self, groups: Groups | None = None) -> dict[str, Spread]:
        """Standard errors over images, or over groups of them, and skewness, metric -> (L_A, L_B) each, of the metrics
        that declare shares; see `dyadic` and `clustered`.

        Over random orders of ties, the mean variance is taken, which is at least that of the mean score.
        """
        found: dict[str, Spread] = {}
        for kind in self._graphs:
            names = [name for name in self.metrics if self._kinds[name] == kind and METRICS[name].shares]
            parts = {name: self._parts(name) for name in names}
            each = [
                dyadic.spreads(a, b, parts) if groups is None else clustered.spreads(a, b, parts, groups)
                for a, b in self._orders(kind)
            ]
            for name in names:
                of_orders = [of_order[name] for of_order in each]
                found[name] = of_orders[0] if len(of_orders) == 1 else _over_orders(of_orders)
        return found

    def influence(self, name: str, eps: float = 0.0) -> sparse.csr_array:
        """Influence (N, N) of every edge on the score of a single pair of layers, for a metric that declares shares."""
        parts = self._parts(name)
        each = [dyadic.influence(a, b, parts, eps) for a, b in self._orders(self._kinds[name])]
        return each[0] if len(each) == 1 else sum(each[1:], each[0]) / len(each)

    def _orders(self, kind: _Kind) -> list[Sides]:
        """The graphs of both sides, under each random order of ties where there are several."""
        if not kind[1]:
            return [self._graphs[kind]]
        one, other = (unstacked(side, BREAKS) for side in self._graphs[kind])
        return list(zip(one, other, strict=True))

    def _parts(self, name: str) -> dyadic.Parts:
        metric = METRICS[name]
        if metric.shares is None:
            raise ValueError(f"{name} declares no shares of edges")
        return dyadic.Parts(metric.shares, metric.backward, metric.scaled, metric.competing, self._scales[name])

    def _measured(
        self, names: Sequence[str], kind: _Kind, backward: bool, permutation: NDArray[np.intp] | None
    ) -> dict[str, Grid]:
        a, b = self._graphs[kind]
        parts: dict[str, list[Grid]] = {name: [] for name in names}
        # without a permutation, a pair may share most of its edges
        shared_at_most = (
            a.count * a.degree / 4 if permutation is None else a.degree * b.degree * (BREAKS if kind[1] else 1)
        )
        order = permutation
        if permutation is not None and kind[1]:
            order = (np.arange(BREAKS)[:, None] * len(permutation) + permutation).ravel()
        for part in chunks(a, b, shared_at_most):
            index = EdgeIndex(a[part], backward) if permutation is None else self._kept(kind, backward, part)
            shared = index.matches(b, order)
            for name in names:
                parts[name].append(METRICS[name].function(shared).reshape(shared.shape))
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _kept(self, kind: _Kind, backward: bool, part: slice) -> EdgeIndex:
        """The edge index of some layers of A, kept for all permutations."""
        key = (kind, backward, part.start)
        if key not in self._indexes:
            self._indexes[key] = EdgeIndex(self._graphs[kind][0][part], backward)
        return self._indexes[key]

    def _scale(self, metric: Metric, a: KnnGraphs, b: KnnGraphs) -> Grid:
        if not metric.scaled:
            return np.ones((a.layers, b.layers))
        own = [np.array([_own_value(metric, itself) for itself in side.self_matches()]) for side in (a, b)]
        return np.asarray(np.sqrt(np.outer(*own)))


def _own_value(metric: Metric, itself: Matches) -> float:
    """The value of a layer matched with itself; NaN where it is not positive, or where rounding is all that is left."""
    value = float(metric.function(itself)[0])
    return value if value > _VANISHED * float(itself.weights_a @ itself.weights_b) / itself.count**2 else math.nan


def _over_orders(found: Sequence[Spread]) -> Spread:
    """Mean variance and mean skewness over random orders of ties."""
    return Spread(
        np.sqrt(np.square([each.error for each in found]).mean(axis=0)),
        np.mean([each.of_single for each in found], axis=0),
        np.mean([each.of_pairs for each in found], axis=0),
    )


def _broken_sides(a: Sequence[Neighbors], b: Sequence[Neighbors], k: int) -> Sides:
    """Both sides under `BREAKS` random orders of ties, as orders of copies of all images that share no edges.

    Two draws serve A and B, and then B and A, so that symmetric metrics stay symmetric.
    """
    draws = [(str(draw), str(draw ^ 1)) for draw in range(BREAKS)]
    return (
        stacked([broken_graphs(a, k, one) for one, _ in draws]),
        stacked([broken_graphs(b, k, other) for _, other in draws]),
    )


def measure_grid(
    metrics: Iterable[str],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float = 2**30,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Grid]:
    """Scores of every layer of A (rows) with every layer of B (columns): metric -> (L_A, L_B).

    NaN where a score is undefined. memory: bytes of prepared layers held at a time; results do not depend on it.
    progress: wraps the iteration over rows. Raises ValueError where N differs, k does not fit, or a score lies outside
    of the declared range of its metric.
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
    for name in wanted:
        check_range(name, grids[name], settings.k)
    return {name: grids[name] for name in wanted}


def check_range(name: str, grid: Grid, k: int) -> None:
    """Raise ValueError for a score outside of the declared range of its metric."""
    lowest, highest = METRICS[name].lowest, METRICS[name].highest(k)
    outside = (grid < lowest - _ROUNDING) | (grid > highest + _ROUNDING)
    if outside.any():
        raise ValueError(
            f"{name}: the score {grid[outside][0]:.6g} lies outside of its range [{lowest:g}, {highest:g}]"
        )


def error_grid(
    metrics: Sequence[str],
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float = 2**30,
    groups: Groups | None = None,
) -> dict[str, Grid]:
    """Standard errors (L_A, L_B) of the metrics that declare `error`, all of which need moments."""
    functions = {name: _over(error, groups) for name in metrics if (error := METRICS[name].error)}
    return _each_pair(functions, "moments", a, b, settings, memory)


def _over(error: Callable[[Any, Any, Groups | None], float], groups: Groups | None) -> Callable[[Any, Any], float]:
    return lambda a, b: error(a, b, groups)


def _each_pair(
    functions: Mapping[str, Callable[[Any, Any], float]],
    need: str,
    a: Sequence[Layer],
    b: Sequence[Layer],
    settings: Settings,
    memory: float,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Grid]:
    """Values of functions of two prepared layers, for every pair. Layers of A are prepared once per tile of B."""
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
    """Prepared layers by position, in groups that fit into the memory, of at least one layer."""
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
    """Grids of RBF metrics. Both sides of a tile are held, since each kernel is evaluated once for all pairs."""
    grids = {name: np.full((len(a), len(b)), np.nan) for name in names}
    for rows in _tiles(a, "rbf", settings, memory / 2):
        for columns in _tiles(b, "rbf", settings, memory / 2):
            for name in names:
                tile = METRICS[name].function(list(rows.values()), list(columns.values()), settings.eps)
                grids[name][np.ix_(list(rows), list(columns))] = tile
    return grids


def score(metric: str, value: float) -> Score:
    """A score, with the declared reason where the value is NaN."""
    return Score(value, METRICS[metric].undefined if math.isnan(value) else None)
