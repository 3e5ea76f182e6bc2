import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import kstest
from threadpoolctl import threadpool_limits

from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import (
    calibrate,
    calibrate_by_moments,
    calibrate_by_permutations,
    false_discovery_rates,
    over_images,
    step_down,
)
from diffalign.alignment.factors import leading_vectors
from diffalign.alignment.graphs import knn_graphs
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, NoNull, Permutations, Settings, measure_grid
from diffalign.alignment.nulls import SMALLEST_P, NullMoments, mutual_knn_moments, permutations, svcca_under

K = 5
DRAWS = 99


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def layers_of(features: list[np.ndarray]) -> list[Layer]:
    layers = [array_layer(x.astype(np.float32), [str(i) for i in range(len(x))], K) for x in features]
    # measured several times, searched once
    lists_of = [layer.lists() for layer in layers]
    return [
        Layer(layer.count, lambda lists=lists: lists, layer.rows, layer.folds)
        for layer, lists in zip(layers, lists_of, strict=True)
    ]


def model(random: np.random.Generator, count: int, depth: int = 2) -> list[np.ndarray]:
    """Layers that resemble each other, with hubs."""
    shared = random.standard_normal((count, 10))
    return [shared + 0.7 * random.standard_normal((count, 10)) + 0.3 for _ in range(depth)]


def test_threshold_p_and_calibrated_score_by_hand() -> None:
    null = np.arange(1, 20)[:, None, None] / 20
    # of 20 values, the 19th smallest at alpha = 0.1 is the 18th for ceil(0.9 * 20) = 18
    above = calibrate_by_permutations(np.array([[0.97]]), null, 1.0, 0.1)
    assert above.threshold[0, 0] == 0.9
    assert above.p[0, 0] == 1 / 20
    assert above.calibrated[0, 0] == pytest.approx((0.97 - 0.9) / (1 - 0.9))
    assert above.mean[0, 0] == pytest.approx(0.5)
    assert above.sd[0, 0] == pytest.approx(null.std(ddof=1))
    assert above.z[0, 0] == pytest.approx(0.47 / null.std(ddof=1))
    # the score itself is among the values that the threshold is taken from
    within = calibrate_by_permutations(np.array([[0.42]]), null, 1.0, 0.1)
    assert within.threshold[0, 0] == 0.85
    assert within.p[0, 0] == 12 / 20
    assert within.calibrated[0, 0] == 0


def test_ties_with_the_null_count_against_a_score() -> None:
    null = np.array([0.1, 0.2, 0.2, 0.3] * 5)[:, None, None]
    calibration = calibrate_by_permutations(np.array([[0.3]]), null, 1.0, 0.1)
    assert calibration.p[0, 0] == 6 / 21
    assert calibration.calibrated[0, 0] == 0


@pytest.mark.parametrize(("highest", "expected"), [(10.0, 0.5), (math.inf, 1.0)])
def test_the_top_of_the_range(highest: float, expected: float) -> None:
    null = np.zeros((19, 1, 1))
    assert calibrate_by_permutations(np.array([[5.0]]), null, highest, 0.05).calibrated[0, 0] == expected
    # identical layers whose null reaches the top as well
    at_top = calibrate_by_permutations(np.array([[1.0]]), np.ones((19, 1, 1)), 1.0, 0.05)
    assert at_top.calibrated[0, 0] == 0
    assert at_top.p[0, 0] == 1
    assert math.isnan(at_top.z[0, 0])


def test_the_largest_score_is_held_against_the_largest_of_each_permutation() -> None:
    random = np.random.default_rng(0)
    null = random.uniform(size=(39, 2, 3))
    scores = np.array([[0.2, 0.5, 0.1], [0.3, np.nan, 0.98]])
    calibration = calibrate_by_permutations(scores, null, 1.0, 0.05)
    defined = ~np.isnan(scores)
    maxima = null[:, defined].max(axis=1)
    assert np.array_equal(calibration.maxima, maxima)
    assert calibration.maximum_p == (1 + (maxima >= 0.98).sum()) / 40
    assert calibration.maximum_threshold == np.sort(np.append(maxima, 0.98))[37]
    assert calibration.maximum_calibrated == pytest.approx(
        np.clip((0.98 - calibration.maximum_threshold) / (1 - calibration.maximum_threshold), 0, 1)
    )
    for values in (
        calibration.mean,
        calibration.sd,
        calibration.z,
        calibration.p,
        calibration.threshold,
        calibration.calibrated,
    ):
        assert np.array_equal(np.isnan(values), ~defined)


