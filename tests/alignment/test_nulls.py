import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearson3, skew

from diffalign.alignment import METRICS
from diffalign.alignment.arrays import array_layer, rows_layer
from diffalign.alignment.calibration import Calibration, calibrate
from diffalign.alignment.factors import leading_vectors
from diffalign.alignment.graphs import Matches, knn_graphs
from diffalign.alignment.metrics import (
    BothSides,
    ClosedForm,
    Layer,
    Metric,
    NeighborScores,
    NoNull,
    Permutations,
    Settings,
    measure_grid,
    on_factors,
    on_lists,
    registry,
)
from diffalign.alignment.moments import Moments, cka, moments, rsa_pearson, standardised, unbiased_cka
from diffalign.alignment.nulls import (
    NullMoments,
    cka_moments,
    kernel_cubes,
    mutual_knn_moments,
    permutations,
    rsa_pearson_moments,
    unbiased_cka_moments,
    unbiased_kernel_moments,
)
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors


def unit(seed: int, count: int, width: int) -> np.ndarray:
    """Rows with hubs: a common offset, and dimensions of different scales."""
    features = np.random.default_rng(seed).standard_normal((count, width)) * np.linspace(0.3, 2, width) + 0.5
    return unit_rows(features.astype(np.float32), [str(i) for i in range(count)])


def all_orders(count: int) -> list[np.ndarray]:
    return [np.array(order) for order in itertools.permutations(range(count))]


def under(function, a: np.ndarray, b: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:  # type: ignore[no-untyped-def]
    left = moments(a)
    return np.array([function(left, moments(b[order])) for order in orders])


def with_cubes(function, a: Sequence[Moments], b: Sequence[Moments]) -> NullMoments:  # type: ignore[no-untyped-def]
    null: NullMoments = function(a, b, ([kernel_cubes(x) for x in a], [kernel_cubes(x) for x in b]))
    return null


def u_centred(rows: np.ndarray) -> np.ndarray:
    """Székely and Rizzo 2014: zero diagonal and zero row sums."""
    kernel = rows.astype(np.float64) @ rows.astype(np.float64).T
    n = len(kernel)
    np.fill_diagonal(kernel, 0)
    sums = kernel.sum(axis=1)
    centred = kernel - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0)
    return np.asarray(centred)


