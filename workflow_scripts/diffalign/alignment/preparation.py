"""What is done to features before they are compared: clamp, centre, normalise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five, flagged


class FeatureError(ValueError):
    """Features that cannot be compared; the message names the first five offending images."""


def clamped(features: NDArray[np.float32], quantile: float) -> NDArray[np.float32]:
    """Clamp to ±Q, Q the value at index ``int(quantile * numel)`` of the sorted absolute values (platonic-rep's
    ``--precise`` rule, VFM-VAE's too).
    """
    magnitude = np.abs(features).ravel()
    index = min(int(quantile * magnitude.size), magnitude.size - 1)
    bound = np.partition(magnitude, index)[index]
    return np.clip(features, -bound, bound)


def unit_rows(
    features: NDArray[np.floating], names: Sequence[str], clamp: float | None = None, center: bool = False
) -> NDArray[np.float32]:
    """Rows ready for cosine similarity: clamp, then centre, then divide by the L2 norm.

    features: (N, D). Norms and means are taken in float64; the result is float32. Raises FeatureError where a row is
    NaN, infinite or zero.
    """
    _refuse(~np.isfinite(features).all(axis=1), names, "NaN or infinite features")
    prepared = np.asarray(features, dtype=np.float32)
    if clamp is not None:
        prepared = clamped(prepared, clamp)
    double = prepared.astype(np.float64)
    if center:
        double -= double.mean(axis=0)
    norms = np.linalg.norm(double, axis=1)
    _refuse(norms == 0, names, "features of zero norm, which have no direction")
    return np.asarray(double / norms[:, None], dtype=np.float32)


def _refuse(bad: NDArray[np.bool_], names: Sequence[str], what: str) -> None:
    if bad.any():
        offenders = flagged(names, bad)
        raise FeatureError(f"{len(offenders)} of {len(names)} images have {what}, first: {first_five(offenders)}")
