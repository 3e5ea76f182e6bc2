"""The drop-in for platonic-rep's metrics: published values, rows as they are, and what is refused."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from conftest import golden
from dense_metrics import (
    DENSE,
    dense_biased_hsic,
    dense_unbiased_hsic,
    linear,
    rbf,
    related,
    unit,
    with_ties,
)
from torch.nn import functional

from diffalign.alignment import METRICS, measure
from diffalign.alignment.platonic_metrics import AlignmentMetrics

# what the published script prints
PUBLISHED = ["cycle_knn", "mutual_knn", "lcs_knn", "cka", "unbiased_cka", "cknna", "svcca", "edit_distance_knn"]
KNN = [name for name in PUBLISHED if "nn" in name]


def published_case(name: str) -> tuple[torch.Tensor, torch.Tensor, int, dict[str, float]]:
    """Features as the script that wrote the values had them: clamped, then divided by their norms, float32."""
    arrays = np.load(golden("alignment_metrics.npz"))
    spec = json.loads(golden("alignment_metrics.json").read_text())[name]
    sides = []
    for side in "AB":
        rows = torch.from_numpy(arrays[f"{name}_{side}"])
        if spec["clamp_q"] is not None:
            bound = rows.abs().flatten().sort().values[int(spec["clamp_q"] * rows.numel())]
            rows = rows.clamp(-bound, bound)
        sides.append(functional.normalize(rows, dim=-1))
    return sides[0], sides[1], spec["topk"], spec["values"]


@pytest.mark.parametrize("case", ["plain", "clamped", "wide"])
def test_every_supported_metric_has_its_published_value(case: str) -> None:
    a, b, k, values = published_case(case)
    assert AlignmentMetrics.SUPPORTED_METRICS == PUBLISHED
    for metric in PUBLISHED:
        # the published svcca draws from this generator
        torch.manual_seed(0)
        value = AlignmentMetrics.measure(metric, a, b, **({"topk": k} if metric in KNN else {}))
        assert value == pytest.approx(values[metric], abs=1e-5), metric
        assert isinstance(value, float)
    more = {
        "cka_rbf": AlignmentMetrics.cka(a, b, kernel_metric="rbf"),
        "cknna_biased": AlignmentMetrics.cknna(a, b, topk=k, unbiased=False),
        "cknna_full_k": AlignmentMetrics.cknna(a, b, topk=len(a) - 1),
    }
    for metric, value in more.items():
        assert value == pytest.approx(values[metric], abs=1e-5), metric


@pytest.mark.parametrize("metric", [name for name in PUBLISHED if name != "svcca"])
def test_rows_that_are_not_divided_by_their_norms_are_taken_as_they_are(metric: str) -> None:
    a, b = related(0)
    value = AlignmentMetrics.measure(metric, a, b, **({"topk": 4} if metric in KNN else {}))
    assert value == pytest.approx(DENSE[metric](a, b, 4), abs=1e-5)
    # so norms count
    assert abs(value - DENSE[metric](unit(a), unit(b), 4)) > 1e-3


def test_kernels_of_cka_and_the_published_eps() -> None:
    a, b = related(1)
    cases = {"rbf": ([rbf(a, 3), rbf(b, 3)], a, b), "ip": ([linear(a / 40), linear(b / 40)], a / 40, b / 40)}
    for kernel, ((one, other), *sides) in cases.items():
        for unbiased, hsic in ((False, dense_biased_hsic), (True, dense_unbiased_hsic)):
            expected = hsic(one, other) / (math.sqrt(hsic(one, one) * hsic(other, other)) + 1e-6)
            value = AlignmentMetrics.cka(*sides, kernel_metric=kernel, rbf_sigma=3, unbiased=unbiased)
            assert value == pytest.approx(expected, abs=1e-5)
    # it counts where features are small
    assert AlignmentMetrics.unbiased_cka(a, b) - AlignmentMetrics.unbiased_cka(a / 40, b / 40) > 0.01


def test_tensors_and_arrays_of_any_floating_type() -> None:
    a, b = (unit(side) for side in related(0))
    expected = AlignmentMetrics.mutual_knn(a, b, topk=5)
    assert AlignmentMetrics.mutual_knn(torch.from_numpy(a).requires_grad_(), b.astype(np.float64), 5) == expected
    narrow = [torch.from_numpy(side).bfloat16() for side in (a, b)]
    wide = [side.float().numpy() for side in narrow]
    assert AlignmentMetrics.cka(*narrow) == AlignmentMetrics.cka(*wide)


def test_equally_similar_neighbours_share_their_places() -> None:
    a, b = (unit(side) for side in with_ties(0))
    assert AlignmentMetrics.mutual_knn(a, b, 4) == pytest.approx(DENSE["mutual_knn"](a, b, 4), abs=1e-6)


def test_svcca_follows_the_seed() -> None:
    a, b = related(0)

    def drawn(seed: int) -> float:
        torch.manual_seed(seed)
        return AlignmentMetrics.svcca(a, b, cca_dim=8)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "mutual_nn"}, "unknown metric 'mutual_nn'; did you mean 'mutual_knn'"),
        ({"metric": "rsa"}, "unknown metric 'rsa'"),
        ({"feats_A": np.ones((20, 3, 2), np.float32)}, "feats_A has the shape (20, 3, 2); expected (N, D)"),
        ({"feats_B": torch.ones(20)}, "feats_B has the shape (20,); expected (N, D)"),
        ({"feats_B": np.ones((3, 5))}, "feats_B has the shape (3, 5); expected (N, D), at least 4 samples"),
        ({"feats_B": np.ones((59, 5))}, "feats_A has 60 rows, feats_B 59; they must be of the same samples"),
        ({"feats_A": np.full((60, 5), np.nan)}, "feats_A: 60 of 60 rows are NaN or infinite, the first is row 0"),
        ({"feats_B": torch.full((60, 5), 1e300, dtype=torch.float64)}, "feats_B: 60 of 60 rows are NaN or infinite"),
        ({"feats_A": torch.ones(60, 5, dtype=torch.int64)}, "feats_A: features are floating-point numbers, got torch"),
        ({"topk": 60}, "topk 60: mutual_knn of 60 samples takes 1 to 59"),
        ({"topk": 2.5}, "topk 2.5: mutual_knn of 60 samples takes 1 to 59"),
        ({"metric": "cknna", "topk": 1}, "topk 1: cknna of 60 samples takes 2 to 59"),
        ({"metric": "cknna", "unbiased": False}, "cknna with unbiased=False needs rows of unit norm"),
        ({"metric": "cka", "topk": None, "kernel_metric": "linear"}, "unknown kernel_metric 'linear'"),
        ({"metric": "cka", "topk": None, "rbf_sigma": 0}, "rbf_sigma 0: expected a number above 0"),
        ({"metric": "cka", "topk": None, "feats_A": np.ones((60, 5))}, "cka is not defined: all images of a layer"),
        ({"metric": "svcca", "topk": None, "cca_dim": 12}, "cca_dim 12: the features have at most 11 singular vectors"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    a, b = related(0)
    given = {"metric": "mutual_knn", "feats_A": a, "feats_B": b, "topk": 5, **change}
    if given["topk"] is None:
        del given["topk"]
    with pytest.raises(ValueError, match=re.escape(message)):
        AlignmentMetrics.measure(given.pop("metric"), given.pop("feats_A"), given.pop("feats_B"), **given)


def test_a_metric_without_neighbours_takes_no_topk() -> None:
    with pytest.raises(TypeError, match="cka.* unexpected keyword argument 'topk'"):
        AlignmentMetrics.measure("cka", *related(0), topk=10)


def test_measure_takes_topk() -> None:
    a, b = related(0)
    for metric in METRICS:
        assert measure(metric, a, b, topk=7) == measure(metric, a, b, k=7)
    assert measure("cknna", a, b) == measure("cknna", a, b, topk=10)
    with pytest.raises(ValueError, match="k = 5 and topk = 10 are two words for the neighbours per image; give one"):
        measure("cknna", a, b, k=5, topk=10)
