"""What two layers share beyond controls: unbiased HSIC and CKA of residuals, and the share of covariance that is left.

Features are regressed on controls (classes, averages of pixels, features of an untrained twin), on all images. With M
the projection onto what is orthogonal to the controls and to a constant, the residual kernels are K = MXXᵀM and
L = MYYᵀM. The residuals of two images depend on each other, since they share their coefficients, and so tr(KL) is
above 0 even where nothing is shared. With variances of noise a and b of each image, its mean is then aᵀ(M∘M)b. Unbiased
estimates of a and b are (M∘M)⁻¹ diag(K) and (M∘M)⁻¹ diag(L) (Hartley, Rao and Kiefer 1969), so that

    T = tr(KL) - diag(K)ᵀ (M∘M)⁻¹ diag(L)

has the mean 0 exactly where two features are independent given the controls, whatever the noise of each image, as long
as their means are linear in the controls. Else its mean is (m² + m - 2N) ‖Cov(x, y | controls)‖²_F, with m the rank of
M. Without controls T is N(N-3) times unbiased HSIC (Song et al. 2012, eq. 5). Coefficients fitted on other images in
place of this would leave an error that both sides share and that grows with the number of controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import quantile
from diffalign.offenders import first_five, flagged

Array = NDArray[np.float64]

# columns of controls, beside the constant, a number of images allows
MOST_CONTROLS = 0.5
# directions of controls below this share of the longest are rounding
_RANK = 1e-6
# a pivot below this: the noise of two images cannot be told apart
_PIVOT = 1e-6
# rows of kernels that are held at a time
_ROWS = 512


@dataclass(frozen=True, eq=False)
class Controls:
    """An orthonormal basis (N, r) float64 of a constant and the controls, of N images in order of name."""

    basis: Array

    @property
    def count(self) -> int:
        """N."""
        return len(self.basis)

    @property
    def freedom(self) -> int:
        """The dimensions m = N - r that controls leave."""
        return self.count - int(self.basis.shape[1])

    @cached_property
    def kept(self) -> Array:
        """diag(M), (N,): the share of an image's noise that is left in its residual."""
        return np.asarray(1 - np.square(self.basis).sum(axis=1))

    @cached_property
    def _factor(self) -> Any:
        """The Cholesky factor of M∘M."""
        from scipy.linalg import cho_factor

        hat = self.basis @ self.basis.T
        np.square(hat, out=hat)
        # (1 - h)² on the diagonal
        np.fill_diagonal(hat, np.square(self.kept))
        return cho_factor(hat, lower=True, overwrite_a=True, check_finite=False)

    def residuals(self, rows: NDArray[np.floating]) -> Array:
        """Rows (N, D) less their regression on the constant and the controls, float64."""
        double = rows.astype(np.float64)
        return np.asarray(double - self.basis @ (self.basis.T @ double))

    def noise(self, squares: Array) -> Array:
        """Unbiased variances of the noise of each image (N,), from the squared norms of its residuals (N,)."""
        from scipy.linalg import cho_solve

        n = self.count
        if self.freedom == n - 1:
            # the inverse of M∘M in closed form
            return np.asarray(n / (n - 2) * squares - squares.sum() / ((n - 1) * (n - 2)))
        return np.asarray(cho_solve(self._factor, squares, check_finite=False))

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError that names the images whose noise cannot be told from what controls explain, such as the
        images of a class of one or two.
        """
        alone = self.kept < _PIVOT
        if not alone.any():
            try:
                pivots = np.diag(self._factor[0])
            except np.linalg.LinAlgError:
                pivots = np.zeros(1)
            if (pivots >= _PIVOT).all():
                return
            # those of which least is left
            alone = self.kept <= self.kept.min() + 1e-9
        offenders = flagged(names, alone)
        raise ValueError(
            f"controls leave too little of {len(offenders)} of {len(names)} images, first: {first_five(offenders)}; a "
            "class needs at least three images"
        )


def controls(columns: Sequence[NDArray[np.floating]], names: Sequence[str]) -> Controls:
    """The span of a constant and of several sets of controls, each (N, C) with images in the order of names.

    Raises ValueError where a set has other images or values that are not finite, where there are more controls than
    half of the images, and where controls explain single images wholly.
    """
    count = len(names)
    centred: list[Array] = []
    for values in columns:
        if values.ndim != 2 or len(values) != count:
            raise ValueError(f"controls have shape {values.shape}; expected ({count}, C)")
        if not np.isfinite(values).all():
            raise ValueError("controls have values that are NaN or infinite")
        double = values.astype(np.float64)
        double -= double.mean(axis=0)
        # sets differ in scale, and what is rounding in one is not in another
        scale = float(np.linalg.norm(double, 2)) if double.size else 0.0
        if scale > 0:
            centred.append(double / scale)
    constant = np.full((count, 1), 1 / math.sqrt(count))
    if not centred:
        return Controls(constant)
    left, lengths, _ = np.linalg.svd(np.concatenate(centred, axis=1), full_matrices=False)
    kept = lengths > _RANK * lengths[0]
    if kept.sum() > MOST_CONTROLS * count:
        raise ValueError(
            f"{int(kept.sum())} controls of {count} images; at most {int(MOST_CONTROLS * count)} are allowed"
        )
    basis = left[:, kept]
    basis -= basis.mean(axis=0)
    span = Controls(np.concatenate([constant, basis], axis=1))
    span.check(names)
    return span


def leading(values: NDArray[np.floating], count: int) -> Array:
    """The scores (N, at most `count`) of features (N, D) on their leading principal components, float64."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((left * lengths)[:, :count])


