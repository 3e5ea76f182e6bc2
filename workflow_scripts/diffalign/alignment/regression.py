"""Linear predictivity: cross-validated R² of ridge regression from one representation to another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
# a fit with a smaller share of degrees of freedom leaves residuals within rounding of the float32 products
_LEAST_FREEDOM = 1e-3
# penalties as multiples of the mean eigenvalue of the training part
_PENALTIES = np.logspace(-8, 3, 23)


@dataclass(frozen=True)
class Factorisation:
    """The training part of one fold: XᵀX = V diag(e) Vᵀ without null directions, V (D, r) and e (r,) float64."""

    directions: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoldedRows:
    """One layer for cross-validated regression. rows: (N, D) float32 minus their mean. folds: (N,), of each image."""

    rows: NDArray[np.float32]
    folds: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes held, with the factorisations of all folds."""
        return int(self.rows.nbytes + self.number * 8 * self.rows.shape[1] * min(self.rows.shape))

    @cached_property
    def number(self) -> int:
        """Number of folds: FOLDS, or that of groups where there are fewer."""
        return int(self.folds.max()) + 1

    @cached_property
    def parts(self) -> tuple[NDArray[np.float32], ...]:
        """The rows of each fold."""
        return tuple(self.rows[self.folds == fold] for fold in range(self.number))

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Means (folds, D) of the training rows of each fold."""
        sums = np.stack([part.sum(axis=0, dtype=np.float64) for part in self.parts])
        counts = np.array([len(part) for part in self.parts])
        return np.asarray((sums.sum(axis=0) - sums) / (counts.sum() - counts)[:, None])

    @cached_property
    def factorisations(self) -> tuple[Factorisation, ...]:
        """Factorisation of the training rows of each fold, shared by all layers predicted from this one."""
        return tuple(_factorise(self.rows[self.folds != fold] - self.means[fold]) for fold in range(self.number))


def folded_rows(rows: NDArray[np.float32], folds: NDArray[np.int64]) -> FoldedRows:
    """Centre rows (N, D): a common offset would cost float32 products precision.

    folds: (N,), of whole groups where images are not independent. Raises ValueError where a fold has fewer than two
    images, and for a single fold.
    """
    # some of the images may leave a fold without any
    folds = np.unique(folds, return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(folds)
    if len(sizes) < 2:
        raise ValueError(f"{len(rows)} images are one group: cross-validation needs at least 2")
    if sizes.min() < 2:
        raise ValueError(
            f"{len(rows)} images in {len(sizes)} folds leave fewer than 2 in one; without groups, cross-validation "
            f"needs at least {2 * FOLDS} images"
        )
    return FoldedRows((rows - rows.mean(axis=0, dtype=np.float64)).astype(np.float32), folds)


def _factorise(x: NDArray[np.float64]) -> Factorisation:
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    real = values > len(values) * np.finfo(np.float32).eps * max(float(values[-1]), 0.0)
    values, vectors = values[real], vectors[:, real]
    return Factorisation(x.T @ (vectors / np.sqrt(values)) if wide else vectors, values)


def ridge(a: FoldedRows, b: FoldedRows, eps: float = 0.0) -> float:
    """R² of predicting B from A by ridge regression with 5-fold cross-validation: at most 1, and 0 or less by chance.

    1 - Σ|y - ŷ|² / Σ|y - mean of the training part|², summed over dimensions and folds, so that each dimension of B is
    weighted by its variance. Each fold has one penalty for all dimensions, selected on its training part by generalised
    cross-validation (Golub, Heath and Wahba 1979). Raises ValueError where N or folds differ.
    """
    if len(a.rows) != len(b.rows) or not np.array_equal(a.folds, b.folds):
        raise ValueError(f"layers differ: N = {len(a.rows)} and {len(b.rows)}, or their folds")
    products = [(x.T @ y).astype(np.float64) for x, y in zip(a.parts, b.parts, strict=True)]
    squares = [float(np.square(y, dtype=np.float64).sum()) for y in b.parts]
    everything = np.sum(products, axis=0)
    unexplained = total = 0.0
    for fold, (x, y) in enumerate(zip(a.parts, b.parts, strict=True)):
        count = len(a.rows) - len(x)
        mean_x, mean_y = a.means[fold], b.means[fold]
        part = a.factorisations[fold]
        # centred training part: all images minus this fold, minus the means
        projected = part.directions.T @ (everything - products[fold] - count * np.outer(mean_x, mean_y))
        training = sum(squares) - squares[fold] - count * float(mean_y @ mean_y)
        penalty = _best_penalty(part.eigenvalues, np.square(projected).sum(axis=1), training, count)
        weights = part.directions @ (projected / (part.eigenvalues + penalty)[:, None])
        held_out = y - mean_y
        predicted = (x - mean_x).astype(np.float32) @ weights.astype(np.float32)
        unexplained += float(np.square(held_out - predicted).sum())
        total += float(np.square(held_out).sum())
    return 1 - unexplained / total if total > 0 else math.nan


def _best_penalty(e: NDArray[np.float64], projections: NDArray[np.float64], total: float, count: int) -> float:
    """The penalty λ that minimises RSS(λ) / (1 - df(λ) / n)², among those with 1 - df / n above `_LEAST_FREEDOM`.

    e: (r,) eigenvalues of XᵀX. projections: (r,), squared norms of the rows of VᵀXᵀY. total: |Y|². count: n. The fit
    shrinks a direction by s = e / (e + λ), so RSS = |Y|² - Σ (2s - s²) p / e and df = 1 + Σ s. With at least as many
    dimensions as images, both RSS and 1 - df / n approach 0 with λ: rounding would then select the penalty.
    """
    if not len(e):
        return 0.0
    penalties = _PENALTIES * e.sum() / len(e)
    share = e / (e + penalties[:, None])
    residual = np.maximum(total - ((2 * share - share**2) * (projections / e)).sum(axis=1), 0)
    freedom = 1 - (1 + share.sum(axis=1)) / count
    judged = freedom > _LEAST_FREEDOM
    criterion = np.divide(residual, freedom**2, out=np.full_like(residual, np.inf), where=judged)
    return float(penalties[np.argmin(criterion)])
