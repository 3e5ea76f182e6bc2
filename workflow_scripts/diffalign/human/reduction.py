"""Fewer dimensions before choices are predicted, without a look at choices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_components(rows: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Scores (N, count) of rows (N, D) on their first principal components; fewer where the rows have fewer.

    Through the smaller of the two products of rows. PCA sees objects and no choice, so for a comparison without
    training it may be fitted on all of them, as published; a probe fits its own inside of each fold.
    """
    x = np.asarray(rows, np.float64)
    x = x - x.mean(axis=0)
    if x.shape[1] > len(x):
        return components_of_products(x @ x.T, count)
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.asarray(x @ vectors[:, ::-1][:, : _rank(values, count)])


def components_of_products(products: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The same from the products (N, N) of centred rows, of any width."""
    values, vectors = np.linalg.eigh(products)
    kept = _rank(values, count)
    return np.asarray(vectors[:, ::-1][:, :kept] * np.sqrt(values[::-1][:kept]))


def _rank(values: NDArray[np.float64], count: int) -> int:
    """How many of so many components vary at all; values ascend."""
    return min(count, int((values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)).sum()))
