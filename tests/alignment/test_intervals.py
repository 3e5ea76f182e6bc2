import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, t
from threadpoolctl import threadpool_limits

from diffalign.alignment import METRICS
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import over_images
from diffalign.alignment.graphs import EdgeIndex, KnnGraphs, broken_graphs, knn_graphs
from diffalign.alignment.intervals import Spread, around, jackknife
from diffalign.alignment.metrics import Layer, NeighborScores, Settings, measure_grid
from diffalign.alignment.metrics.engine import BREAKS
from diffalign.alignment.metrics.on_lists import hsic_shares
from diffalign.alignment.moments import Moments, cka, cka_error, moments, unbiased_cka
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.io.recipes import interval_recipe
from diffalign.randomness import dealt, shuffled

ON_LISTS = [name for name, metric in METRICS.items() if metric.shares]
IN_CLOSED_FORM = [name for name, metric in METRICS.items() if metric.shares or metric.error]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


class Population:
    """Images with eight latents, which two fixed linear maps and noise turn into features."""

    def __init__(self, seed: int, noise: float) -> None:
        self.random = np.random.default_rng(seed)
        self.maps = [self.random.standard_normal((8, width)) for width in (16, 20)]
        self.noise = noise

    def sample(self, count: int, k: int) -> tuple[list[Layer], list[Layer]]:
        z = self.random.standard_normal((count, 8))
        layers = []
        for linear in self.maps:
            features = z @ linear + self.noise * self.random.standard_normal((count, linear.shape[1]))
            layers.append(array_layer(features.astype(np.float32), [str(i) for i in range(count)], k))
        return layers[:1], layers[1:]


def covered(scores: np.ndarray, errors: np.ndarray, freedom: int) -> float:
    """Share of 95 % intervals that hold the mean over the studies."""
    interval = around(scores, errors, freedom)
    truth = scores.mean()
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


@pytest.fixture(scope="module")
def studies() -> dict[str, np.ndarray]:
    """Scores, standard errors and bounds (4, 300) of 300 samples of 250 images."""
    population = Population(0, 2)
    by_metric: dict[str, list[list[float]]] = {name: [] for name in IN_CLOSED_FORM}
    with threadpool_limits(1):
        for _ in range(300):
            a, b = population.sample(250, 10)
            scores = measure_grid(IN_CLOSED_FORM, a, b, Settings(10))
            intervals = over_images(scores, a, b, Settings(10))
            for name, found in by_metric.items():
                ends = (getattr(intervals[name], end)[0, 0] for end in ("error", "low", "high"))
                found.append([scores[name][0, 0], *ends])
    return {name: np.array(found).T for name, found in by_metric.items()}


@pytest.mark.parametrize("metric", IN_CLOSED_FORM)
def test_intervals_cover_the_truth(metric: str, studies: dict[str, np.ndarray]) -> None:
    scores, errors, low, high = studies[metric]
    covers = float(((low <= scores.mean()) & (scores.mean() <= high)).mean())
    # a share of images that saturates near 1 is the least normal
    assert (0.90 if metric == "cycle_knn" else 0.92) <= covers <= 0.98
    assert errors.mean() == pytest.approx(scores.std(), rel=0.2)


