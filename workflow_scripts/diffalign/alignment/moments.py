"""Metrics from matrix products of features, without N x N matrices: CKA, Procrustes, RSA by Pearson correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from diffalign.alignment.groups import Groups

# rows of one float32 product; products are summed in float64
_ROWS = 2048
# relative difference of equal terms after float32 products
_ROUNDING = 1e-6
# above this cosine a Procrustes angle needs float64 products: its error is the root of theirs
_NEARLY_EQUAL = 0.999
# of the number of images over the product of the effective numbers of both sides, the largest at which CKA has an error
MOST_CONCENTRATED = 0.5
CONCENTRATED = "a few images make most of both kernels, so that CKA has no error over images"


@dataclass(frozen=True, eq=False)
class Moments:
    """One centred layer with the sums that are shared by all pairs.

    rows: (N, D) float32 minus the column means, which are computed in float64. squares: (N,) float64, squared norms of
    these rows. offsets: (N,) float64, their products with the mean row. self_product: ‖XᵀX‖²_F.
    """

    rows: NDArray[np.float32]
    squares: NDArray[np.float64]
    offsets: NDArray[np.float64]
    self_product: float

    @property
    def count(self) -> int:
        """N."""
        return len(self.squares)

    @cached_property
    def profile(self) -> NDArray[np.float64]:
        """Contribution of each image to `self_product`, (N,): Σ_j (x_i·x_j)²."""
        gram = _product(self.rows, self.rows).astype(np.float32)
        return np.asarray(np.einsum("nd,nd->n", self.rows @ gram, self.rows), np.float64)

    @cached_property
    def effective(self) -> tuple[float, float]:
        """`effective_images` of the centred kernel, and of the U-centred one."""
        return effective_images(self, unbiased=False), effective_images(self, unbiased=True)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.rows.nbytes + self.squares.nbytes + self.offsets.nbytes


def moments(rows: NDArray[np.float32]) -> Moments:
    """Centre the rows (N, D) of one layer. Raises ValueError for N < 4."""
    if len(rows) < 4:
        raise ValueError(f"centred kernels need at least 4 images, got {len(rows)}")
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    single = centred.astype(np.float32)
    squares = np.einsum("nd,nd->n", centred, centred)
    return Moments(single, squares, centred @ mean, float(np.square(_product(single, single)).sum()))


def standardised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (N, D) minus their own mean, of unit norm: their products are Pearson correlations of patterns.

    Raises ValueError where a row is constant.
    """
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=1)
    # a centred constant row is not exactly zero
    constant = norms <= 1e-7 * np.linalg.norm(rows, axis=1)
    if constant.any():
        raise ValueError(f"{int(constant.sum())} images have the same value in every dimension: they have no pattern")
    return np.asarray(centred / norms[:, None], np.float32)


def cka(a: Moments, b: Moments, eps: float = 0.0) -> float:
    """Linear CKA with biased HSIC (Kornblith et al. 2019): ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F + eps). 0 to 1."""
    scale = math.sqrt(a.self_product * b.self_product)
    return _product_norm(a, b) / (scale + eps) if scale > 0 else math.nan


def unbiased_cka(a: Moments, b: Moments, eps: float = 0.0) -> float:
    """Linear CKA with unbiased HSIC (Song et al. 2012, eq. 5); 0 on average for independent features.

    The estimator is invariant to terms that depend on the row or on the column alone, so centred features give the same
    value. The row sums of their kernel without its diagonal are minus the squared norms.
    """
    scale = self_hsic(a) * self_hsic(b)
    return unbiased_hsic(_product_norm(a, b), a.squares, b.squares) / (math.sqrt(scale) + eps)


def effective_images(layer: Moments, unbiased: bool) -> float:
    """Of how many images the squared entries of a layer's kernel are: 1 / Σ r_i² with r_i the share of row i.

    unbiased: of the U-centred kernel of `nulls.kernel_cubes`, without its diagonal; else of the centred kernel.
    NaN for a layer without variance.
    """
    shares = layer.profile
    if unbiased:
        n, squares = layer.count, layer.squares
        offsets = squares / (n - 2) - float(squares.sum()) / ((n - 1) * (n - 2)) / 2
        towards = layer.rows @ (offsets.astype(np.float32) @ layer.rows)
        total = float(offsets.sum())
        shares = shares + n * offsets**2 + float(offsets @ offsets) + 2 * towards + 2 * offsets * total
        shares = np.maximum(shares - (squares + 2 * offsets) ** 2, 0)
    whole = float(shares.sum())
    return whole**2 / float(shares @ shares) if whole > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class CkaInfluence:
    """First-order influence of every image on linear CKA.

    values: (N,), which sum to 0. score: the CKA. scales: the sums by which the kernels of a and b are normalised.
    off_diagonal: Σ K∘L, Σ K∘K and Σ L∘L of the U-centred kernels.
    """

    values: NDArray[np.float64]
    score: float
    scales: tuple[float, float]
    off_diagonal: tuple[float, float, float]


