"""Alignment metrics, each one function and one declaration of its properties.

A metric `needs` one kind of preparation per layer, which is made once and shared by all pairs and metrics that need
it: ``lists`` (nearest neighbours), ``moments`` (centred features), ``patterns`` (the same of standardised rows),
``factors`` (leading singular vectors), ``ranks`` (of all dissimilarities), ``rbf`` (kernel rows), ``regressions``.
"""

from diffalign.alignment.metrics.declaration import (
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
)
from diffalign.alignment.metrics.engine import NeighborScores, error_grid, first_lists, measure_grid, prepare, score
from diffalign.alignment.metrics.registry import METRICS, NEEDS

__all__ = [
    "METRICS",
    "NEEDS",
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
    "error_grid",
    "first_lists",
    "measure_grid",
    "prepare",
    "score",
]