@pytest.mark.parametrize(("noise", "width"), [(0.5, 16), (1000.0, 16), (1000.0, 150)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_intervals_of_cka_cover_the_truth_of_alike_and_of_independent_layers(
    noise: float, width: int, unbiased: bool
) -> None:
    random = np.random.default_rng(1)
    maps = [random.standard_normal((8, width)) for _ in "ab"]
    pairs = []
    for _ in range(300):
        z = random.standard_normal((150, 8))
        sides = [
            moments(unit((z @ linear + noise * random.standard_normal((150, width))).astype(np.float32)))
            for linear in maps
        ]
        function = unbiased_cka if unbiased else cka
        pairs.append((function(*sides), cka_error(*sides, unbiased)))
    scores, errors = np.array(pairs).T
    assert 0.915 <= covered(scores, errors, 149) <= 0.99
    assert errors.mean() == pytest.approx(scores.std(), rel=0.25)


def unit(features: np.ndarray) -> np.ndarray:
    return unit_rows(features.astype(np.float32), [str(i) for i in range(len(features))])


def lists_of(seed: int, count: int, k: int) -> tuple[list[Neighbors], list[Neighbors]]:
    random = np.random.default_rng(seed)
    z = random.standard_normal((count, 6))
    sides = []
    for depth in (2, 3):
        layers = [z @ random.standard_normal((6, 8)) + random.standard_normal((count, 8)) for _ in range(depth)]
        sides.append([nearest_neighbors(unit(x), k) for x in layers])
    return sides[0], sides[1]


def dense(graph: KnnGraphs, values: np.ndarray) -> np.ndarray:
    """Values of the edges of one layer as a matrix."""
    matrix = np.zeros((graph.count, graph.count))
    matrix[graph.images, graph.targets] = values
    return matrix


def dense_error(metric: str, a: KnnGraphs, b: KnnGraphs) -> float:
    """Sum of e_ij e_kl over all pairs of edges that have an image in common, or both where that is more."""
    declared = METRICS[metric]
    n = a.count
    shared = EdgeIndex(a, declared.backward).matches(b)
    shares = declared.shares
    assert shares is not None
    w = np.zeros((n, n))
    scale = 1.0
    own = [(np.ones(n * a.k) if side.credit is None else side.credit) / (n * a.k) for side in (a, b)]
    if declared.scaled:
        parts = [shares(next(side.self_matches())) for side in (a, b)]
        scale = math.sqrt(parts[0].sum() * parts[1].sum())
        own = [part / part.sum() for part in parts]
    w[shared.sources, shared.targets] = shares(shared) / scale
    e = w - w.sum() / 2 * (dense(a, own[0]) + dense(b, own[1]))
    edges = [(i, j) for i in range(n) for j in range(n) if e[i, j]]
    variance = sum(e[x] * e[y] for x in edges for y in edges if {*x} & {*y})
    if declared.competing and variance > 0:
        return math.sqrt(variance)
    return math.sqrt(max(variance, sum(e[x] * e[y] for x in edges for y in edges if {*x} == {*y})))


@pytest.mark.parametrize("metric", ON_LISTS)
@pytest.mark.parametrize(("seed", "k"), [(0, 2), (1, 4)])
def test_dyadic_errors_equal_their_dense_definition(metric: str, seed: int, k: int) -> None:
    sides = lists_of(seed, 24, k)
    errors = NeighborScores([metric], *sides, k).spreads()[metric].error
    for i, left in enumerate(sides[0]):
        for j, right in enumerate(sides[1]):
            expected = dense_error(metric, knn_graphs([left], k), knn_graphs([right], k))
            assert errors[i, j] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("metric", [name for name in ON_LISTS if not METRICS[name].ordered])
def test_dyadic_errors_with_ties_equal_their_dense_definition(metric: str) -> None:
    sides = tied_lists(24, 4)
    errors = NeighborScores([metric], *sides, 4).spreads()[metric].error
    for i, left in enumerate(sides[0]):
        for j, right in enumerate(sides[1]):
            a, b = knn_graphs([left], 4), knn_graphs([right], 4)
            assert a.credit is not None or b.credit is not None
            assert errors[i, j] == pytest.approx(dense_error(metric, a, b), rel=1e-8)


@pytest.mark.parametrize("metric", [name for name in ON_LISTS if METRICS[name].ordered])
def test_errors_over_random_orders_of_ties_are_their_mean_variance(metric: str) -> None:
    sides = [[lists[0]] for lists in tied_lists(24, 4)]
    each = [
        dense_error(metric, broken_graphs(sides[0], 4, str(draw)), broken_graphs(sides[1], 4, str(draw ^ 1)))
        for draw in range(BREAKS)
    ]
    error = NeighborScores([metric], *sides, 4).spreads()[metric].error[0, 0]
    assert error == pytest.approx(math.sqrt(np.square(each).mean()), rel=1e-8)


@pytest.mark.parametrize("metric", [name for name in ON_LISTS if not METRICS[name].ordered])
@pytest.mark.parametrize("tied", [False, True])
def test_skewness_equals_its_dense_definition(metric: str, tied: bool) -> None:
    sides = tied_lists(24, 4) if tied else lists_of(0, 24, 4)
    spread = NeighborScores([metric], *sides, 4).spreads()[metric]
    for i, left in enumerate(sides[0]):
        for j, right in enumerate(sides[1]):
            a, b = knn_graphs([left], 4), knn_graphs([right], 4)
            e = NeighborScores([metric], [left], [right], 4).influence(metric).toarray()
            assert math.sqrt(dense_error(metric, a, b) ** 2) == pytest.approx(spread.error[i, j], rel=1e-8)
            both = e + e.T
            h = both.sum(axis=1)
            variance = max(h @ h, np.square(both).sum() / 2)
            assert spread.of_single[i, j] == pytest.approx((h**3).sum() / variance**1.5, abs=1e-9)
            assert spread.of_pairs[i, j] == pytest.approx(3 * (h @ both @ h) / variance**1.5, abs=1e-9)
            assert abs(spread.of_pairs[i, j]) < 4.3


@pytest.mark.parametrize(("single", "pairs"), [(0.3, 1.2), (-0.8, 0.1), (0.9, -4.2), (1e-9, 0.0)])
def test_bounds_are_quantiles_of_the_expansion_without_its_skewness(single: float, pairs: float) -> None:
    interval = Spread(*(np.array([x]) for x in (0.1, single, pairs))).around(np.array([0.5]), 29)
    first, square = (single + pairs) / 6, (2 * single + pairs) / 6
    for end, quantile in ((interval.low, t.ppf(0.975, 29)), (interval.high, -t.ppf(0.975, 29))):
        x = (0.5 - end[0]) / 0.1
        assert x + first + square * x**2 + square**2 * x**3 / 3 == pytest.approx(quantile, abs=1e-6)
    assert interval.low[0] < 0.5 < interval.high[0]


def test_bounds_without_skewness_are_those_of_the_error() -> None:
    scores, errors = np.array([0.5, np.nan]), np.array([0.1, 0.1])
    interval, plain = Spread.symmetric(errors).around(scores, 29), around(scores, errors, 29)
    assert interval.low == pytest.approx(plain.low, nan_ok=True)
    assert interval.high == pytest.approx(plain.high, nan_ok=True)


def test_intervals_of_few_labels_cover_the_truth() -> None:
    """One-hot labels of 30 images: the score is skewed, and its error grows with it. Symmetric bounds hold .85."""
    random = np.random.default_rng(0)
    linear = random.standard_normal((8, 10))
    found = []
    for _ in range(300):
        latent = random.standard_normal((30, 8)) @ linear
        a, b = (
            [
                array_layer(
                    np.eye(10, dtype=np.float32)[(latent + random.standard_normal((30, 10))).argmax(axis=1)],
                    [str(i) for i in range(30)],
                    10,
                ).held()
            ]
            for _ in "ab"
        )
        scores = measure_grid(["mutual_knn"], a, b, Settings(10))
        interval = over_images(scores, a, b, Settings(10))["mutual_knn"]
        symmetric = around(scores["mutual_knn"], interval.error, 29)
        ends = (interval.low, interval.high, symmetric.low, symmetric.high)
        found.append([scores["mutual_knn"].item(), *(end.item() for end in ends)])
    scores, *ends = np.array(found).T
    covers = [((low <= scores.mean()) & (scores.mean() <= high)).mean() for low, high in (ends[:2], ends[2:])]
    assert covers[0] > 0.93
    assert covers[1] < 0.89


def test_cka_has_no_interval_where_a_few_images_make_most_of_both_kernels() -> None:
    """Three outlying images among 30 nearly equal ones: the score depends on whether sides have one in common."""
    random = np.random.default_rng(0)
    sides = []
    for _ in "ab":
        rows = 10 + random.standard_normal((30, 16))
        rows[random.choice(30, 3, replace=False)] = 10 * random.standard_normal((3, 16))
        sides.append([array_layer(rows.astype(np.float32), [str(i) for i in range(30)], 3)])
    scores = measure_grid(["cka", "unbiased_cka", "mutual_knn"], *sides, Settings(3))
    found = over_images(scores, *sides, Settings(3))
    for name in ("cka", "unbiased_cka"):
        assert np.isfinite(scores[name]).all()
        assert all(math.isnan(getattr(found[name], end).item()) for end in ("error", "low", "high"))
        assert "a few images make most of both kernels" in interval_recipe("influence", found[name])["reason"]
    assert np.isfinite(found["mutual_knn"].error).all()
    assert interval_recipe("dyadic", found["mutual_knn"])["reason"] is None


def tied_lists(count: int, k: int) -> tuple[list[Neighbors], list[Neighbors]]:
    """Layers of classes, of rows that stand twice, and without ties."""
    random = np.random.default_rng(0)
    plain = random.standard_normal((count, 6))
    twice = np.repeat(plain[::2], 2, axis=0)[random.permutation(count)]
    classes = [np.eye(3)[random.integers(0, 3, count)] for _ in "ab"]
    sides = [[classes[0], plain], [classes[1], twice]]
    first, second = ([nearest_neighbors(unit(x), k) for x in side] for side in sides)
    return first, [*second, nearest_neighbors(unit(np.repeat(plain[::2], 2, axis=0)), k)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("metric", ON_LISTS)
def test_shares_of_edges_sum_to_the_score(metric: str, tied: bool) -> None:
    declared = METRICS[metric]
    assert declared.shares is not None
    sides = tied_lists(24, 4) if tied else lists_of(0, 40, 4)
    if tied and declared.ordered:
        a, b = (broken_graphs(side, 4, "0") for side in sides)
    else:
        a, b = (knn_graphs(side, 4) for side in sides)
    shared = EdgeIndex(a, declared.backward).matches(b)
    assert shared.per_pair(declared.shares(shared)) == pytest.approx(declared.function(shared), abs=1e-12)


def test_shares_of_cknna_are_its_derivative() -> None:
    sides = lists_of(0, 20, 4)
    a, b = (knn_graphs(side[:1], 4) for side in sides)
    shared = EdgeIndex(a).matches(b)
    shares = hsic_shares(shared)

    def hsic(step: float, edge: int) -> float:
        places = shared.edges_a[edge], shared.edges_b[edge]
        bumped = []
        for graph, place in zip((a, b), places, strict=True):
            weights = graph.weights.astype(np.float64)
            weights[place] *= 1 + step
            bumped.append(replace(graph, weights=weights))
        return float(METRICS["cknna"].function(EdgeIndex(bumped[0]).matches(bumped[1]))[0])

    for edge in range(len(shares)):
        slope = (hsic(1e-4, edge) - hsic(-1e-4, edge)) / 2e-4
        # either kernel takes its part
        assert shares[edge] == pytest.approx(slope / 2, rel=1e-4, abs=1e-10)


@pytest.mark.parametrize("unbiased", [False, True])
def test_errors_of_cka_are_those_of_the_influence_of_every_image(unbiased: bool) -> None:
    """The infinitesimal jackknife, which many images make of leaving out one at a time."""
    random = np.random.default_rng(0)
    z = random.standard_normal((400, 6))
    rows = [unit(z @ random.standard_normal((6, 9)) + 0.5 * random.standard_normal((400, 9))) for _ in "ab"]
    function: Callable[[Moments, Moments], float] = unbiased_cka if unbiased else cka
    without = np.array([function(*(moments(np.delete(x, i, axis=0)) for x in rows)) for i in range(400)])
    jackknifed = math.sqrt(399 / 400 * np.square(without - without.mean()).sum())
    error = cka_error(*(moments(x) for x in rows), unbiased)
    assert error == pytest.approx(jackknifed, rel=0.03)
    assert error < jackknifed


def test_errors_of_cka_of_constant_and_of_identical_layers() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((50, 8)))
    same = np.tile(rows[:1], (50, 1))
    for unbiased in (False, True):
        assert math.isnan(cka_error(moments(rows), moments(same), unbiased))
        assert cka_error(moments(rows), moments(rows), unbiased) < 1e-4


@pytest.mark.parametrize("metric", IN_CLOSED_FORM)
def test_intervals_hold_their_estimate(metric: str) -> None:
    for count, noise in ((12, 0.0), (12, 5.0), (40, 1000.0)):
        a, b = Population(count, noise).sample(count, 3)
        scores = measure_grid([metric], a, b, Settings(3))[metric]
        interval = over_images({metric: scores}, a, b, Settings(3))[metric]
        defined = ~np.isnan(scores)
        assert (interval.error[defined] >= 0).all()
        assert ((interval.low <= scores) & (scores <= interval.high))[defined].all()


def test_reach_of_intervals() -> None:
    scores, errors = np.array([[0.5, np.nan]]), np.array([[0.1, 0.1]])
    normal, student = around(scores, errors), around(scores, errors, 4)
    assert normal.high[0, 0] == pytest.approx(0.5 + norm.ppf(0.975) * 0.1)
    assert student.low[0, 0] == pytest.approx(0.5 - t.ppf(0.975, 4) * 0.1)
    assert np.isnan(normal.low[0, 1])


def test_groups_are_dealt_out_in_turn() -> None:
    names = [f"image{i}" for i in range(23)]
    groups = dealt(names, 5, 0, "groups")
    assert sorted(np.bincount(groups)) == [4, 4, 5, 5, 5]
    assert groups[shuffled(names, 0, "groups")[:7]].tolist() == [0, 1, 2, 3, 4, 0, 1]
    backwards = dealt(names[::-1], 5, 0, "groups")
    assert np.array_equal(backwards[::-1], groups)
    with pytest.raises(ValueError, match="40 images are one group"):
        jackknife(np.zeros(()), np.zeros(40, int), lambda keep: np.zeros(()))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal((40, 2))
    interval = jackknife(values.mean(axis=0), np.arange(40), lambda keep: values[keep].mean(axis=0))
    expected = values.std(axis=0, ddof=1) / math.sqrt(40)
    assert interval.error == pytest.approx(expected)
    assert interval.high == pytest.approx(values.mean(axis=0) + t.ppf(0.975, 39) * expected)


def test_an_undefined_replicate_leaves_no_interval() -> None:
    interval = jackknife(np.array([1.0]), np.arange(4), lambda keep: np.array([np.nan if 2 not in keep else 1.0]))
    assert np.isnan(interval.error).all()


WITHOUT_CLOSED_FORM = ("svcca", "procrustes", "rsa", "rsa_pearson", "ridge")


@pytest.fixture(scope="module")
def jackknifed() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores, standard errors and whether the interval covers the mean, of 80 samples of 120 images in 20 groups."""
    population = Population(2, 2)
    names = ("mutual_knn", "cknna", *WITHOUT_CLOSED_FORM)
    by_metric: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with threadpool_limits(1):
        for _ in range(80):
            a, b = population.sample(120, 30)

            def measured(keep: np.ndarray, a: list[Layer] = a, b: list[Layer] = b) -> np.ndarray:
                kept = ([side[0].restricted(keep, 10)] for side in (a, b))
                grids = measure_grid(names, *kept, Settings(10))
                return np.array([grids[name][0, 0] for name in names])

            a, b = ([remembered(side[0])] for side in (a, b))
            scores = measured(np.arange(120), a, b)
            groups = np.arange(120) % 20
            interval = jackknife(scores, groups, lambda keep, a=a, b=b: measured(keep, a, b))
            for name, score, error in zip(names, scores, interval.error, strict=True):
                by_metric[name].append((score, error))
    out = {}
    for name, pairs in by_metric.items():
        scores, errors = np.array(pairs).T
        interval = around(scores, errors, freedom=19)
        out[name] = scores, errors, (interval.low <= scores.mean()) & (scores.mean() <= interval.high)
    return out


def remembered(layer: Layer) -> Layer:
    lists, folds = layer.lists(), layer.folds()
    return Layer(layer.count, lambda: lists, layer.rows, lambda: folds)


@pytest.mark.parametrize("metric", WITHOUT_CLOSED_FORM)
def test_jackknife_intervals_cover_the_truth(
    metric: str, jackknifed: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    scores, errors, covers = jackknifed[metric]
    assert covers.mean() >= 0.9
    # left-out images turn the leading singular vectors of SVCCA more than new ones would
    assert 0.85 < errors.mean() / scores.std() < (1.9 if metric == "svcca" else 1.35)


@pytest.mark.parametrize("metric", ["mutual_knn", "cknna"])
def test_the_jackknife_covers_too_much_where_few_neighbours_are_shared(
    metric: str, jackknifed: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """It lacks the term that dyadic errors take off, so those are what lists are given."""
    scores, errors, covers = jackknifed[metric]
    assert errors.mean() > 1.15 * scores.std()
    assert covers.mean() >= 0.95
