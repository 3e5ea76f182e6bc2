"""Metrics on ridge regressions of one side on the other."""

from __future__ import annotations

import math
from typing import Any

from diffalign.alignment import regression
from diffalign.alignment.metrics.declaration import AS_COSTLY, CONSTANT, Metric, one


def _predicted_by_b(a: Any, b: Any, eps: float) -> float:
    return regression.ridge(b, a, eps)


METRICS: dict[str, Metric] = {
    "ridge": Metric(
        regression.ridge,
        "ridge R², A predicts B",
        "regressions",
        symmetric=False,
        lowest=-math.inf,
        highest=one,
        undefined=CONSTANT,
        identical=False,
        null=AS_COSTLY,
    ),
    "ridge_back": Metric(
        _predicted_by_b,
        "ridge R², B predicts A",
        "regressions",
        symmetric=False,
        lowest=-math.inf,
        highest=one,
        undefined=CONSTANT,
        identical=False,
        null=AS_COSTLY,
    ),
}
