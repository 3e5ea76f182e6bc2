"""Preparation of features: clamp, centre, whiten, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.settings import Preparation
from diffalign.offenders import first_five, flagged

# rows whose squares are summed at once
_ROWS = 4096


class FeatureError(ValueError):
    """Features cannot be compared. The message names the first five offending images."""


def clamp_bound(layers: Sequence[NDArray[np.floating]], quantile: float, rule: str) -> float:
    """The magnitude Q to clamp at, pooled over layers (N, D).

    ``exact``: the value at index ``int(quantile * numel)`` of the sorted |x|. ``per_image``: the mean over images of
    ``torch.quantile(|x|, q)``, which interpolates linearly.
    """
    if rule == "per_image":
        magnitude = np.abs(np.concatenate([layer.astype(np.float32) for layer in layers], axis=1))
        return float(np.quantile(magnitude, quantile, axis=1, overwrite_input=True).mean())
    flat = np.concatenate([np.abs(layer.astype(np.float32)).ravel() for layer in layers])
    index = min(int(quantile * flat.size), flat.size - 1)
    flat.partition(index)
    return float(flat[index])


def kernel_rows(
    features: NDArray[np.floating],
    names: Sequence[str],
    preparation: Preparation | None = None,
    bound: float | None = None,
) -> NDArray[np.float32]:
    """Rows (N, D) as metrics on kernels and regressions take them: clamped, whitened, centred as the preparation says,
    then divided by the L2 norm of each; without ``normalize`` by one number, the root mean square of all norms.

    features: (N, D) of any floating type. bound: magnitude to clamp at, where it is known or pooled over layers. Sums
    are in float64; the result is float32. Raises FeatureError where a row is NaN, infinite or zero and where there are
    too few images to whiten, ValueError where a pooled bound is missing.
    """
    double, norms = _prepared(features, names, preparation or Preparation(), bound)
    if preparation is not None and preparation.normalize is None:
        norms = np.full_like(norms, np.sqrt(np.square(norms).mean()))
    double /= norms[:, None]
    return double.astype(np.float32)


def unit_rows(
    features: NDArray[np.floating],
    names: Sequence[str],
    preparation: Preparation | None = None,
    bound: float | None = None,
) -> NDArray[np.float32]:
    """Rows (N, D) for cosine similarity: as `kernel_rows`, and always of unit L2 norm."""
    double, norms = _prepared(features, names, preparation or Preparation(), bound)
    double /= norms[:, None]
    return double.astype(np.float32)


def directions(rows: NDArray[np.float32], preparation: Preparation) -> NDArray[np.float32]:
    """`kernel_rows` (N, D) of unit norm, as neighbours are searched among: the same rows where they have it."""
    if preparation.normalize is not None:
        return rows
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return np.asarray(rows / norms[:, None], np.float32)


def _prepared(
    features: NDArray[np.floating], names: Sequence[str], preparation: Preparation, bound: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, D) before rows are divided, and their norms (N,)."""
    if features.ndim != 2 or not features.size:
        raise FeatureError(f"features are a table of images and dimensions; got shape {features.shape}")
    _refuse(~np.isfinite(features).all(axis=1), names, "NaN or infinite features")
    with np.errstate(over="ignore"):
        prepared = np.asarray(features, dtype=np.float32)
    _refuse(~np.isfinite(prepared).all(axis=1), names, "features beyond the range of float32")
    if preparation.clamp is not None:
        if bound is None and preparation.clamp_over == "model":
            raise ValueError("clamp_over 'model' needs the bound of all layers of the model")
        if bound is None:
            bound = clamp_bound([prepared], preparation.clamp, preparation.clamp_rule)
        prepared = np.clip(prepared, -bound, bound)
    if preparation.whiten:
        prepared = whitened(prepared).astype(np.float32)
    double = prepared.astype(np.float64)
    if preparation.center:
        double -= double.mean(axis=0)
    norms = np.sqrt(np.einsum("nd,nd->n", double, double))
    # centred equal rows are not exactly zero
    scale = np.sqrt(np.einsum("nd,nd->n", prepared, prepared, dtype=np.float64))
    _refuse(norms <= 1e-7 * scale, names, "features of zero norm, which have no direction")
    return double, norms


def spread(rows: NDArray[np.floating]) -> float:
    """What the common mean leaves of the squares of rows (N, D): mean |x - m|² / mean |x|², 0 to 1.

    1 minus this is the share of the common mean, |m|² / mean |x|²; of unit rows, the mean cosine of all pairs. Sums are
    of differences in float64, since 1 - share would lose a small spread.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    left = total = 0.0
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS].astype(np.float64)
        total += float(np.square(block).sum())
        left += float(np.square(block - mean).sum())
    return left / total


def whitened(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centred scores on all principal components, each of unit variance: (N, r) float64, r the rank.

    Raises FeatureError unless N > D + 1: with fewer images, all would be equally far apart.
    """
    count, width = features.shape
    if count <= width + 1:
        raise FeatureError(f"whitening {width} dimensions needs more than {width + 1} images, got {count}")
    double = features.astype(np.float64)
    double -= double.mean(axis=0)
    values, directions = np.linalg.eigh(double.T @ double / (count - 1))
    real = values > width * np.finfo(np.float32).eps * max(float(values[-1]), 0.0)
    return np.asarray(double @ (directions[:, real] / np.sqrt(values[real])))


def _refuse(bad: Any, names: Sequence[str], what: str) -> None:
    if bad.any():
        offenders = flagged(names, bad)
        raise FeatureError(f"{len(offenders)} of {len(names)} images have {what}, first: {first_five(offenders)}")
