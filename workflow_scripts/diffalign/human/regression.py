"""Prediction of human dimensions from features by cross-validated ridge regression, α selected within each fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import BOUNDS

# of the published regression of diffusion models
ALPHAS = (1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression of M targets: x ↦ (x - center) @ weights + offsets, weights (D, M), float64.

    alphas: (M,) the penalty of each target, with the smallest leave-one-out error.
    """

    center: NDArray[np.float64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    alphas: NDArray[np.float64]

    def predict(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predictions (N, M) of rows (N, D)."""
        return np.asarray((rows - self.center) @ self.weights + self.offsets)


def fit(rows: NDArray[np.floating], targets: NDArray[np.floating], alphas: Sequence[float] = ALPHAS) -> Ridge:
    """Fit all targets (N, M) to rows (N, D) with all α, through one eigendecomposition.

    Each target has its own α, selected by exact leave-one-out: with H = 1/N + Z diag(1 / (e + α)) Zᵀ, the error of a
    left-out image is its residual over 1 - H_ii. scikit-learn's RidgeCV gives the same for one target at a time. Ties
    go to the first α. Raises ValueError for α of 0 or less, and where rows and targets differ in number.
    """
    if len(rows) != len(targets) or len(rows) < 2:
        raise ValueError(f"{len(rows)} rows for {len(targets)} rows of targets; expected the same number, at least 2")
    if not len(alphas) or min(alphas) <= 0:
        raise ValueError(f"penalties {list(alphas)}: each must be above 0")
    x, y = np.asarray(rows, np.float64), np.asarray(targets, np.float64)
    center, offsets = x.mean(axis=0), y.mean(axis=0)
    x, y = x - center, y - offsets
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = np.maximum(values, 0)
    # Z = XV, whose columns have the squared norms e
    z = vectors * np.sqrt(values) if wide else x @ vectors
    projected = z.T @ y
    squares = z * z
    errors = np.empty((len(alphas), y.shape[1]))
    for i, alpha in enumerate(alphas):
        share = 1 / (values + alpha)
        left = 1 - 1 / len(x) - squares @ share
        residuals = (y - z @ (share[:, None] * projected)) / left[:, None]
        errors[i] = np.square(residuals).mean(axis=0)
    chosen = np.asarray(alphas, np.float64)[errors.argmin(axis=0)]
    shrunk = 1 / (values[:, None] + chosen)
    weights = x.T @ (vectors @ ((vectors.T @ y) * shrunk)) if wide else vectors @ (projected * shrunk)
    return Ridge(center, weights, offsets, chosen)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Held-out predictions. values: (N, M), from the regression without the object. baselines: (N, M), mean of the
    training objects of that regression. alphas: (F, M), of each fold and target. folds: (N,).
    """

    values: NDArray[np.float64]
    baselines: NDArray[np.float64]
    alphas: NDArray[np.float64]
    folds: NDArray[np.int64]


def cross_predicted(
    rows: NDArray[np.floating],
    targets: NDArray[np.floating],
    folds: NDArray[np.int64],
    alphas: Sequence[float] = ALPHAS,
) -> Predictions:
    """Predict targets (N, M) from rows (N, D), each object by the fit to the other folds. folds: (N,)."""
    values, baselines = np.empty(targets.shape), np.empty(targets.shape)
    chosen = []
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        ridge = fit(rows[~held_out], targets[~held_out], alphas)
        values[held_out] = ridge.predict(rows[held_out])
        baselines[held_out] = ridge.offsets
        chosen.append(ridge.alphas)
    return Predictions(values, baselines, np.stack(chosen), folds)


@dataclass(frozen=True, eq=False)
class Explained:
    """Held-out R² (M,) of each target, with 95 % bounds over objects; at most 1, and 0 or less by chance.

    values: 1 - Σ(y - ŷ)² / Σ(y - mean of the other folds)² over all objects. per_fold: (F, M), R² of scikit-learn,
    within each fold and relative to its own mean; published values are means over folds.
    """

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    per_fold: NDArray[np.float64]

    @property
    def within_folds(self) -> NDArray[np.float64]:
        """Means (M,) over the folds in which a target varies; NaN where it varies in none."""
        return _mean_of_defined(self.per_fold)


def explained(targets: NDArray[np.floating], predictions: Predictions, draws: np.random.Generator) -> Explained:
    """R² of held-out predictions, with bootstrap intervals over objects from the same draws for all targets.

    Raises ValueError for a constant target.
    """
    y = np.asarray(targets, np.float64)
    residual = np.square(y - predictions.values)
    total = np.square(y - predictions.baselines)
    if (total.sum(axis=0) == 0).any():
        raise ValueError("a target has the same value for all objects, so its R² is undefined")
    weights = draws.multinomial(len(y), np.full(len(y), 1 / len(y)), size=_DRAWS).astype(np.float64)
    low, high = np.quantile(1 - (weights @ residual) / (weights @ total), BOUNDS, axis=0)
    per_fold = []
    for fold in range(len(predictions.alphas)):
        inside = predictions.folds == fold
        spread = np.square(y[inside] - y[inside].mean(axis=0)).sum(axis=0)
        # undefined where a target is constant within a fold
        per_fold.append(
            1 - np.divide(residual[inside].sum(axis=0), spread, out=np.full(y.shape[1], np.nan), where=spread > 0)
        )
    return Explained(1 - residual.sum(axis=0) / total.sum(axis=0), low, high, np.stack(per_fold))


@dataclass(frozen=True, eq=False)
class Chosen:
    """The layer that predicts each fold of objects. layers: (F,), positions."""

    layers: NDArray[np.int64]

    def predictions(self, of_layers: Sequence[Predictions]) -> Predictions:
        """Predictions of every object by the layer of its fold; all have the same folds."""
        first = of_layers[0]
        values, alphas = first.values.copy(), first.alphas.copy()
        for fold, layer in enumerate(self.layers):
            inside = first.folds == fold
            values[inside] = of_layers[layer].values[inside]
            alphas[fold] = of_layers[layer].alphas[fold]
        return Predictions(values, first.baselines, alphas, first.folds)


def best_on_other_folds(per_fold: NDArray[np.float64]) -> Chosen:
    """For every fold, the layer whose R², a mean over targets and the other folds, is largest; the first of equal ones.

    per_fold: (L, F, M) of `Explained`, NaN where a target is constant within a fold; at least two folds. Raises
    ValueError where no target varies within any of the other folds.
    """
    count = per_fold.shape[1]
    others = [np.delete(per_fold, fold, axis=1).reshape(len(per_fold), -1) for fold in range(count)]
    means = np.stack([_mean_of_defined(each.T) for each in others], axis=1)
    undefined = np.flatnonzero(np.isnan(means).all(axis=0))
    if len(undefined):
        raise ValueError(
            f"no target varies within any of the {count - 1} folds other than fold {undefined[0]}, so no layer is best "
            f"on them; take fewer folds than {count}, of more objects, or the other fold_rule"
        )
    return Chosen(np.asarray(np.nanargmax(means, axis=0), np.int64))


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (M,) of the values (N, M) that are defined; NaN where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))
