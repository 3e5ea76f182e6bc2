"""Linear maps of two sets into one space, and relative representations: what a shared space is compared with.

Each is fitted to rows that belong to one another, and is a pair of transforms that other rows take, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five
from diffalign.shared_space.affinity import check_rows, total_variance
from diffalign.shared_space.predictivity import Spectrum, check_penalties, regression, spectrum

Array = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ (x - center) @ weights + offset. center: (D,), weights: (D, d), offset: (d,), all float64."""

    center: Float64
    weights: Float64
    offset: Float64

    def apply(self, x: Array) -> Float32:
        """Rows (N, D) in the shared space, (N, d) float32. Raises ValueError for another width, and NaN."""
        check_width(x, len(self.center))
        return np.asarray((x - self.center) @ self.weights + self.offset, np.float32)


@dataclass(frozen=True, eq=False)
class Padded:
    """x ↦ (x - center) / scale, with zeros up to `width` columns. center: (D,) float64."""

    center: Float64
    scale: float
    width: int

    def apply(self, x: Array) -> Float32:
        """Rows (N, D) in the shared space, (N, width) float32. Raises ValueError for another width, and NaN."""
        check_width(x, len(self.center))
        made = np.zeros((len(x), self.width), np.float32)
        made[:, : x.shape[1]] = (x - self.center) / self.scale
        return made


@dataclass(frozen=True, eq=False)
class Relative:
    """x ↦ cosine similarities to anchors. center: (D,) float64. anchors: (m, D) float64, centred, of unit norm."""

    center: Float64
    anchors: Float64

    def apply(self, x: Array) -> Float32:
        """Rows (N, D) in the shared space, (N, m) float32.

        Raises ValueError for another width, NaN, and rows at the center, which have no direction.
        """
        check_width(x, len(self.center))
        return np.asarray(_directions(x, self.center, "features") @ self.anchors.T, np.float32)


def fit_padded(x: Array, y: Array) -> tuple[Padded, Padded]:
    """No alignment: each set is centred and divided by the root of its total variance, and the narrower one gets zeros.

    Raises ValueError where sets differ in number, or one is constant.
    """
    check_pair(x, y)
    width = max(x.shape[1], y.shape[1])
    first, second = (Padded(_mean(each), math.sqrt(total_variance(each)), width) for each in (x, y))
    return first, second


def fit_procrustes(x: Array, y: Array) -> tuple[Affine, Affine]:
    """Rotations of both sets, each centred and of unit total variance, that bring them closest (Schönemann 1966).

    With XᵀY = U S Vᵀ they are X U and Y V. Directions without covariance with the other set, such as those in which one
    is wider, or all beyond N - 1, are left out, as nothing tells how to match them. Raises ValueError as `fit_padded`.
    """
    check_pair(x, y)
    centers = _mean(x), _mean(y)
    scales = [math.sqrt(total_variance(each)) for each in (x, y)]
    left, right = ((each - center) / s for each, center, s in zip((x, y), centers, scales, strict=True))
    u, lengths, vt = np.linalg.svd(left.T @ right, full_matrices=False)
    kept = lengths > max(u.shape[0], vt.shape[1], len(x)) * np.finfo(np.float64).eps * lengths[0]
    if not kept.any():
        raise ValueError("the two sets have no covariance at all, so no rotation matches them")
    zero = np.zeros(int(kept.sum()))
    first = Affine(centers[0], u[:, kept] / scales[0], zero)
    return first, Affine(centers[1], vt[kept].T / scales[1], zero.copy())


def fit_cca(x: Array, y: Array, components: int, ridge: float) -> tuple[Affine, Affine]:
    """The leading canonical variates of both sets, each of unit variance where ridge is near 0 (Vinod 1976).

    ridge: added to the covariance of either set, as a multiple of its mean eigenvalue; above 0. Raises ValueError as
    `fit_padded`, and for more components than there are canonical variates.
    """
    check_pair(x, y)
    return _cca(spectrum(x), spectrum(y), ridge).leading(components)


def fit_ridge(x: Array, y: Array, penalty: float) -> tuple[Affine, Padded]:
    """Predictions of y by ridge regression on x, and y as it is. penalty: a multiple of the mean eigenvalue of XᵀX of
    centred rows; above 0. Raises ValueError as `fit_padded`.
    """
    return ridges(x, y, [penalty])[0]


