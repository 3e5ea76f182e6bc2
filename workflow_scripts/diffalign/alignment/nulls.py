"""Nulls of scores under random relabellings of the images of one side: permutations, and moments by formula.

All layers of a pair of models share the same permutations, so that the largest score of a grid has a null as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.factors import SVCCA_DIMENSIONS, Factors
from diffalign.alignment.graphs import KnnGraphs, Matches
from diffalign.alignment.moments import Moments, unbiased_hsic

Grid = NDArray[np.float64]

_BLOCK_BYTES = 64 * 2**20
# the range of skewness, and of the number of images over the product of the effective numbers of both sides, in which
# benchmarks/groups.py finds the tails of Pearson's distribution right
MOST_SKEWED = 3.0
MOST_CONCENTRATED = 0.05
# the smallest p that moments resolve: their tails were compared with permutations down to here
SMALLEST_P = 1e-5


def generators(draws: int, seed: int) -> Iterator[np.random.Generator]:
    """What the relabellings of a null are drawn by, one each, keyed by (seed, draw)."""
    for draw in range(draws):
        key = hashlib.sha256(f"{seed}\x00permutation\x00{draw}".encode()).digest()[:16]
        yield np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def permutations(count: int, draws: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Random orders (N,) of the images, keyed by (seed, draw): every pair of layers and models has the same ones."""
    for generator in generators(draws, seed):
        yield generator.permutation(count)


def svcca_under(a: Sequence[Factors], b: Sequence[Factors], eps: float = 0.0) -> Callable[[NDArray[np.intp]], Grid]:
    """The permutation statistic of SVCCA: a function from an order (N,) of the images of B to scores (L_A, L_B).

    eps: unused, since SVCCA has no denominator.
    """
    r = SVCCA_DIMENSIONS
    full_a, full_b = ([i for i, side in enumerate(layers) if side.vectors.shape[1] == r] for layers in (a, b))
    left = np.concatenate([a[i].vectors for i in full_a], axis=1) if full_a else np.empty((a[0].count, 0))
    right = np.concatenate([b[i].vectors for i in full_b], axis=1) if full_b else np.empty((b[0].count, 0))

    def scores(order: NDArray[np.intp]) -> Grid:
        grid = np.full((len(a), len(b)), np.nan)
        if full_a and full_b:
            products = (left.T @ right[order]).reshape(len(full_a), r, len(full_b), r).swapaxes(1, 2)
            grid[np.ix_(full_a, full_b)] = np.linalg.svd(products, compute_uv=False).mean(axis=-1)
        return grid

    return scores


@dataclass(frozen=True, eq=False)
class NullMoments:
    """Mean, standard deviation and skewness of scores over all N! permutations, each (L_A, L_B).

    skewness: None without a formula. holds: where a Pearson type III distribution of these moments is that of the
    scores; None for everywhere. p-values and thresholds are NaN elsewhere, without a skewness, and where the null has
    no variance. Raises ValueError for moments of different shapes.
    """

    mean: Grid
    sd: Grid
    skewness: Grid | None = None
    holds: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shapes = [moment.shape for moment in (self.mean, self.sd, self.skewness) if moment is not None]
        if len(set(shapes)) > 1:
            raise ValueError(f"moments of a null have the shapes {', '.join(map(str, shapes))}; expected the same")

    def p(self, scores: Grid) -> Grid:
        """Upper tail probabilities of scores under a Pearson type III distribution (Josse et al. 2008), of `SMALLEST_P`
        at least.
        """
        if self.skewness is None:
            return np.full_like(scores, np.nan)
        from scipy.stats import pearson3

        p = pearson3.sf(scores, self.skewness, loc=self.mean, scale=self._spread)
        return np.where(np.isnan(p), np.nan, np.maximum(p, SMALLEST_P))

    def outside(self, scores: Grid) -> NDArray[np.bool_]:
        """Where a score has moments, and the distribution of these moments does not hold."""
        if self.holds is None:
            return np.zeros(scores.shape, np.bool_)
        return ~self.holds & (self.sd > 0) & ~np.isnan(scores)

    def threshold(self, alpha: float) -> Grid:
        """The score that is exceeded with probability alpha under a Pearson type III distribution."""
        if self.skewness is None:
            return np.full_like(self.mean, np.nan)
        from scipy.stats import pearson3

        return np.asarray(pearson3.isf(alpha, self.skewness, loc=self.mean, scale=self._spread))

    @property
    def _spread(self) -> Grid:
        """The standard deviation; NaN where nothing holds, and without variance, by which rounding would be divided."""
        return np.where((self.sd > 0) & (True if self.holds is None else self.holds), self.sd, np.nan)