def cka_influence(a: Moments, b: Moments, unbiased: bool) -> CkaInfluence | None:
    """Influence of every image on linear CKA; None where the HSIC of a layer with itself is not positive.

    HSIC is quadratic in the images: image i has the influence 2(f_i - mean f) with f_i = Σ_j K_ij L_ij.
    """
    n = a.count
    parts, off_diagonal = [], []
    for profile, x, y in ((_mixed_profile(a, b), a, b), (a.profile, a, a), (b.profile, b, b)):
        own = profile - x.squares * y.squares if unbiased else profile
        off_diagonal.append(unbiased_hsic(float(profile.sum()), x.squares, y.squares) * n * (n - 3))
        total = off_diagonal[-1] if unbiased else float(own.sum())
        parts.append((2 * (own - own.mean()), total))
    (cross, total), (self_a, scale_a), (self_b, scale_b) = parts
    if scale_a <= 0 or scale_b <= 0:
        return None
    scale = math.sqrt(scale_a * scale_b)
    values = cross / scale - total / scale / 2 * (self_a / scale_a + self_b / scale_b)
    sums = (off_diagonal[0], off_diagonal[1], off_diagonal[2])
    return CkaInfluence(values, total / scale, (scale_a, scale_b), sums)


def cka_error(a: Moments, b: Moments, unbiased: bool, groups: Groups | None = None) -> float:
    """Standard error of linear CKA over images, from the influence of each image on the three HSICs.

    The sum of squared influences counts the second-order variance, 2 Σ_ij h_ij² over pairs of images, twice, so it is
    subtracted once. It is also a lower bound of the variance. It is computed for jointly normal entries of the centred
    kernels: 2 / (n(n-3)) for independent features, as under permutations, times (1 - CKA²)² for aligned ones. The
    error is then multiplied by (N-1)/(N-4): by so much a jackknife of a U-statistic of four images, as HSIC is one,
    exceeds it (Arvesen 1969). NaN where N / (n_A n_B) exceeds 1/2, n the `effective_images` of a side: the score then
    depends on whether few images lie apart on both sides, which one sample does not tell.

    groups: of images that are not independent; the influences of a group are summed before they are squared. The
    second-order part of groups depends on what they share and stays in: where little is aligned, errors are too large
    by up to sqrt(2).
    """
    found = cka_influence(a, b, unbiased)
    if found is None or _few_images(a, b, unbiased):
        return math.nan
    n = a.count
    least = 2 / (n * (n - 3)) * _second_order(found.score, found.off_diagonal, *found.scales)
    return _error(found.values if groups is None else groups.sums(found.values), least, n, groups is not None)


