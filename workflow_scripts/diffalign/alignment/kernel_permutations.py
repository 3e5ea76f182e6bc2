"""Linear CKA under many relabellings, from kernels: of <K, L> only L is relabelled, all other sums stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import moments
from diffalign.alignment.moments import Moments

Order = NDArray[np.intp]

# products of kernel entries, N² for each pair of layers and order, that a null may take: minutes on one core
MOST_PRODUCTS = 10**12
# orders of one matrix product
_ORDERS = 16
# bytes of relabelled rows of a kernel
_BLOCK_BYTES = 64 * 2**20
# scores that differ by less are equal: products of the same numbers in another order
TIE = 1e-6


def refusal(count: int, pairs: int, draws: int, memory: float) -> str | None:
    """Why N images, so many pairs of layers and orders are too much; None where they are not. memory: bytes."""
    products = count**2 * pairs * draws
    if products > MOST_PRODUCTS:
        return (
            f"permutations would take {products:.1e} products of kernel entries ({count}² images, {pairs} pairs of "
            f"layers, {draws} orders), more than {MOST_PRODUCTS:.0e}"
        )
    needed = 2 * 4 * count**2
    if needed > memory:
        return (
            f"permutations would take two kernels of {count}² entries, {needed / 2**20:.0f} MiB of {memory / 2**20:.0f}"
        )
    return None


def permuted_cka(
    metrics: Sequence[str],
    a: Sequence[Callable[[], Moments]],
    b: Sequence[Callable[[], Moments]],
    orders: Sequence[Order],
    eps: float,
    memory: float = 2**30,
) -> dict[str, NDArray[np.float64]]:
    """``cka`` and ``unbiased_cka`` of all layers of A and of B under every order of the images of B: name -> (K, L_A,
    L_B).

    a, b: centred layers, which are read when they are needed. NaN where a score has no scale. memory: bytes of kernels
    held at a time, of two at least; results do not depend on it. Kernels are float32, sums of their blocks float64.
    """
    unknown = [name for name in metrics if name not in ("cka", "unbiased_cka")]
    if unknown:
        raise ValueError(f"no statistic of '{unknown[0]}' from kernels; allowed: cka, unbiased_cka")
    null = {name: np.full((len(orders), len(a), len(b)), np.nan) for name in metrics}
    for rows in _tiles(a, memory):
        count = next(iter(rows.values())).count
        kernels = np.empty((len(rows), count, count), np.float32)
        for kernel, layer in zip(kernels, rows.values(), strict=True):
            kernel[:] = _kernel(layer)
        for j, read in enumerate(b):
            other = read()
            products = _products(kernels, _kernel(other), orders)
            for at, (i, layer) in enumerate(rows.items()):
                for name in metrics:
                    null[name][:, i, j] = _scores(name, layer, other, products[at], orders, eps)
    return null


def tied(null: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """A null (K, L_A, L_B) whose values are the score where they differ by rounding, so that they count against it."""
    return np.asarray(np.where(np.isclose(null, scores, rtol=TIE, atol=TIE), scores, null))


def _tiles(layers: Sequence[Callable[[], Moments]], memory: float) -> Iterator[dict[int, Moments]]:
    """Layers by position, as many as have kernels within the memory beside one of the other side; at least one."""
    tile: dict[int, Moments] = {}
    for i, read in enumerate(layers):
        layer = read()
        if tile and 4 * layer.count**2 * (len(tile) + 2) > memory:
            yield tile
            tile = {}
        tile[i] = layer
    yield tile


def _kernel(layer: Moments) -> NDArray[np.float32]:
    """The kernel (N, N) of centred rows."""
    return np.asarray(layer.rows @ layer.rows.T)


def _products(kernels: NDArray[np.float32], other: NDArray[np.float32], orders: Sequence[Order]) -> NDArray[np.float64]:
    """<K, L relabelled> (L_A, K) of kernels (L_A, N, N) and L (N, N)."""
    count = len(other)
    found = np.zeros((len(kernels), len(orders)))
    step = max(1, _BLOCK_BYTES // (4 * count * _ORDERS))
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        block = kernels[:, rows].reshape(len(kernels), -1)
        for first in range(0, len(orders), _ORDERS):
            some = orders[first : first + _ORDERS]
            moved = np.stack([other[order[rows]][:, order].ravel() for order in some])
            found[:, first : first + len(some)] += block @ moved.T
    return found


def _scores(
    name: str, a: Moments, b: Moments, products: NDArray[np.float64], orders: Sequence[Order], eps: float
) -> NDArray[np.float64]:
    """Scores (K,) of one pair of layers from <K, L relabelled> (K,)."""
    if name == "cka":
        scale = np.sqrt(a.self_product * b.self_product)
        return np.asarray(products / (scale + eps)) if scale > 0 else np.full(len(orders), np.nan)
    scale = np.sqrt(moments.self_hsic(a) * moments.self_hsic(b))
    values = [
        moments.unbiased_hsic(float(product), a.squares, b.squares[order])
        for product, order in zip(products, orders, strict=True)
    ]
    return np.asarray(np.array(values) / (scale + eps))