def one_hot(labels: Sequence[str]) -> Array:
    """Labels (N,) as columns (N, classes) float64, in the order of the classes."""
    classes = sorted(set(labels))
    return np.asarray(np.array(labels)[:, None] == np.array(classes)[None, :], np.float64)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over images; NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Beyond:
    """What two layers share beyond controls.

    cka: unbiased CKA of residuals. share: squared covariance of residuals as a share of all squared covariance. Both
    may be below 0, as unbiased estimates of 0 are, and a share above 1, where controls hide what is shared. Undefined
    where a layer has no residuals, and a share where the layers do not share significantly to begin with. controls:
    dimensions of the controls.
    """

    cka: Estimate
    share: Estimate
    controls: int


def beyond(a: NDArray[np.floating], b: NDArray[np.floating], given: Controls, groups: Groups | None = None) -> Beyond:
    """What rows a (N, D_A) and b (N, D_B) share beyond controls. All have images in the same order.

    Intervals are by `_interval`. groups: of images that are not independent; the influences of a group are then summed,
    and what pairs of images add to them stays in, so that intervals are too wide where little is shared. Raises
    ValueError for other numbers of images and for fewer than four, and where controls are too many for them. Memory: an
    (N, N) float64 matrix.
    """
    if not len(a) == len(b) == given.count or len(a) < 4:
        raise ValueError(f"{len(a)} and {len(b)} rows with controls of {given.count} images; at least 4 are needed")
    plain = controls([], [""] * len(a))
    x, y = given.residuals(a), given.residuals(b)
    values, above, second = _statistics(
        [(x, y, given), (x, x, given), (y, y, given), (plain.residuals(a), plain.residuals(b), plain)], groups
    )
    z2 = quantile(given.count - 1 if groups is None else groups.freedom) ** 2
    left, own_a, own_b, everything = values.tolist()
    cka, share = UNDEFINED, UNDEFINED
    if own_a > 0 and own_b > 0:
        scale = math.sqrt(own_a * own_b)
        cka = _interval(left, scale, np.array([0, -scale / 2 / own_a, -scale / 2 / own_b, 0]), above, second, z2)
    if everything > 0:
        share = _interval(left, everything, np.array([0, 0, 0, -1.0]), above, second, z2)
    return Beyond(cka, share, given.count - given.freedom - 1)


