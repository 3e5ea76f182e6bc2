"""All metrics by name."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from diffalign.alignment.metrics import on_dissimilarities, on_factors, on_lists, on_moments, on_regressions
from diffalign.alignment.metrics.declaration import Metric


def _declared(modules: Iterable[ModuleType]) -> dict[str, Metric]:
    """The metrics of all modules. Raises ValueError for a name that two modules declare."""
    metrics: dict[str, Metric] = {}
    for module in modules:
        twice = sorted(metrics.keys() & module.METRICS)
        if twice:
            raise ValueError(f"{module.__name__} declares metrics that another module has declared: {', '.join(twice)}")
        metrics |= module.METRICS
    return metrics


_DECLARED = _declared((on_lists, on_moments, on_dissimilarities, on_factors, on_regressions))
# order of figures and tables
_ORDER = (
    "cycle_knn",
    "mutual_knn",
    "lcs_knn",
    "edit_distance_knn",
    "cknna",
    "cknna_biased",
    "cka",
    "unbiased_cka",
    "cka_rbf",
    "unbiased_cka_rbf",
    "svcca",
    "procrustes",
    "rsa",
    "rsa_pearson",
    "ridge",
    "ridge_back",
)
METRICS: dict[str, Metric] = {name: _DECLARED[name] for name in (*_ORDER, *_DECLARED)}