@pytest.mark.parametrize(("count", "width"), [(6, 3), (7, 4), (30, 50)])
def test_sums_of_cubes_equal_those_of_the_dense_kernel(count: int, width: int) -> None:
    rows = unit(0, count, width)
    kernel = u_centred(rows)
    assert np.allclose(kernel.sum(axis=1), 0)
    sums = kernel_cubes(moments(rows))
    assert sums.cubes == pytest.approx((kernel**3).sum(), rel=1e-5, abs=1e-6)
    assert sums.triangles == pytest.approx(np.trace(kernel @ kernel @ kernel), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("count", [6, 7])
def test_moments_of_unbiased_cka_over_all_permutations(count: int) -> None:
    a, b = unit(0, count, 4), unit(1, count, 3)
    null = with_cubes(unbiased_cka_moments, [moments(a)], [moments(b)])
    scores = under(unbiased_cka, a, b, all_orders(count))
    assert null.mean[0, 0] == pytest.approx(scores.mean(), abs=1e-6)
    assert null.sd[0, 0] == pytest.approx(scores.std(), rel=1e-5)
    assert null.skewness is not None
    assert null.skewness[0, 0] == pytest.approx(skew(scores), abs=1e-4)


@pytest.mark.parametrize("count", [6, 7])
def test_moments_of_cka_over_all_permutations(count: int) -> None:
    a, b = unit(2, count, 4), unit(3, count, 3)
    null = with_cubes(cka_moments, [moments(a)], [moments(b)])
    scores = under(cka, a, b, all_orders(count))
    assert null.mean[0, 0] == pytest.approx(scores.mean(), abs=1e-6)
    assert null.sd[0, 0] == pytest.approx(scores.std(), rel=1e-5)
    assert null.skewness is not None
    assert null.skewness[0, 0] == pytest.approx(skew(scores), abs=0.3)


@pytest.mark.parametrize("count", [6, 7])
def test_moments_of_rsa_over_all_permutations(count: int) -> None:
    a, b = (standardised(unit(seed, count, 5)) for seed in (4, 5))
    null = rsa_pearson_moments([moments(a)], [moments(b)])
    scores = under(rsa_pearson, a, b, all_orders(count))
    assert null.mean[0, 0] == pytest.approx(scores.mean(), abs=1e-6)
    assert null.sd[0, 0] == pytest.approx(scores.std(), rel=1e-5)
    assert null.skewness is None
    assert np.isnan(null.p(np.zeros((1, 1)))).all()
    assert np.isnan(null.threshold(0.05)).all()


@pytest.mark.parametrize(("count", "k"), [(3, 1), (4, 2), (5, 2), (6, 1), (6, 3), (7, 2)])
def test_moments_of_mutual_knn_over_all_permutations(count: int, k: int) -> None:
    neighbors = [[nearest_neighbors(unit(seed, count, 4), k)] for seed in (6, 7)]
    scores = NeighborScores(["mutual_knn"], neighbors[0], neighbors[1], k)
    values = np.array([scores.scores(permutation=order)["mutual_knn"][0, 0] for order in all_orders(count)])
    null = mutual_knn_moments(*(knn_graphs(side, k) for side in neighbors))
    assert null.mean[0, 0] == pytest.approx(values.mean(), abs=1e-12)
    assert null.mean[0, 0] == pytest.approx(k / (count - 1))
    assert null.sd[0, 0] == pytest.approx(values.std(), abs=1e-9)


def test_hubs_widen_the_null_of_mutual_knn() -> None:
    random = np.random.default_rng(0)
    hubby = [
        unit_rows((random.standard_normal((80, 30)) + 3).astype(np.float32), [str(i) for i in range(80)]) for _ in "ab"
    ]
    graphs = [knn_graphs([nearest_neighbors(rows, 5)], 5) for rows in hubby]
    degrees = [np.bincount(graph.targets.ravel(), minlength=80) for graph in graphs]
    assert min(degree.var() for degree in degrees) > 5
    hypergeometric = np.sqrt(5 * 5 / 79 * (74 / 79) * (74 / 78) * 80) / (80 * 5)
    assert mutual_knn_moments(*graphs).sd[0, 0] > 1.05 * hypergeometric


def close(null: NullMoments, values: np.ndarray) -> None:
    """Within five standard errors of what so many draws show."""
    draws = len(values)
    np.testing.assert_array_less(np.abs(values.mean(axis=0) - null.mean), 5 * null.sd / np.sqrt(draws))
    np.testing.assert_allclose(values.std(axis=0), null.sd, rtol=0.08)


ORDERS = list(permutations(40, 3000, 0))


@pytest.fixture
def sides() -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [unit(0, 40, 6), unit(1, 40, 60)], [unit(2, 40, 9), unit(3, 40, 2), unit(4, 40, 30)]


def grid_under(function, a: list[Moments], b: list[np.ndarray]) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.array([[[function(x, y) for y in map(moments, (z[order] for z in b))] for x in a] for order in ORDERS])


def test_moments_of_unbiased_cka_against_random_permutations(
    sides: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    a, b = ([moments(x) for x in side] for side in sides)
    null = with_cubes(unbiased_cka_moments, a, b)
    values = grid_under(unbiased_cka, a, sides[1])
    close(null, values)
    assert null.skewness is not None
    np.testing.assert_allclose(skew(values), null.skewness, atol=0.3)
    # three moments do not fix the far tail of layers of two dimensions
    for alpha, off in ((0.05, 0.4), (0.01, 0.9)):
        np.testing.assert_allclose((values > null.threshold(alpha)).mean(axis=0), alpha, atol=off * alpha)
    same = unbiased_kernel_moments(40, (2, 3))
    assert np.array_equal(same.mean, null.mean)
    assert np.array_equal(same.sd, null.sd)
    assert same.skewness is None


def test_moments_of_cka_against_random_permutations(sides: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    a, b = ([moments(x) for x in side] for side in sides)
    null = with_cubes(cka_moments, a, b)
    values = grid_under(cka, a, sides[1])
    close(null, values)
    assert null.skewness is not None
    np.testing.assert_allclose(skew(values), null.skewness, atol=0.4)
    np.testing.assert_allclose((values > null.threshold(0.05)).mean(axis=0), 0.05, atol=0.02)


def test_moments_of_rsa_against_random_permutations(sides: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    rows = [[standardised(x) for x in side if x.shape[1] > 2] for side in sides]
    a, b = ([moments(x) for x in side] for side in rows)
    close(rsa_pearson_moments(a, b), grid_under(rsa_pearson, a, rows[1]))


def test_moments_of_mutual_knn_against_random_permutations(
    sides: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    neighbors = [[nearest_neighbors(x, 5) for x in side] for side in sides]
    scores = NeighborScores(["mutual_knn"], neighbors[0], neighbors[1], 5)
    values = np.array([scores.scores(permutation=order)["mutual_knn"] for order in ORDERS])
    close(mutual_knn_moments(*(knn_graphs(side, 5) for side in neighbors)), values)


def test_tail_probabilities_are_those_of_pearsons_third_type() -> None:
    null = NullMoments(np.full((1, 2), 0.1), np.full((1, 2), 0.02), np.array([[0.8, 0.0]]))
    scores = np.array([[0.15, 0.15]])
    expected = [pearson3.sf(2.5, 0.8), pearson3.sf(2.5, 0)]
    assert null.p(scores)[0] == pytest.approx(expected)
    assert null.p(null.threshold(0.01)) == pytest.approx(np.full((1, 2), 0.01))


def test_permutations_are_keyed_by_seed_and_number() -> None:
    first, again, longer, other = (
        list(permutations(50, draws, seed)) for draws, seed in ((4, 0), (4, 0), (9, 0), (4, 1))
    )
    for one, two, three, four in zip(first, again, longer, other, strict=False):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)
        assert not np.array_equal(one, four)
        assert sorted(one) == list(range(50))
    assert len({order.tobytes() for order in longer}) == 9


def test_permutations_put_every_image_everywhere() -> None:
    places = np.zeros((5, 5))
    for order in permutations(5, 2000, 3):
        places[np.arange(5), order] += 1
    assert np.abs(places - 400).max() < 5 * np.sqrt(400 * 0.8)


def test_layers_without_variance_have_no_moments() -> None:
    same = moments(np.tile(unit(0, 1, 5), (20, 1)))
    for function in (unbiased_cka_moments, cka_moments):
        null = with_cubes(function, [same, moments(unit(1, 20, 5))], [moments(unit(2, 20, 5))])
        assert null.skewness is not None
        assert np.isnan(null.skewness[0, 0])
        assert np.isfinite(null.skewness[1, 0])
    patterns = rsa_pearson_moments([moments(standardised(np.tile(unit(0, 1, 5), (20, 1))))], [moments(unit(1, 20, 5))])
    assert np.isnan(patterns.sd).all()


def test_every_metric_declares_a_null_or_says_why_it_has_none() -> None:
    for name, metric in METRICS.items():
        assert isinstance(metric.null, Permutations | ClosedForm | NoNull), name
        assert not isinstance(metric.null, NoNull) or len(metric.null.reason) > 20
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'null'"):
        Metric(lambda a, b, eps: 1.0, "mine", "moments", symmetric=True, lowest=0, highest=float)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="the metric 'Procrustes' declares no null: give Permutations, ClosedForm or"):
        replace(METRICS["procrustes"], null=None)  # type: ignore[arg-type]


def layers_of(count: int, widths: tuple[int, ...], seed: int) -> list[Layer]:
    names = [f"{i:03d}" for i in range(count)]
    return [array_layer(unit(seed + i, count, width), names, 5) for i, width in enumerate(widths)]


# a metric of each kind of preparation that ships without permutations, and what it is with them
@pytest.mark.parametrize("name", ["procrustes", "rsa", "ridge", "cka_rbf", "cka", "rsa_pearson", "svcca", "cknna"])
def test_permutations_of_any_metric_measure_the_relabelled_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, name, replace(METRICS[name], null=Permutations()))
    settings = Settings(k=5)
    a, b = layers_of(40, (12, 20), 0), layers_of(40, (16,), 7)
    scores = measure_grid([name], a, b, settings)
    calibration = calibrate(scores, a, b, settings, 19, 0.05, 3)[name]
    null = []
    for order in permutations(40, 19, 3):
        # lists of relabelled rows are searched anew, where the calibration relabels their edges
        moved = [rows_layer(x.rows()[order], [f"{i:03d}" for i in range(40)], nearest(x.rows()[order])) for x in b]
        null.append(measure_grid([name], a, moved, settings)[name])
    expected = (1 + (np.stack(null) >= scores[name] - 1e-12).sum(axis=0)) / 20
    np.testing.assert_allclose(calibration.p, expected, atol=1e-12)
    np.testing.assert_allclose(calibration.mean, np.mean(null, axis=0), rtol=1e-6, atol=1e-9)


def nearest(rows: Any) -> Any:
    return lambda: nearest_neighbors(np.ascontiguousarray(rows), 5)


def test_p_of_a_new_metric_with_permutations_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], null=Permutations()))
    p = []
    for seed in range(120):
        a, b = layers_of(16, (4,), 2 * seed), layers_of(16, (4,), 1000 + 2 * seed)
        scores = measure_grid(["procrustes"], a, b, Settings(k=3))
        p.append(calibrate(scores, a, b, Settings(k=3), 19, 0.05, seed)["procrustes"].p[0, 0])
    counts = np.bincount(np.rint(np.array(p) * 20).astype(int), minlength=21)[1:]
    # 120 draws over 20 equal bins: chi-square with 19 degrees of freedom, at 1 in 10,000
    assert ((counts - 6) ** 2 / 6).sum() < 50.8


