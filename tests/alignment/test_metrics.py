"""Metrics against their golden values, dense definitions and declarations."""

import json
import math

import numpy as np
import pytest
from conftest import golden
from dense_metrics import (
    DENSE,
    dense_biased_hsic,
    dense_procrustes,
    dense_unbiased_hsic,
    linear,
    names,
    normalised,
    random_features,
    rbf,
    related,
    unit,
    with_ties,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffalign.alignment import METRICS, Preparation, measure, regression
from diffalign.alignment.metrics import NeighborScores
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors

CASES = ("plain", "clamped", "wide")
ON_LISTS = tuple(name for name, metric in METRICS.items() if metric.uses_k)


def case(name: str) -> tuple[np.ndarray, np.ndarray, int, Preparation, dict[str, float]]:
    arrays = np.load(golden("alignment_metrics.npz"))
    spec = json.loads(golden("alignment_metrics.json").read_text())[name]
    preparation = Preparation(clamp=spec["clamp_q"])
    return arrays[f"{name}_A"], arrays[f"{name}_B"], spec["topk"], preparation, spec["values"]


GOLDEN_KEYS = (
    *("cycle_knn", "mutual_knn", "lcs_knn", "cka", "unbiased_cka", "cknna", "edit_distance_knn", "cka_rbf"),
    *("cknna_biased", "cknna_full_k", "lcs_knn_normalised_by_k", "svcca"),
)


@pytest.mark.parametrize("name", CASES)
def test_every_golden_value_is_tested(name: str) -> None:
    assert set(case(name)[-1]) == set(GOLDEN_KEYS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("key", GOLDEN_KEYS)
def test_golden_values_of_the_reference(name: str, key: str) -> None:
    a, b, k, preparation, values = case(name)
    if key == "cknna_full_k":
        value = measure("cknna", a, b, k=len(a) - 1, eps=1e-6, preparation=preparation).value
    elif key == "lcs_knn_normalised_by_k":
        value = measure("lcs_knn", a, b, k=k, preparation=preparation).value / k
    else:
        value = measure(key, a, b, k=k, eps=1e-6, rbf_sigma=1, preparation=preparation).value
    # the reference's SVCCA is random, ours exact
    assert value == pytest.approx(values[key], abs=0.06 if key == "svcca" else 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_metrics_over_all_neighbours(name: str) -> None:
    a, b, _, preparation, _ = case(name)
    every = len(a) - 1
    full, unbiased = (
        measure(metric, a, b, k=every, preparation=preparation).value for metric in ("cknna", "unbiased_cka")
    )
    assert full == pytest.approx(unbiased, abs=1e-6)
    biased = measure("cka", a, b, preparation=preparation).value
    neighbors = [[nearest_neighbors(unit_rows(x, names(len(x)), preparation), every)] for x in (a, b)]
    # an image is its own neighbour here
    with_diagonal = NeighborScores(["cknna_biased"], neighbors[0], neighbors[1], len(a)).scores()["cknna_biased"][0, 0]
    assert with_diagonal == pytest.approx(biased, abs=1e-6)
    assert measure("mutual_knn", a, b, k=every, preparation=preparation).value == 1


def test_every_metric_has_a_dense_definition() -> None:
    assert set(DENSE) == set(METRICS)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("k", [2, 5])
def test_metrics_equal_their_dense_definitions(metric: str, seed: int, k: int) -> None:
    a, b = related(seed)
    expected = DENSE[metric](unit(a), unit(b), k)
    assert measure(metric, a, b, k=k).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", [name for name in METRICS if name not in ON_LISTS])
def test_metrics_equal_their_dense_definitions_with_fewer_images_than_dimensions(metric: str) -> None:
    a, noise = random_features(0, 30, 50), random_features(1, 30, 40)
    b = (a[:, :40] + noise).astype(np.float32)
    expected = DENSE[metric](unit(a), unit(b), 5)
    assert measure(metric, a, b).value == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("metric", ["mutual_knn", "cycle_knn", "cknna", "cknna_biased"])
@pytest.mark.parametrize("k", [20, 58])
def test_long_lists_equal_their_dense_definitions(metric: str, k: int) -> None:
    a, b = related(2)
    expected = DENSE[metric](unit(a), unit(b), k)
    assert measure(metric, a, b, k=k).value == pytest.approx(expected, abs=1e-6)


# of means over eight random orders of ties, and over 30
RANDOM_ORDERS = {"lcs_knn": 0.08, "edit_distance_knn": 0.015}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_planted_ties(metric: str, seed: int) -> None:
    a, b = with_ties(seed)
    expected = DENSE[metric](unit(a), unit(b), 4)
    # SciPy ranks apart by rounding the dissimilarities that are equal; random orders are drawn anew
    tolerance = {"rsa": 1e-3, **RANDOM_ORDERS}.get(metric, 1e-6)
    assert measure(metric, a, b, k=4).value == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_width_of_the_rbf_kernel(sigma: float) -> None:
    a, b = related(0)
    kernels = [rbf(unit(x), sigma) for x in (a, b)]
    for metric, hsic in (("cka_rbf", dense_biased_hsic), ("unbiased_cka_rbf", dense_unbiased_hsic)):
        expected = normalised(hsic, kernels, kernels)
        assert measure(metric, a, b, rbf_sigma=sigma).value == pytest.approx(expected, abs=2e-5)


def test_long_lists_do_not_overflow() -> None:
    a, b = related(0, count=150)
    assert measure("lcs_knn", a, a, k=140).value == 140
    assert measure("edit_distance_knn", a, a, k=140).value == 1
    assert 0 <= measure("edit_distance_knn", a, b, k=140).value < 1


def test_scores_that_count_are_whole_numbers_to_the_last_bit() -> None:
    a, b = related(3, 45)
    lcs, edits = (measure(metric, a, b, k=7).value for metric in ("lcs_knn", "edit_distance_knn"))
    assert lcs == round(lcs * 45) / 45
    assert edits == round(edits * 45 * 7) / (45 * 7)
    assert measure("lcs_knn", a, a, k=10).value == 10
    assert measure("edit_distance_knn", a, a, k=10).value == 1


def order_is_clear(features: np.ndarray, k: int) -> bool:
    """Whether rounding cannot change the order of the k nearest neighbours of any image."""
    similarity = linear(unit(features))
    np.fill_diagonal(similarity, -np.inf)
    return bool((np.diff(np.sort(similarity, axis=1)[:, -k - 1 :], axis=1) > 1e-6).all())


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 10_000), count=st.integers(24, 60), k=st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_declared_properties_hold(metric: str, seed: int, count: int, k: int) -> None:
    declared = METRICS[metric]
    a, b = related(seed, count)
    image = names(count)
    assume(not declared.uses_k or all(order_is_clear(x, k) for x in (a, b)))
    ab = measure(metric, a, b, k=k, names=image)
    if math.isnan(ab.value):
        assert ab.undefined == declared.undefined
        assert ab.undefined
        return
    assert ab.undefined is None
    assert declared.lowest - 1e-9 <= ab.value <= declared.highest(k) + 1e-6
    if declared.symmetric:
        assert measure(metric, b, a, k=k, names=image).value == pytest.approx(ab.value, abs=1e-6)
    scaled = measure(metric, 3 * a, 0.25 * b, k=k, names=image)
    # two dissimilarities that float32 cannot tell apart may change their ranks
    near = 1e-3 if declared.needs == "ranks" else 1e-5
    assert scaled.value == pytest.approx(ab.value, abs=near)
    if declared.orthogonal:
        turns = [np.linalg.qr(random_features(seed, width, width))[0] for width in (12, 11)]
        turned = measure(metric, a @ turns[0], b @ turns[1], k=k, names=image)
        assert turned.value == pytest.approx(ab.value, abs=1e-4)
    order = np.random.default_rng(seed).permutation(count)
    moved = measure(metric, a[order], b[order], k=k, names=[image[i] for i in order])
    assert moved.value == pytest.approx(ab.value, abs=near)
    if declared.identical:
        highest = declared.highest(k)
        itself = measure(metric, a, a, k=k).value
        assert itself == pytest.approx(highest if math.isfinite(highest) else 1, abs=1e-6)


@pytest.mark.parametrize("metric", [name for name, declared in METRICS.items() if not declared.orthogonal])
def test_what_is_declared_to_depend_on_the_axes_does(metric: str) -> None:
    a, b = related(0)
    scaled = (a * np.linspace(0.1, 3, 12) + 1).astype(np.float32)
    turned = scaled @ np.linalg.qr(random_features(5, 12, 12))[0]
    assert abs(measure(metric, turned, b).value - measure(metric, scaled, b).value) > 1e-3


@pytest.mark.parametrize("metric", [name for name, declared in METRICS.items() if not declared.symmetric])
def test_what_is_declared_asymmetric_is(metric: str) -> None:
    a, b = related(0)
    there, back = (measure(metric, x, y, k=5).value for x, y in ((a, b), (b, a)))
    assert abs(there - back) > 1e-6
    assert back == pytest.approx(DENSE[metric](unit(b), unit(a), 5), abs=1e-6)


@pytest.mark.parametrize("metric", [name for name, declared in METRICS.items() if declared.chance])
def test_declared_chance_is_what_independent_features_score(metric: str) -> None:
    chance = METRICS[metric].chance
    assert chance is not None
    scores = [
        measure(metric, random_features(2 * s, 200, 16), random_features(2 * s + 1, 200, 16), k=10).value
        for s in range(30)
    ]
    assert abs(np.mean(scores) - chance(200, 10)) < 4 * np.std(scores) / math.sqrt(30)


def test_biased_cka_of_independent_features_is_large_and_unbiased_cka_is_not() -> None:
    a, b = random_features(0, 100, 300), random_features(1, 100, 300)
    assert measure("cka", a, b).value > 0.6
    assert abs(measure("unbiased_cka", a, b).value) < 0.06


def constant(count: int, width: int) -> np.ndarray:
    return np.tile(random_features(3, 1, width), (count, 1))


@pytest.mark.parametrize("count", [11, 37, 60])
@pytest.mark.parametrize("metric", [name for name in METRICS if name not in ON_LISTS])
def test_constant_features_have_no_score(metric: str, count: int) -> None:
    a, same = random_features(0, count, 12), constant(count, 13)
    # nothing is predicted from a constant, and that is a score
    given = {"ridge": [(a, same), (same, same)], "ridge_back": [(same, a), (same, same)]}
    for x, y in given.get(metric, [(a, same), (same, a), (same, same)]):
        score = measure(metric, x, y)
        assert math.isnan(score.value)
        assert score.undefined == METRICS[metric].undefined


@pytest.mark.parametrize("metric", ON_LISTS)
def test_all_images_share_the_places_of_constant_features(metric: str) -> None:
    a, same = random_features(0, 40, 12), constant(40, 13)
    score = measure(metric, a, same, k=5)
    if metric == "cknna":
        # all of its kernel is equal
        assert math.isnan(score.value)
        assert score.undefined == METRICS[metric].undefined
        return
    expected = DENSE[metric](unit(a), unit(same), 5)
    assert score.value == pytest.approx(expected, abs=RANDOM_ORDERS.get(metric, 1e-6))
    if metric == "mutual_knn":
        assert score.value == pytest.approx(5 / 39, abs=1e-9)


@pytest.mark.parametrize("metric", ["unbiased_cka", "unbiased_cka_rbf", "rsa", "rsa_pearson"])
def test_images_that_are_all_equally_far_apart_have_no_score(metric: str) -> None:
    corners = np.eye(60, dtype=np.float32) + np.float32(0.1)
    for other in (corners, random_features(0, 60, 12)):
        assert math.isnan(measure(metric, corners, other).value)
        assert measure(metric, other, corners).undefined


def test_procrustes_of_nearly_equal_layers() -> None:
    a = random_features(0, 300, 40)
    assert measure("procrustes", a, a).value == pytest.approx(1, abs=1e-6)
    corners = np.eye(60, dtype=np.float32) + np.float32(0.1)
    assert measure("procrustes", corners, corners).value == pytest.approx(1, abs=1e-6)
    for spread in (1e-3, 1e-2, 0.1):
        b = (a + spread * random_features(1, 300, 40)).astype(np.float32)
        expected = dense_procrustes(unit(a), unit(b), 0)
        assert measure("procrustes", a, b).value == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_one_dimension(metric: str) -> None:
    """Unit rows are signs then."""
    a, b = random_features(0, 40, 1), random_features(1, 40, 1)
    if metric in {"rsa", "rsa_pearson"}:
        with pytest.raises(ValueError, match="40 images have the same value in every dimension: they have no pattern"):
            measure(metric, a, b)
    elif metric == "svcca":
        score = measure(metric, a, b)
        assert math.isnan(score.value)
        assert score.undefined == "a layer spans fewer than 10 dimensions"
    else:
        expected = DENSE[metric](unit(a), unit(b), 3)
        assert measure(metric, a, b, k=3).value == pytest.approx(expected, abs=RANDOM_ORDERS.get(metric, 1e-5))


def test_patterns_of_constant_rows_are_named_by_their_number() -> None:
    a = random_features(0, 20, 5)
    a[3:5] = 2
    for metric in ("rsa", "rsa_pearson"):
        with pytest.raises(ValueError, match="2 images have the same value in every dimension"):
            measure(metric, a, a)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_few_images(metric: str, count: int) -> None:
    a, b = (x[:count] for x in related(0))
    k = count - 1
    if metric in ON_LISTS and METRICS[metric].minimum_k == 1:
        assert measure(metric, a, b, k=k).value == pytest.approx(DENSE[metric](unit(a), unit(b), k))
    elif metric in {"rsa", "svcca"} or (metric == "cknna_biased" and count == 3):
        score = measure(metric, a, b, k=k)
        assert math.isfinite(score.value) or score.undefined == METRICS[metric].undefined
    else:
        with pytest.raises(ValueError, match=r"at least (4|10) images|k of at least 2"):
            measure(metric, a, b, k=k)


def test_predictions_do_not_depend_on_the_order_of_images_but_on_the_seed() -> None:
    a, b = related(0)
    order = np.random.default_rng(1).permutation(60)
    image = names(60)
    moved = measure("ridge", a[order], b[order], names=[image[i] for i in order])
    assert moved.value == pytest.approx(measure("ridge", a, b, names=image).value, abs=1e-6)
    assert abs(measure("ridge", a, b, seed=1).value - measure("ridge", a, b, seed=2).value) > 1e-6


@pytest.mark.parametrize("width", [8, 100])
def test_rounding_does_not_select_the_penalty(width: int) -> None:
    """With more dimensions than images, small penalties leave no residual but that of float32 products."""
    x, y = random_features(0, 40, width).astype(np.float64), random_features(1, 40, 5).astype(np.float64)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x)
    real = values > 1e-6 * values[-1]
    projections = np.square(vectors[:, real].T @ x.T @ y).sum(axis=1)
    total = float(np.square(y).sum())
    chosen = {regression._best_penalty(values[real], projections, total * (1 + off), 40) for off in (-1e-7, 0, 1e-7)}
    assert len(chosen) == 1


def test_what_can_be_predicted_is_and_what_cannot_is_not() -> None:
    a = random_features(0, 200, 12)
    b = unit(a)[:, :5] @ random_features(1, 5, 4)
    x, y = (regression.folded_rows(z.astype(np.float32), np.arange(200) % 5) for z in (unit(a), b))
    assert regression.ridge(x, y) == pytest.approx(1, abs=1e-6)
    assert regression.ridge(y, x) < 0.6
    assert measure("ridge", a, random_features(5, 200, 8)).value < 0.02