def test_a_grid_without_any_score() -> None:
    scores = np.full((2, 2), np.nan)
    permuted = calibrate_by_permutations(scores, np.full((19, 2, 2), np.nan), 1.0, 0.05)
    assert np.isnan(permuted.p).all()
    assert np.isnan(permuted.maxima).all()
    assert math.isnan(permuted.maximum_threshold)
    assert math.isnan(permuted.maximum_calibrated)
    closed = calibrate_by_moments(scores, NullMoments(scores, scores, scores), 1.0, 0.05)
    assert np.isnan(closed.p).all()
    assert math.isnan(closed.maximum_p)


@pytest.mark.parametrize(("draws", "alpha", "needed"), [(18, 0.05, 19), (98, 0.01, 99), (2, 0.25, 3)])
def test_too_few_permutations(draws: int, alpha: float, needed: int) -> None:
    message = f"{draws} permutations cannot reject anything at alpha = {alpha}: at least {needed} are needed"
    with pytest.raises(ValueError, match=message):
        calibrate_by_permutations(np.ones((1, 1)), np.zeros((draws, 1, 1)), 1.0, alpha)
    enough = calibrate_by_permutations(np.ones((1, 1)), np.zeros((needed, 1, 1)), 1.0, alpha)
    assert enough.calibrated[0, 0] == 1
    assert enough.p[0, 0] <= alpha


def test_a_calibrated_score_is_positive_exactly_where_p_is_at_most_alpha() -> None:
    random = np.random.default_rng(0)
    for draws, alpha in ((99, 0.05), (99, 0.1), (199, 0.01), (57, 0.05)):
        null = random.integers(0, 400, (draws, 20, 20)) / 400
        scores = random.uniform(0.8, 0.999, (20, 20))
        calibration = calibrate_by_permutations(scores, null, 1.0, alpha)
        assert np.array_equal(calibration.calibrated > 0, calibration.p <= alpha)


def test_calibration_by_moments() -> None:
    skewness = np.array([[0.0, 0.0, 0.0]])
    null = NullMoments(np.full((1, 3), 0.1), np.full((1, 3), 0.02), skewness)
    scores = np.array([[0.1, 0.18, np.nan]])
    calibration = calibrate_by_moments(scores, null, math.inf, 0.05)
    assert calibration.z[0, :2] == pytest.approx([0, 4])
    assert calibration.p[0, :2] == pytest.approx([0.5, 3.167e-5], rel=1e-3)
    assert calibration.threshold[0, 0] == pytest.approx(0.1 + 1.6449 * 0.02, abs=1e-5)
    assert calibration.calibrated[0, :2] == pytest.approx([0, (0.18 - 0.132897) / (1 - 0.132897)], abs=1e-5)
    assert np.isnan(calibration.p[0, 2])
    assert calibration.p_adjusted[0, :2] == pytest.approx([1, 2 * calibration.p[0, 1]])
    # Bonferroni over the two cells that have a score
    assert calibration.maximum_p == pytest.approx(2 * calibration.p[0, 1])
    assert calibration.maximum_threshold == pytest.approx(0.1 + 1.95996 * 0.02, abs=1e-5)
    assert len(calibration.maxima) == 0
    without = calibrate_by_moments(scores, NullMoments(null.mean, null.sd), math.inf, 0.05)
    assert without.z[0, 1] == pytest.approx(4)
    assert np.isnan(without.p).all()
    assert np.isnan(without.calibrated).all()
    assert math.isnan(without.maximum_p)


