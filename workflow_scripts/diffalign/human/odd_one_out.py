"""Odd-one-out: the pair of a triplet that a representation finds most similar leaves the odd one; people chose one,
too.

Similarities of all pairs of objects come from one product of matrices a layer, of which triplets are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.human.choices import closest_pairs, gather
from diffalign.human.reduction import Products
from diffalign.human.triplets import Triplets

DISTANCES = ("cosine", "euclidean", "dot", "correlation")
TIES = ("fair", "published")
CHANCE = 1 / 3
_MEMORY_MB = 1000
# how many pairs a code of `closest_pairs` has, and the odd one of its first pair; -1 where all three are equal
_PAIRS = np.array([0, 1, 1, 2, 1, 2, 2, 3], np.int8)
_ODD = np.array([-1, 2, 1, 2, 0, 2, 1, -1], np.int8)


@dataclass(frozen=True, eq=False)
class Choices:
    """What a layer does on T triplets. closest: (T,) uint8, which pairs are the most similar, as `closest_pairs`."""

    closest: NDArray[np.uint8]

    @property
    def odd(self) -> NDArray[np.int8]:
        """(T,) the position of the odd one by the published rule: the first of equal distances; -1 if all are equal."""
        return _ODD[self.closest]

    @property
    def tie_rate(self) -> float:
        """Share of triplets in which two or three pairs are the most similar."""
        return float((_PAIRS[self.closest] > 1).mean())

    def credit(self, ties: str = "fair") -> NDArray[np.float64]:
        """(T,) the share of each choice that is predicted; the odd one stands last.

        ties: ``fair``, 1/m where the right pair is one of m equal ones; ``published``, the rule of human_alignment,
        which gives a tie of two to the pair that stands first, and nothing where all three are equal.
        Raises ValueError for another rule.
        """
        if ties == "fair":
            return np.asarray(np.where(self.closest & 1, 1.0 / np.maximum(_PAIRS[self.closest], 1), 0.0))
        if ties == "published":
            return np.asarray(self.odd == 2, np.float64)
        raise ValueError(f"unknown rule of ties '{ties}'; allowed: {', '.join(TIES)}")


def compared(rows: NDArray[np.floating], distance: str) -> NDArray[np.float64]:
    """Rows (N, D) whose dot products decide: of norm 1 for ``cosine``, less the mean of each row before that for
    ``correlation``, less the mean of all rows for ``euclidean``, which that does not change.

    A row of zeros has similarity 0 to all, as in torch. Raises ValueError for another distance, NaN and infinity.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance '{distance}'; allowed: {', '.join(DISTANCES)}")
    x = np.asarray(rows, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(f"features are {x.shape}, or NaN or infinite; expected finite (N, D)")
    if distance == "correlation":
        x = x - x.mean(axis=1, keepdims=True)
    if distance in ("cosine", "correlation"):
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x / np.where(norms > 0, norms, 1))
    return x - x.mean(axis=0) if distance == "euclidean" else x


