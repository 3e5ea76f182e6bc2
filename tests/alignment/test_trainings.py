"""Means, contrasts and partial rank correlations over trainings."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from diffalign.alignment.trainings import mean_over_trainings, paired_contrast, partial_spearman

TREND = np.array([0.1, 0.3, 0.5, 0.8, 0.9])


def trainings(rng: np.random.Generator, count: int, related: float) -> tuple[np.ndarray, np.ndarray]:
    """Values that grow with the step in every training; the trainings differ as a whole, and by `related` in both."""
    u, v = rng.standard_normal((2, count, 1))
    other = related * u + math.sqrt(1 - related**2) * v
    noise = rng.standard_normal((2, count, len(TREND)))
    return 3 * TREND + 0.7 * u + 0.4 * noise[0], 4 * TREND**2 + 0.7 * other + 0.4 * noise[1]


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([0.2, 0.5, 0.35, 0.4])
    found = mean_over_trainings(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.value, found.trainings) == (pytest.approx(0.3625), 4)
    alone = mean_over_trainings(values[:1])
    assert [alone.value, math.isnan(alone.low), math.isnan(alone.high)] == [0.2, True, True]
    with pytest.raises(ValueError, match="finite values, got"):
        mean_over_trainings(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="finite values, got"):
        mean_over_trainings(np.array([]))


def test_contrasts_are_paired_by_seed() -> None:
    a, b = {0: 0.5, 1: 0.9, 2: 0.1, 7: 100.0}, {2: -0.05, 0: 0.3, 1: 0.75}
    found = paired_contrast(a, b)
    expected = mean_over_trainings(np.array([0.2, 0.15, 0.15]))
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.trainings == 3
    # seeds differ much and recipes little: without pairs nothing would be seen
    assert found.low > 0
    with pytest.raises(ValueError, match=r"no seed is shared: \[0\] and \[1\]"):
        paired_contrast({0: 1.0}, {1: 1.0})


def test_at_one_step_it_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 1))
    assert partial_spearman(x, y, 0).rho == pytest.approx(spearmanr(x, y).statistic)
    x[1] = x[0]
    assert partial_spearman(x, y, 0).rho == pytest.approx(spearmanr(x, y).statistic)


def test_a_common_trend_alone_is_no_association() -> None:
    """Both values rise with the step, so that they correlate over all; given the step, nothing is left."""
    rng = np.random.default_rng(1)
    plain, rejected = [], []
    for _ in range(600):
        x, y = trainings(rng, 6, 0.0)
        plain.append(spearmanr(x.ravel(), y.ravel()).statistic)
        rejected.append(partial_spearman(x, y, 0).p <= 0.05)
    assert np.mean(plain) > 0.6
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_an_association_of_trainings_is_found_and_covered() -> None:
    rng = np.random.default_rng(2)
    truth = partial_spearman_of_many(rng, 0.9)
    found = [partial_spearman(*trainings(rng, 9, 0.9), 0) for _ in range(100)]
    assert np.mean([each.p <= 0.05 for each in found]) > 0.5
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.9
    assert np.mean([each.rho for each in found]) == pytest.approx(truth, abs=0.08)


def partial_spearman_of_many(rng: np.random.Generator, related: float) -> float:
    """The same of so many trainings that chance plays no part: the mean over steps, whose ranks have equal spread."""
    x, y = trainings(rng, 5000, related)
    return float(np.mean([spearmanr(x[:, step], y[:, step]).statistic for step in range(len(TREND))]))


def test_p_is_of_all_orders_of_trainings() -> None:
    x = np.arange(5.0)[:, None] + np.array([0.0, 10.0])
    found = partial_spearman(x, 2 * x, 0)
    # of 120 orders, the one as it is and its reverse are as extreme
    assert (found.rho, found.p) == (pytest.approx(1), pytest.approx(2 / 120))
    assert (found.trainings, found.steps) == (5, 2)
    assert partial_spearman(x, -x, 0).rho == pytest.approx(-1)


def test_the_order_of_trainings_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    x, y = trainings(rng, 6, 0.5)
    order = rng.permutation(6)
    first, moved = partial_spearman(x, y, 0), partial_spearman(x[order], y[order], 0)
    assert (moved.rho, moved.p, moved.low, moved.high) == pytest.approx((first.rho, first.p, first.low, first.high))


def test_what_cannot_be_known_is_undefined_or_refused() -> None:
    x = np.arange(6.0).reshape(3, 2)
    few = partial_spearman(x, x, 0)
    assert [few.rho, math.isnan(few.low), math.isnan(few.high)] == [pytest.approx(1), True, True]
    same = partial_spearman(np.ones((4, 2)), np.arange(8.0).reshape(4, 2), 0)
    assert all(map(math.isnan, (same.rho, same.p, same.low, same.high)))
    with pytest.raises(ValueError, match="finite values"):
        partial_spearman(np.full((4, 2), np.nan), np.ones((4, 2)), 0)
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(2, 2\)"):
        partial_spearman(x, x[:2], 0)
