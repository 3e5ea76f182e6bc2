"""Metrics on all N(N-1)/2 pairs of images: RSA by Spearman correlation, CKA with an RBF kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 128 * 2**20
# largest difference of equal float32 products of unit rows
_ROUNDING = 2e-6


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the dissimilarities of all pairs i < j of N images, centred and of unit norm: (N(N-1)/2,) float32."""

    values: NDArray[np.float32]
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes


def ranks(rows: NDArray[np.float32]) -> Ranks:
    """Ranks of the dissimilarities 1 - S_ij of standardised rows (N, D); ties have their mean rank.

    All ranks are 0 where all dissimilarities are equal, within rounding.
    """
    count = len(rows)
    flat = np.empty(count * (count - 1) // 2, np.float32)
    at = 0
    for start, block in _blocks(rows):
        for i, products in enumerate(block, start):
            flat[at : at + count - 1 - i] = -products[i + 1 :]
            at += count - 1 - i
    from scipy.stats import rankdata

    if np.ptp(flat) <= _ROUNDING:
        return Ranks(np.zeros_like(flat), count)
    ranked = rankdata(flat)
    ranked -= ranked.mean()
    norm = float(np.linalg.norm(ranked))
    return Ranks((ranked / norm if norm > 0 else ranked).astype(np.float32), count)


def rsa(a: Ranks, b: Ranks, eps: float = 0.0) -> float:
    """Spearman correlation of the dissimilarities (1 - Pearson correlation of patterns) of all pairs of images.

    Kriegeskorte et al. 2008; rsatoolbox's ``compare(..., method="spearman")`` of ``calc_rdm(..., "correlation")``.
    """
    if a.count != b.count:
        raise ValueError(f"layers differ: N = {a.count} and {b.count}")
    if not a.values.any() or not b.values.any():
        return math.nan
    step = 2**20
    # float32 products of short pieces, summed in float64
    parts = (float(a.values[i : i + step] @ b.values[i : i + step]) for i in range(0, len(a.values), step))
    return math.fsum(parts)


@dataclass(frozen=True, eq=False)
class RbfRows:
    """One layer with the RBF kernel exp(-|x - y|² / 2σ²). rows: (N, D) float32, of norms about 1. sigma: σ."""

    rows: NDArray[np.float32]
    sigma: float

    @cached_property
    def halves(self) -> NDArray[np.float32]:
        """Half of the squared norms of the rows, (N,)."""
        return np.asarray(np.einsum("nd,nd->n", self.rows, self.rows, dtype=np.float64) / 2, np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.rows.nbytes


@dataclass(frozen=True, eq=False)
class KernelSums:
    """Row sums (L, N), sums of squares (L,) and diagonal entries (L,) of the kernels of L layers.

    A constant is subtracted from every kernel: HSIC is invariant to it, and float32 sums become more precise. The
    diagonal is excluded from the sums and stored.
    """

    rows: NDArray[np.float64]
    squares: NDArray[np.float64]
    diagonal: NDArray[np.float64]

    @property
    def count(self) -> int:
        """N."""
        return int(self.rows.shape[1])

    @property
    def mean_square(self) -> NDArray[np.float64]:
        """Mean of K_ij² over i ≠ j, with the constant: (L,)."""
        shifts = 1 - self.diagonal
        return np.asarray((self.squares + 2 * shifts * self.totals) / (self.count * (self.count - 1)) + shifts**2)

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sums over i ≠ j: (L,)."""
        return np.asarray(self.rows.sum(axis=1))


def rbf_cka(a: Sequence[RbfRows], b: Sequence[RbfRows], unbiased: bool, eps: float = 0.0) -> NDArray[np.float64]:
    """CKA with an RBF kernel (Kornblith et al. 2019) of every pair of layers: (L_A, L_B); NaN without a scale.

    unbiased: HSIC of Song et al. 2012, eq. 5; otherwise tr(K H L H). Raises ValueError where N differs or is below 4.
    """
    products, sums_a, sums_b = _kernel_sums(a, b)
    scales = []
    for side, sums in ((a, sums_a), (b, sums_b)):
        mixed = np.einsum("ln,ln->l", sums.rows, sums.rows)
        own = _hsic(sums.squares, sums.totals, sums.totals, mixed, sums.diagonal, sums.diagonal, unbiased, sums)
        # a kernel that is constant within rounding has no scale
        noise = sums.mean_square * np.array([(_ROUNDING / layer.sigma**2) ** 2 for layer in side])
        least = noise if unbiased else noise * sums.count**2
        scales.append(np.sqrt(np.where(own > least, own, np.nan)))
    cross = _hsic(
        products,
        sums_a.totals[:, None],
        sums_b.totals[None],
        sums_a.rows @ sums_b.rows.T,
        sums_a.diagonal[:, None],
        sums_b.diagonal[None],
        unbiased,
        sums_a,
    )
    return np.asarray(cross / (np.outer(scales[0], scales[1]) + eps))


def _hsic(
    products: NDArray[np.float64],
    total_a: NDArray[np.float64],
    total_b: NDArray[np.float64],
    mixed: NDArray[np.float64],
    diagonal_a: NDArray[np.float64],
    diagonal_b: NDArray[np.float64],
    unbiased: bool,
    sums: KernelSums,
) -> NDArray[np.float64]:
    """HSIC from Σ K∘L, ΣK, ΣL and rowsum(K)·rowsum(L) over i ≠ j, and the diagonals."""
    m = sums.count
    if unbiased:
        unscaled = products + total_a * total_b / ((m - 1) * (m - 2)) - 2 * mixed / (m - 2)
        return np.asarray(unscaled / (m * (m - 3)))
    centred = products - 2 * mixed / m + total_a * total_b / m**2
    with_diagonal = (diagonal_b * total_a + diagonal_a * total_b) / m - diagonal_a * diagonal_b * (m - 1)
    return np.asarray(centred - with_diagonal)


def _kernel_sums(a: Sequence[RbfRows], b: Sequence[RbfRows]) -> tuple[NDArray[np.float64], KernelSums, KernelSums]:
    """Σ_ij K_ij L_ij over i ≠ j for all pairs of layers, (L_A, L_B), and the sums of each side.

    Kernels are evaluated once, in blocks of rows.
    """
    layers = [*a, *b]
    counts = sorted({len(layer.rows) for layer in layers})
    if len(counts) > 1:
        raise ValueError(f"layers differ: N = {counts[0]} and {counts[1]}")
    count = counts[0]
    if count < 4:
        raise ValueError(f"HSIC needs at least 4 images, got {count}")
    step = max(1, _BLOCK_BYTES // (4 * count * len(layers)))
    shifts = np.array([_rbf(layer, slice(0, 1))[0, 1:].mean() for layer in layers], np.float32)
    products = np.zeros((len(a), len(b)))
    squares, sums = np.zeros(len(layers)), np.zeros((len(layers), count))
    for start in range(0, count, step):
        stop = min(start + step, count)
        blocks = np.empty((len(layers), stop - start, count), np.float32)
        for i, layer in enumerate(layers):
            np.subtract(_rbf(layer, slice(start, stop)), shifts[i], out=blocks[i])
            blocks[i, np.arange(stop - start), np.arange(start, stop)] = 0
        sums[:, start:stop] = blocks.sum(axis=2, dtype=np.float64)
        # float32 sums of single rows, added in float64
        for row in range(stop - start):
            products += blocks[: len(a), row] @ blocks[len(a) :, row].T
            squares += np.einsum("ln,ln->l", blocks[:, row], blocks[:, row])
    diagonal = 1 - shifts.astype(np.float64)
    sides = [KernelSums(sums[at], squares[at], diagonal[at]) for at in (slice(len(a)), slice(len(a), None))]
    return products, sides[0], sides[1]


def _rbf(layer: RbfRows, rows: slice) -> NDArray[np.float32]:
    """Rows of the kernel, (rows, N): -|x - y|² / 2 = x·y - |x|²/2 - |y|²/2."""
    products = layer.rows[rows] @ layer.rows.T
    products -= layer.halves
    products -= layer.halves[rows, None]
    return np.asarray(np.exp(products / np.float32(layer.sigma**2)))


def _blocks(rows: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Products (rows, N) of blocks of rows with all rows, after the number of the first row of each block."""
    step = max(1, _BLOCK_BYTES // (4 * len(rows)))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step] @ rows.T
