"""Similarity of whole models, from the largest scores of their pairs: a matrix, its clustering, a map."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float64]


def between(pairs: Iterable[tuple[str, str, float]]) -> tuple[list[str], Grid]:
    """Models in order of appearance, and their similarity (M, M), NaN on the diagonal and for missing pairs.

    pairs: (A, B, score). Pairs in both directions are averaged.
    """
    scores: dict[tuple[str, str], list[float]] = {}
    models: list[str] = []
    for a, b, value in pairs:
        models += [name for name in (a, b) if name not in models]
        for pair in ((a, b), (b, a)):
            scores.setdefault(pair, []).append(value)
    grid = np.full((len(models), len(models)), np.nan)
    for (a, b), values in scores.items():
        if a != b:
            grid[models.index(a), models.index(b)] = float(np.mean(values))
    return models, grid


def two_sides(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]] | None:
    """The first and the second models of all pairs, in order of appearance. None where a model is both, so that pairs
    within a side exist, and where there are fewer than three models.
    """
    given = list(pairs)
    first, second = (list(dict.fromkeys(side)) for side in zip(*given, strict=True)) if given else ([], [])
    return None if set(first) & set(second) or len(first) + len(second) < 3 else (first, second)


def distances(similarity: Grid, highest: float) -> Grid:
    """Distances (M, M): 1 - similarity / highest, at least 0, and 0 on the diagonal. 1 replaces an infinite highest."""
    top = highest if math.isfinite(highest) else 1.0
    apart = np.maximum(1 - similarity / top, 0)
    np.fill_diagonal(apart, 0)
    return np.asarray(apart)


def clustering(apart: Grid) -> Grid:
    """Average linkage (M - 1, 4) of distances (M, M) without NaN, in SciPy's format, with optimal leaf order.

    Raises ValueError for fewer than two models.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return np.asarray(linkage(squareform(apart, checks=False), method="average", optimal_ordering=True))


def leaves(tree: Grid) -> list[int]:
    """Models in the order of the leaves of a dendrogram."""
    from scipy.cluster.hierarchy import leaves_list

    return [int(i) for i in leaves_list(tree)]


def planar_map(apart: Grid) -> tuple[Grid, float]:
    """Points (M, 2) that approximate distances (M, M) without NaN, and Kruskal's stress-1 (0 for an exact map).

    Metric multidimensional scaling by SMACOF from the classical solution, rotated to its principal axes. The same
    distances give the same points.
    """
    from scipy.spatial.distance import pdist, squareform
    from sklearn.manifold import MDS

    scaling = MDS(metric="precomputed", init="classical_mds", n_init=1, random_state=0, max_iter=1000)
    points = scaling.fit_transform(apart)
    points = points - points.mean(axis=0)
    axes = np.linalg.svd(points, full_matrices=False)[2]
    points = points @ axes.T
    # mirror images are equivalent: the farthest model of each axis lies on its positive side
    farthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[farthest, [0, 1]] < 0, -1.0, 1.0)
    wanted = squareform(apart, checks=False)
    lost = float(np.square(wanted - pdist(points)).sum() / max(float(np.square(wanted).sum()), 1e-300))
    return points, math.sqrt(lost)
