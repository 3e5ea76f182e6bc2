import itertools
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from conftest import golden
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge

from diffalign.alignment import METRICS, Preparation, graphs, measure, regression
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.factors import leading_vectors
from diffalign.alignment.graphs import EdgeIndex, ListsTooShort, knn_graphs, restricted
from diffalign.alignment.metrics import Layer, NeighborScores, Settings, measure_grid, prepare
from diffalign.alignment.neighbor_metrics import lcs_knn
from diffalign.alignment.nulls import svcca_under
from diffalign.alignment.preparation import FeatureError, unit_rows
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.names import UnknownName
from diffalign.randomness import dealt

CASES = ("plain", "clamped", "wide")
ON_LISTS = tuple(name for name, metric in METRICS.items() if metric.uses_k)


def names(count: int) -> list[str]:
    return [f"image{i}" for i in range(count)]


def unit(features: np.ndarray) -> np.ndarray:
    return unit_rows(features, names(len(features)))


def lists(features: np.ndarray, k: int) -> Neighbors:
    return nearest_neighbors(unit(features), k)


def layer(features: np.ndarray, k: int = 10) -> Layer:
    return array_layer(features, names(len(features)), k)


def random_features(seed: int, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def related(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    a = random_features(seed, count, 12)
    return a, (a @ random_features(seed + 1, 12, 11) + 0.5 * random_features(seed + 2, count, 11)).astype(np.float32)


def with_ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand three times, some scaled, at other places in A than in B."""
    random = np.random.default_rng(seed)
    a, b = related(seed, 20)
    tied = []
    for features in (a, b):
        thrice = np.concatenate([features, features, features])[random.permutation(60)]
        tied.append((thrice * random.choice([0.5, 1, 2], (60, 1))).astype(np.float32))
    return tied[0], tied[1]


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
    found = [[nearest_neighbors(unit_rows(x, names(len(x)), preparation), every)] for x in (a, b)]
    # an image is its own neighbour here
    with_diagonal = NeighborScores(["cknna_biased"], found[0], found[1], len(a)).scores()["cknna_biased"][0, 0]
    assert with_diagonal == pytest.approx(biased, abs=1e-6)
    assert measure("mutual_knn", a, b, k=every, preparation=preparation).value == 1


def dense_unbiased_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, as it stands."""
    m = len(kernel)
    k, l_ = kernel * (1 - np.eye(m)), other * (1 - np.eye(m))
    one = np.ones(m)
    trace = np.trace(k @ l_)
    return (trace + (one @ k @ one) * (one @ l_ @ one) / ((m - 1) * (m - 2)) - 2 * (one @ k @ l_ @ one) / (m - 2)) / (
        m * (m - 3)
    )


def dense_biased_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    m = len(kernel)
    h = np.eye(m) - np.ones((m, m)) / m
    return float(np.trace(kernel @ h @ other @ h))


def normalised(
    hsic: Callable[[np.ndarray, np.ndarray], float], cross: Sequence[np.ndarray], own: Sequence[np.ndarray]
) -> float:
    return hsic(cross[0], cross[1]) / math.sqrt(hsic(own[0], own[0]) * hsic(own[1], own[1]))


def linear(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ rows.astype(np.float64).T


def rbf(rows: np.ndarray, sigma: float = 1) -> np.ndarray:
    double = rows.astype(np.float64)
    return np.exp(-np.square(double[:, None] - double[None]).sum(axis=2) / (2 * sigma**2))


def dense_lists(rows: np.ndarray, k: int) -> np.ndarray:
    """By (-similarity, index), where similarities within 2**-40 are ties."""
    similarity = linear(rows)
    np.fill_diagonal(similarity, -10)
    places = np.broadcast_to(np.arange(len(rows)), similarity.shape)
    return np.lexsort((places, -(similarity * 2**40).round()), axis=1)[:, :k]


def dense_masks(a: np.ndarray, b: np.ndarray, k: int) -> list[np.ndarray]:
    masks = [np.zeros((len(a), len(a))) for _ in "ab"]
    for mask, rows in zip(masks, (a, b), strict=True):
        np.put_along_axis(mask, dense_lists(rows, k), 1, axis=1)
    return masks


def dense_cknna(a: np.ndarray, b: np.ndarray, k: int) -> float:
    masks, kernels = dense_masks(a, b, k), [linear(a), linear(b)]
    both = masks[0] * masks[1]
    own = [mask * kernel for mask, kernel in zip(masks, kernels, strict=True)]
    return normalised(dense_unbiased_hsic, [both * kernel for kernel in kernels], own)


def dense_cknna_biased(a: np.ndarray, b: np.ndarray, k: int) -> float:
    masks, kernels = dense_masks(a, b, k - 1), [linear(a), linear(b)]
    masks = [mask + np.eye(len(a)) for mask in masks]
    both = masks[0] * masks[1]
    own = [mask * kernel for mask, kernel in zip(masks, kernels, strict=True)]
    return normalised(dense_biased_hsic, [both * kernel for kernel in kernels], own)


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


def both_lists(a: np.ndarray, b: np.ndarray, k: int) -> list[tuple[list[int], list[int]]]:
    return list(zip(dense_lists(a, k).tolist(), dense_lists(b, k).tolist(), strict=True))


def dense_mutual(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(np.mean([len({*x} & {*y}) / k for x, y in both_lists(a, b, k)]))


def dense_cycle(a: np.ndarray, b: np.ndarray, k: int) -> float:
    ours = dense_lists(a, k).tolist()
    return float(np.mean([any(i in ours[j] for j in theirs) for i, (_, theirs) in enumerate(both_lists(a, b, k))]))


def dense_lcs(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(np.mean([longest_common_subsequence(x, y) for x, y in both_lists(a, b, k)]))


def dense_edit_distance(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return 1 - float(np.mean([levenshtein(x, y) for x, y in both_lists(a, b, k)])) / k


def dense_svcca(a: np.ndarray, b: np.ndarray, k: int) -> float:
    spaces = []
    for rows in (a.astype(np.float64), b.astype(np.float64)):
        standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0, ddof=1) + 1e-8)
        spaces.append(np.linalg.svd(standard, full_matrices=False)[0][:, :10])
    return float(np.cos(subspace_angles(*spaces)).mean())


def dense_procrustes(a: np.ndarray, b: np.ndarray, k: int) -> float:
    width = max(a.shape[1], b.shape[1])
    padded = [np.pad(x.astype(np.float64), ((0, 0), (0, width - x.shape[1]))) for x in (a, b)]
    x, y = ((z - z.mean(axis=0)) / np.linalg.norm(z - z.mean(axis=0)) for z in padded)
    turned = x @ orthogonal_procrustes(x, y)[0]
    return 1 - 2 / math.pi * math.acos(min(1, float((turned * y).sum())))


def dense_rsa(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(spearmanr(*(pdist(x.astype(np.float64), "correlation") for x in (a, b))).statistic)


def dense_rsa_pearson(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(pearsonr(*(pdist(x.astype(np.float64), "correlation") for x in (a, b))).statistic)


def dense_ridge(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Explicit folds, drawn by row numbers; penalties by generalised cross-validation with hat matrices."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    folds = dealt([str(i) for i in range(len(x))], regression.FOLDS, 0, "folds")
    unexplained = total = 0.0
    for fold in range(5):
        train, test = folds != fold, folds == fold
        centred_x, centred_y = (z[train] - z[train].mean(axis=0) for z in (x, y))
        eigenvalues = np.linalg.eigvalsh(centred_x @ centred_x.T)
        n = len(eigenvalues)
        eigenvalues = eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]]
        best = (math.inf, 0.0)
        for penalty in np.logspace(-8, 3, 23) * eigenvalues.mean():
            hat = centred_x @ np.linalg.solve(
                centred_x.T @ centred_x + penalty * np.eye(x.shape[1]), centred_x.T
            ) + np.full((n, n), 1 / n)
            residual = np.square(centred_y - hat @ centred_y).sum()
            freedom = 1 - np.trace(hat) / n
            if freedom > 1e-6:
                best = min(best, (residual / freedom**2, penalty))
        predicted = Ridge(alpha=best[1]).fit(x[train], y[train]).predict(x[test]).reshape(-1, y.shape[1])
        unexplained += np.square(y[test] - predicted).sum()
        total += np.square(y[test] - y[train].mean(axis=0)).sum()
    return 1 - unexplained / total


DENSE: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "cycle_knn": dense_cycle,
    "mutual_knn": dense_mutual,
    "lcs_knn": dense_lcs,
    "edit_distance_knn": dense_edit_distance,
    "cknna": dense_cknna,
    "cknna_biased": dense_cknna_biased,
    "cka": lambda a, b, k: normalised(dense_biased_hsic, *[[linear(a), linear(b)]] * 2),
    "unbiased_cka": lambda a, b, k: normalised(dense_unbiased_hsic, *[[linear(a), linear(b)]] * 2),
    "cka_rbf": lambda a, b, k: normalised(dense_biased_hsic, *[[rbf(a), rbf(b)]] * 2),
    "unbiased_cka_rbf": lambda a, b, k: normalised(dense_unbiased_hsic, *[[rbf(a), rbf(b)]] * 2),
    "svcca": dense_svcca,
    "procrustes": dense_procrustes,
    "rsa": dense_rsa,
    "rsa_pearson": dense_rsa_pearson,
    "ridge": dense_ridge,
    "ridge_back": lambda a, b, k: dense_ridge(b, a, k),
}


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


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_planted_ties(metric: str, seed: int) -> None:
    a, b = with_ties(seed)
    expected = DENSE[metric](unit(a), unit(b), 4)
    # SciPy ranks apart by rounding the dissimilarities that are equal
    tolerance = 1e-3 if metric == "rsa" else 1e-6
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


def several(count: int = 50) -> tuple[list[Layer], list[Layer]]:
    a, b = related(0, count)
    c = random_features(9, count, 15)
    sides = [a, (a @ random_features(4, 12, 14)).astype(np.float32)], [b, c, a]
    return [layer(x, 8) for x in sides[0]], [layer(x, 8) for x in sides[1]]


@pytest.mark.parametrize("memory", [2.0**30, 1.0, 20_000.0])
def test_grids_equal_single_pairs_and_do_not_depend_on_memory(memory: float) -> None:
    a, b = several()
    grids = measure_grid(METRICS, a, b, Settings(k=8), memory)
    assert list(grids) == list(METRICS)
    for name, grid in grids.items():
        assert grid.shape == (2, 3)
        for i, j in itertools.product(range(2), range(3)):
            single = measure_grid([name], a[i : i + 1], b[j : j + 1], Settings(k=8))[name][0, 0]
            assert grid[i, j] == pytest.approx(single, abs=1e-7), name


def test_neighbour_scores_do_not_depend_on_chunks_and_bitmaps(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = ([x.lists() for x in side] for side in several())
    order = np.random.default_rng(0).permutation(50)
    whole = NeighborScores(ON_LISTS, a, b, 8)
    expected = whole.scores(), whole.scores(permutation=order), whole.errors()
    monkeypatch.setattr(graphs, "_MATCHES", 1)
    monkeypatch.setattr(graphs, "_BITMAP_BYTES", 0)
    parts = NeighborScores(ON_LISTS, a, b, 8)
    for one, other in zip(expected, (parts.scores(), parts.scores(permutation=order), parts.errors()), strict=True):
        assert set(one) == set(other)
        for name, values in one.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-12, err_msg=name)


def test_progress_sees_every_row() -> None:
    a, b = several()
    seen: list[int] = []

    def watch(rows, total):  # type: ignore[no-untyped-def]
        assert total == 2
        for row in rows:
            seen.append(row)
            yield row

    measure_grid(["cka"], a, b, Settings(), progress=watch)
    assert seen == [0, 1]


def shuffled_lists(features: Sequence[np.ndarray], order: np.ndarray, k: int) -> list[Neighbors]:
    return [nearest_neighbors(unit(x)[order], k) for x in features]


@pytest.mark.parametrize("k", [2, 7])
def test_permuted_scores_are_those_of_shuffled_features(k: int) -> None:
    a, b = related(1)
    sides = [a, random_features(5, 60, 9)], [b, a]
    found = [[lists(x, k) for x in side] for side in sides]
    scores = NeighborScores(ON_LISTS, found[0], found[1], k)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        expected = NeighborScores(ON_LISTS, found[0], shuffled_lists(sides[1], order, k), k).scores(1e-6)
        for name, values in scores.scores(1e-6, order).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-12, err_msg=name)
    identity = scores.scores(permutation=np.arange(60))
    for name, values in scores.scores().items():
        np.testing.assert_allclose(identity[name], values, atol=1e-12, err_msg=name)


def test_permuted_scores_of_many_layers_that_share_few_edges() -> None:
    sides = [[random_features(10 * side + i, 600, 6) for i in range(5)] for side in range(2)]
    found = [[lists(x, 3) for x in side] for side in sides]
    order = np.random.default_rng(0).permutation(600)
    values = NeighborScores(["cknna", "cknna_biased"], found[0], found[1], 3).scores(permutation=order)
    moved = shuffled_lists(sides[1], order, 3)
    for i, j in itertools.product(range(5), range(5)):
        one = NeighborScores(["cknna", "cknna_biased"], found[0][i : i + 1], moved[j : j + 1], 3).scores()
        for name, grid in values.items():
            assert grid[i, j] == pytest.approx(one[name][0, 0], abs=1e-12)


def test_permuted_svcca_is_that_of_shuffled_features() -> None:
    a, b = related(1)
    narrow = random_features(3, 60, 4)
    sides = [[leading_vectors(unit(x)) for x in side] for side in ([a, narrow], [b, a])]
    orders = [np.random.default_rng(seed).permutation(60) for seed in range(3)]
    under = svcca_under(sides[0], sides[1])
    for order in orders:
        grid = under(order)
        expected = [measure("svcca", a, x[order]).value for x in (b, a)]
        assert grid[0] == pytest.approx(expected, abs=1e-6)
        assert np.isnan(grid[1]).all()


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


def test_shorter_k_needs_no_new_list() -> None:
    a, b = related(0)
    long, short = ([[lists(x, k)] for x in (a, b)] for k in (30, 7))
    cut = NeighborScores(ON_LISTS, long[0], long[1], 7).scores()
    assert cut == NeighborScores(ON_LISTS, short[0], short[1], 7).scores()


@pytest.mark.parametrize("keep", [np.arange(0, 60, 2), np.arange(5, 60), np.arange(60)])
def test_restricted_lists_are_those_of_a_new_search(keep: np.ndarray) -> None:
    rows = unit(related(0)[0])
    found = restricted(nearest_neighbors(rows, 45), keep, 6)
    fresh = nearest_neighbors(np.ascontiguousarray(rows[keep]), 6)
    assert np.array_equal(found.indices, fresh.indices)
    assert np.array_equal(found.similarities, fresh.similarities)
    assert found.indices.dtype == np.int32


def test_restricted_lists_with_ties() -> None:
    rows = unit(with_ties(0)[0])
    keep = np.sort(np.random.default_rng(0).permutation(60)[:40])
    found = restricted(nearest_neighbors(rows, 50), keep, 8)
    assert np.array_equal(found.indices, nearest_neighbors(np.ascontiguousarray(rows[keep]), 8).indices)


def test_lists_of_which_too_little_is_left() -> None:
    found = lists(related(0)[0], 10)
    with pytest.raises(ListsTooShort, match=r"20 of 60 images leave \d of 10 neighbours in a list, and k = 9; raise"):
        restricted(found, np.arange(20), 9)


@pytest.mark.parametrize("metric", METRICS)
def test_a_restricted_layer_scores_as_a_layer_of_these_images(metric: str) -> None:
    a, b = related(0)
    keep = np.flatnonzero(np.arange(60) % 4 != 1)
    whole = [array_layer(x, names(60), 40) for x in (a, b)]
    cut = [x.restricted(keep, 5) for x in whole]
    folds = whole[0].folds()[keep]
    own = [Layer(len(keep), lambda x=x: lists(x[keep], 5), lambda x=x: unit(x[keep]), lambda: folds) for x in (a, b)]
    value, expected = (measure_grid([metric], x[:1], x[1:], Settings(5))[metric][0, 0] for x in (cut, own))
    assert value == pytest.approx(expected, abs=1e-7)


def test_eps_enters_denominators_only() -> None:
    a, b = related(0)
    found = [[lists(x, 10)] for x in (a, b)]
    scores = NeighborScores(ON_LISTS, found[0], found[1], 10)
    kernels = [mask * linear(unit(x)) for mask, x in zip(dense_masks(unit(a), unit(b), 10), (a, b), strict=True)]
    scale = math.sqrt(math.prod(dense_unbiased_hsic(kernel, kernel) for kernel in kernels))
    plain, shifted = scores.scores(), scores.scores(1e-3)
    assert shifted["cknna"][0, 0] == pytest.approx(plain["cknna"][0, 0] * scale / (scale + 1e-3), rel=1e-6)
    for name in set(ON_LISTS) - {"cknna", "cknna_biased"}:
        assert plain[name] == shifted[name]
    own = [dense_unbiased_hsic(linear(unit(x)), linear(unit(x))) for x in (a, b)]
    scale = math.sqrt(math.prod(own))
    plain_cka, shifted_cka = (measure("unbiased_cka", a, b, eps=eps).value for eps in (0, 1e-3))
    assert shifted_cka == pytest.approx(plain_cka * scale / (scale + 1e-3), rel=1e-5)


def test_a_self_term_that_is_not_positive_gives_a_reason_instead_of_a_number() -> None:
    # a directed ring: no edge is mutual, so the first term of HSIC vanishes
    count = 8
    ring = Neighbors(
        np.stack([(np.arange(count) + step) % count for step in (1, 2)], axis=1).astype(np.int32),
        np.full((count, 2), 0.5, np.float32),
    )
    in_a_ring = Layer(count, lambda: ring, lambda: np.eye(count, dtype=np.float32), lambda: np.arange(count))
    value = measure_grid(["cknna"], [in_a_ring], [in_a_ring], Settings(2))["cknna"][0, 0]
    assert math.isnan(value)
    assert "not positive" in str(METRICS["cknna"].undefined)


def constant(count: int, width: int) -> np.ndarray:
    return np.tile(random_features(3, 1, width), (count, 1))


@pytest.mark.parametrize("count", [11, 37, 60])
@pytest.mark.parametrize("metric", [name for name in METRICS if name not in ON_LISTS])
def test_constant_features_have_no_score(metric: str, count: int) -> None:
    a, same = random_features(0, count, 12), constant(count, 13)
    # nothing is predicted from a constant, and that is a score
    given = {"ridge": [(a, same), (same, same)], "ridge_back": [(same, a), (same, same)]}
    for x, y in given.get(metric, [(a, same), (same, a), (same, same)]):
        found = measure(metric, x, y)
        assert math.isnan(found.value)
        assert found.undefined == METRICS[metric].undefined


@pytest.mark.parametrize("metric", ON_LISTS)
def test_lists_of_constant_features_go_by_index(metric: str) -> None:
    a, same = random_features(0, 40, 12), constant(40, 13)
    assert measure(metric, a, same, k=5).value == pytest.approx(DENSE[metric](unit(a), unit(same), 5), abs=1e-6)


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
        found = measure(metric, a, b)
        assert math.isnan(found.value)
        assert found.undefined == "a layer spans fewer than 10 dimensions"
    else:
        assert measure(metric, a, b, k=3).value == pytest.approx(DENSE[metric](unit(a), unit(b), 3), abs=1e-5)


def test_patterns_of_constant_rows_are_named_by_their_number() -> None:
    a = random_features(0, 20, 5)
    a[3:5] = 2
    for metric in ("rsa", "rsa_pearson"):
        with pytest.raises(ValueError, match="2 images have the same value in every dimension"):
            measure(metric, a, a)


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


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_few_images(metric: str, count: int) -> None:
    a, b = (x[:count] for x in related(0))
    k = count - 1
    if metric in ON_LISTS and METRICS[metric].minimum_k == 1:
        assert measure(metric, a, b, k=k).value == pytest.approx(DENSE[metric](unit(a), unit(b), k))
    elif metric in {"rsa", "svcca"} or (metric == "cknna_biased" and count == 3):
        found = measure(metric, a, b, k=k)
        assert math.isfinite(found.value) or found.undefined == METRICS[metric].undefined
    else:
        with pytest.raises(ValueError, match=r"at least (4|10) images|k of at least 2"):
            measure(metric, a, b, k=k)


def test_layers_that_do_not_belong_together() -> None:
    a, b = related(0)
    for metric in METRICS:
        with pytest.raises(ValueError, match="differ: N = "):
            measure_grid([metric], [layer(a)], [layer(b[:50])], Settings())
    with pytest.raises(ValueError, match="unknown need 'x'; allowed: lists, moments"):
        prepare("x", layer(a), Settings())
    with pytest.raises(ValueError, match=r"k = 60 needs at least 61 images; there are 60"):
        knn_graphs([lists(a, 10)], 60)
    with pytest.raises(ListsTooShort, match="k = 11 is more than the 10 neighbours that the lists hold"):
        knn_graphs([lists(a, 10)], 11)


def test_predictions_do_not_depend_on_the_order_of_images_but_on_the_seed() -> None:
    a, b = related(0)
    order = np.random.default_rng(1).permutation(60)
    image = names(60)
    moved = measure("ridge", a[order], b[order], names=[image[i] for i in order])
    assert moved.value == pytest.approx(measure("ridge", a, b, names=image).value, abs=1e-6)
    assert abs(measure("ridge", a, b, seed=1).value - measure("ridge", a, b, seed=2).value) > 1e-6


def test_what_can_be_predicted_is_and_what_cannot_is_not() -> None:
    a = random_features(0, 200, 12)
    b = unit(a)[:, :5] @ random_features(1, 5, 4)
    x, y = (regression.folded_rows(z.astype(np.float32), np.arange(200) % 5) for z in (unit(a), b))
    assert regression.ridge(x, y) == pytest.approx(1, abs=1e-6)
    assert regression.ridge(y, x) < 0.6
    assert measure("ridge", a, random_features(5, 200, 8)).value < 0.02


def test_no_shared_edges_at_all() -> None:
    rings = []
    for step in (1, 2):
        targets = ((np.arange(9) + step) % 9).astype(np.int32)[:, None]
        rings.append(Neighbors(targets, np.full((9, 1), 0.5, np.float32)))
    shared = EdgeIndex(knn_graphs(rings[:1], 1)).matches(knn_graphs(rings[1:], 1))
    assert len(shared.pairs) == 0
    assert lcs_knn(shared) == [0]
    scores = NeighborScores(["mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn"], rings[:1], rings[1:], 1)
    assert all(values == 0 for values in scores.scores().values())
    assert all(np.isfinite(values).all() for values in scores.errors().values())
