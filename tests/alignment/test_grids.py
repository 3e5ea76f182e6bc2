"""Scores of grids of layers: parts, relabelled images, subsets of images."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from dense_metrics import dense_masks, dense_unbiased_hsic, linear, names, random_features, related, unit, with_ties

from diffalign.alignment import METRICS, graphs, measure
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.factors import leading_vectors
from diffalign.alignment.graphs import EdgeIndex, knn_graphs
from diffalign.alignment.metrics import Layer, NeighborScores, Settings, measure_grid, prepare
from diffalign.alignment.metrics.on_lists import lcs_knn
from diffalign.alignment.nulls import svcca_under
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.alignment.ties import ListsTooShort, restricted

ROOT_EPS = 10 * np.sqrt(np.finfo(np.float64).eps)
ON_LISTS = tuple(name for name, metric in METRICS.items() if metric.uses_k)


def lists(features: np.ndarray, k: int) -> Neighbors:
    return nearest_neighbors(unit(features), k)


def layer(features: np.ndarray, k: int = 10) -> Layer:
    return array_layer(features, names(len(features)), k)


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
    expected = whole.scores(), whole.scores(permutation=order), *spread_of(whole)
    monkeypatch.setattr(graphs, "_MATCHES", 1)
    monkeypatch.setattr(graphs, "_BITMAP_BYTES", 0)
    parts = NeighborScores(ON_LISTS, a, b, 8)
    found = parts.scores(), parts.scores(permutation=order), *spread_of(parts)
    for one, other in zip(expected, found, strict=True):
        assert set(one) == set(other)
        for name, values in one.items():
            # errors are roots of differences, which are 0 but for rounding where both layers are the same
            np.testing.assert_allclose(other[name], values, rtol=1e-12, atol=ROOT_EPS, err_msg=name)


def spread_of(scorer: NeighborScores) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Errors, and the skewness where there is an error."""
    spreads = scorer.spreads()
    errors = {name: spread.error for name, spread in spreads.items()}
    moved = {
        name: np.where(spread.error > ROOT_EPS, spread.of_single + spread.of_pairs, 0)
        for name, spread in spreads.items()
    }
    return errors, moved


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
    neighbors = [[lists(x, k) for x in side] for side in sides]
    scores = NeighborScores(ON_LISTS, neighbors[0], neighbors[1], k)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        expected = NeighborScores(ON_LISTS, neighbors[0], shuffled_lists(sides[1], order, k), k).scores(1e-6)
        for name, values in scores.scores(1e-6, order).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-12, err_msg=name)
    identity = scores.scores(permutation=np.arange(60))
    for name, values in scores.scores().items():
        np.testing.assert_allclose(identity[name], values, atol=1e-12, err_msg=name)


def test_permuted_scores_of_many_layers_that_share_few_edges() -> None:
    sides = [[random_features(10 * side + i, 600, 6) for i in range(5)] for side in range(2)]
    neighbors = [[lists(x, 3) for x in side] for side in sides]
    order = np.random.default_rng(0).permutation(600)
    values = NeighborScores(["cknna", "cknna_biased"], neighbors[0], neighbors[1], 3).scores(permutation=order)
    moved = shuffled_lists(sides[1], order, 3)
    for i, j in itertools.product(range(5), range(5)):
        one = NeighborScores(["cknna", "cknna_biased"], neighbors[0][i : i + 1], moved[j : j + 1], 3).scores()
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


def test_shorter_k_needs_no_new_list() -> None:
    a, b = related(0)
    long, short = ([[lists(x, k)] for x in (a, b)] for k in (30, 7))
    cut = NeighborScores(ON_LISTS, long[0], long[1], 7).scores()
    assert cut == NeighborScores(ON_LISTS, short[0], short[1], 7).scores()


@pytest.mark.parametrize("keep", [np.arange(0, 60, 2), np.arange(5, 60), np.arange(60)])
def test_restricted_lists_are_those_of_a_new_search(keep: np.ndarray) -> None:
    rows = unit(related(0)[0])
    cut = restricted(nearest_neighbors(rows, 45), keep, 6)
    fresh = nearest_neighbors(np.ascontiguousarray(rows[keep]), 6)
    assert np.array_equal(cut.indices, fresh.indices)
    assert np.array_equal(cut.similarities, fresh.similarities)
    assert cut.indices.dtype == np.int32


def test_restricted_lists_with_ties() -> None:
    rows = unit(with_ties(0)[0])
    keep = np.sort(np.random.default_rng(0).permutation(60)[:40])
    cut = restricted(nearest_neighbors(rows, 50), keep, 8)
    assert np.array_equal(cut.indices, nearest_neighbors(np.ascontiguousarray(rows[keep]), 8).indices)


def test_lists_of_which_too_little_is_left() -> None:
    neighbors = lists(related(0)[0], 10)
    with pytest.raises(ListsTooShort, match=r"20 of 60 images leave \d of 10 neighbours in a list, and k = 9; raise"):
        restricted(neighbors, np.arange(20), 9)


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
    neighbors = [[lists(x, 10)] for x in (a, b)]
    scores = NeighborScores(ON_LISTS, neighbors[0], neighbors[1], 10)
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


def test_layers_that_do_not_belong_together() -> None:
    a, b = related(0)
    for metric in METRICS:
        with pytest.raises(ValueError, match="differ: N = "):
            measure_grid([metric], [layer(a)], [layer(b[:50])], Settings())
    with pytest.raises(ValueError, match="unknown need 'x'; allowed: moments, patterns"):
        prepare("x", layer(a), Settings())
    with pytest.raises(ValueError, match=r"k = 60 needs at least 61 images; there are 60"):
        knn_graphs([lists(a, 10)], 60)
    with pytest.raises(ListsTooShort, match="k = 11 is more than the 10 neighbours that the lists hold"):
        knn_graphs([lists(a, 10)], 11)


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
    for spread in scores.spreads().values():
        assert all(np.isfinite(part).all() for part in (spread.error, spread.of_single, spread.of_pairs))
