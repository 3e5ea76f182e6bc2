"""Alignment of two representations: preparation, neighbour lists, metrics, nulls and intervals."""

from diffalign.alignment.arrays import measure
from diffalign.alignment.metrics import METRICS, Score
from diffalign.alignment.settings import Preparation

__all__ = ["METRICS", "Preparation", "Score", "measure"]
