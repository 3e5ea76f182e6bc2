"""Landmarks: against greedy definitions, in any order of rows."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffalign.shared_space import landmarks
from diffalign.shared_space.landmarks import CHOICES, choose

Array = np.ndarray


def features(rows: int = 400, width: int = 6) -> tuple[Array, list[str]]:
    x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    return x, [f"image_{row:04d}" for row in range(rows)]


def greedy(x: Array, count: int) -> list[int]:
    x = x.astype(np.float64)
    rows = [int(np.square(x - x.mean(axis=0)).sum(axis=1).argmin())]
    while len(rows) < count:
        rows.append(int(cdist(x, x[rows], "sqeuclidean").min(axis=1).argmax()))
    return sorted(rows)


@pytest.mark.parametrize("candidates", [1, 10, 4096])
def test_farthest_points_are_the_greedy_ones(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, names = features()
    monkeypatch.setattr(landmarks, "_CANDIDATES", candidates)
    assert choose(x, 60, "farthest", 0, names).tolist() == greedy(x, 60)


@pytest.mark.parametrize("fresh", [1, 64])
def test_kmeans_draws_by_squared_distance(fresh: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # few points, so that all chances are known; the third landmark depends on the second, which may be fresh
    x = np.array([[0.0], [1.0], [1.5], [6.0], [20.0]])
    squares = np.square(x - x.T)
    chances: dict[tuple[int, ...], float] = {}
    for first, second, third in itertools.permutations(range(5), 3):
        after = np.minimum(squares[first], squares[second])
        chance = squares[first, second] / squares[first].sum() * after[third] / after.sum() / 5
        key = tuple(sorted((first, second, third)))
        chances[key] = chances.get(key, 0) + chance
    monkeypatch.setattr(landmarks, "_FRESH", fresh)
    draws = 500
    found = Counter(tuple(choose(x, 3, "kmeans", seed, list("abcde")).tolist()) for seed in range(draws))
    assert set(found) <= set(chances)
    # five standard errors
    for key, chance in chances.items():
        assert found[key] / draws == pytest.approx(chance, abs=5 * np.sqrt(chance / draws) + 3 / draws), key


@pytest.mark.parametrize("choice", CHOICES)
def test_names_that_are_chosen_do_not_depend_on_the_order_of_rows(choice: str) -> None:
    x, names = features()
    chosen = choose(x, 50, choice, 3, names)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    order = np.random.default_rng(1).permutation(len(x))
    again = choose(x[order], 50, choice, 3, [names[row] for row in order])
    assert {names[row] for row in chosen} == {names[order[row]] for row in again}


def test_seeds_change_draws_and_not_farthest_points() -> None:
    x, names = features()
    for choice, same in (("farthest", True), ("kmeans", False), ("random", False)):
        assert np.array_equal(choose(x, 50, choice, 0, names), choose(x, 50, choice, 1, names)) == same, choice


def test_farthest_points_and_kmeans_cover_clusters_that_few_random_ones_miss() -> None:
    draws = np.random.default_rng(2)
    # a cluster of three points among three hundred
    x = np.concatenate([draws.standard_normal((297, 3)), draws.standard_normal((3, 3)) + 40])
    names = [str(row) for row in range(300)]
    assert choose(x, 3, "farthest", 0, names)[-1] >= 297
    assert choose(x, 3, "kmeans", 0, names)[-1] >= 297
    assert sum(choose(x, 3, "random", seed, names)[-1] >= 297 for seed in range(50)) < 10


def test_bad_input_is_refused() -> None:
    x, names = features(8)
    with pytest.raises(ValueError, match="unknown choice of landmarks 'grid'; allowed: farthest, kmeans, random"):
        choose(x, 3, "grid", 0, names)
    for count in (0, 9):
        with pytest.raises(ValueError, match=f"{count} landmarks of 8 rows"):
            choose(x, count, "random", 0, names)
    with pytest.raises(ValueError, match="7 names for 8 rows"):
        choose(x, 3, "random", 0, names[1:])
    with pytest.raises(ValueError, match="names repeat: image_0000"):
        choose(x, 3, "random", 0, [*names[:7], names[0]])
    for choice in ("farthest", "kmeans"):
        with pytest.raises(ValueError, match="6 landmarks of 8 rows, of which only 4 are distinct"):
            choose(np.repeat(x[:4], 2, axis=0), 6, choice, 0, names)
    x[5, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in image_0005"):
        choose(x, 3, "random", 0, names)
