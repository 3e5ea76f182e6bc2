import json
import math

import numpy as np
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from diffalign.alignment.metrics import METRICS, KnnGraph, knn_graph, measure
from diffalign.alignment.neighbors import Neighbors, nearest_neighbors
from diffalign.alignment.preparation import unit_rows

CASES = ("plain", "clamped", "wide")


def lists(features: np.ndarray, k: int, clamp: float | None = None) -> Neighbors:
    names = [str(i) for i in range(len(features))]
    return nearest_neighbors(unit_rows(features, names, clamp), k)


def graph(features: np.ndarray, k: int, clamp: float | None = None) -> KnnGraph:
    return knn_graph(lists(features, k, clamp), k)


def random_features(seed: int, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def related(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    a = random_features(seed, count, 12)
    return a, (a @ random_features(seed + 1, 12, 9) + 0.5 * random_features(seed + 2, count, 9)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_golden_values_of_the_reference(case: str, metric: str) -> None:
    arrays = np.load(golden("alignment_metrics.npz"))
    spec = json.loads(golden("alignment_metrics.json").read_text())[case]
    a, b = (graph(arrays[f"{case}_{side}"], spec["topk"], spec["clamp_q"]) for side in "AB")
    assert measure(metric, a, b, 1e-6).value == pytest.approx(spec["values"][metric], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_cknna_over_all_neighbours_equals_unbiased_cka(case: str) -> None:
    arrays = np.load(golden("alignment_metrics.npz"))
    spec = json.loads(golden("alignment_metrics.json").read_text())[case]
    count = len(arrays[f"{case}_A"])
    a, b = (graph(arrays[f"{case}_{side}"], count - 1, spec["clamp_q"]) for side in "AB")
    value = measure("cknna", a, b, 1e-6).value
    assert value == pytest.approx(spec["values"]["cknna_full_k"], abs=1e-6)
    assert value == pytest.approx(spec["values"]["unbiased_cka"], abs=1e-6)
    assert measure("mutual_knn", a, b, 0.0).value == 1


def dense_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """Unbiased HSIC of Song et al. 2012, eq. 5, as it stands."""
    m = len(kernel)
    k, l_ = kernel * (1 - np.eye(m)), other * (1 - np.eye(m))
    one = np.ones(m)
    trace = np.trace(k @ l_)
    return (trace + (one @ k @ one) * (one @ l_ @ one) / ((m - 1) * (m - 2)) - 2 * (one @ k @ l_ @ one) / (m - 2)) / (
        m * (m - 3)
    )


def dense_cknna(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """CKNNA from its definition, with N x N matrices."""
    kernels, masks = [], []
    for features in (a, b):
        rows = unit_rows(features, [str(i) for i in range(len(features))]).astype(np.float64)
        kernel = rows @ rows.T
        hidden = kernel - 10 * np.eye(len(kernel))
        mask = np.zeros_like(kernel)
        np.put_along_axis(mask, np.argsort(-hidden, axis=1, kind="stable")[:, :k], 1, axis=1)
        kernels.append(kernel)
        masks.append(mask)
    both = masks[0] * masks[1]
    cross = dense_hsic(both * kernels[0], both * kernels[1])
    selves = [dense_hsic(mask * kernel, mask * kernel) for mask, kernel in zip(masks, kernels, strict=True)]
    return cross / math.sqrt(selves[0] * selves[1])


@pytest.mark.parametrize("k", [2, 5, 20, 59])
@pytest.mark.parametrize("seed", range(3))
def test_cknna_equals_its_dense_definition(seed: int, k: int) -> None:
    a, b = related(seed)
    score = measure("cknna", graph(a, k), graph(b, k), 0.0)
    assert score.value == pytest.approx(dense_cknna(a, b, k), abs=1e-6)


@pytest.mark.parametrize("metric", sorted(METRICS))
@given(seed=st.integers(0, 10_000), count=st.integers(24, 60), k=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_declared_properties_hold(metric: str, seed: int, count: int, k: int) -> None:
    declared = METRICS[metric]
    a, b = related(seed, count)
    ab = measure(metric, graph(a, k), graph(b, k), 0.0)
    if math.isnan(ab.value):
        assert ab.undefined
        return
    assert declared.lowest <= ab.value <= declared.highest(k)
    if declared.symmetric:
        assert measure(metric, graph(b, k), graph(a, k), 0.0).value == pytest.approx(ab.value, abs=1e-9)
    # cosine similarity: rotations, isotropic scale and the order of images change nothing
    rotation = np.linalg.qr(random_features(seed, 12, 12))[0]
    turned = graph((3 * a @ rotation).astype(np.float32), k)
    assert measure(metric, turned, graph(b, k), 0.0).value == pytest.approx(ab.value, abs=1e-5)
    order = np.random.default_rng(seed).permutation(count)
    assert measure(metric, graph(a[order], k), graph(b[order], k), 0.0).value == pytest.approx(ab.value, abs=1e-6)
    if declared.identical:
        itself = measure(metric, graph(a, k), graph(a, k), 0.0)
        highest = declared.highest(k)
        assert itself.value == pytest.approx(highest if math.isfinite(highest) else 1, abs=1e-9)


def longest_common_subsequence(x: list[int], y: list[int]) -> int:
    if not x or not y:
        return 0
    if x[-1] == y[-1]:
        return longest_common_subsequence(x[:-1], y[:-1]) + 1
    return max(longest_common_subsequence(x[:-1], y), longest_common_subsequence(x, y[:-1]))


def levenshtein(x: list[int], y: list[int]) -> int:
    if not x or not y:
        return len(x) + len(y)
    swap = levenshtein(x[:-1], y[:-1]) + (x[-1] != y[-1])
    return min(swap, levenshtein(x[:-1], y) + 1, levenshtein(x, y[:-1]) + 1)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ordered_and_cyclic_metrics_equal_their_definitions(k: int) -> None:
    a, b = (graph(features, k) for features in related(3, count=30))
    ours, theirs = a.targets.tolist(), b.targets.tolist()
    both = list(zip(ours, theirs, strict=True))
    assert measure("lcs_knn", a, b).value == np.mean([longest_common_subsequence(x, y) for x, y in both])
    distances = [levenshtein(x, y) for x, y in both]
    assert measure("edit_distance_knn", a, b).value == pytest.approx(1 - np.mean(distances) / k)
    returns = [any(i in ours[j] for j in theirs[i]) for i in range(30)]
    assert measure("cycle_knn", a, b).value == np.mean(returns)


def test_long_lists_do_not_overflow() -> None:
    a, b = (graph(features, 140) for features in related(0, count=150))
    assert measure("lcs_knn", a, a).value == 140
    assert measure("edit_distance_knn", a, a).value == 1
    assert 0 <= measure("edit_distance_knn", a, b).value < 1


def test_declared_chance_is_what_independent_features_score() -> None:
    chance = METRICS["mutual_knn"].chance
    assert chance is not None
    scores = [
        METRICS["mutual_knn"]
        .function(graph(random_features(2 * s, 300, 16), 10), graph(random_features(2 * s + 1, 300, 16), 10), 0.0)
        .value
        for s in range(20)
    ]
    assert np.mean(scores) == pytest.approx(chance(300, 10), rel=0.05)


def test_shorter_k_needs_no_new_list() -> None:
    a, b = related(0)
    long = [lists(features, 30) for features in (a, b)]
    for metric in METRICS:
        cut = measure(metric, knn_graph(long[0], 7), knn_graph(long[1], 7), 0.0)
        own = measure(metric, graph(a, 7), graph(b, 7), 0.0)
        assert cut.value == own.value


def test_cknna_of_a_swapped_pair_is_close_and_not_the_same() -> None:
    a, b = (graph(features, 5) for features in related(0))
    there, back = measure("cknna", a, b, 0.0).value, measure("cknna", b, a, 0.0).value
    assert there != back
    assert there == pytest.approx(back, rel=0.02)
    assert back == pytest.approx(dense_cknna(*related(0)[::-1], 5), abs=1e-6)


def test_eps_enters_the_denominator_of_cknna_only() -> None:
    a, b = (graph(features, 10) for features in related(0))
    plain, with_eps = (measure("cknna", a, b, eps).value for eps in (0.0, 1e-6))
    scale = math.sqrt(a.self_hsic * b.self_hsic)
    assert with_eps == pytest.approx(plain * scale / (scale + 1e-6))
    assert with_eps != plain
    assert measure("mutual_knn", a, b, 0.0) == measure("mutual_knn", a, b, 1.0)


def test_a_self_term_that_is_not_positive_gives_a_reason_instead_of_a_number() -> None:
    # a directed ring: no edge is mutual, so the first term of HSIC vanishes
    count = 8
    ring = Neighbors(
        np.stack([(np.arange(count) + step) % count for step in (1, 2)], axis=1).astype(np.int32),
        np.full((count, 2), 0.5, np.float32),
    )
    graph_of_ring = knn_graph(ring, 2)
    assert graph_of_ring.self_hsic <= 0
    score = measure("cknna", graph_of_ring, graph_of_ring, 0.0)
    assert math.isnan(score.value)
    assert "not positive" in str(score.undefined)


def test_bad_arguments() -> None:
    a, b = related(0)
    with pytest.raises(ValueError, match=r"k = 60 needs at least 61 images; there are 60"):
        knn_graph(lists(a, 10), 60)
    with pytest.raises(ValueError, match="raise alignment.k_max"):
        knn_graph(lists(a, 10), 11)
    with pytest.raises(ValueError, match=r"cknna needs k of at least 2, got 1"):
        measure("cknna", graph(a, 1), graph(b, 1), 0.0)
    with pytest.raises(ValueError, match="graphs differ: N = 60 and 59"):
        measure("mutual_knn", graph(a, 5), graph(b[:59], 5), 0.0)
    with pytest.raises(ValueError, match="at least 4 images"):
        measure("cknna", graph(a[:3], 2), graph(b[:3], 2))
    assert measure("mutual_knn", graph(a[:3], 2), graph(b[:3], 2)).value == 1
