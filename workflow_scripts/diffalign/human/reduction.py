"""Dimensionality reduction before odd-one-out choices, fitted without choices; products of very wide rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POOLINGS = ("mean", "max", "none")


@dataclass(frozen=True, eq=False)
class Products:
    """Products of rows (N, D) of any width, enough for similarities and principal components.

    centred: (N, N) products of rows minus the mean row. with_mean: (N,) products of the rows, not centred, with the
    mean row. mean: squared norm of the mean row. sums: (N,) sum of each row. width: D.
    """

    centred: NDArray[np.float64]
    with_mean: NDArray[np.float64]
    mean: float
    sums: NDArray[np.float64]
    width: int

    @property
    def plain(self) -> NDArray[np.float64]:
        """Products (N, N) of the rows without centring."""
        return self.centred + self.with_mean[:, None] + self.with_mean - self.mean


def products(rows: NDArray[np.floating], memory_mb: int) -> Products:
    """Products in float64 of rows (N, D) that may exceed memory. memory_mb: size of a block of columns."""
    count, width = rows.shape
    size = max(1, int(memory_mb * 2**20 / (3 * 8 * count)))
    centred, with_mean, sums, mean = np.zeros((count, count)), np.zeros(count), np.zeros(count), 0.0
    for start in range(0, width, size):
        block = np.asarray(rows[:, start : start + size], np.float64)
        sums += block.sum(axis=1)
        average = block.mean(axis=0)
        with_mean += block @ average
        mean += float(average @ average)
        block = block - average
        centred += block @ block.T
    return Products(centred, with_mean, mean, sums, width)


def pooled(tokens: NDArray[np.floating], pooling: str, memory_mb: int) -> NDArray[np.float64]:
    """``mean`` or ``max`` (N, C) over the tokens (N, T, C). memory_mb: size of a block of images."""
    vectors = np.empty((tokens.shape[0], tokens.shape[2]))
    size = max(1, int(memory_mb * 2**20 / (2 * 8 * tokens.shape[1] * tokens.shape[2])))
    for start in range(0, len(tokens), size):
        block = np.asarray(tokens[start : start + size], np.float64)
        vectors[start : start + size] = block.mean(axis=1) if pooling == "mean" else block.max(axis=1)
    return vectors


def principal_components(rows: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Scores (N, count) of rows (N, D) on their first principal components; fewer where the rank is lower.

    Computed from the smaller of the two Gram matrices. PCA uses no choices, so a comparison without training fits it to
    all objects, as published. A probe fits its own PCA within each fold.
    """
    x = np.asarray(rows, np.float64)
    x = x - x.mean(axis=0)
    if x.shape[1] > len(x):
        return components_of_products(x @ x.T, count)
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.asarray(x @ vectors[:, ::-1][:, : _rank(values, count)])


def components_of_products(products: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Scores on the first principal components, from the products (N, N) of centred rows."""
    values, vectors = np.linalg.eigh(products)
    kept = _rank(values, count)
    return np.asarray(vectors[:, ::-1][:, :kept] * np.sqrt(values[::-1][:kept]))


def _rank(values: NDArray[np.float64], count: int) -> int:
    """Number of components with nonzero variance, at most `count`. values: eigenvalues, ascending."""
    return min(count, int((values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)).sum()))