def mutual_knn_moments(a: KnnGraphs, b: KnnGraphs) -> NullMoments:
    """Exact mean and variance of mutual kNN: Mantel's moments (1967) for directed graphs.

    Z = Σ_ij A_ij B_π(i)π(j). E[Z²] sums over pairs of edges, which are equal, reversed, share a source or a target,
    form a chain or are disjoint. Each class contributes the product of both sides' sums of products of two credit over
    the number of its index tuples. Hypergeometric moments, which ignore hubs, are too narrow.
    """
    n, k = a.count, a.k
    sums = []
    for side in (a, b):
        moments = np.array([_edge_sums(itself) for itself in side.self_matches()], np.float64)
        same, mutual, square_in, chains = moments.T
        edges = np.full(side.layers, float(n * k))
        out = edges * k - same
        into = square_in - same
        chained = chains - mutual
        disjoint = edges**2 - same - mutual - out - into - 2 * chained
        sums.append((same, mutual, out, into, chained, disjoint))
    same, mutual, out, into, chained, disjoint = (np.outer(x, y) for x, y in zip(*sums, strict=True))
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    second = (same + mutual) / pairs + (out + into + 2 * chained) / triples
    if n > 3:
        second += disjoint / (triples * (n - 3))
    mean = np.full_like(second, (n * k) ** 2 / pairs)
    variance = np.maximum(second - mean**2, 0)
    return NullMoments(mean / (n * k), np.sqrt(variance) / (n * k))


def _edge_sums(layer: Matches) -> tuple[float, float, float, float]:
    """Sums over the edges of one layer, matched with itself: of squared credits, of credits of edges times those
    of their reverses, of squared sums at targets, and of the products of sums at targets and at sources.
    """
    n, k = layer.count, layer.k
    credit = np.ones(len(layer.sources)) if layer.credit is None else layer.credit
    reverse = layer.reversed_at()
    into = np.bincount(layer.targets, credit, minlength=n)
    mutual = float((credit * np.where(reverse >= 0, credit[reverse], 0.0)).sum())
    return float(credit @ credit), mutual, float(into @ into), float(into.sum() * k)


@dataclass(frozen=True)
class KernelCubes:
    """Third-order sums of one layer's U-centred linear kernel K̃ (Székely and Rizzo 2014), for the skewness.

    cubes: Σ_{i≠j} K̃_ij³. triangles: tr(K̃³).
    """

    cubes: float
    triangles: float