def pair_similarities(
    rows: NDArray[np.floating], triplets: Triplets, distance: str = "cosine", memory_mb: int = _MEMORY_MB
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarities (T, 3) of the pairs (0, 1), (0, 2), (1, 2) of each triplet, and the squared norms (N,) compared.

    rows: (N, D). ``euclidean`` gives minus the squared distance. memory_mb: for a block of similarities between objects
    at a time; the result does not depend on it but for rounding far below a tie. Raises ValueError where rows and
    objects differ in number.
    """
    if len(rows) != triplets.count:
        raise ValueError(f"{len(rows)} rows of features for {triplets.count} objects")
    x = compared(rows, distance)
    sizes = np.einsum("nd,nd->n", x, x)
    similarities = np.empty((len(triplets), 3))
    for start, products in _blocks(x, memory_mb):
        block = (
            2 * products - sizes - sizes[start : start + len(products), None] if distance == "euclidean" else products
        )
        gather(triplets.objects, block, start, similarities)
    return similarities, sizes


def similarities_of_products(
    products: Products, triplets: Triplets, distance: str = "cosine"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `pair_similarities`, from the products of rows alone. Raises ValueError for another distance or number."""
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance '{distance}'; allowed: {', '.join(DISTANCES)}")
    if len(products.sums) != triplets.count:
        raise ValueError(f"{len(products.sums)} rows of features for {triplets.count} objects")
    x = products.centred if distance == "euclidean" else products.plain
    if distance == "correlation":
        x = x - np.outer(products.sums, products.sums) / products.width
    if distance in ("cosine", "correlation"):
        norms = np.sqrt(np.maximum(np.diag(x), 0))
        norms = np.where(norms > 0, norms, 1)
        x = x / norms / norms[:, None]
    sizes = np.diag(x).copy()
    if distance == "euclidean":
        x = 2 * x - sizes - sizes[:, None]
    similarities = np.empty((len(triplets), 3))
    gather(triplets.objects, np.ascontiguousarray(x), 0, similarities)
    return similarities, sizes


def odd_one_out(
    rows: NDArray[np.floating], triplets: Triplets, distance: str = "cosine", memory_mb: int = _MEMORY_MB
) -> Choices:
    """The pairs of each triplet that rows (N, D) find most similar. Raises ValueError as `pair_similarities`."""
    similarities, sizes = pair_similarities(rows, triplets, distance, memory_mb)
    return Choices(closest_pairs(triplets.objects, similarities, sizes))


def _blocks(x: NDArray[np.float64], memory_mb: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    size = max(1, int(memory_mb * 2**20 / (8 * len(x))))
    if size >= len(x):
        # a product with itself takes half of the work
        yield 0, x @ x.T
        return
    for start in range(0, len(x), size):
        yield start, x[start : start + size] @ x.T


@dataclass(frozen=True)
class Likelihood:
    """Softmax over the three pairs. nll: mean of -log p of the pair that people left, nats, at temperature 1.

    fitted: the same at the temperature that makes it smallest; inf is a temperature at which all pairs are alike.
    """

    nll: float
    fitted: float
    temperature: float


def likelihood(similarities: NDArray[np.float64]) -> Likelihood:
    """Of people's choices under softmax(similarity / temperature), similarities (T, 3) with the right pair first.

    The temperature is fitted to these very choices; in 1 / temperature the criterion is convex.
    """
    margins = similarities[:, 1:] - similarities[:, :1]

    def criterion(beta: float) -> tuple[float, float, float]:
        """The mean of -log p at 1 / temperature, and its first two derivatives."""
        scaled = beta * margins
        top = np.maximum(scaled.max(axis=1), 0)
        weights = np.exp(scaled - top[:, None])
        total = np.exp(-top) + weights.sum(axis=1)
        shares = weights / total[:, None]
        slope = (shares * margins).sum(axis=1)
        curve = (shares * margins**2).sum(axis=1) - slope**2
        return float((top + np.log(total)).mean()), float(slope.mean()), float(curve.mean())

    at_one = criterion(1.0)[0]
    beta, value, slope, curve = 0.0, *criterion(0.0)
    if slope >= 0:
        return Likelihood(at_one, value, float("inf"))
    for _ in range(100):
        if curve <= 0:
            break
        step = -slope / curve
        moved = criterion(beta + step)
        while moved[0] > value + 1e-15 * abs(value):
            step /= 2
            moved = criterion(beta + step)
        beta, (value, slope, curve) = beta + step, moved
        if abs(step) <= 1e-10 * max(beta, 1e-300):
            break
    return Likelihood(at_one, value, 1 / beta if beta > 0 else float("inf"))


def per_object(gained: NDArray[np.float64], triplets: Triplets) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean credit gained (T,) on the choices that an object is part of, (N,), NaN where there is none; their number
    (N,).
    """
    counts = np.bincount(triplets.objects.ravel(), minlength=triplets.count)
    sums = np.bincount(triplets.objects.ravel(), np.repeat(gained, 3), triplets.count)
    return np.divide(sums, counts, out=np.full(triplets.count, np.nan), where=counts > 0), counts


def per_category(
    gained: NDArray[np.float64], triplets: Triplets, members: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same for categories of objects, members (C, N): mean credit (C,) of the choices with at least one member."""
    parts = [members[c][triplets.objects].any(axis=1) for c in range(len(members))]
    counts = np.array([int(part.sum()) for part in parts])
    means = np.array([gained[part].mean() if part.any() else np.nan for part in parts])
    return means, counts
