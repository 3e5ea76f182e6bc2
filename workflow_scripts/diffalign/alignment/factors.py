"""SVCCA: canonical correlations of the leading singular vectors, computed exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SVCCA_DIMENSIONS = 10


@dataclass(frozen=True, eq=False)
class Factors:
    """The leading left singular vectors of one standardised layer: (N, r) float64, r at most `SVCCA_DIMENSIONS`."""

    vectors: NDArray[np.float64]

    @property
    def count(self) -> int:
        """N."""
        return len(self.vectors)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.vectors.nbytes


def leading_vectors(rows: NDArray[np.floating], dimensions: int = SVCCA_DIMENSIONS) -> Factors:
    """The leading left singular vectors of rows (N, D) with standardised columns.

    Columns are divided by their standard deviation with N - 1, plus 1e-8, as platonic-rep does. The vectors come from
    an eigendecomposition of the smaller of the two Gram matrices in float64. A layer of lower rank has fewer vectors.
    """
    double = rows.astype(np.float64)
    double -= double.mean(axis=0)
    double /= double.std(axis=0, ddof=1) + 1e-8
    if double.shape[1] <= len(double):
        values, directions = _leading(double.T @ double, dimensions)
        return Factors(double @ (directions / np.sqrt(values)))
    return Factors(_leading(double @ double.T, dimensions)[1])


def _leading(gram: NDArray[np.float64], dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues of a Gram matrix, descending, and their vectors; eigenvalues within rounding of 0 are
    left out.
    """
    from scipy.linalg import eigh

    values, vectors = eigh(gram, subset_by_index=[max(0, len(gram) - dimensions), len(gram) - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > len(gram) * np.finfo(np.float64).eps * max(values[0], 0)
    return values[real], vectors[:, real]


def svcca(a: Factors, b: Factors, eps: float = 0.0) -> float:
    """Mean canonical correlation of the 10 leading left singular vectors (Raghu et al. 2017), 0 to 1.

    The vectors are orthonormal and centred, so the correlations are the singular values of UᵀV. platonic-rep uses a
    random low-rank SVD and an iterative CCA, whose values scatter around this one. NaN where a layer has a lower rank.
    """
    if a.count != b.count:
        raise ValueError(f"layers differ: N = {a.count} and {b.count}")
    if min(a.vectors.shape[1], b.vectors.shape[1]) < SVCCA_DIMENSIONS:
        return math.nan
    return float(np.linalg.svd(a.vectors.T @ b.vectors, compute_uv=False).mean())
