"""Ridge regression between two representations: which penalty, and how much of held-out images it predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]
# images are dealt into so many folds, of which one at a time is predicted
FOLDS = 5
# rows of a block of products in `Prediction.permuted`
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Rows x (N, D) less their mean: XᵀX = V diag(e) Vᵀ without null directions. center: (D,). rows: (N, D), centred.
    directions: V (D, r). eigenvalues: e (r,), descending. All float64.
    """

    center: Float64
    rows: Float64
    directions: Float64
    eigenvalues: Float64

    def penalty(self, share: float) -> float:
        """A penalty as a multiple of the mean eigenvalue, so that it doesn't depend on the scale of features."""
        return share * float(self.eigenvalues.mean())


def spectrum(x: Array) -> Spectrum:
    """Decompose rows (N, D). Raises ValueError where all rows are equal."""
    double = np.asarray(x, np.float64)
    # about the first row, so that equal rows are exactly 0
    moved = double - double[0]
    center = moved.mean(axis=0)
    rows = moved - center
    wide = rows.shape[1] > len(rows)
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > len(values) * np.finfo(np.float64).eps * max(float(values[0]), 0.0)
    if not real.any():
        raise ValueError(f"features are constant: all {len(x)} rows are equal")
    values, vectors = values[real], vectors[:, real]
    return Spectrum(
        center + double[0], rows, rows.T @ (vectors / np.sqrt(values)) if wide else vectors.copy(), values.copy()
    )


@dataclass(frozen=True, eq=False)
class Regression:
    """Ridge regressions of targets y (N, M) on rows x (N, D), with any penalty. offsets: (M,), the mean of targets."""

    of: Spectrum
    targets: Float64
    offsets: Float64

    @cached_property
    def projected(self) -> Float64:
        """VᵀXᵀY, (r, M)."""
        return np.asarray(self.of.directions.T @ (self.of.rows.T @ self.targets))

    def weights(self, share: float) -> Float64:
        """Weights (D, M) with the penalty `share`, a multiple of the mean eigenvalue of XᵀX: V diag(1/(e+λ)) VᵀXᵀY."""
        shrunk = self.projected / (self.of.eigenvalues + self.of.penalty(share))[:, None]
        return np.asarray(self.of.directions @ shrunk)


def regression(x: Array, y: Array) -> Regression:
    """Prepare ridge regressions of y (N, M) on x (N, D). Raises ValueError where x is constant or N differs."""
    if len(x) != len(y):
        raise ValueError(f"sets have {len(x)} and {len(y)} rows; rows must belong to one another")
    targets = np.asarray(y, np.float64)
    offsets = targets.mean(axis=0)
    return Regression(spectrum(x), targets - offsets, offsets)


def cross_validated(x: Array, y: Array, folds: NDArray[np.int64], penalties: Sequence[float]) -> Float64:
    """R² of each penalty, (P,), on rows that the regression has not seen: each fold (N,) by the others.

    1 - Σ|y - ŷ|² / Σ|y - mean of the other folds|² over all rows and dimensions, so that a dimension of y counts with
    its variance. NaN where y is constant. Raises ValueError for penalties of 0 or less, fewer than two folds, and where
    x is constant without a fold.
    """
    check_penalties(penalties)
    members = np.unique(folds)
    if len(members) < 2:
        raise ValueError(f"{len(folds)} rows are of {len(members)} fold; a fold is predicted by at least one other")
    unexplained, total = np.zeros(len(penalties)), 0.0
    for fold in members:
        inside = folds == fold
        trained = regression(x[~inside], y[~inside])
        rows = (np.asarray(x[inside], np.float64) - trained.of.center) @ trained.of.directions
        left = np.asarray(y[inside], np.float64) - trained.offsets
        total += float(np.square(left).sum())
        for i, share in enumerate(penalties):
            shrunk = trained.projected / (trained.of.eigenvalues + trained.of.penalty(share))[:, None]
            unexplained[i] += float(np.square(left - rows @ shrunk).sum())
    return 1 - unexplained / total if total > 0 else np.full(len(penalties), np.nan)


def check_penalties(penalties: Sequence[float]) -> None:
    """Raise ValueError for no penalties, and for those that aren't positive and finite."""
    if not len(penalties) or not all(0 < share < math.inf for share in penalties):
        raise ValueError(f"penalties {list(penalties)}: each must be above 0 and finite, and at least one is needed")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Held-out images predicted by a regression on others. predicted, targets: (N, M), less the mean of the targets
    that it was fitted to. penalty: the multiple that was chosen. cross_validated: R² of folds of what it was fitted to.
    """

    predicted: Float64
    targets: Float64
    penalty: float
    cross_validated: float

    @cached_property
    def unexplained(self) -> Float64:
        """|y - ŷ|² of each image, (N,)."""
        return np.asarray(np.square(self.targets - self.predicted).sum(axis=1))

    @cached_property
    def total(self) -> Float64:
        """|y - mean of the images that were fitted|² of each image, (N,)."""
        return np.asarray(np.square(self.targets).sum(axis=1))

    @property
    def r2(self) -> float:
        """1 - Σ|y - ŷ|² / Σ|y - mean|²: at most 1, and 0 or less by chance. NaN where targets don't vary."""
        total = float(self.total.sum())
        return 1 - float(self.unexplained.sum()) / total if total > 0 else math.nan

    def permuted(self, orders: NDArray[np.intp]) -> Float64:
        """R² (K,) where image i is paired with the target of image order[i], for orders (K, N)."""
        product = np.zeros(len(orders))
        for begin in range(0, len(self.predicted), _ROWS):
            block = self.predicted[begin : begin + _ROWS] @ self.targets.T
            product += block[np.arange(len(block)), orders[:, begin : begin + len(block)]].sum(axis=1)
        total = float(self.total.sum())
        if not total > 0:
            return np.full(len(orders), np.nan)
        return np.asarray(1 - (total + float(np.square(self.predicted).sum()) - 2 * product) / total)


def predict(
    fitted: tuple[Array, Array],
    held_out: tuple[Array, Array],
    folds: NDArray[np.int64],
    penalties: Sequence[float],
) -> Prediction:
    """Fit y on x of some images, and predict y of others. folds: (N,) of the images that are fitted, which choose the
    penalty with the largest R² among them; ties go to the first.

    Where x is constant the prediction is the mean of y, and R² 0 or less. Raises ValueError as `cross_validated`.
    """
    x, y = fitted
    try:
        found = cross_validated(x, y, folds, penalties)
    except ValueError as error:
        if "constant" not in str(error):
            raise
        offsets = np.asarray(y, np.float64).mean(axis=0)
        targets = np.asarray(held_out[1], np.float64) - offsets
        return Prediction(np.zeros_like(targets), targets, penalties[0], 0.0)
    best = 0 if np.isnan(found).all() else int(np.argmax(found))
    trained = regression(x, y)
    rows = np.asarray(held_out[0], np.float64) - trained.of.center
    return Prediction(
        rows @ trained.weights(penalties[best]),
        np.asarray(held_out[1], np.float64) - trained.offsets,
        penalties[best],
        float(found[best]),
    )