def kernel_cubes(layer: Moments) -> KernelCubes:
    """`KernelCubes` from one pass over blocks of the kernel, and from products of D x D matrices.

    With x the centred rows and s their squared norms, K̃_ij = x_i·x_j + (s_i + s_j)/(n-2) - Σs/((n-1)(n-2)) off the
    diagonal: zero row sums. It is a matrix of rank D + 2 less its diagonal Δ, so tr(K̃³) = tr M³ - 3 tr M²Δ + 2 tr Δ³.
    """
    n = layer.count
    rows, squares = layer.rows, layer.squares
    constant = -float(squares.sum()) / ((n - 1) * (n - 2))
    offsets = squares / (n - 2) + constant / 2
    step = max(1, _BLOCK_BYTES // (4 * n))
    shifts = offsets.astype(np.float32)
    cubes = 0.0
    for start in range(0, n, step):
        stop = min(start + step, n)
        # the kernel is symmetric: entries right of the diagonal block count twice
        block = rows[start:stop] @ rows[start:].T
        block += shifts[start:stop, None]
        block += shifts[start:]
        own = block[:, : stop - start]
        np.fill_diagonal(own, 0)
        sums = np.einsum("ij,ij,ij->i", block, block, block)
        cubes += 2 * float(sums.sum(dtype=np.float64)) - float(
            np.einsum("ij,ij,ij->i", own, own, own).sum(dtype=np.float64)
        )
    # M = Y J Yᵀ with Y = [X, offsets, 1] and J the identity but for its last 2 x 2 block, which swaps
    y = np.concatenate([rows.astype(np.float64), offsets[:, None], np.ones((n, 1))], axis=1)
    swapped = y.copy()
    swapped[:, -2:] = y[:, [-1, -2]]
    gram = y.T @ swapped
    diagonal = squares + 2 * offsets
    squared = np.einsum("nd,nd->n", swapped @ gram, y)
    triangles = float((gram @ gram * gram.T).sum()) - 3 * float(squared @ diagonal)
    return KernelCubes(cubes, triangles + 2 * float((diagonal**3).sum()))


def pearson_holds(skewness: Grid, count: int, a: Sequence[float], b: Sequence[float]) -> NDArray[np.bool_]:
    """Where (L_A, L_B) a Pearson type III distribution is that of CKA under relabellings.

    a, b: `moments.effective_images` of the layers. The shape follows from the skewness where kernels have few
    dimensions, up to sqrt(8) for one on both sides; but not where few images make up most of both kernels, so that the
    score jumps when they meet. They do in a share of about 1/N of the orders, and the excess kurtosis that they add
    grows as N / (effective number of A times that of B).
    """
    with np.errstate(invalid="ignore"):
        concentrated = count / np.outer(a, b)
        return np.asarray((np.abs(skewness) <= MOST_SKEWED) & (concentrated <= MOST_CONCENTRATED))


def unbiased_cka_moments(
    a: Sequence[Moments], b: Sequence[Moments], cubes: tuple[Sequence[KernelCubes], Sequence[KernelCubes]]
) -> NullMoments:
    """Moments of unbiased linear CKA: mean 0, variance 2 / (n(n-3)), and the skewness by `_third_moment`."""
    n = a[0].count
    first = unbiased_kernel_moments(n, (len(a), len(b)))
    own = [np.array([unbiased_hsic(m.self_product, m.squares, m.squares) for m in side]) for side in (a, b)]
    sums_of_squares = [np.where(values > 0, values, np.nan) * n * (n - 3) for values in own]
    third = _third_moment(n, *cubes) / np.outer(*sums_of_squares) ** 1.5
    return NullMoments(first.mean, first.sd, third / first.sd**3)


def unbiased_kernel_moments(count: int, shape: tuple[int, int]) -> NullMoments:
    """Moments of unbiased CKA with any kernel: mean 0, variance 2 / (n(n-3)); the skewness depends on the kernel."""
    return NullMoments(np.zeros(shape), np.full(shape, np.sqrt(2 / (count * (count - 3)))))


def cka_moments(
    a: Sequence[Moments], b: Sequence[Moments], cubes: tuple[Sequence[KernelCubes], Sequence[KernelCubes]]
) -> NullMoments:
    """Moments of biased linear CKA, the RV coefficient (Kazi-Aoual et al. 1995), split into two uncorrelated parts.

    With s and t the squared norms of the centred rows, ‖XᵀPY‖² = <K̃, L̃_π> + n/(n-2) Σ s_i t_π(i) + a constant. The
    third moment is that of the first part, by far the larger one, plus that of the second, without mixed terms.
    """
    n = a[0].count
    norms = np.sqrt(np.outer([m.self_product for m in a], [m.self_product for m in b]))
    norms[norms == 0] = np.nan
    squares = [np.stack([m.squares for m in side]) for side in (a, b)]
    totals = [side.sum(axis=1) for side in squares]
    centred = [side - side.mean(axis=1, keepdims=True) for side in squares]
    own = [
        np.array([unbiased_hsic(m.self_product, m.squares, m.squares) for m in side]) * n * (n - 3) for side in (a, b)
    ]
    weight = n / (n - 2)
    spread = np.outer(*(np.square(side).sum(axis=1) for side in centred))
    variance = 2 * np.outer(*own) / (n * (n - 3)) + weight**2 * spread / (n - 1)
    mean = np.outer(*totals) / (n - 1) / norms
    # without variance there is no skewness
    sd = np.sqrt(np.maximum(variance, 0)) / norms
    variance = np.where(variance > 0, variance, np.nan)
    thirds = np.outer(*((side**3).sum(axis=1) for side in centred))
    third = _third_moment(n, *cubes) + weight**3 * n * thirds / ((n - 1) * (n - 2))
    return NullMoments(mean, sd, third / variance**1.5)


def _third_moment(n: int, a: Sequence[KernelCubes], b: Sequence[KernelCubes]) -> Grid:
    """E[Z³] of Z = Σ_{i≠j} A_ij B_π(i)π(j) for symmetric matrices with zero diagonals and zero row sums: (L_A, L_B).

    Three edges form one of eight multigraphs. With zero row sums, the sum over all placements of a multigraph is a
    multiple of T = Σ_{i<j} A_ij³ plus one of R = tr(A³). It contributes the product of both sides over the number of
    placements.
    """
    pairs = n * (n - 1) / 2
    four = n * (n - 1) * (n - 2) * (n - 3)
    # coefficients of T and R, and the number of placements
    graphs = [
        (1, 0, pairs),  # one edge three times
        (-6, 0, 3 * pairs * 2 * (n - 2)),  # twice, and one that touches it
        (3, 0, 3 * pairs * (n - 2) * (n - 3) / 2),  # twice, and one apart
        (0, 1, n * (n - 1) * (n - 2)),  # triangle
        (4, 0, four),  # star
        (6, -3, 3 * four),  # path
        (-12, 3, 3 * n * (n - 1) * (n - 2) * (n - 3) * (n - 4) / 2),  # two that touch, and one apart
        (4, -1, pairs * (n - 2) * (n - 3) / 2 * (n - 4) * (n - 5) / 2),  # three apart
    ]
    t, r = (
        [np.array([x.cubes for x in side]) / 2 for side in (a, b)],
        [np.array([x.triangles for x in s]) for s in (a, b)],
    )
    total = np.zeros((len(a), len(b)))
    for of_t, of_r, places in graphs:
        if places > 0:
            total += np.outer(*(of_t * t[side] + of_r * r[side] for side in (0, 1))) / places
    return 8 * total


def rsa_pearson_moments(a: Sequence[Moments], b: Sequence[Moments]) -> NullMoments:
    """Mean 0 and Mantel's variance (1967) of the correlation of dissimilarities; a, b: moments of standardised rows."""
    n = a[0].count
    ratios = []
    for side in (a, b):
        values = []
        for m in side:
            rows = -m.squares + (n - 2) * m.offsets
            rows = rows - rows.mean()
            # sums of the matrix minus its mean: squares, and squared row sums
            raw = m.self_product - float(m.squares @ m.squares) - 4 * float(m.squares @ m.offsets)
            square = raw + 2 * (n - 2) * float(m.offsets @ m.offsets) - float(m.squares.sum()) ** 2 / (n * (n - 1))
            values.append(float(rows @ rows) / square if square > 0 else np.nan)
        ratios.append(np.array(values))
    # in units of the sums of squares; a pair of edges is the same, shares an image, or is apart
    touching = np.outer(*(ratio - 1 for ratio in ratios))
    apart = np.outer(*(2 - 4 * ratio for ratio in ratios))
    triples = n * (n - 1) * (n - 2)
    variance = 2 / (n * (n - 1)) + 4 * touching / triples + apart / (triples * (n - 3))
    return NullMoments(np.zeros_like(variance), np.sqrt(np.maximum(variance, 0)))