def test_a_new_closed_form_is_used_and_a_wrong_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def moments_of(sides: BothSides) -> NullMoments:
        return NullMoments(np.full(sides.shape, 0.25), np.full(sides.shape, 0.125), np.full(sides.shape, 0.5))

    a, b = layers_of(20, (6, 8), 0), layers_of(20, (6,), 5)
    scores = measure_grid(["procrustes"], a, b, Settings(k=3))
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], null=ClosedForm(moments_of)))
    calibration = calibrate(scores, a, b, Settings(k=3), 19, 0.05, 0)["procrustes"]
    np.testing.assert_allclose(calibration.z, (scores["procrustes"] - 0.25) / 0.125)
    one_cell = ClosedForm(lambda sides: NullMoments(np.zeros((1, 1)), np.ones((1, 1))))
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], null=one_cell))
    with pytest.raises(ValueError, match=r"procrustes: the null has shape \(1, 1\), the scores \(2, 1\)"):
        calibrate(scores, a, b, Settings(k=3), 19, 0.05, 0)
    with pytest.raises(ValueError, match=r"moments of a null have the shapes \(2, 1\), \(1, 1\); expected the same"):
        NullMoments(np.zeros((2, 1)), np.ones((1, 1)))


@pytest.mark.parametrize(("mean", "sd", "skewness"), [(np.nan, 1, 0), (0, np.inf, 0), (0, 1, np.nan)])
def test_a_closed_form_that_is_undefined_where_the_score_is_not_is_refused(
    mean: float, sd: float, skewness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first layer has a null without variance, which is defined
    moments_of = NullMoments(*(np.array([[0.0], [value]]) for value in (mean, sd, skewness)))
    assert np.isnan(moments_of.p(np.ones((2, 1)))[0, 0])
    a, b = layers_of(20, (6, 8), 0), layers_of(20, (6,), 5)
    scores = measure_grid(["procrustes"], a, b, Settings(k=3))
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], null=ClosedForm(lambda _: moments_of)))
    with pytest.raises(ValueError, match="procrustes: the null is undefined for layers 1 and 0, although the score is"):
        calibrate(scores, a, b, Settings(k=3), 19, 0.05, 0)
    undefined = {"procrustes": np.array([[0.5], [np.nan]])}
    assert np.isnan(calibrate(undefined, a, b, Settings(k=3), 19, 0.05, 0)["procrustes"].p[1, 0])