def _interval(value: float, base: float, slope: Array, above: Array, second: Array, z2: float) -> Estimate:
    """The ratio of the first statistic and a base, and the 95 % interval of all ratios r that do not differ from it.

    value - r base has the gradient e_0 + r slope in the statistics. Its variance is that at the ratio r: the
    second-order part stays, while influences on the first statistic shrink with the root of it, and are 0 at r = 0. An
    estimate of these influences at a true ratio of 0 would be high where the ratio is. Undefined where the base itself
    is not significant, so that the interval would be unbounded (Fieller 1954). z2: squared quantile of the interval.
    """
    from scipy.optimize import brentq

    unit = _unit(second, slope)
    gradients = np.stack([np.eye(len(slope))[0], slope * unit])
    least = gradients @ second @ gradients.T
    lengths, directions = np.linalg.eigh(gradients @ above @ gradients.T)
    first = (directions * np.maximum(lengths, 0)) @ directions.T
    ratio = value / base

    def outside(r: float) -> float:
        by_pairs = np.array([1.0, r / unit])
        by_images = np.array([math.sqrt(max(r, 0.0) / ratio) if ratio > 0 else 0.0, r / unit])
        return (value - r * base) ** 2 - z2 * float(by_pairs @ least @ by_pairs + by_images @ first @ by_images)

    if base**2 <= z2 * float(least[1, 1] + first[1, 1]) / unit**2:
        return UNDEFINED
    bounds = []
    for sign in (-1.0, 1.0):
        step = 1e-9 * max(1.0, abs(ratio))
        if outside(ratio) >= 0 or outside(ratio + sign * step) >= 0:
            bounds.append(ratio)
            continue
        while outside(ratio + sign * step) < 0:
            step *= 2
        bounds.append(float(brentq(outside, ratio + sign * step / 2, ratio + sign * step)))
    return Estimate(ratio, bounds[0], bounds[1])


def _unit(second: Array, slope: Array) -> float:
    """How much longer a gradient in the direction of the slope is made, for the same second-order variance as the
    first statistic.
    """
    return math.sqrt(float(second[0, 0] / (slope @ second @ slope)))


def _statistics(pairs: Sequence[tuple[Array, Array, Controls]], groups: Groups | None) -> tuple[Array, Array, Array]:
    """Squared covariances (S,) of residuals, and their covariance over images as the sum of two (S, S) matrices.

    The first is of the influences of single images, less what pairs of images add to it, and may be negative; the
    second is of pairs of images, which is all that is left where nothing is shared.
    """
    count, number = len(pairs[0][0]), len(pairs)
    divisors = np.array([float(c.freedom**2 + c.freedom - 2 * count) for _, _, c in pairs])
    if (divisors <= 0).any():
        raise ValueError(f"{pairs[0][2].freedom} dimensions that controls leave are too few for {count} images")
    parts = np.empty((number, count))
    own, second = np.zeros((number, number)), np.zeros((number, number))
    for start in range(0, count, _ROWS):
        rows = slice(start, min(start + _ROWS, count))
        products = np.stack([(x[rows] @ x.T) * (y[rows] @ y.T) for x, y, _ in pairs])
        parts[:, rows] = products.sum(axis=2)
        products[:, np.arange(rows.stop - start), np.arange(start, rows.stop)] = 0
        for i, (_, _, c) in enumerate(pairs):
            products[i] *= 2 * math.sqrt(c.freedom / count) / divisors[i] / c.kept[rows, None]
        flat = products.reshape(number, -1)
        own += flat @ flat.T
        for i, (_, _, c) in enumerate(pairs):
            products[i] *= math.sqrt(divisors[i] / (2 * (count - 1) * c.freedom)) / c.kept[None, :]
        second += flat @ flat.T
    influences = np.empty((number, count))
    for i, (x, y, c) in enumerate(pairs):
        of_x, of_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
        parts[i] -= (of_x * c.noise(of_y) + of_y * c.noise(of_x)) / 2
        scaled = parts[i] / c.kept
        influences[i] = 2 * math.sqrt(c.freedom / count) / divisors[i] * (scaled - scaled.mean())
    first = influences @ influences.T - own
    if groups is not None and not groups.alone:
        of_groups = np.stack([groups.sums(each) for each in influences])
        first = of_groups @ of_groups.T
    return parts.sum(axis=1) / divisors, first, second
