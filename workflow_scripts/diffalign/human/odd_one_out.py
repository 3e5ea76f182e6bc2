"""Odd-one-out choices of representations, compared with those of people.

A representation chooses the object that is left by the most similar pair of a triplet. Similarities of all pairs of
objects come from one matrix product per layer; triplets are looked up in it.
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
# number of pairs in a code of `closest_pairs`, and the odd one of its first pair; -1 where all three are equal
_PAIRS = np.array([0, 1, 1, 2, 1, 2, 2, 3], np.int8)
_ODD = np.array([-1, 2, 1, 2, 0, 2, 1, -1], np.int8)


@dataclass(frozen=True, eq=False)
class Choices:
    """Choices of a layer on T triplets. closest: (T,) uint8, codes of the most similar pairs (`closest_pairs`)."""

    closest: NDArray[np.uint8]

    @property
    def odd(self) -> NDArray[np.int8]:
        """Position (T,) of the odd one by the published rule: the first of equal pairs; -1 if all three are equal."""
        return _ODD[self.closest]

    @property
    def tie_rate(self) -> float:
        """Share of triplets in which two or three pairs tie for the most similar."""
        return float((_PAIRS[self.closest] > 1).mean())

    def credit(self, ties: str = "fair") -> NDArray[np.float64]:
        """Credit (T,) for predicting the human choice, which is the last object of a triplet.

        ties: ``fair``, 1/m where the right pair is one of m tied pairs; ``published``, the rule of human_alignment: a
        tie of two goes to the first pair, a tie of three has no credit. Raises ValueError for another rule.
        """
        if ties == "fair":
            return np.asarray(np.where(self.closest & 1, 1.0 / np.maximum(_PAIRS[self.closest], 1), 0.0))
        if ties == "published":
            return np.asarray(self.odd == 2, np.float64)
        raise ValueError(f"unknown rule of ties '{ties}'; allowed: {', '.join(TIES)}")


def compared(rows: NDArray[np.floating], distance: str) -> NDArray[np.float64]:
    """Rows (N, D) float64 whose dot products are compared.

    ``cosine``: rows of norm 1. ``correlation``: rows minus their own mean, then of norm 1. ``euclidean``: rows minus
    the mean row, which leaves distances unchanged. ``dot``: rows as they are. A row of zeros has similarity 0 to all,
    as in torch. Raises ValueError for another distance, NaN and infinity.
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
    """Similarities (T, 3) of the pairs (0, 1), (0, 2), (1, 2) of each triplet, and squared norms (N,) of the rows.

    rows: (N, D). ``euclidean``: minus the squared distance. memory_mb: for a block of similarities between objects; it
    changes results by rounding, far less than a tie. Raises ValueError where the number of rows is not that of objects.
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
    """The results of `pair_similarities`, from products of rows. Raises ValueError for another distance or number."""
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
    """Choices of rows (N, D) on every triplet. Raises ValueError as `pair_similarities`."""
    similarities, sizes = pair_similarities(rows, triplets, distance, memory_mb)
    return Choices(closest_pairs(triplets.objects, similarities, sizes))


def _blocks(x: NDArray[np.float64], memory_mb: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    size = max(1, int(memory_mb * 2**20 / (8 * len(x))))
    if size >= len(x):
        # half of the work, by symmetry
        yield 0, x @ x.T
        return
    for start in range(0, len(x), size):
        yield start, x[start : start + size] @ x.T


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of human choices under a softmax over the three pairs.

    nll: mean of -log p of the pair that people left, in nats, at temperature 1. fitted: the same at the best
    temperature. temperature: the best one; inf means that all pairs are equally likely.
    """

    nll: float
    fitted: float
    temperature: float


def likelihood(similarities: NDArray[np.float64]) -> Likelihood:
    """Likelihood of human choices under softmax(similarity / temperature).

    similarities: (T, 3), the pair that people left first. The temperature is fitted to the same choices, by Newton's
    method: the criterion is convex in 1 / temperature.
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
    """Mean credit (N,) of the choices with each object, NaN without a choice, and their number (N,). gained: (T,)."""
    counts = np.bincount(triplets.objects.ravel(), minlength=triplets.count)
    sums = np.bincount(triplets.objects.ravel(), np.repeat(gained, 3), triplets.count)
    return np.divide(sums, counts, out=np.full(triplets.count, np.nan), where=counts > 0), counts


def per_category(
    gained: NDArray[np.float64], triplets: Triplets, members: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean credit (C,) and number (C,) of the choices with at least one member of each category. members: (C, N)."""
    parts = [members[c][triplets.objects].any(axis=1) for c in range(len(members))]
    counts = np.array([int(part.sum()) for part in parts])
    means = np.array([gained[part].mean() if part.any() else np.nan for part in parts])
    return means, counts
