"""Scores of plain arrays and tensors, without files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Layer, Score, Settings, measure_grid, score
from diffalign.alignment.preparation import directions, kernel_rows
from diffalign.alignment.regression import FOLDS
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.names import unknown

# neighbours per image, where none are asked for
DEFAULT_K = 10


def measure(
    metric: str,
    a: Any,
    b: Any,
    *,
    k: int | None = None,
    topk: int | None = None,
    eps: float = 0.0,
    rbf_sigma: float = 1.0,
    preparation: Preparation | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Score:
    """The alignment of two sets of features whose rows are the same images in the same order.

    metric: a key of `diffalign.alignment.METRICS`. a, b: (N, D_A) and (N, D_B) arrays, or tensors on any device, of any
    floating type. k: neighbours per image, itself excluded, 10 by default; topk is platonic-rep's word for it.
    preparation: by default rows are divided by their norm, and nothing else. names: of the images, for messages and for
    the folds of ridge regression, which are drawn by (seed, name); row numbers by default. Raises ValueError where N
    differs, the metric is unknown, k does not fit or both words are given, FeatureError for rows that are NaN, infinite
    or zero.
    """
    if k is not None and topk is not None:
        raise ValueError(f"k = {k} and topk = {topk} are two words for the neighbours per image; give one of them")
    neighbors = next((given for given in (k, topk) if given is not None), DEFAULT_K)
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    features = [floating(side) for side in (a, b)]
    if len(features[0]) != len(features[1]):
        raise ValueError(
            f"a and b have {len(features[0])} and {len(features[1])} rows; they must be of the same images"
        )
    given = [str(i) for i in range(len(features[0]))] if names is None else list(names)
    if len(given) != len(features[0]) or len(set(given)) != len(given):
        raise ValueError(f"{len(features[0])} rows need as many different names, got {len(set(given))}")
    layers = [array_layer(side, given, neighbors, preparation, seed) for side in features]
    value = measure_grid([metric], layers[:1], layers[1:], Settings(neighbors, eps, rbf_sigma))[metric][0, 0]
    return score(metric, float(value))


def array_layer(
    features: NDArray[np.floating],
    names: Sequence[str],
    k: int,
    preparation: Preparation | None = None,
    seed: int = 0,
    bound: float | None = None,
) -> Layer:
    """Features (N, D) as a layer. They are prepared here; lists of k neighbours and folds are computed on use."""
    rows = kernel_rows(features, names, preparation, bound)
    unit = directions(rows, preparation or Preparation())
    return rows_layer(rows, names, partial(nearest_neighbors, unit, k), seed)


def rows_layer(
    rows: NDArray[np.float32], groups: Sequence[str], lists: Callable[[], Neighbors], seed: int = 0
) -> Layer:
    """Prepared rows (N, D) as a layer. Lists are computed on first use and kept; folds are of whole groups, drawn by
    (seed, group). groups: of every image; its name where it is independent of all others.
    """
    return Layer(len(rows), cache(lists), lambda: rows, lambda: Groups.of(groups).dealt(FOLDS, seed, "folds"))


def floating(features: Any) -> NDArray[np.floating]:
    """Features as an array of floating type, from an array or a tensor on any device. ValueError for other numbers."""
    if hasattr(features, "detach"):
        if not features.is_floating_point():
            raise ValueError(f"features are floating-point numbers, got {features.dtype}")
        # NumPy has no bfloat16
        features = features.detach().cpu().double().numpy()
    array = np.asarray(features)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"features are floating-point numbers, got {array.dtype}")
    return array
