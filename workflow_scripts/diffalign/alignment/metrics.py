"""Alignment metrics on neighbour lists, each with its declared properties.

A metric is one function and one declaration in `METRICS`. Definitions follow Huh et al., "The Platonic Representation
Hypothesis" (ICML 2024), appendix A, and its reference implementation; tests hold both to 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.neighbors import Neighbors


@dataclass(frozen=True)
class KnnGraph:
    """The k nearest neighbours of one layer as a sparse matrix, prepared once and used for every pair.

    targets: (N, k) int32, the neighbours in order. keys: i * N + j of every edge, ascending, (N k,) int64. weights:
    cosine similarities in the order of keys, float64. reverse: position of the edge (j, i), or -1 where i is no
    neighbour of j.
    """

    count: int
    k: int
    targets: NDArray[np.int32]
    keys: NDArray[np.int64]
    weights: NDArray[np.float64]
    reverse: NDArray[np.int64]

    @cached_property
    def self_hsic(self) -> float:
        """Unbiased HSIC of the graph with itself, the normaliser of CKNNA."""
        everything = np.arange(len(self.keys))
        return _unbiased_hsic(self, self, everything, everything)


@dataclass(frozen=True)
class Score:
    """A value, or NaN with the reason why there is none."""

    value: float
    undefined: str | None = None


@dataclass(frozen=True)
class Metric:
    """What a metric promises; property tests are made from it.

    function: the score of two graphs of equal N and k. label: its name in figures. symmetric: score(a, b) =
    score(b, a). lowest, highest: its range, infinite where unbounded; highest is a function of k. identical: whether
    equal graphs score `highest` (or 1, where that is infinite). minimum_k: the smallest k it is defined for. chance:
    expected score of independent representations as a function of (N, k), or None where it depends on the
    representations and must be estimated.
    """

    function: Callable[[KnnGraph, KnnGraph, float], Score]
    label: str
    symmetric: bool
    lowest: float
    highest: Callable[[int], float]
    identical: bool = True
    minimum_k: int = 1
    chance: Callable[[int, int], float] | None = None


def knn_graph(neighbors: Neighbors, k: int) -> KnnGraph:
    """The first k neighbours of every list as a graph. ValueError where k is above N - 1 or what the lists hold."""
    if k > neighbors.count - 1:
        raise ValueError(f"alignment.k = {k} needs at least {k + 1} images; there are {neighbors.count}")
    if k > neighbors.k_max:
        raise ValueError(
            f"k = {k} is more than the {neighbors.k_max} neighbours that the lists hold; raise alignment.k_max"
        )
    count = neighbors.count
    sources = np.repeat(np.arange(count, dtype=np.int64), k)
    ordered = np.ascontiguousarray(neighbors.indices[:, :k])
    targets = ordered.astype(np.int64).ravel()
    keys = sources * count + targets
    order = np.argsort(keys)
    keys = keys[order]
    weights = neighbors.similarities[:, :k].astype(np.float64).ravel()[order]
    reverse = _positions(keys, targets[order] * count + sources[order])
    return KnnGraph(count, k, ordered, keys, weights, reverse)


def measure(metric: str, a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """The score of two graphs. Raises ValueError for graphs of different N or k, or a k too small for the metric."""
    declared = METRICS[metric]
    if a.count != b.count or a.k != b.k:
        raise ValueError(f"graphs differ: N = {a.count} and {b.count}, k = {a.k} and {b.k}")
    if a.k < declared.minimum_k:
        raise ValueError(f"{metric} needs k of at least {declared.minimum_k}, got {a.k}")
    return declared.function(a, b, eps)


def mutual_knn(a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """Mean over images of |kNN_A(i) ∩ kNN_B(i)| / k (Huh et al. 2024, eq. 2). Chance is k / (N - 1)."""
    shared, _ = _shared_edges(a, b)
    return Score(len(shared) / (a.count * a.k))


def cycle_knn(a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """Share of images i that are among the A-neighbours of one of their B-neighbours (platonic-rep, ``cycle_knn``)."""
    sources, targets = np.divmod(b.keys, b.count)
    # sorted, so that the search runs through memory in order
    backward = np.sort(targets * b.count + sources)
    returned = backward[_positions(a.keys, backward) >= 0] % b.count
    return Score(np.unique(returned).size / a.count)


def lcs_knn(a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """Mean length of the longest common subsequence of the two ordered lists (platonic-rep, ``lcs_knn``), 0 to k."""
    # longest[j] is, for every image, the length for the neighbours of a so far and the first j of b
    longest = np.zeros((b.k + 1, a.count), _small(a.k))
    for mine in _columns(a):
        diagonal = longest[0].copy()
        for j, theirs in enumerate(_columns(b), 1):
            above = longest[j].copy()
            np.maximum(np.maximum(above, longest[j - 1]), diagonal + (mine == theirs), out=longest[j])
            diagonal = above
    return Score(float(longest[-1].mean(dtype=np.float64)))


def edit_distance_knn(a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """1 - mean Levenshtein distance of the two ordered lists / k (platonic-rep, ``edit_distance_knn``)."""
    kind = _small(a.k)
    distance = np.repeat(np.arange(b.k + 1, dtype=kind)[:, None], a.count, axis=1)
    for i, mine in enumerate(_columns(a), 1):
        diagonal = distance[0].copy()
        distance[0] = i
        for j, theirs in enumerate(_columns(b), 1):
            above = distance[j].copy()
            np.minimum(np.minimum(above, distance[j - 1]) + 1, diagonal + (mine != theirs), out=distance[j])
            diagonal = above
    return Score(1 - float(distance[-1].mean(dtype=np.float64)) / a.k)


def _columns(graph: KnnGraph) -> NDArray[np.int32]:
    """(k, N): the first neighbours of all images, then the second ones, each contiguous."""
    return np.ascontiguousarray(graph.targets.T)


def _small(k: int) -> type[np.int8] | type[np.int32]:
    """The smallest type that holds lengths up to k: the dynamic programme runs at the speed of memory."""
    return np.int8 if k < np.iinfo(np.int8).max else np.int32


def cknna(a: KnnGraph, b: KnnGraph, eps: float = 0.0) -> Score:
    """Centred kernel nearest-neighbour alignment (Huh et al. 2024, appendix A).

    The unbiased HSIC of the two cosine kernels, each masked to the edges that both graphs have, over the geometric mean
    of each graph's HSIC with itself. eps is added to the denominator (1e-6 in the reference, which makes the score
    depend on N). Unbounded; NaN where a self term is not positive.
    """
    if a.self_hsic <= 0 or b.self_hsic <= 0:
        return Score(
            math.nan,
            "the HSIC of a layer with itself is not positive, so the score has no scale "
            f"({a.self_hsic:.3g} and {b.self_hsic:.3g})",
        )
    in_a, in_b = _shared_edges(a, b)
    return Score(_unbiased_hsic(a, b, in_a, in_b) / (math.sqrt(a.self_hsic * b.self_hsic) + eps))


def _positions(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted key stands among the ascending keys, or -1."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _shared_edges(a: KnnGraph, b: KnnGraph) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in a and in b of the edges that both have."""
    in_b = _positions(b.keys, a.keys)
    in_a = np.flatnonzero(in_b >= 0)
    return in_a, in_b[in_a]


