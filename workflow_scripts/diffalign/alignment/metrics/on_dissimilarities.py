"""Metrics on RBF kernels and on ranks of all dissimilarities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffalign.alignment import dissimilarities, nulls
from diffalign.alignment.metrics.declaration import (
    AS_COSTLY,
    CONSTANT,
    NO_SCALE,
    BothSides,
    ClosedForm,
    Grid,
    Metric,
    one,
    unbounded,
)
from diffalign.alignment.metrics.on_moments import no_chance
from diffalign.alignment.nulls import NullMoments


def _cka_rbf(a: Sequence[Any], b: Sequence[Any], eps: float) -> Grid:
    return dissimilarities.rbf_cka(a, b, unbiased=False, eps=eps)


def _unbiased_cka_rbf(a: Sequence[Any], b: Sequence[Any], eps: float) -> Grid:
    return dissimilarities.rbf_cka(a, b, unbiased=True, eps=eps)


def _unbiased_kernel_null(sides: BothSides) -> NullMoments:
    return nulls.unbiased_kernel_moments(sides.count, sides.shape)


METRICS: dict[str, Metric] = {
    "cka_rbf": Metric(
        _cka_rbf, "RBF CKA", "rbf", symmetric=True, lowest=0, highest=one, undefined=CONSTANT, null=AS_COSTLY
    ),
    "unbiased_cka_rbf": Metric(
        _unbiased_cka_rbf,
        "unbiased RBF CKA",
        "rbf",
        symmetric=True,
        lowest=-math.inf,
        highest=unbounded,
        undefined=NO_SCALE,
        chance=no_chance,
        null=ClosedForm(_unbiased_kernel_null),
    ),
    "rsa": Metric(
        dissimilarities.rsa,
        "RSA (Spearman)",
        "ranks",
        symmetric=True,
        lowest=-1,
        highest=one,
        orthogonal=False,
        undefined="all pairs of images are equally dissimilar",
        chance=no_chance,
        null=AS_COSTLY,
    ),
}
