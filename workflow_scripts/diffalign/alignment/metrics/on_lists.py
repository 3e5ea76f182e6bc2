"""Metrics on the shared edges of neighbour graphs: each is a function of these edges, and a declaration.

Definitions follow Huh et al., "The Platonic Representation Hypothesis" (ICML 2024), appendix A, and its reference
implementation. Observed scores, permutation nulls and intervals call the same functions with different matches. Where
images share the last places of a list, edges have a credit, and a score is what is expected if ties are broken at
random, on each side for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import nulls
from diffalign.alignment.graphs import Matches
from diffalign.alignment.metrics.declaration import NO_SCALE, Metric, Permutations, one, unbounded


def mutual_knn(shared: Matches) -> NDArray[np.float64]:
    """Mean over images of |kNN_A(i) ∩ kNN_B(i)| / k (Huh et al. 2024, appendix A): (L_A L_B,). Chance: k / (N - 1)."""
    return shared.per_pair(shared.credit) / (shared.count * shared.k)


def cycle_knn(shared: Matches) -> NDArray[np.float64]:
    """Share of images i that are among the A-neighbours of one of their B-neighbours (platonic-rep, ``cycle_knn``).

    shared: edges i -> j of B whose reverse j -> i is in A. Where edges have a credit c_j, an image
    counts as 1 - Π_j (1 - c_j).
    """
    if shared.credit is not None:
        return shared.per_pair(cycle_shares(shared))
    returned = np.unique(shared.pairs * shared.count + shared.sources)
    size = shared.shape[0] * shared.shape[1]
    return np.bincount(returned // shared.count, minlength=size) / shared.count


def lcs_knn(shared: Matches) -> NDArray[np.float64]:
    """Mean length of the longest common subsequence of the two ordered lists (platonic-rep, ``lcs_knn``), 0 to k.

    Neighbours in a list are distinct, so it is the longest chain of shared neighbours whose ranks rise in both lists.
    """
    # the sum of lengths is an integer; rounding makes equal scores tie
    return np.rint(shared.per_pair(lcs_shares(shared)) * shared.count) / shared.count


def edit_distance_knn(shared: Matches) -> NDArray[np.float64]:
    """1 - mean Levenshtein distance of the two ordered lists / k (platonic-rep, ``edit_distance_knn``).

    Between two kept neighbours, gaps of p and q other neighbours cost max(p, q) edits, so the distance is the cost of
    the cheapest chain of shared neighbours whose ranks rise in both lists.
    """
    edits = shared.count * shared.k
    return np.rint(shared.per_pair(edit_distance_shares(shared)) * edits) / edits


def mutual_shares(shared: Matches) -> NDArray[np.float64]:
    """Contribution (M,) of each shared edge to mutual kNN."""
    each = np.full(len(shared.pairs), 1 / (shared.count * shared.k))
    return each if shared.credit is None else each * shared.credit


def cycle_shares(shared: Matches) -> NDArray[np.float64]:
    """Contribution (M,) of each returning edge to cycle kNN; edges of an image share its contribution by credit."""
    _, where, often = np.unique(shared.pairs * shared.count + shared.sources, return_inverse=True, return_counts=True)
    if shared.credit is None:
        return np.asarray(1 / (shared.count * often[where]))
    with np.errstate(divide="ignore"):
        # an edge that is certain makes the logarithm -inf, and the image counts whole
        missed = np.exp(np.bincount(where, np.log1p(-shared.credit), minlength=len(often)))
    total = np.bincount(where, shared.credit, minlength=len(often))
    return np.asarray(shared.credit * ((1 - missed) / total)[where] / shared.count)


def lcs_shares(shared: Matches) -> NDArray[np.float64]:
    """Contribution (M,) of each shared edge to LCS kNN; edges of an image share its contribution equally."""
    shares = np.zeros(len(shared.pairs))
    for members, ranks_a, ranks_b in _by_image(shared):
        longest = np.ones_like(ranks_a)
        for j in range(1, ranks_a.shape[1]):
            for i in range(j):
                rises = ranks_b[:, i] < ranks_b[:, j]
                np.maximum(longest[:, j], (longest[:, i] + 1) * rises, out=longest[:, j])
        shares[members] = longest.max(axis=1, keepdims=True) / (shared.count * members.shape[1])
    return shares


def edit_distance_shares(shared: Matches) -> NDArray[np.float64]:
    """Contribution (M,) of each shared edge to edit distance kNN; edges of an image share its contribution equally."""
    k = shared.k
    shares = np.zeros(len(shared.pairs))
    for members, ranks_a, ranks_b in _by_image(shared):
        # cost of a chain that ends at each shared neighbour
        cost = np.maximum(ranks_a, ranks_b)
        for j in range(1, ranks_a.shape[1]):
            for i in range(j):
                gap = np.maximum(ranks_a[:, j] - ranks_a[:, i], ranks_b[:, j] - ranks_b[:, i]) - 1
                chained = np.where(ranks_b[:, i] < ranks_b[:, j], cost[:, i] + gap, 2 * k)
                np.minimum(cost[:, j], chained, out=cost[:, j])
        rest = k - 1 - np.minimum(ranks_a, ranks_b)
        saved = k - np.minimum((cost + rest).min(axis=1, keepdims=True), k)
        shares[members] = saved / (shared.count * k * members.shape[1])
    return shares


def masked_hsic(shared: Matches) -> NDArray[np.float64]:
    """Unbiased HSIC (Song et al. 2012, eq. 5) of two kernels that are 0 outside the shared edges: (L_A L_B,).

    [Σ K∘Lᵀ + ΣK ΣL / ((m-1)(m-2)) - 2 colsum(K)·rowsum(L) / (m-2)] / (m(m-3)). The mask of a kNN graph is not
    symmetric: the first term has only edges whose reverse is shared as well. Raises ValueError for N < 4.
    """
    m = shared.count
    if m < 4:
        raise ValueError(f"unbiased HSIC needs at least 4 images, got {m}")
    second = shared.per_pair(shared.weights_a) * shared.per_pair(shared.weights_b) / ((m - 1) * (m - 2))
    third = 2 * _columns_by_rows(shared, shared.weights_a, shared.weights_b) / (m - 2)
    return (_trace(shared) + second - third) / (m * (m - 3))


def hsic_shares(shared: Matches) -> NDArray[np.float64]:
    """First-order contribution (M,) of each shared edge to `masked_hsic`; contributions of a pair sum to its score.

    The derivative along the edge with respect to both kernels, with K∘Lᵀ counted once for each of them.
    """
    m = shared.count
    a, b = shared.weights_a, shared.weights_b
    reverse = shared.reversed_at()
    trace = np.where(reverse >= 0, a * b[reverse], 0.0) if len(a) else a
    size = shared.shape[0] * shared.shape[1]
    base = shared.pairs * m
    columns = np.bincount(base + shared.targets, a, minlength=size * m)
    rows = np.bincount(base + shared.sources, b, minlength=size * m)
    sums = (a * shared.per_pair(b)[shared.pairs] + b * shared.per_pair(a)[shared.pairs]) / 2
    mixed = a * rows[base + shared.targets] + b * columns[base + shared.sources]
    return np.asarray((trace + sums / ((m - 1) * (m - 2)) - mixed / (m - 2)) / (m * (m - 3)))


def masked_biased_hsic(shared: Matches) -> NDArray[np.float64]:
    """tr(K H L H) of two kernels with ones on the diagonal and 0 outside of it and of the shared edges: (L_A L_B,)."""
    m = shared.count
    k_sums, l_sums = shared.per_pair(shared.weights_a), shared.per_pair(shared.weights_b)
    mixed = _columns_by_rows(shared, shared.weights_a, shared.weights_b)
    mixed += _columns_by_rows(shared, shared.weights_b, shared.weights_a) + 2 * (k_sums + l_sums + m)
    return _trace(shared) + m - mixed / m + (k_sums + m) * (l_sums + m) / m**2


def _trace(shared: Matches) -> NDArray[np.float64]:
    """Σ_ij K_ij L_ji for every pair."""
    reverse = shared.reversed_at()
    mutual = np.flatnonzero(reverse >= 0)
    products = shared.weights_a[mutual] * shared.weights_b[reverse[mutual]]
    return np.asarray(np.bincount(shared.pairs[mutual], products, minlength=shared.shape[0] * shared.shape[1]), float)


def _columns_by_rows(
    shared: Matches, k_values: NDArray[np.float64], l_values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Σ_v (column sum v of K)(row sum v of L) for every pair."""
    base = shared.pairs * shared.count
    size = shared.shape[0] * shared.shape[1]
    if size * shared.count <= 4 * len(base) + 10_000:
        length = size * shared.count
        columns = np.bincount(base + shared.targets, k_values, minlength=length)
        rows = np.bincount(base + shared.sources, l_values, minlength=length)
        # without a match, bincount returns integers
        return np.asarray((columns * rows).reshape(size, shared.count).sum(axis=1), np.float64)
    # few matches per pair: only images with a match
    vertices, where = np.unique(np.concatenate([base + shared.targets, base + shared.sources]), return_inverse=True)
    columns = np.bincount(where[: len(base)], k_values, minlength=len(vertices))
    rows = np.bincount(where[len(base) :], l_values, minlength=len(vertices))
    return np.asarray(np.bincount(vertices // shared.count, columns * rows, minlength=size), float)


def _by_image(shared: Matches) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Groups of matches of the same image and pair of layers, in the order of A's list.

    Yields, for each number m of shared neighbours, the positions (G, m) of the matches of the G groups of this size,
    their ranks_a (G, m) and their ranks_b (G, m).
    """
    if not len(shared.pairs):
        return
    groups = shared.pairs * shared.count + shared.sources
    ranks_a, ranks_b = shared.ranks_a, shared.ranks_b
    order = np.argsort(groups * shared.k + ranks_a)
    groups = groups[order]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.append(starts, len(groups)))
    for size in np.unique(sizes):
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        yield members, ranks_a[members], ranks_b[members]


def knn_chance(count: int, k: int) -> float:
    """Expected share of common neighbours of independent representations."""
    return k / (count - 1)


METRICS: dict[str, Metric] = {
    "cycle_knn": Metric(
        cycle_knn,
        "cycle kNN",
        "lists",
        symmetric=False,
        lowest=0,
        highest=one,
        backward=True,
        identical=False,
        null=Permutations(),
        shares=cycle_shares,
        competing=True,
    ),
    "mutual_knn": Metric(
        mutual_knn,
        "mutual kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=one,
        chance=knn_chance,
        null=Permutations(exact=nulls.mutual_knn_moments),
        shares=mutual_shares,
    ),
    "lcs_knn": Metric(
        lcs_knn,
        "LCS kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=float,
        null=Permutations(),
        ordered=True,
        shares=lcs_shares,
    ),
    "edit_distance_knn": Metric(
        edit_distance_knn,
        "edit distance kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=one,
        null=Permutations(),
        ordered=True,
        shares=edit_distance_shares,
    ),
    "cknna": Metric(
        masked_hsic,
        "CKNNA",
        "lists",
        symmetric=False,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        scaled=True,
        minimum_k=2,
        null=Permutations(),
        shares=hsic_shares,
    ),
    "cknna_biased": Metric(
        masked_biased_hsic,
        "biased CKNNA",
        "lists",
        symmetric=True,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        scaled=True,
        includes_self=True,
        minimum_k=2,
        null=Permutations(),
    ),
}