def cka_difference(
    first: tuple[Moments, Moments], second: tuple[Moments, Moments], unbiased: bool, groups: Groups | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Standard error of the difference of two linear CKA of the same images, and the influence of every image on it,
    or of every group: (N,) or (G,). The error is that of `cka_error`, of the difference of influences.

    The second-order part is E (xᵀ A x)² = tr(AC)² + 2 tr(ACAC) with x the entries of the four normalised kernels,
    jointly normal with second moments C, and A that of the difference of both h of `cka_error`. The error is NaN where
    that of a score is.
    """
    n = first[0].count
    one, other = cka_influence(*first, unbiased), cka_influence(*second, unbiased)
    if one is None or other is None:
        return math.nan, np.full(n if groups is None else groups.count, math.nan)
    layers, scales = (*first, *second), (*one.scales, *other.scales)
    entries = np.empty((4, 4))
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            entries[i, j] = entries[j, i] if j < i else _off_diagonal(x, y) / math.sqrt(scales[i] * scales[j])
    weights = np.zeros((4, 4))
    for place, sign, score in ((0, 1, one.score), (2, -1, other.score)):
        weights[place : place + 2, place : place + 2] = sign / 2 * np.array([[-score, 1], [1, -score]])
    both = weights @ entries
    least = 2 / (n * (n - 3)) * float(np.trace(both) ** 2 + 2 * np.trace(both @ both))
    values = one.values - other.values
    values = values if groups is None else groups.sums(values)
    if _few_images(*first, unbiased) or _few_images(*second, unbiased):
        return math.nan, values
    return _error(values, least, n, groups is not None), values


def _few_images(a: Moments, b: Moments, unbiased: bool) -> bool:
    """Whether few images make most of both kernels."""
    return a.count > MOST_CONCENTRATED * a.effective[unbiased] * b.effective[unbiased]


def _error(influence: NDArray[np.float64], least: float, count: int, of_groups: bool) -> float:
    """Standard error from influences of N images and the second-order variance, which is the least there can be."""
    first_order = math.sqrt(max(float(influence @ influence) - (0 if of_groups else least), least))
    return first_order * (count - 1) / max(count - 4, 1)


def _off_diagonal(a: Moments, b: Moments) -> float:
    """Σ K∘L of two U-centred kernels."""
    product = float(a.profile.sum()) if a is b else float(np.square(_product(a.rows, b.rows)).sum())
    return unbiased_hsic(product, a.squares, b.squares) * a.count * (a.count - 3)


@lru_cache(maxsize=1)
def _mixed_profile(a: Moments, b: Moments) -> NDArray[np.float64]:
    """Contribution of each image to ‖XᵀY‖²_F, (N,): Σ_j (x_i·x_j)(y_i·y_j)."""
    product = cross_product(a, b).astype(np.float32)
    return np.asarray(np.einsum("nd,nd->n", a.rows @ product, b.rows), np.float64)


def _second_order(score: float, off_diagonal: tuple[float, float, float], scale_a: float, scale_b: float) -> float:
    """E h² of h = kl - score (k² + l²) / 2 for normal k and l.

    off_diagonal: Σ K∘L, Σ K∘K and Σ L∘L of the U-centred kernels, the second moments of k and l.
    """
    cross = off_diagonal[0] / math.sqrt(scale_a * scale_b)
    a, b = off_diagonal[1] / scale_a, off_diagonal[2] / scale_b
    products = a * b + 2 * cross**2
    return products - 3 * score * cross * (a + b) + score**2 / 4 * (3 * a**2 + 3 * b**2 + 2 * products)


def unbiased_hsic(product: float, squares_a: NDArray[np.float64], squares_b: NDArray[np.float64]) -> float:
    """Unbiased HSIC of two centred linear kernels from ‖XᵀY‖²_F and the squared norms of the rows."""
    m = len(squares_a)
    shared = float(squares_a @ squares_b)
    total = float(squares_a.sum() * squares_b.sum())
    return (product - shared + total / ((m - 1) * (m - 2)) - 2 * shared / (m - 2)) / (m * (m - 3))


def self_hsic(layer: Moments) -> float:
    """Unbiased HSIC of a layer with itself; NaN where it is within rounding of 0."""
    value = unbiased_hsic(layer.self_product, layer.squares, layer.squares)
    return value if value * layer.count * (layer.count - 3) > _ROUNDING * layer.self_product else math.nan


def procrustes(a: Moments, b: Moments, eps: float = 0.0) -> float:
    """1 - 2θ/π with the angular Procrustes distance θ = arccos(‖XᵀY‖_* / (‖X‖_F ‖Y‖_F)) of centred features.

    Williams et al., "Generalized Shape Metrics on Neural Representations" (NeurIPS 2021); rescaled to a similarity
    from 0 to 1.
    """
    scale = math.sqrt(float(a.squares.sum() * b.squares.sum()))
    if scale == 0:
        return math.nan
    nuclear = float(np.linalg.svd(cross_product(a, b), compute_uv=False).sum())
    if nuclear > _NEARLY_EQUAL * scale:
        x, y = (layer.rows.astype(np.float64) for layer in (a, b))
        nuclear = float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
        scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return 1 - 2 / math.pi * math.acos(min(1.0, nuclear / scale))


def rsa_pearson(a: Moments, b: Moments, eps: float = 0.0) -> float:
    """Pearson correlation of the dissimilarities of all pairs of images (Kriegeskorte et al. 2008).

    a, b: moments of standardised rows, so that a dissimilarity is 1 - Pearson correlation of two patterns. With X the
    centred rows, c their mean: S_ij = x_i·x_j + x_i·c + x_j·c + |c|², and the sums over i ≠ j need no S.
    """
    variances = [_dissimilarity_product(x, x, x.self_product) for x in (a, b)]
    if any(v <= _ROUNDING * x.self_product for v, x in zip(variances, (a, b), strict=True)):
        return math.nan
    return _dissimilarity_product(a, b, _product_norm(a, b)) / math.sqrt(variances[0] * variances[1])


def _dissimilarity_product(a: Moments, b: Moments, product: float) -> float:
    """Covariance of the dissimilarities over i ≠ j, times N(N-1)."""
    n = a.count
    raw = (
        product
        - float(a.squares @ b.squares)
        - 2 * float(a.squares @ b.offsets + b.squares @ a.offsets)
        + 2 * (n - 2) * float(a.offsets @ b.offsets)
    )
    return raw - float(a.squares.sum() * b.squares.sum()) / (n * (n - 1))


# the metrics of a pair use the same product one after another
@lru_cache(maxsize=1)
def cross_product(a: Moments, b: Moments) -> NDArray[np.float64]:
    """XᵀY of two centred layers: (D_A, D_B) float64. Raises ValueError where N differs."""
    if a.count != b.count:
        raise ValueError(f"layers differ: N = {a.count} and {b.count}")
    return _product(a.rows, b.rows)


@lru_cache(maxsize=1)
def _product_norm(a: Moments, b: Moments) -> float:
    return float(np.square(cross_product(a, b)).sum())


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """aᵀb (D_A, D_B) float64, from float32 products of blocks of rows."""
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), _ROWS):
        total += a[start : start + _ROWS].T @ b[start : start + _ROWS]
    return total
