"""Several sets of tokens in one space, before and after alignment by affinities, and their joint normalized cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.shared_space.affinity import scale, total_variance
from diffalign.shared_space.landmarks import choose
from diffalign.shared_space.ncut import Ncut, ncut
from diffalign.shared_space.rbf import Rbf, fit_rbf

Array = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]

# eigenvectors of each set by itself, of the sets side by side as they are, and of the aligned sets
OWN, BEFORE, AFTER = "own", "before", "after"
# where scores are looked at: features as they are or aligned, what pictures show, and places of cells alone
FEATURES, EIGENVECTORS, POSITIONS = "features", "eigenvectors", "positions"


@dataclass(frozen=True)
class CutSettings:
    """c: the wanted mean of affinities. landmarks, choice: how many, and a word of `landmarks.CHOICES`. eigenvectors:
    how many, the trivial first one among them.
    """

    c: float
    landmarks: int
    choice: str
    eigenvectors: int
    seed: int


@dataclass(frozen=True, eq=False)
class Space:
    """Sets in one space and the cut of all their tokens as one graph. features: name -> (N, d) float32, of one width.

    gamma, variance: of the affinity between all tokens. cut: its nodes are the tokens of the first set, then those of
    the second, and so on.
    """

    features: Mapping[str, Float32]
    gamma: float
    variance: float
    cut: Ncut

    def of_sets(self, rows: Array) -> dict[str, Array]:
        """Rows (S N, k) of all nodes, such as eigenvectors, set by set."""
        return dict(zip(self.features, np.split(rows, len(self.features)), strict=True))


def standardised(x: Array, name: str) -> Float32:
    """Tokens x (N, D) less their mean, divided by the square root of its total variance, which becomes 1.

    Raises ValueError that names the set where features are constant, NaN or infinite.
    """
    try:
        variance = total_variance(x)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if variance == 0:
        raise ValueError(f"{name}: features are constant, all {len(x)} tokens are equal")
    middle = x.mean(axis=0, dtype=np.float64)
    return np.asarray((x - middle) / np.sqrt(variance), np.float32)


def side_by_side(sets: Mapping[str, Float32]) -> dict[str, Float32]:
    """The baseline: `standardised` sets, those of fewer dimensions padded with zeros."""
    width = max(x.shape[1] for x in sets.values())
    return {name: np.pad(x, ((0, 0), (0, width - x.shape[1]))) for name, x in sets.items()}


def common_landmarks(sets: Mapping[str, Float32], settings: CutSettings, keys: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the landmarks, which are the same tokens in all sets.

    sets: `standardised`. keys: of the rows. They are chosen by the distances of all sets together, the sum of squared
    distances in each, so that no set comes first, and tokens that any set tells apart may be landmarks. Raises
    ValueError for fewer tokens than landmarks, and what `landmarks.choose` raises.
    """
    if settings.landmarks > len(keys):
        raise ValueError(f"{settings.landmarks} landmarks of {len(keys)} tokens of all images; name fewer landmarks")
    together = np.concatenate([sets[name] for name in sorted(sets)], axis=1)
    return choose(together, settings.landmarks, settings.choice, settings.seed, keys)


def aligned(
    sets: Mapping[str, Float32], landmarks: NDArray[np.int64], c: float, memory_mb: int
) -> tuple[dict[str, Float32], dict[str, Rbf]]:
    """Affinities (N, m) of each set to its landmarks, auto-scaled, and the transforms that make them.

    Raises ValueError that names the set for a c that no scale reaches.
    """
    transforms: dict[str, Rbf] = {}
    for name, x in sets.items():
        try:
            transforms[name] = fit_rbf(x, landmarks, c, memory_mb)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return {name: transform.apply(sets[name], memory_mb) for name, transform in transforms.items()}, transforms


def space(features: Mapping[str, Float32], settings: CutSettings, keys: Sequence[str], memory_mb: int) -> Space:
    """The joint cut of sets of one width, (N, d) each: one graph of all tokens of all sets.

    γ is the one at which affinities of all nodes to landmarks among them have the mean c; where there are fewer nodes
    than landmarks, all are landmarks.
    """
    nodes = np.concatenate(list(features.values()))
    names = [f"{name}\x00{key}" for name in features for key in keys]
    rows = choose(nodes, min(settings.landmarks, len(nodes)), settings.choice, settings.seed, names)
    gamma, variance = scale(nodes, nodes[rows], settings.c, memory_mb), total_variance(nodes)
    cut = ncut(nodes, settings.eigenvectors, gamma, variance, rows, settings.seed, memory_mb)
    return Space(features, gamma, variance, cut)
