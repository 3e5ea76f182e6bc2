"""The metrics of platonic-rep under their published names, as a drop-in for its ``metrics.py``.

Two lines of a script that imports them from there become::

    sys.path.insert(0, "diffalign/workflow_scripts")  # where this repository lies; sys is imported before
    from diffalign.alignment.platonic_metrics import AlignmentMetrics  # was: from metrics import AlignmentMetrics

and ``AlignmentMetrics.measure("cknna", feats_A, feats_B, topk=10)`` stays as it is. Values are those of platonic-rep
(https://github.com/minyoungg/platonic-rep, ``metrics.py``) on float32 features, its 1e-6 in denominators included, to
1e-5. What differs: no N x N matrix is held, equally similar neighbours of unit rows share their places where the
published code takes them in an arbitrary order, and input without a score is an error where the published code gives
NaN or stops elsewhere. `diffalign.alignment.measure` has more metrics, preparations and no 1e-6.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.arrays import floating, rows_layer
from diffalign.alignment.metrics import METRICS, Settings, measure_grid, score
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.alignment.settings import PARITY_EPS
from diffalign.names import unknown

# products that are held at once
_PRODUCTS = 2**24
# rows whose norms differ from 1 by more are compared by their products, as the published code does
_UNIT = 1e-4


class AlignmentMetrics:
    """Scores of two sets of features whose rows are the same samples in the same order.

    feats_A, feats_B: (N, D_A) and (N, D_B) tensors on any device, or arrays, of any floating type. topk: neighbours per
    sample, itself excluded. Rows are taken as they are: divide them by their norms before, as the published scripts do.
    Every method returns a float. All raise ValueError for features of another type or shape, of different N, NaN or
    infinite, for a topk that N does not hold, and where the score is not defined.
    """

    SUPPORTED_METRICS: ClassVar[list[str]] = [
        "cycle_knn",
        "mutual_knn",
        "lcs_knn",
        "cka",
        "unbiased_cka",
        "cknna",
        "svcca",
        "edit_distance_knn",
    ]

    @staticmethod
    def measure(metric: str, *args: Any, **kwargs: Any) -> float:
        """The metric of this name, with the arguments of its method. Raises UnknownName, a ValueError, for another."""
        if metric not in AlignmentMetrics.SUPPORTED_METRICS:
            raise unknown("metric", metric, AlignmentMetrics.SUPPORTED_METRICS)
        value: float = getattr(AlignmentMetrics, metric)(*args, **kwargs)
        return value

    @staticmethod
    def cycle_knn(feats_A: Any, feats_B: Any, topk: int) -> float:
        """Share of samples that are among the A-neighbours of one of their B-neighbours."""
        return _score("cycle_knn", feats_A, feats_B, topk)

    @staticmethod
    def mutual_knn(feats_A: Any, feats_B: Any, topk: int) -> float:
        """Mean share of common neighbours."""
        return _score("mutual_knn", feats_A, feats_B, topk)

    @staticmethod
    def lcs_knn(feats_A: Any, feats_B: Any, topk: int) -> float:
        """Mean length of the longest common subsequence of the two ordered lists, 0 to topk."""
        return _score("lcs_knn", feats_A, feats_B, topk)

    @staticmethod
    def edit_distance_knn(feats_A: Any, feats_B: Any, topk: int) -> float:
        """1 - mean Levenshtein distance of the two ordered lists / topk."""
        return _score("edit_distance_knn", feats_A, feats_B, topk)

    @staticmethod
    def cka(
        feats_A: Any, feats_B: Any, kernel_metric: str = "ip", rbf_sigma: float = 1.0, unbiased: bool = False
    ) -> float:
        """CKA with the kernel of inner products (``ip``) or exp(-|x - y|² / 2σ²) (``rbf``), by either HSIC."""
        if kernel_metric not in ("ip", "rbf"):
            raise unknown("kernel_metric", kernel_metric, ("ip", "rbf"))
        if not (math.isfinite(rbf_sigma) and rbf_sigma > 0):
            raise ValueError(f"rbf_sigma {rbf_sigma}: expected a number above 0")
        name = ("unbiased_cka" if unbiased else "cka") + ("_rbf" if kernel_metric == "rbf" else "")
        return _score(name, feats_A, feats_B, sigma=rbf_sigma)

    @staticmethod
    def unbiased_cka(feats_A: Any, feats_B: Any, kernel_metric: str = "ip", rbf_sigma: float = 1.0) -> float:
        """`cka` of unbiased HSIC."""
        return AlignmentMetrics.cka(feats_A, feats_B, kernel_metric, rbf_sigma, unbiased=True)

    @staticmethod
    def cknna(feats_A: Any, feats_B: Any, topk: int, *, unbiased: bool = True) -> float:
        """CKA within the common neighbours. Without ``unbiased``, of biased HSIC, and a sample is among its own
        neighbours; rows must then be of unit norm.

        The published default ``topk=None`` and its ``distance_agnostic=True`` stop with an error there, and are no
        arguments here.
        """
        return _score("cknna" if unbiased else "cknna_biased", feats_A, feats_B, topk)

    @staticmethod
    def svcca(feats_A: Any, feats_B: Any, cca_dim: int = 10) -> float:
        """Mean correlation of canonical variates of the cca_dim leading singular vectors, as published: from a
        randomised decomposition, so it scatters by some hundredths.

        Random numbers are drawn from torch's generator of the CPU as the published code draws them: there the value is
        the same after ``torch.manual_seed`` of the same seed. `measure` of `diffalign.alignment` is exact.
        """
        rows = _features(feats_A, feats_B)
        smallest = min(*rows[0].shape, *rows[1].shape)
        if not 1 <= cca_dim <= smallest:
            raise ValueError(f"cca_dim {cca_dim}: the features have at most {smallest} singular vectors")
        return _defined("svcca", _canonical(*(_leading(side, cca_dim) for side in rows)))


def _score(name: str, feats_A: Any, feats_B: Any, topk: int = 1, sigma: float = 1.0) -> float:
    """A metric of this project on the rows as they are, with the published eps."""
    metric = METRICS[name]
    rows = _features(feats_A, feats_B)
    count = len(rows[0])
    if metric.uses_k and not (isinstance(topk, int | np.integer) and metric.minimum_k <= topk < count):
        raise ValueError(f"topk {topk}: {name} of {count} samples takes {metric.minimum_k} to {count - 1}")
    unit = [_is_unit(side) for side in rows]
    if metric.includes_self and not all(unit):
        raise ValueError("cknna with unbiased=False needs rows of unit norm; divide each by its norm")
    names = [str(i) for i in range(count)]

    def lists(side: int) -> Neighbors:
        return nearest_neighbors(rows[side], topk) if unit[side] else _by_products(rows[side], topk)

    a, b = rows_layer(rows[0], names, lambda: lists(0)), rows_layer(rows[1], names, lambda: lists(1))
    return _defined(name, float(measure_grid([name], [a], [b], Settings(topk, PARITY_EPS, sigma))[name][0, 0]))


def _defined(name: str, value: float) -> float:
    """The value. ValueError where it is NaN."""
    if math.isnan(value):
        raise ValueError(f"{name} is not defined: {score(name, value).undefined}")
    return value


def _features(feats_A: Any, feats_B: Any) -> list[NDArray[np.float32]]:
    """Both sides as float32. ValueError that names the side for what cannot be measured."""
    sides = []
    for name, given in (("feats_A", feats_A), ("feats_B", feats_B)):
        try:
            values = floating(given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if values.ndim != 2 or values.shape[0] < 4 or values.shape[1] < 1:
            raise ValueError(f"{name} has the shape {values.shape}; expected (N, D), at least 4 samples")
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(values, np.float32)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ValueError(f"{name}: {len(bad)} of {len(rows)} rows are NaN or infinite, the first is row {bad[0]}")
        sides.append(rows)
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"feats_A has {len(sides[0])} rows, feats_B {len(sides[1])}; they must be of the same samples")
    return sides


def _is_unit(rows: NDArray[np.float32]) -> bool:
    return bool((np.abs(np.linalg.norm(rows, axis=1) - 1) < _UNIT).all())


def _by_products(rows: NDArray[np.float32], k: int) -> Neighbors:
    """The k samples with the largest inner products with each, itself excluded, in descending order; ties by index."""
    count = len(rows)
    double = rows.astype(np.float64)
    indices, similarities = np.empty((count, k), np.int32), np.empty((count, k), np.float32)
    step = max(1, _PRODUCTS // count)
    for start in range(0, count, step):
        products = double[start : start + step] @ double.T
        own = np.arange(len(products))
        products[own, start + own] = -np.inf
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        indices[start : start + step] = order
        similarities[start : start + step] = np.take_along_axis(products, order, axis=1)
    return Neighbors(indices, similarities)


def _leading(rows: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Leading left singular vectors (N, dimensions) of standardised columns, from a randomised decomposition."""
    import torch

    centred = torch.from_numpy(rows)
    centred = centred - centred.mean(dim=0)
    vectors: NDArray[np.float32] = torch.svd_lowrank(centred / (centred.std(dim=0) + 1e-8), q=dimensions)[0].numpy()
    return vectors


def _canonical(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean correlation of the canonical variates that scikit-learn's CCA finds; NaN where one is constant."""
    from sklearn.cross_decomposition import CCA

    of_a, of_b = CCA(n_components=a.shape[1]).fit(a, b).transform(a, b)
    of_a, of_b = of_a - of_a.mean(axis=0), of_b - of_b.mean(axis=0)
    scale = np.sqrt(np.square(of_a).sum(axis=0) * np.square(of_b).sum(axis=0))
    return float(((of_a * of_b).sum(axis=0) / scale).mean()) if (scale > 0).all() else math.nan
