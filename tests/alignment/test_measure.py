"""What `measure` takes and refuses."""

import math

import numpy as np
import pytest
import torch
from dense_metrics import names, related

from diffalign.alignment import measure
from diffalign.alignment.preparation import FeatureError
from diffalign.names import UnknownName


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_floating_type(dtype: torch.dtype) -> None:
    tensors = [torch.from_numpy(x).to(dtype) for x in related(0)]
    a, b = (tensor.float().numpy() for tensor in tensors)
    for metric in ("mutual_knn", "cknna", "cka"):
        assert measure(metric, *tensors) == measure(metric, a, b)
    assert measure("cka", tensors[0].requires_grad_(), b) == measure("cka", a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_arrays_of_any_floating_type(dtype: type) -> None:
    a, b = (x.astype(dtype) for x in related(0))
    assert measure("cka", a, b) == measure("cka", a.astype(np.float32), b.astype(np.float32))


@pytest.mark.parametrize(
    ("integers", "kind"),
    [
        (np.arange(60).reshape(20, 3), "int64"),
        (np.ones((20, 3), bool), "bool"),
        (torch.ones(20, 3, dtype=torch.int32), "torch.int32"),
    ],
)
def test_features_that_are_no_floating_point_numbers(integers: object, kind: str) -> None:
    with pytest.raises(ValueError, match=f"features are floating-point numbers, got {kind}"):
        measure("cka", integers, np.ones((20, 3)))


def test_arguments_of_measure_that_do_not_fit() -> None:
    a, b = related(0)
    with pytest.raises(ValueError, match="a and b have 60 and 59 rows; they must be of the same images"):
        measure("cka", a, b[:59])
    with pytest.raises(UnknownName, match=r"mutual_kn.*mutual_knn"):
        measure("mutual_kn", a, b)
    for k in (0, 60, 61):
        with pytest.raises(ValueError, match=f"k = {k} neighbours need"):
            measure("mutual_knn", a, b, k=k)
    for metric in ("cknna", "cknna_biased"):
        with pytest.raises(ValueError, match=f"{metric} needs k of at least 2, got 1"):
            measure(metric, a, b, k=1)
    with pytest.raises(ValueError, match="60 rows need as many different names, got 59"):
        measure("cka", a, b, names=["image0", *names(60)[:59]])
    with pytest.raises(ValueError, match="60 rows need as many different names, got 2"):
        measure("cka", a, b, names=["x", "y"])
    with pytest.raises(FeatureError, match=r"got shape \(60,\)"):
        measure("cka", a[:, 0], b)
    # k does not matter where there are no lists
    assert math.isfinite(measure("cka", a, b, k=1000).value)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite"), (0, "zero norm")]
)
@pytest.mark.parametrize("metric", ["mutual_knn", "cka", "ridge"])
def test_features_without_direction_are_named(metric: str, value: float, message: str) -> None:
    a, b = related(0)
    b[7] = value
    with pytest.raises(FeatureError, match=f"1 of 60 images have .*{message}.*first: image7$"):
        measure(metric, a, b, names=names(60))
    with pytest.raises(FeatureError, match="first: 7$"):
        measure(metric, a, b)
