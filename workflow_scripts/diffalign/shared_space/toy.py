"""Two sets of points in the plane that are made of the same points: easy and hard cases of a shared space.

The cases are those of the didactic study of affinity alignment: three blobs are the first set, and a function of them
is the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import keyed
from diffalign.shared_space.affinity import rbf_affinity, scale, total_variance
from diffalign.shared_space.landmarks import choose

Float32 = NDArray[np.float32]
Array = NDArray[np.floating[Any]]

POINTS = 30
CLUSTERS = 3
# of scikit-learn's blobs, for the first seed
RANDOM_STATE = 42
# points of the second set whose first coordinate becomes 50
OUTLIERS = (4, 12)
OUTLIER = 50.0
WIDTH = 8


@dataclass(frozen=True, eq=False)
class Toy:
    """Two sets x, y (30, 2) float32 whose rows belong to one another, and their clusters (30,), sorted.

    names: of the rows, ``00`` … ``29``.
    """

    x: Float32
    y: Float32
    clusters: NDArray[np.int64]
    names: tuple[str, ...]


def blobs(seed: int) -> tuple[Float32, NDArray[np.int64]]:
    """Points (30, 2) of three Gaussian blobs, and the blob (30,) of each, sorted by it.

    Seed 0 is the published set. Points of a blob keep their order; the published code leaves it to the processor, so
    that numbers of points differ from its pictures, and with them which two become outliers.
    """
    from sklearn.datasets import make_blobs

    points, clusters = make_blobs(
        n_samples=POINTS, centers=CLUSTERS, n_features=2, random_state=np.random.RandomState(RANDOM_STATE + seed)
    )
    order = np.argsort(clusters, kind="stable")
    return points[order].astype(np.float32), clusters[order].astype(np.int64)


def _rotated(x: Float32) -> NDArray[np.float64]:
    """Rotate by 45°: x R with R = [[cos, -sin], [sin, cos]]."""
    half = np.sqrt(0.5)
    turned: NDArray[np.float64] = x.astype(np.float64) @ np.array([[half, -half], [half, half]])
    return turned


def isotropic(x: Float32, seed: int) -> Float32:
    """A quarter of the rotated set, + 10."""
    return (0.25 * _rotated(x) + 10).astype(np.float32)


def with_outliers(x: Float32, seed: int) -> Float32:
    """`isotropic`, with two points far away along the first axis."""
    y = isotropic(x, seed)
    y[list(OUTLIERS), 0] = OUTLIER
    return y


def anisotropic(x: Float32, seed: int) -> Float32:
    """The rotated set, squeezed to 1/4 along one axis and stretched to 4 along the other, + 10."""
    return (_rotated(x) * [0.25, 4] + 10).astype(np.float32)


def strongly_anisotropic(x: Float32, seed: int) -> Float32:
    """The rotated set, squeezed to 1/1000 along one axis, + 10."""
    return (_rotated(x) * [0.001, 1] + 10).astype(np.float32)


def network(x: Float32, seed: int, layers: int) -> Float32:
    """A random network of z-scored x: so many linear layers of width 8, the last of width 2, GELU between them.

    Weights and biases are uniform within ± 1 / sqrt(inputs), as torch begins a linear layer, keyed by seed and layers.
    """
    from scipy.special import erf

    hidden = x.astype(np.float64)
    hidden = (hidden - hidden.mean(axis=0)) / hidden.std(axis=0, ddof=1)
    sizes = [x.shape[1], *[WIDTH] * (layers - 1), x.shape[1]]
    for at, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        bound = 1 / np.sqrt(inputs)
        drawn = keyed(seed, f"toy network of {layers}", str(at)).uniform(-bound, bound, (inputs + 1, outputs))
        if at:
            hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        hidden = hidden @ drawn[:-1] + drawn[-1]
    return np.asarray(hidden, np.float32)


def network_of_4(x: Float32, seed: int) -> Float32:
    """`network` of 4 layers."""
    return network(x, seed, 4)


def network_of_12(x: Float32, seed: int) -> Float32:
    """`network` of 12 layers."""
    return network(x, seed, 12)


# case -> the second set, of the first and a seed
SECOND_SETS: Mapping[str, Callable[[Float32, int], Float32]] = {
    "isotropic": isotropic,
    "outliers": with_outliers,
    "anisotropic": anisotropic,
    "strongly_anisotropic": strongly_anisotropic,
    "network_4": network_of_4,
    "network_12": network_of_12,
}


def toy(case: str, seed: int) -> Toy:
    """Both sets of a case. The seed is of blobs and network. Raises ValueError for another case."""
    if case not in SECOND_SETS:
        raise ValueError(f"unknown case '{case}'; allowed: {', '.join(SECOND_SETS)}")
    x, clusters = blobs(seed)
    names = tuple(f"{row:02d}" for row in range(len(x)))
    return Toy(x, SECOND_SETS[case](x, seed), clusters, names)


def stacked_affinity(x_new: Array, y_new: Array) -> Array:
    """The affinity (2N, 2N) of both sets (N, d) together, γ = 1, as the study draws it; 1 where all rows are equal."""
    both = np.concatenate([x_new, y_new])
    variance = total_variance(both)
    return rbf_affinity(both, both, 1.0, variance) if variance > 0 else np.ones((len(both), len(both)), both.dtype)


def merging(affinity: Array, clusters: NDArray[np.int64]) -> float:
    """How far clusters melt into one: the largest mean affinity of two clusters, over the smallest mean within one.

    affinity: (2N, 2N) of `stacked_affinity`. clusters: (N,) of both sets. Near 0 where clusters are apart, near 1
    where two of them are one.
    """
    both = np.concatenate([clusters, clusters])
    known = np.unique(both)
    means = np.array([[affinity[np.ix_(both == a, both == b)].mean() for b in known] for a in known])
    return float(means[~np.eye(len(known), dtype=bool)].max() / means.diagonal().min())


@dataclass(frozen=True, eq=False)
class Aligned:
    """Both sets in a shared space, (30, d) each; γ of both where there is one; rows of landmarks if not all."""

    x_new: Array
    y_new: Array
    gamma_x: float | None = None
    gamma_y: float | None = None
    landmarks: NDArray[np.int64] | None = None


# both sets in a shared space, of a toy and a seed for draws
Fit = Callable[[Toy, int], Aligned]


def unaligned(of: Toy, seed: int) -> Aligned:
    """Both sets as they are."""
    return Aligned(of.x, of.y)


@dataclass(frozen=True)
class ByAffinity:
    """Affinities within each set as features. c: their mean, which gives γ; None for γ = 1. landmarks: ``all`` points,
    the ``last`` ones, or a choice of `landmarks.choose` on the first set. count: of landmarks. cdist: with distances of
    `torch.cdist` in float32, as published, whose squared norms swallow the distances of sets far from the origin.
    """

    c: float | None
    landmarks: str = "all"
    count: int = 5
    cdist: bool = False

    def __call__(self, of: Toy, seed: int) -> Aligned:
        """A fit of a toy."""
        if self.landmarks == "all":
            rows = np.arange(len(of.x))
        elif self.landmarks == "last":
            rows = np.arange(len(of.x) - self.count, len(of.x))
        else:
            rows = choose(of.x, self.count, self.landmarks, seed, of.names)
        affinity = affinity_by_cdist if self.cdist else rbf_affinity
        gamma_x, gamma_y = (1.0 if self.c is None else scale(x, x[rows], self.c) for x in (of.x, of.y))
        x_new = affinity(of.x, of.x[rows], gamma_x, total_variance(of.x))
        y_new = affinity(of.y, of.y[rows], gamma_y, total_variance(of.y))
        return Aligned(x_new, y_new, gamma_x, gamma_y, None if self.landmarks == "all" else rows)


def affinity_by_cdist(x: Array, y: Array, gamma: float, variance: float) -> Array:
    """`rbf_affinity` as the published code computes it, by `torch.cdist` in the dtype of x."""
    import torch

    distances = torch.cdist(torch.from_numpy(x), torch.from_numpy(y))
    made: Array = torch.exp(-distances.square() / (2 * gamma * variance)).numpy()
    return made
