"""Pairing scores: known cases, chance, ties and blocks."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from diffalign.shared_space.pairing import pairing


def test_equal_sets_pair_and_a_swap_costs_its_points() -> None:
    x = np.arange(8.0)[:, None]
    y = x.copy()
    y[[2, 5]] = y[[5, 2]]
    clusters = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert pairing(x, x, clusters).own_index == 1
    swapped = pairing(x, y, clusters)
    assert (swapped.own_cluster, swapped.own_index) == (6 / 8, 6 / 8)
    assert pairing(x, y).own_cluster is None


def test_both_directions_count() -> None:
    # both points of y are nearest to the first of x, and each of x to the first of y
    x, y = np.array([[0.0], [100.0]]), np.array([[1.0], [-2.0]])
    # x: 0 -> y_0, 100 -> y_0. y: 1 -> x_0, -2 -> x_0
    assert pairing(x, y).own_index == pytest.approx((1 / 2 + 1 / 2) / 2)
    z = np.array([[0.0], [60.0]])
    # z: 0 -> x_0, 60 -> x_1; x: 0 -> z_0, 100 -> z_1
    assert pairing(z, x).own_index == 1
    w = np.array([[0.0], [40.0]])
    # w: 40 -> x_0; x: 100 -> w_1
    assert pairing(w, x).own_index == pytest.approx((1 / 2 + 1) / 2)


def test_collapsed_sets_score_at_chance() -> None:
    clusters = np.repeat([0, 1, 2], [5, 10, 15])
    x = np.full((30, 4), 0.1, np.float32)
    collapsed = pairing(x, x, clusters)
    assert collapsed.own_index == pytest.approx(1 / 30)
    assert collapsed.own_cluster == pytest.approx((25 + 100 + 225) / 900)


@pytest.mark.parametrize("memory_mb", [1, 512])
def test_shares_are_those_of_nearest_neighbours(memory_mb: int) -> None:
    draws = np.random.default_rng(0)
    x = draws.standard_normal((700, 9)).astype(np.float32)
    y = (x + 0.8 * draws.standard_normal(x.shape)).astype(np.float32)
    clusters = draws.integers(0, 4, 700) * 10
    index, cluster = [], []
    for a, b in ((x, y), (y, x)):
        nearest = NearestNeighbors(n_neighbors=1).fit(b).kneighbors(a, return_distance=False)[:, 0]
        index.append((nearest == np.arange(700)).mean())
        cluster.append((clusters[nearest] == clusters).mean())
    found = pairing(x, y, clusters, memory_mb=memory_mb)
    assert 0.1 < found.own_index < 0.9
    assert (found.own_cluster, found.own_index) == pytest.approx((np.mean(cluster), np.mean(index)))


def test_bad_input_is_refused() -> None:
    x = np.random.default_rng(1).standard_normal((6, 2))
    with pytest.raises(ValueError, match=r"sets have shapes \(6, 2\) and \(5, 2\)"):
        pairing(x, x[:5])
    with pytest.raises(ValueError, match=r"clusters have shape \(5,\); expected \(6,\)"):
        pairing(x, x, np.zeros(5, int))
    bad = x.copy()
    bad[4] = np.nan
    with pytest.raises(ValueError, match="second set are NaN or infinite in row 4"):
        pairing(x, bad)