def permuted_procrustes(
    monkeypatch: pytest.MonkeyPatch, under: Callable[[np.ndarray, np.ndarray], Any]
) -> Callable[[], Calibration]:
    """The calibration of a metric whose statistic is a function of an order and of the observed scores (1, 2)."""
    a, b = layers_of(20, (6,), 0), layers_of(20, (6, 8), 5)
    scores = measure_grid(["procrustes"], a, b, Settings(k=3))
    null = Permutations(lambda a, b, eps: lambda order: under(order, scores["procrustes"]))
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], null=null))
    return lambda: calibrate(scores, a, b, Settings(k=3), 19, 0.05, 0)["procrustes"]


def unmoved(order: np.ndarray) -> bool:
    return bool((order == np.arange(len(order))).all())


def test_a_statistic_that_is_undefined_where_the_score_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated = permuted_procrustes(monkeypatch, lambda order, s: s if unmoved(order) else np.full_like(s, np.nan))
    with pytest.raises(ValueError, match="procrustes: the null is undefined for layers 0 and 0, although the score is"):
        calibrated()


@pytest.mark.parametrize("wrong", [lambda s: s[:, :1], lambda s: s[0], lambda s: np.float64(0.5)])
def test_a_statistic_of_another_shape_is_refused(
    wrong: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"procrustes: the null has shape .*, the scores \(1, 2\)"):
        permuted_procrustes(monkeypatch, lambda order, s: wrong(s))()
    with pytest.raises(ValueError, match=r"procrustes: the null has shape .*, the scores \(1, 2\)"):
        permuted_procrustes(monkeypatch, lambda order, s: s if unmoved(order) else wrong(s))()


