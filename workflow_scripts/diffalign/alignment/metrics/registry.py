"""All metrics by name."""

from __future__ import annotations

from diffalign.alignment.metrics import on_dissimilarities, on_factors, on_lists, on_moments, on_regressions
from diffalign.alignment.metrics.declaration import Metric

_DECLARED = {
    name: metric
    for module in (on_lists, on_moments, on_dissimilarities, on_factors, on_regressions)
    for name, metric in module.METRICS.items()
}
# in the order in which figures and tables show them
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
NEEDS = tuple(dict.fromkeys(metric.needs for metric in METRICS.values()))
