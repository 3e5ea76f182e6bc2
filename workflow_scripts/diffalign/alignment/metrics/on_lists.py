"""Metrics on the shared edges of neighbour graphs."""

from __future__ import annotations

import math

from diffalign.alignment import neighbor_metrics as lists
from diffalign.alignment import nulls
from diffalign.alignment.metrics.declaration import NO_SCALE, Metric, Permutations, one, unbounded


def knn_chance(count: int, k: int) -> float:
    """Expected share of common neighbours of independent representations."""
    return k / (count - 1)


METRICS: dict[str, Metric] = {
    "cycle_knn": Metric(
        lists.cycle_knn,
        "cycle kNN",
        "lists",
        symmetric=False,
        lowest=0,
        highest=one,
        backward=True,
        identical=False,
        null=Permutations(),
        shares=lists.cycle_shares,
    ),
    "mutual_knn": Metric(
        lists.mutual_knn,
        "mutual kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=one,
        chance=knn_chance,
        null=Permutations(exact=nulls.mutual_knn_moments),
        shares=lists.mutual_shares,
    ),
    "lcs_knn": Metric(
        lists.lcs_knn,
        "LCS kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=float,
        null=Permutations(),
        shares=lists.lcs_shares,
    ),
    "edit_distance_knn": Metric(
        lists.edit_distance_knn,
        "edit distance kNN",
        "lists",
        symmetric=True,
        lowest=0,
        highest=one,
        null=Permutations(),
        shares=lists.edit_distance_shares,
    ),
    "cknna": Metric(
        lists.masked_hsic,
        "CKNNA",
        "lists",
        symmetric=False,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        scaled=True,
        minimum_k=2,
        null=Permutations(),
        shares=lists.hsic_shares,
    ),
    "cknna_biased": Metric(
        lists.masked_biased_hsic,
        "biased CKNNA",
        "lists",
        symmetric=True,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        scaled=True,
        includes_self=True,
        minimum_k=2,
        null=Permutations(),
    ),
}