def test_a_statistic_has_the_eps_of_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def under(a: Sequence[Moments], b: Sequence[Moments], eps: float) -> Callable[[np.ndarray], np.ndarray]:
        def scores(order: np.ndarray) -> np.ndarray:
            moved = [moments(y.rows[order]) for y in b]
            return np.array([[cka(x, y, eps) for y in moved] for x in a])

        return scores

    monkeypatch.setitem(METRICS, "cka", replace(METRICS["cka"], null=Permutations(under)))
    a, b = layers_of(20, (6,), 0), layers_of(20, (6, 8), 5)
    settings = Settings(k=3, eps=0.5)
    scores = measure_grid(["cka"], a, b, settings)
    faster = calibrate(scores, a, b, settings, 19, 0.05, 0)["cka"]
    monkeypatch.setitem(METRICS, "cka", replace(METRICS["cka"], null=Permutations()))
    np.testing.assert_allclose(faster.mean, calibrate(scores, a, b, settings, 19, 0.05, 0)["cka"].mean, rtol=1e-5)


def test_a_statistic_of_unmoved_images_must_be_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"procrustes: the statistic of unmoved images is 1\.\d+ for layers 0 and 0"):
        permuted_procrustes(monkeypatch, lambda order, s: s + 1)()
    with pytest.raises(ValueError, match="procrustes: the statistic of unmoved images is nan for layers 0 and 1"):
        permuted_procrustes(monkeypatch, lambda order, s: np.where([[True, False]], s, np.nan))()


