"""How alike whole models are, from the largest scores of their pairs: a matrix, its clustering, a map."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float64]


def between(pairs: Iterable[tuple[str, str, float]]) -> tuple[list[str], Grid]:
    """Models in the order they appear, and their similarity (M, M): NaN on the diagonal and where a pair is missing.

    pairs: (A, B, score). Where both directions of a pair are there, the mean of them stands.
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
    """The models that stand first and those that stand second, in the order they appear, where none is both and there
    are at least three: then pairs within a side were not asked for. Else None.
    """
    given = list(pairs)
    first, second = (list(dict.fromkeys(side)) for side in zip(*given, strict=True)) if given else ([], [])
    return None if set(first) & set(second) or len(first) + len(second) < 3 else (first, second)


def distances(similarity: Grid, highest: float) -> Grid:
    """1 - similarity / highest, at least 0, with a diagonal of 0; 1 stands in for an infinite `highest`."""
    top = highest if math.isfinite(highest) else 1.0
    apart = np.maximum(1 - similarity / top, 0)
    np.fill_diagonal(apart, 0)
    return np.asarray(apart)


def clustering(apart: Grid) -> Grid:
    """Average linkage of distances (M, M) without NaN, as SciPy holds it: (M - 1, 4), leaves in their best order.

    Raises ValueError for fewer than two models.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return np.asarray(linkage(squareform(apart, checks=False), method="average", optimal_ordering=True))


def leaves(tree: Grid) -> list[int]:
    """Models in the order in which a dendrogram has them."""
    from scipy.cluster.hierarchy import leaves_list

    return [int(i) for i in leaves_list(tree)]


def planar_map(apart: Grid) -> tuple[Grid, float]:
    """Points (M, 2) whose distances are nearest to those given, (M, M) without NaN, and what is lost.

    Metric multidimensional scaling by SMACOF from the classical solution, turned to its principal axes; the same
    distances give the same points. The second value is Kruskal's stress-1, 0 where nothing is lost.
    """
    from scipy.spatial.distance import pdist, squareform
    from sklearn.manifold import MDS

    scaling = MDS(metric="precomputed", init="classical_mds", n_init=1, random_state=0, max_iter=1000)
    points = scaling.fit_transform(apart)
    points = points - points.mean(axis=0)
    axes = np.linalg.svd(points, full_matrices=False)[2]
    points = points @ axes.T
    # a mirror image is as good, so the farthest model of each axis lies on its positive side
    farthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[farthest, [0, 1]] < 0, -1.0, 1.0)
    wanted = squareform(apart, checks=False)
    lost = float(np.square(wanted - pdist(points)).sum() / max(float(np.square(wanted).sum()), 1e-300))
    return points, math.sqrt(lost)