def test_the_p_of_the_largest_score_is_that_of_its_own_cell() -> None:
    """A wide layer, whose null is high, has the largest score; a narrow one has the smallest p."""
    null = NullMoments(np.array([[0.1, 0.8]]), np.array([[0.02, 0.05]]), np.zeros((1, 2)))
    calibration = calibrate_by_moments(np.array([[0.4, 0.83]]), null, 1.0, 0.05)
    assert calibration.p[0, 0] == SMALLEST_P
    assert calibration.maximum_p == pytest.approx(min(1, 2 * calibration.p[0, 1]))
    assert calibration.maximum_p > 0.5
    assert calibration.maximum_threshold == pytest.approx(0.8 + 1.95996 * 0.05, abs=1e-5)
    assert calibration.maximum_calibrated == 0
    assert calibration.grid_threshold[0, 0] == pytest.approx(0.1 + 1.95996 * 0.02, abs=1e-5)
    assert np.array_equal(calibration.p_adjusted <= 0.05, [[True, False]])


def test_step_down_by_its_definition() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        null = random.integers(0, 30, (39, 3, 4)) / 40
        scores = random.integers(10, 40, (3, 4)) / 40
        scores[1, 2] = np.nan
        found = step_down(scores, null)
        assert np.isnan(found[1, 2])
        before = 0.0
        for score in sorted(set(scores[~np.isnan(scores)]), reverse=True):
            # the null of the cells whose scores are not larger
            largest = null[:, scores <= score].max(axis=1)
            before = max(before, (1 + (largest >= score).sum()) / 40)
            assert (found[scores == score] == before).all()
        single = calibrate_by_permutations(scores, null, 1.0, 0.05)
        assert np.array_equal(single.p_adjusted, found, equal_nan=True)
        assert np.nanmin(found) == single.maximum_p
        assert (found >= single.p)[~np.isnan(scores)].all()


def test_calibrate_measures_the_same_null() -> None:
    random = np.random.default_rng(0)
    shared = random.standard_normal((60, 12))
    features = [[shared + random.standard_normal((60, 12)) for _ in range(depth)] for depth in (2, 3)]
    a, b = (layers_of(side) for side in features)
    settings = Settings(K)
    scores = measure_grid(METRICS, a, b, settings)
    calibrations = calibrate(scores, a, b, settings, 19, 0.05, seed=3)
    assert set(calibrations) == {name for name, metric in METRICS.items() if not isinstance(metric.null, NoNull)}
    orders = list(permutations(60, 19, 3))
    scorer = NeighborScores(["mutual_knn", "cknna"], [x.lists() for x in a], [x.lists() for x in b], K)
    drawn = [scorer.scores(permutation=order) for order in orders]
    for name in ("mutual_knn", "cknna"):
        expected = calibrate_by_permutations(
            scores[name], np.stack([x[name] for x in drawn]), METRICS[name].highest(K), 0.05
        )
        for part in ("p", "threshold", "calibrated", "maxima"):
            assert np.array_equal(getattr(calibrations[name], part), getattr(expected, part))
    exact = mutual_knn_moments(*(knn_graphs([x.lists() for x in side], K) for side in (a, b)))
    assert np.array_equal(calibrations["mutual_knn"].mean, exact.mean)
    assert np.array_equal(calibrations["mutual_knn"].sd, exact.sd)
    assert calibrations["mutual_knn"].z == pytest.approx((scores["mutual_knn"] - exact.mean) / exact.sd)

    sides = [[leading_vectors(x.rows()) for x in side] for side in (a, b)]
    under = svcca_under(*sides)
    expected = calibrate_by_permutations(scores["svcca"], np.stack([under(order) for order in orders]), 1.0, 0.05)
    assert calibrations["svcca"].p == pytest.approx(expected.p)
    assert calibrations["unbiased_cka_rbf"].method == "moments"
    assert np.isnan(calibrations["unbiased_cka_rbf"].p).all()
    assert np.isfinite(calibrations["unbiased_cka_rbf"].z).all()
    assert calibrations["cka"].mean == pytest.approx(scores["cka"], abs=0.7)
    with pytest.raises(ValueError, match="18 permutations cannot reject anything"):
        calibrate({"cknna": scores["cknna"]}, a, b, settings, 18, 0.05, seed=3)
    # closed forms need no permutations
    assert calibrate({"unbiased_cka": scores["unbiased_cka"]}, a, b, settings, 0, 0.05, seed=3)