def ridges(x: Array, y: Array, penalties: Sequence[float]) -> list[tuple[Affine, Padded]]:
    """`fit_ridge` for each of several penalties, from one decomposition."""
    check_pair(x, y)
    check_penalties(penalties)
    made = regression(x, y)
    width = y.shape[1]
    as_it_is = Padded(np.zeros(width), 1.0, width)
    return [(Affine(made.of.center, made.weights(share), made.offsets), as_it_is) for share in penalties]


def fit_relative(x: Array, y: Array, rows: Sequence[int] | NDArray[np.int64]) -> tuple[Relative, Relative]:
    """Cosine similarities to the same anchors in either set, rows of x and y, after centring (Moschella et al. 2023).

    Raises ValueError as `fit_padded`, and for anchors that repeat, don't exist or have no direction.
    """
    check_pair(x, y)
    chosen = np.asarray(rows, np.int64)
    if not chosen.size or len(np.unique(chosen)) < len(chosen) or chosen.min() < 0 or chosen.max() >= len(x):
        raise ValueError(f"anchors must be different rows of 0 … {len(x) - 1}; there are {len(chosen)}: {chosen[:5]}")
    first, second = (
        Relative(center, _directions(each[chosen], center, "anchors"))
        for each, center in ((x, _mean(x)), (y, _mean(y)))
    )
    return first, second


@dataclass(frozen=True, eq=False)
class Canonical:
    """All canonical variates of two sets, so that several numbers of components cost one decomposition.

    first, second: centers, and weights (D, r) in the order of correlations.
    """

    first: tuple[Float64, Float64]
    second: tuple[Float64, Float64]

    def leading(self, components: int) -> tuple[Affine, Affine]:
        """The first so many. Raises ValueError for more than there are."""
        there = self.first[1].shape[1]
        if not 1 <= components <= there:
            raise ValueError(f"{components} components of {there} canonical variates; allowed: 1 to {there}")
        made = [
            Affine(center, weights[:, :components].copy(), np.zeros(components))
            for center, weights in (self.first, self.second)
        ]
        return made[0], made[1]


def canonical(x: Array, y: Array, ridges: Sequence[float]) -> list[Canonical]:
    """Canonical variates for each of several ridges, as `fit_cca`."""
    check_pair(x, y)
    left, right = spectrum(x), spectrum(y)
    return [_cca(left, right, ridge) for ridge in ridges]


def _cca(x: Spectrum, y: Spectrum, ridge: float) -> Canonical:
    check_penalties([ridge])
    count = len(x.rows)
    whitening = [each.directions / np.sqrt(each.eigenvalues + each.penalty(ridge)) for each in (x, y)]
    u, _, vt = np.linalg.svd((x.rows @ whitening[0]).T @ (y.rows @ whitening[1]), full_matrices=False)
    unit = math.sqrt(count - 1)
    return Canonical((x.center, whitening[0] @ u * unit), (y.center, whitening[1] @ vt.T * unit))


def check_pair(x: Array, y: Array) -> None:
    """Raise ValueError where two sets differ in number, hold NaN, have fewer than two rows, or one is constant."""
    for each, which in ((x, "first"), (y, "second")):
        check_rows(each, f"features of the {which} set")
    if len(x) != len(y):
        raise ValueError(f"sets have {len(x)} and {len(y)} rows; rows must belong to one another")
    for each, which in ((x, "first"), (y, "second")):
        if not total_variance(each) > 0:
            raise ValueError(f"features of the {which} set are constant: all {len(each)} rows are equal")


def check_width(x: Array, width: int) -> None:
    """Raise ValueError for rows of another width, and rows that are NaN or infinite."""
    check_rows(x)
    if x.shape[1] != width:
        raise ValueError(f"features have {x.shape[1]} columns; the transform takes {width}")


def _mean(x: Array) -> Float64:
    return np.asarray(x.mean(axis=0, dtype=np.float64))


def _directions(x: Array, center: Float64, what: str) -> Float64:
    """Centred rows of unit norm."""
    moved = np.asarray(x, np.float64) - center
    norms = np.linalg.norm(moved, axis=1)
    zero = np.flatnonzero(norms <= 1e-7 * np.linalg.norm(np.asarray(x, np.float64), axis=1))
    if len(zero):
        raise ValueError(f"{what} lie at the mean and have no direction: row {first_five([str(row) for row in zero])}")
    return np.asarray(moved / norms[:, None])
