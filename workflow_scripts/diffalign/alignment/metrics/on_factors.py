"""Metrics on leading singular vectors."""

from __future__ import annotations

from diffalign.alignment import factors, nulls
from diffalign.alignment.metrics.declaration import Metric, Permutations, one

METRICS: dict[str, Metric] = {
    "svcca": Metric(
        factors.svcca,
        "SVCCA",
        "factors",
        symmetric=True,
        lowest=0,
        highest=one,
        orthogonal=False,
        undefined=f"a layer spans fewer than {factors.SVCCA_DIMENSIONS} dimensions",
        null=Permutations(nulls.svcca_under),
    ),
}