@pytest.mark.parametrize(
    "metric", [name for name, declared in METRICS.items() if not isinstance(declared.null, NoNull)]
)
def test_a_planted_alignment_is_found(metric: str) -> None:
    random = np.random.default_rng(1)
    z = random.standard_normal((80, 8))
    features = [z @ random.standard_normal((8, 14)) + 1.5 * random.standard_normal((80, 14)) for _ in "ab"]
    a, b = (layers_of([x, random.standard_normal((80, 14))]) for x in features)
    settings = Settings(K)
    scores = measure_grid([metric], a, b, settings)
    calibration = calibrate(scores, a, b, settings, DRAWS, 0.05, seed=0)[metric]
    assert calibration.z[0, 0] > 3
    if isinstance(METRICS[metric].null, Permutations):
        assert calibration.p[0, 0] == 0.01
        assert calibration.maximum_p <= 0.02
    if not np.isnan(calibration.p[0, 0]):
        assert calibration.p[0, 0] < 0.011
        assert calibration.calibrated[0, 0] > 0
        assert calibration.maximum_p < 0.021
        assert calibration.maximum_calibrated > 0
        assert calibration.maximum_calibrated <= calibration.calibrated[0, 0]


STUDIES = 200
ON_LISTS = ("mutual_knn", "lcs_knn", "cknna")


@pytest.fixture(scope="module")
def independent() -> dict[str, np.ndarray]:
    """p of one cell and of the maximum, and the calibrated cell, of pairs of models that have nothing in common.

    Permutation p-values are multiples of 1 / (K + 1), and ties with the null make them larger: drawn between the share
    above the score and the share at or above it, they are uniform on [0, 1] exactly.
    """
    by_key: dict[str, list[float]] = {}
    with threadpool_limits(1):
        for study in range(STUDIES):
            random = np.random.default_rng(1000 + study)
            a, b = (layers_of(model(random, 60)) for _ in "ab")
            settings = Settings(K)
            scores = measure_grid([*ON_LISTS, "unbiased_cka", "cka"], a, b, settings)
            scorer = NeighborScores(ON_LISTS, [x.lists() for x in a], [x.lists() for x in b], K)
            drawn = [scorer.scores(permutation=order) for order in permutations(60, DRAWS, study)]
            for name in ON_LISTS:
                null = np.stack([x[name] for x in drawn])
                one = calibrate_by_permutations(scores[name], null, METRICS[name].highest(K), 0.05)
                for key, p, score, values in (
                    (name, one.p[0, 0], scores[name][0, 0], null[:, 0, 0]),
                    (f"{name} maximum", one.maximum_p, scores[name].max(), one.maxima),
                ):
                    above = (values > score).sum() / (DRAWS + 1)
                    by_key.setdefault(key, []).append(above + random.uniform() * (p - above))
                    by_key.setdefault(f"{key} as reported", []).append(p)
                by_key.setdefault(f"{name} calibrated", []).append(one.calibrated[0, 0])
            closed = calibrate({x: scores[x] for x in ("unbiased_cka", "cka")}, a, b, settings, 0, 0.05, 0)
            for name, one in closed.items():
                by_key.setdefault(name, []).append(one.p[0, 0])
                by_key.setdefault(f"{name} maximum", []).append(one.maximum_p)
                by_key.setdefault(f"{name} calibrated", []).append(one.calibrated[0, 0])
    return {key: np.array(values) for key, values in by_key.items()}


@pytest.mark.parametrize(
    "key", [*ON_LISTS, "mutual_knn maximum", "lcs_knn maximum", "cknna maximum", "unbiased_cka", "cka"]
)
def test_p_values_of_independent_features_are_uniform(key: str, independent: dict[str, np.ndarray]) -> None:
    assert kstest(independent[key], "uniform").pvalue > 0.01