def _unbiased_hsic(a: KnnGraph, b: KnnGraph, in_a: NDArray[np.int64], in_b: NDArray[np.int64]) -> float:
    """Unbiased HSIC (Song et al. 2012, eq. 5) of two kernels that vanish outside the given edges.

    [Σ K∘Lᵀ + ΣK ΣL / ((m-1)(m-2)) - 2 colsum(K)·rowsum(L) / (m-2)] / (m(m-3)). The mask of a kNN graph is not
    symmetric, so only edges whose reverse is shared too enter the first term.
    """
    m = a.count
    if m < 4:
        raise ValueError(f"unbiased HSIC needs at least 4 images, got {m}")
    k_values, l_values = a.weights[in_a], b.weights[in_b]
    # position among the shared edges of each edge of a, -1 for the others
    shared = np.full(len(a.keys), -1, np.int64)
    shared[in_a] = np.arange(len(in_a))
    reverse = a.reverse[in_a]
    partner = np.where(reverse >= 0, shared[reverse], -1)
    mutual = partner >= 0
    first = float(k_values[mutual] @ l_values[partner[mutual]])
    sources, targets = np.divmod(a.keys[in_a], m)
    column_sums = np.bincount(targets, weights=k_values, minlength=m)
    row_sums = np.bincount(sources, weights=l_values, minlength=m)
    second = float(k_values.sum() * l_values.sum()) / ((m - 1) * (m - 2))
    third = 2 * float(column_sums @ row_sums) / (m - 2)
    return (first + second - third) / (m * (m - 3))


def _one(k: int) -> float:
    return 1.0


def _unbounded(k: int) -> float:
    return math.inf


def _knn_chance(count: int, k: int) -> float:
    return k / (count - 1)


METRICS: dict[str, Metric] = {
    "cycle_knn": Metric(cycle_knn, "cycle kNN", symmetric=False, lowest=0, highest=_one, identical=False),
    "mutual_knn": Metric(mutual_knn, "mutual kNN", symmetric=True, lowest=0, highest=_one, chance=_knn_chance),
    "lcs_knn": Metric(lcs_knn, "LCS kNN", symmetric=True, lowest=0, highest=float),
    "edit_distance_knn": Metric(edit_distance_knn, "edit distance kNN", symmetric=True, lowest=0, highest=_one),
    # not symmetric: the last term of unbiased HSIC takes column sums of one side and row sums of the other
    "cknna": Metric(cknna, "CKNNA", symmetric=False, lowest=-math.inf, highest=_unbounded, minimum_k=2),
}