@pytest.mark.parametrize("stored", [True, False])
def test_a_new_metric_on_factors_needs_no_statistic(stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = layers_of(40, (12, 20), 0), layers_of(40, (16,), 7)
    if stored:
        a, b = ([replace(x, factors=lambda x=x: leading_vectors(x.rows())) for x in side] for side in (a, b))
    monkeypatch.setitem(METRICS, "mine", replace(METRICS["svcca"], null=Permutations()))
    scores = measure_grid(["svcca", "mine"], a, b, Settings(k=5))
    calibrations = calibrate(scores, a, b, Settings(k=5), 19, 0.05, 0)
    np.testing.assert_allclose(calibrations["mine"].p, calibrations["svcca"].p)
    np.testing.assert_allclose(calibrations["mine"].mean, calibrations["svcca"].mean, rtol=1e-9)


def test_new_metrics_on_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of mutual kNN that rises with it has its p-values; a closed form has graphs of k neighbours."""

    def jaccard(shared: Matches) -> np.ndarray:
        both = shared.per_pair()
        return both / (2 * shared.count * shared.k - both)

    closed = ClosedForm(lambda sides: mutual_knn_moments(*sides.graphs))
    monkeypatch.setitem(METRICS, "jaccard", Metric(jaccard, "J", "lists", True, 0, lambda k: 1, Permutations()))
    monkeypatch.setitem(METRICS, "closed", replace(METRICS["mutual_knn"], null=closed))
    a, b = layers_of(40, (12, 20), 0), layers_of(40, (16,), 7)
    scores = measure_grid(["mutual_knn", "jaccard", "closed"], a, b, Settings(k=3))
    calibrations = calibrate(scores, a, b, Settings(k=3), 39, 0.05, 0)
    np.testing.assert_allclose(calibrations["jaccard"].p, calibrations["mutual_knn"].p)
    np.testing.assert_allclose(calibrations["closed"].z, calibrations["mutual_knn"].z)
    with pytest.raises(NotImplementedError, match="lists are relabelled as edges"):
        a[0].relabelled(np.arange(40)).lists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cka", {"needs": "kernels"}, "unknown need 'kernels'; allowed: lists, moments"),
        ("ridge", {"null": NoNull(" ")}, "has no null and gives no reason"),
        (
            "mutual_knn",
            {"null": Permutations(lambda a, b, eps: lambda order: order)},
            "on lists cannot declare null.stat",
        ),
        ("cka", {"null": Permutations(exact=mutual_knn_moments)}, "on moments cannot declare null.exact"),
        ("cka", {"backward": True, "scaled": True}, "on moments cannot declare scaled, backward"),
        ("svcca", {"error": lambda a, b: 0.0}, "on factors cannot declare error"),
        ("cknna_biased", {"minimum_k": 1}, "includes the image itself, so minimum_k is at least 2"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(METRICS[name], **changes)


def test_a_name_that_two_modules_declare_is_refused() -> None:
    with pytest.raises(ValueError, match="on_factors declares metrics that another module has declared: svcca"):
        registry._declared((on_lists, on_factors, on_factors))


def test_a_score_outside_of_its_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "procrustes", replace(METRICS["procrustes"], function=lambda a, b, eps: 5261.0))
    with pytest.raises(ValueError, match=r"procrustes: the score 5261 lies outside of its range \[0, 1\]"):
        measure_grid(["procrustes"], layers_of(20, (6,), 0), layers_of(20, (6,), 5), Settings(k=3))
