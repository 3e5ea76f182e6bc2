"""Differences of two scores: their errors, what they claim together, and what equal scores give."""

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from diffalign.alignment import simultaneous
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.contrasts import Contrast, Differences, differences
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import quantile
from diffalign.alignment.metrics import METRICS, Layer, Metric, NoNull, Settings
from diffalign.alignment.moments import cka_difference, cka_error, moments
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors

MEASURED = ("mutual_knn", "cknna", "unbiased_cka", "cka")
COUNT = 60


def views(random: np.random.Generator, count: int = COUNT, group: int = 1) -> dict[str, np.ndarray]:
    """Views of eight latents: a reference; a, b and c, which are equally aligned with it; one with more noise."""
    fixed = np.random.default_rng(7)
    latent = random.standard_normal((count // group, 8)).repeat(group, axis=0)
    latent = (latent + random.standard_normal((count, 8))) / math.sqrt(2) if group > 1 else latent
    linear = [fixed.standard_normal((8, 24)) for _ in range(2)]
    features = {"reference": latent @ linear[0] + 2 * random.standard_normal((count, 24))}
    for name, noise in (("a", 2), ("b", 2), ("c", 2), ("worse", 5)):
        turn = np.linalg.qr(fixed.standard_normal((24, 24)))[0]
        features[name] = (latent @ linear[1] + noise * random.standard_normal((count, 24))) @ turn
    return features


def measured(
    features: dict[str, np.ndarray],
    contrasts: list[Contrast],
    metrics: tuple[str, ...] = MEASURED,
    groups: Groups | None = None,
    length: int = 10,
) -> dict[str, Differences]:
    count = len(features["reference"])
    names = [str(i) for i in range(count)]
    groups = groups or Groups.of(names)

    def layer(name: str) -> Layer:
        rows = unit_rows(features[name].astype(np.float32), names)
        members = [groups.members[code] for code in groups.codes]
        return rows_layer(rows, members, lambda: nearest_neighbors(rows, length))

    with threadpool_limits(1):
        return differences(metrics, contrasts, layer, Settings(10), groups, 0)


def against(first: str, second: str) -> Contrast:
    """How much closer to the reference."""
    return Contrast((first, "reference"), (second, "reference"))


def test_equal_pairs_differ_by_nothing_for_certain() -> None:
    features = views(np.random.default_rng(0))
    # the same features at another scale are equal up to rounding
    features["scaled"] = 3 * features["a"]
    slow = ("cka_rbf", "unbiased_cka_rbf", "rsa", "svcca", "ridge_back")
    metrics = tuple(name for name in METRICS if name not in slow)
    turned = Contrast(("a", "reference"), ("reference", "a"))
    found = measured(
        features, [against("a", "a"), turned, against("a", "scaled"), against("a", "worse")], metrics, length=25
    )
    for name, of_metric in found.items():
        certain = [0, 1] if METRICS[name].symmetric else [0]
        certain += [2] if METRICS[name].needs != "regressions" else []
        assert (of_metric.values[certain] == 0).all()
        assert (of_metric.errors[certain] == 0).all()
        result = simultaneous.tested(of_metric.values, of_metric.errors, of_metric.correlation, of_metric.freedom, 0)
        assert (result.p[certain] == 1).all()
        assert (result.p_adjusted[certain] == 1).all()
        assert result.band_low[0] == result.band_high[0] == 0
        assert 0 < result.p[3] <= 1


def test_the_error_of_a_difference_is_not_that_of_two_independent_scores() -> None:
    features = views(np.random.default_rng(1), 200)
    features["alike"] = features["a"] + 0.3 * np.random.default_rng(2).standard_normal((200, 24))
    for name, found in measured(features, [against("a", "alike"), against("a", "b")]).items():
        assert found.errors[0] < 0.5 * found.errors[1], name
    with threadpool_limits(1):
        a, b, same = (
            moments(unit_rows(features[x].astype(np.float32), list("x" * 200))) for x in ("a", "reference", "c")
        )
        # of a pair and one that is independent of everything, it is that of the pair, nearly
        error, influence = cka_difference((a, b), (same, b), unbiased=True)
        swapped, opposite = cka_difference((same, b), (a, b), unbiased=True)
    assert error == pytest.approx(swapped)
    assert influence == pytest.approx(-opposite)
    assert influence.sum() == pytest.approx(0, abs=1e-9)


def test_a_contrast_with_a_constant_score_has_the_error_of_one_score() -> None:
    # a layer with itself has CKA 1, which never changes
    features = views(np.random.default_rng(3), 150)
    with threadpool_limits(1):
        a, b = (moments(unit_rows(features[x].astype(np.float32), list("x" * 150))) for x in ("a", "reference"))
        for unbiased in (True, False):
            error, _ = cka_difference((a, b), (b, b), unbiased)
            assert error == pytest.approx(cka_error(a, b, unbiased), rel=1e-5)


@pytest.fixture(scope="module")
def studies() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of 60 studies: differences of equals and of the worse layer, errors, p and adjusted p: (60, 3) each."""
    random = np.random.default_rng(4)
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in MEASURED}
    for _ in range(60):
        contrasts = [against("a", "b"), against("a", "c"), against("a", "worse")]
        for name, found in measured(views(random), contrasts).items():
            result = simultaneous.tested(found.values, found.errors, found.correlation, found.freedom, 0)
            rows[name].append((found.values, found.errors, result.p, result.p_adjusted))
    return {name: tuple(np.array(column) for column in zip(*each, strict=True)) for name, each in rows.items()}  # type: ignore[misc]


@pytest.mark.parametrize("metric", MEASURED)
def test_equals_seldom_differ_and_the_worse_one_often_does(
    metric: str, studies: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    values, errors, p, adjusted = studies[metric]
    # of 60 studies at 5 %, more than 16 % are so in fewer than one simulation of 1,000
    assert (p[:, :2] <= 0.05).mean() <= 0.16
    assert (adjusted[:, :2].min(axis=1) <= 0.05).mean() <= 0.16
    assert np.sqrt(np.square(errors[:, :2]).mean()) == pytest.approx(values[:, :2].std(), rel=0.25)
    assert (p[:, 2] <= 0.05).mean() >= 0.6
    assert (adjusted >= p).all()


def test_groups_that_are_not_independent_have_a_larger_error() -> None:
    features = views(np.random.default_rng(5), 320, group=16)
    features["independent"] = np.random.default_rng(6).standard_normal((320, 24))
    groups = Groups.of([f"g{i // 16}" for i in range(320)])
    alone = measured(features, [against("a", "independent")])
    grouped = measured(features, [against("a", "independent")], groups=groups)
    for name in MEASURED:
        assert grouped[name].freedom == 19
        assert grouped[name].values == pytest.approx(alone[name].values)
        assert grouped[name].errors[0] > 1.1 * alone[name].errors[0], name


def test_bands_and_adjusted_p_say_the_same_and_use_the_correlation() -> None:
    random = np.random.default_rng(0)
    values, errors = random.standard_normal(40) * 1.7, np.ones(40)
    own, one = np.eye(40), np.ones((40, 40))
    independent, equal = (simultaneous.tested(values, errors, each, None, 3) for each in (own, one))
    for result in (independent, equal):
        outside = (result.band_low > 0) | (result.band_high < 0)
        assert (outside == (result.p_adjusted <= 0.05)).all()
    # of independent ones about the quantile of Šidák, of equal ones that of a single one
    reach = independent.band_high - values
    assert reach[0] == pytest.approx(-_normal(0.5 * (1 - 0.95 ** (1 / 40))), rel=0.02)
    assert (equal.band_high - values)[0] == pytest.approx(quantile(None), rel=0.02)
    single = simultaneous.tested(values[:1], errors[:1], own[:1, :1], 9, 3)
    assert single.p_adjusted == pytest.approx(single.p)
    assert single.band_high == pytest.approx(values[:1] + quantile(9))


def _normal(p: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(p))


def test_what_is_undefined_is_no_member_of_a_family_and_a_certain_difference_is_refused() -> None:
    values, errors = np.array([1.0, math.nan, 0.0]), np.array([0.5, math.nan, 0.0])
    result = simultaneous.tested(values, errors, np.eye(3), None, 0)
    assert result.family == 1
    assert math.isnan(result.p[1])
    assert math.isnan(result.band_low[1])
    assert result.p[2] == 1
    assert result.p_adjusted[0] == result.p[0]
    # a normal tail is not told apart as far as that
    assert simultaneous.tested(np.array([100.0]), np.ones(1), np.eye(1), None, 0).p[0] == 1e-5
    with pytest.raises(ValueError, match="a difference of 1 has an error of 0"):
        simultaneous.tested(np.ones(1), np.zeros(1), np.eye(1), None, 0)


def test_lists_that_are_too_short_for_a_jackknife_leave_the_others() -> None:
    found = measured(views(np.random.default_rng(0)), [against("a", "b")], ("cknna_biased", "mutual_knn"))
    assert np.isfinite(found["cknna_biased"].values).all()
    assert np.isnan(found["cknna_biased"].errors).all()
    assert "raise alignment.k_max" in str(found["cknna_biased"].refused)
    assert np.isfinite(found["mutual_knn"].errors).all()


def test_contrasts_of_cka_have_no_error_where_a_few_images_make_most_of_a_kernel() -> None:
    random = np.random.default_rng(0)
    features = views(random)
    for name in ("a", "reference"):
        features[name] = 10 + random.standard_normal((COUNT, 24))
        features[name][random.choice(COUNT, 3, replace=False)] = 10 * random.standard_normal((3, 24))
    found = measured(features, [against("a", "c")], ("unbiased_cka", "mutual_knn"))
    assert np.isfinite(found["unbiased_cka"].values).all()
    assert np.isnan(found["unbiased_cka"].errors).all()
    assert "a few images make most of both kernels" in str(found["unbiased_cka"].refused)
    assert np.isfinite(found["mutual_knn"].errors).all()


def test_a_metric_declares_the_error_of_a_score_and_of_a_difference_or_neither() -> None:
    with pytest.raises(ValueError, match="declares one of error and difference"):
        Metric(print, "it", "moments", True, 0, float, NoNull("none"), error=lambda a, b, groups: 0.0)
