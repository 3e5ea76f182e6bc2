"""Metrics on centred features and on standardised features."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import moments, nulls
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics.declaration import (
    AS_COSTLY,
    CONSTANT,
    NO_SCALE,
    BothSides,
    ClosedForm,
    Metric,
    one,
    unbounded,
)
from diffalign.alignment.nulls import NullMoments


def no_chance(count: int, k: int) -> float:
    """Mean score of independent representations."""
    return 0.0


def _cka_error(a: Any, b: Any, groups: Groups | None) -> float:
    return moments.cka_error(a, b, unbiased=False, groups=groups)


def _unbiased_cka_error(a: Any, b: Any, groups: Groups | None) -> float:
    return moments.cka_error(a, b, unbiased=True, groups=groups)


def _cka_difference(first: Any, second: Any, groups: Groups | None) -> tuple[float, NDArray[np.float64]]:
    return moments.cka_difference(first, second, unbiased=False, groups=groups)


def _unbiased_cka_difference(first: Any, second: Any, groups: Groups | None) -> tuple[float, NDArray[np.float64]]:
    return moments.cka_difference(first, second, unbiased=True, groups=groups)


def _cka_null(sides: BothSides) -> NullMoments:
    a, b = sides.kernel_sums
    return _bounded(nulls.cka_moments(a.sums, b.sums, (a.cubes, b.cubes)), sides.count, a.biased, b.biased)


def _unbiased_cka_null(sides: BothSides) -> NullMoments:
    a, b = sides.kernel_sums
    found = nulls.unbiased_cka_moments(a.sums, b.sums, (a.cubes, b.cubes))
    return _bounded(found, sides.count, a.unbiased, b.unbiased)


def _bounded(found: NullMoments, count: int, a: list[float], b: list[float]) -> NullMoments:
    """The moments, with where their distribution holds. a, b: effective numbers of images."""
    assert found.skewness is not None
    return replace(found, holds=nulls.pearson_holds(found.skewness, count, a, b))


def _rsa_pearson_null(sides: BothSides) -> NullMoments:
    return nulls.rsa_pearson_moments(*sides.pattern_sums)


METRICS: dict[str, Metric] = {
    "cka": Metric(
        moments.cka,
        "CKA",
        "moments",
        symmetric=True,
        lowest=0,
        highest=one,
        undefined=CONSTANT,
        null=ClosedForm(_cka_null, by_kernels=True),
        error=_cka_error,
        difference=_cka_difference,
    ),
    "unbiased_cka": Metric(
        moments.unbiased_cka,
        "unbiased CKA",
        "moments",
        symmetric=True,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        chance=no_chance,
        null=ClosedForm(_unbiased_cka_null, by_kernels=True),
        error=_unbiased_cka_error,
        difference=_unbiased_cka_difference,
    ),
    "procrustes": Metric(
        moments.procrustes,
        "Procrustes",
        "moments",
        symmetric=True,
        lowest=0,
        highest=one,
        undefined=CONSTANT,
        null=AS_COSTLY,
    ),
    "rsa_pearson": Metric(
        moments.rsa_pearson,
        "RSA (Pearson)",
        "patterns",
        symmetric=True,
        lowest=-1,
        highest=one,
        orthogonal=False,
        undefined="all pairs of images are equally dissimilar",
        chance=no_chance,
        null=ClosedForm(_rsa_pearson_null),
    ),
}
