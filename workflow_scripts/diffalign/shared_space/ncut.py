"""Normalized cut (Shi & Malik 2000): leading eigenvectors of D^-1/2 A D^-1/2, exact or by Nyström's extension.

A is the RBF affinity of all nodes, D its row sums. Eigenvalues lie in [0, 1]; the first is 1, and its vector, the
square root of the degrees, cuts nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import keyed
from diffalign.shared_space.affinity import affinity_blocks, check_rows, rbf_affinity

Floats = NDArray[np.floating[Any]]
Array = NDArray[np.float64]

# as in ncut-pytorch: of fewer nodes the whole affinity is held, 0.5 GB as float64
EXACT_BELOW = 8192
# of so few nodes all eigenvectors take no longer than some of them
_DENSE = 1024
# eigenvalues of the landmarks' affinity below this share of the largest are rounding
_RANK = 1e-10


@dataclass(frozen=True, eq=False)
class Ncut:
    """The leading eigenvectors of a normalized affinity.

    vectors: (N, k), orthonormal columns, the sum of whose cubes is not negative. values: (k,), falling. exact: whether
    the whole affinity was decomposed, not its extension from landmarks.
    """

    vectors: Array
    values: Array
    exact: bool

    def coordinates(self) -> NDArray[np.float32]:
        """(N, k): rows of eigenvectors times eigenvalues, each row divided by its length, as in Ng et al. 2002.

        An eigenvector is the square root of the degree times a function of the nodes; the length of a row takes the
        degree away again. Rows of two nodes of one cluster point in one direction.
        """
        scaled = self.vectors * self.values
        lengths = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
        return np.asarray(scaled / np.maximum(lengths, np.finfo(np.float64).tiny), np.float32)


def ncut(
    x: Floats,
    count: int,
    gamma: float,
    variance: float,
    landmarks: NDArray[np.int64],
    seed: int,
    memory_mb: int = 1024,
    exact_below: int = EXACT_BELOW,
) -> Ncut:
    """The first `count` eigenvectors: `exact` below so many nodes, else `nystrom` from the rows `landmarks`.

    x: (N, D), one row a node. gamma, variance: of `affinity.rbf_affinity`. Raises ValueError for fewer nodes or
    landmarks than eigenvectors, and for NaN.
    """
    if len(x) < exact_below:
        return exact(x, count, gamma, variance, seed)
    return nystrom(x, landmarks, count, gamma, variance, memory_mb)


def exact(x: Floats, count: int, gamma: float, variance: float, seed: int) -> Ncut:
    """Eigenvectors of the whole normalized affinity, in float64; memory 16 N² bytes. See `ncut`.

    seed: of the start of Lanczos' iteration, on which the result does not depend but for rounding.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    _check(x, count, len(x), "nodes")
    points = np.asarray(x, np.float64)
    affinity = np.asarray(rbf_affinity(points, points, gamma, variance), np.float64)
    root = 1 / np.sqrt(affinity.sum(axis=1))
    affinity *= root[:, None]
    affinity *= root
    nodes = len(x)
    # ncut-pytorch solves by a randomised SVD on the global generator, so its vectors differ from run to run
    if nodes <= _DENSE or count >= nodes // 4:
        values, vectors = eigh(affinity, subset_by_index=(nodes - count, nodes - 1), overwrite_a=True)
    else:
        draws = keyed(seed, "ncut", "start")
        values, vectors = eigsh(affinity, count, which="LA", v0=draws.standard_normal(nodes), rng=draws)
    order = np.argsort(-values, kind="stable")
    return Ncut(_signed(vectors[:, order]), np.clip(values[order], 0, 1), True)


def nystrom(
    x: Floats, landmarks: NDArray[np.int64], count: int, gamma: float, variance: float, memory_mb: int = 1024
) -> Ncut:
    """Eigenvectors of Nyström's approximation A ≈ C W⁻¹ Cᵀ, C = A(x, L), W = A(L, L) (Fowlkes et al. 2004).

    Degrees are those of the approximation, at least 1, which is the affinity of a node to itself. With G = D^-1/2 C
    W^-1/2 the normalized approximation is G Gᵀ, whose eigenvectors are G V Λ^-1/2 of GᵀG = V Λ Vᵀ: orthonormal, as W
    has no negative eigenvalues. Memory beside x: 8 N m bytes of m landmarks; time O(N m (D + m)). See `ncut`.

    On 4,000 nodes in twelve clusters, 512 farthest points and ten vectors, the subspace lies 1.3 degrees from that of
    `exact`; `nystrom_propagate` of ncut-pytorch, a sum over nearest landmarks that smooths, lies at 26 degrees.
    """
    from scipy.linalg import eigh

    _check(x, count, len(landmarks), "landmarks")
    points = np.asarray(x[landmarks])
    values, vectors = eigh(np.asarray(rbf_affinity(points, points, gamma, variance), np.float64))
    kept = values > _RANK * values[-1]
    if kept.sum() < count:
        raise ValueError(
            f"{len(landmarks)} landmarks span {int(kept.sum())} dimensions, fewer than {count} eigenvectors; "
            "take more landmarks, or landmarks further apart"
        )
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    extended = np.empty((len(x), whitening.shape[1]))
    for begin, block in affinity_blocks(x, points, gamma, variance, memory_mb):
        extended[begin : begin + len(block)] = block @ whitening
    degrees = np.maximum(extended @ extended.sum(axis=0), 1)
    extended /= np.sqrt(degrees)[:, None]
    squares, turned = eigh(extended.T @ extended)
    leading = np.argsort(-squares, kind="stable")[:count]
    found = extended @ (turned[:, leading] / np.sqrt(squares[leading]))
    return Ncut(_signed(found), np.clip(squares[leading], 0, 1), False)


def subspace_angle(u: Floats, v: Floats) -> float:
    """The largest principal angle between the spans of columns of u (N, k) and v (N, l), in degrees, 0 to 90.

    By sine and cosine (Knyazev & Argentati 2002), so that small angles are not lost to rounding.
    """
    from scipy.linalg import subspace_angles

    return math.degrees(float(subspace_angles(np.asarray(u, np.float64), np.asarray(v, np.float64)).max()))


def _check(x: Floats, count: int, most: int, what: str) -> None:
    if count < 2:
        raise ValueError(f"count of eigenvectors is {count}; the first cuts nothing, so at least 2 are needed")
    if most < count:
        raise ValueError(f"{count} eigenvectors of {most} {what}; there are no more than {what}")
    check_rows(x, "nodes")


def _signed(vectors: Array) -> Array:
    """Each column turned so that the sum of its cubes is not negative: the solver leaves the sign open."""
    signs = np.where(np.power(vectors, 3).sum(axis=0) < 0, -1.0, 1.0)
    return np.asarray(vectors * signs, np.float64)