@pytest.mark.parametrize("metric", ON_LISTS)
def test_reported_p_values_are_not_too_small(metric: str, independent: dict[str, np.ndarray]) -> None:
    for key in (metric, f"{metric} maximum"):
        p = independent[f"{key} as reported"]
        for alpha in (0.05, 0.1, 0.25, 0.5):
            assert (p <= alpha).mean() < alpha + 3 * math.sqrt(alpha * (1 - alpha) / STUDIES)


def test_bonferroni_of_the_grid_is_conservative(independent: dict[str, np.ndarray]) -> None:
    for metric in ("unbiased_cka", "cka"):
        assert (independent[f"{metric} maximum"] <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)


@pytest.mark.parametrize("metric", [*ON_LISTS, "unbiased_cka", "cka"])
def test_independent_features_are_calibrated_to_zero(metric: str, independent: dict[str, np.ndarray]) -> None:
    assert (independent[f"{metric} calibrated"] == 0).mean() >= 0.9


def direct_false_discovery_rates(p: np.ndarray, level: float) -> np.ndarray:
    """Reject the j smallest p-values, j the largest with p_(j) <= level j / T."""
    order = np.sort(p)
    passing = [j for j in range(1, len(p) + 1) if order[j - 1] <= level * j / len(p)]
    return p <= (order[passing[-1] - 1] if passing else -1)


def test_q_values_equal_the_direct_definition() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        p = np.where(random.uniform(size=30) < 0.3, random.uniform(0, 0.01, 30), random.uniform(size=30)).round(3)
        q = false_discovery_rates(p)
        for level in (0.0137, 0.0513, 0.107, 0.213):
            assert np.array_equal(q <= level, direct_false_discovery_rates(p, level))
        assert (q >= p - 1e-12).all()
        assert q.max() <= 1


def test_tests_that_were_not_made_do_not_count() -> None:
    p = np.array([0.01, np.nan, 0.04, np.nan, 0.03])
    q = false_discovery_rates(p)
    assert q[[0, 2, 4]] == pytest.approx([0.03, 0.04, 0.04])
    assert np.isnan(q[[1, 3]]).all()
    assert len(false_discovery_rates(np.array([]))) == 0
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            false_discovery_rates(np.array([0.5, bad]))


def test_the_false_discovery_rate_is_controlled() -> None:
    random = np.random.default_rng(0)
    false, power = [], []
    for _ in range(1000):
        p = random.uniform(size=60)
        # as permutations give them: multiples of 1 / 1000
        p[:15] = np.maximum(random.beta(0.1, 4, 15), 0)
        rejected = false_discovery_rates(np.ceil(p * 1000) / 1000) <= 0.1
        false.append(rejected[15:].sum() / max(1, rejected.sum()))
        power.append(rejected[:15].mean())
    assert np.mean(false) <= 0.1 * 45 / 60 + 3 * np.std(false) / math.sqrt(1000)
    assert np.mean(power) > 0.3


def test_intervals_over_images_are_those_of_the_metrics_that_have_a_closed_form() -> None:
    random = np.random.default_rng(0)
    a, b = (layers_of(model(random, 50)) for _ in "ab")
    scores = measure_grid(METRICS, a, b, Settings(K))
    intervals = over_images(scores, a, b, Settings(K))
    expected = {name for name, metric in METRICS.items() if metric.shares or metric.error}
    assert set(intervals) == expected
    assert {"mutual_knn", "cknna", "cka", "unbiased_cka"} <= expected
    for name, interval in intervals.items():
        assert interval.error.shape == (2, 2)
        assert (interval.error > 0).all()
        single = over_images({name: scores[name][1:, :1]}, a[1:], b[:1], Settings(K), memory=1)[name]
        for end in ("error", "low", "high"):
            assert getattr(single, end)[0, 0] == pytest.approx(getattr(interval, end)[1, 0], rel=1e-9)
