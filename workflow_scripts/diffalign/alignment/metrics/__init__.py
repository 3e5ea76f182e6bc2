"""Alignment metrics: each is one function and one declaration of its properties.

A metric `needs` one kind of prepared layer, shared by all pairs and metrics: ``lists`` (nearest neighbours),
``moments`` (centred features), ``patterns`` (centred features of standardised rows), ``factors`` (leading singular
vectors), ``ranks`` (of all dissimilarities), ``rbf`` (kernel rows), ``regressions`` (rows in folds).
"""

from diffalign.alignment.metrics.declaration import (
    NEEDS,
    UNDEFINED,
    BothSides,
    ClosedForm,
    Grid,
    Layer,
    Metric,
    NoNull,
    Null,
    Permutations,
    Score,
    Settings,
    first_lists,
)
from diffalign.alignment.metrics.engine import NeighborScores, check_range, error_grid, measure_grid, prepare, score
from diffalign.alignment.metrics.registry import METRICS

__all__ = [
    "METRICS",
    "NEEDS",
    "UNDEFINED",
    "BothSides",
    "ClosedForm",
    "Grid",
    "Layer",
    "Metric",
    "NeighborScores",
    "NoNull",
    "Null",
    "Permutations",
    "Score",
    "Settings",
    "check_range",
    "error_grid",
    "first_lists",
    "measure_grid",
    "prepare",
    "score",
]
