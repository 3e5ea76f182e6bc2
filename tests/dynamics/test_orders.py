"""Orders of appearance: agreement over samples, and contrasts paired by seed."""

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, ttest_rel

from diffalign.dynamics.orders import contrasts, kendalls_w, order, over_seeds

NAMES = tuple(f"sample_{number:05d}" for number in range(30))


def test_samples_agree_fully_or_not_at_all() -> None:
    times = np.tile([0.9, 0.6, 0.3], (12, 1)) + np.linspace(0, 0.05, 12)[:, None]
    full = kendalls_w(times, NAMES[:12], 0)
    assert (full.w, full.samples) == (pytest.approx(1), 12)
    # of 1999 draws and the order itself, only the latter agrees
    assert full.p == 1 / 2000
    # of three samples each measure is first, second and third once
    latin = np.array([[1.0, 2, 3], [2, 3, 1], [3, 1, 2]])
    none = kendalls_w(latin, NAMES[:3], 0)
    assert (none.w, none.p) == (pytest.approx(0), 1)


def test_agreement_without_and_with_ties_is_friedmans_statistic() -> None:
    # χ² = N (M - 1) W, also where there are ties
    rng = np.random.default_rng(1)
    free = rng.standard_normal((14, 5)) + np.arange(5) / 3
    for times in (free, np.round(free)):
        statistic = friedmanchisquare(*times.T).statistic
        assert kendalls_w(times, NAMES[:14], 0).w == pytest.approx(statistic / (14 * 4))


def test_agreement_is_by_ranks_of_each_sample() -> None:
    times = np.random.default_rng(2).random((10, 4))
    scales = 1 + np.random.default_rng(3).random((10, 1))
    assert kendalls_w(scales * times**3, NAMES[:10], 0) == kendalls_w(times, NAMES[:10], 0)


def test_p_depends_on_names_and_not_on_their_order() -> None:
    times = np.random.default_rng(4).integers(0, 4, (20, 4)).astype(float)
    straight = kendalls_w(times, NAMES[:20], 3)
    backwards = kendalls_w(times[::-1], NAMES[:20][::-1], 3)
    assert straight == backwards
    assert straight.p != kendalls_w(times, NAMES[:20], 4).p
    assert 0.05 < straight.p <= 1


def test_p_is_uniform_where_there_is_no_order() -> None:
    rng = np.random.default_rng(5)
    trials = [kendalls_w(rng.random((6, 3)), NAMES[:6], seed, draws=199).p for seed in range(300)]
    # a share of .05 of 300 has a standard error of .0126
    assert abs(np.mean(np.array(trials) <= 0.05) - 0.05) < 0.04
    assert abs(np.mean(trials) - 0.5) < 0.1


def test_samples_without_an_order_have_no_agreement() -> None:
    equal = kendalls_w(np.ones((4, 3)), NAMES[:4], 0)
    assert math.isnan(equal.w)
    assert math.isnan(equal.p)
    # one sample with an order is enough
    some = np.ones((4, 3))
    some[0] = [3, 2, 1]
    assert kendalls_w(some, NAMES[:4], 0).w == pytest.approx(1 / 4)


def test_agreement_refuses_what_has_no_order() -> None:
    times = np.ones((4, 3))
    for wrong, names in ((times[:1], NAMES[:1]), (times[:, :1], NAMES[:4]), (times, NAMES[:3]), (times[0], NAMES[:4])):
        with pytest.raises(ValueError, match="expected 2 samples or more x 2 measures or more"):
            kendalls_w(wrong, names, 0)
    with pytest.raises(ValueError, match="samples repeat, first: sample_00001"):
        kendalls_w(times, (*NAMES[:3], NAMES[1]), 0)
    times[[1, 3], 2] = np.nan
    with pytest.raises(ValueError, match="times are NaN or infinite for sample_00001, sample_00003"):
        kendalls_w(times, NAMES[:4], 0)


def test_what_appears_at_the_largest_t_comes_first() -> None:
    times = np.array([[0.2, 0.9, 0.5, 0.5], [0.4, 0.7, 0.6, 0.6]])
    assert order(times, ("high", "low", "mid", "edges")) == "low<mid=edges<high"
    with pytest.raises(ValueError, match=r"shape \(2, 4\); expected \(N, 2\), of high, low"):
        order(times, ("high", "low"))
    times[0, 2] = np.nan
    with pytest.raises(ValueError, match="infinite of mid"):
        order(times, ("high", "low", "mid", "edges"))


def test_a_mean_over_seeds_has_an_interval_where_there_are_two() -> None:
    found = over_seeds({2: 0.5, 0: 0.3, 1: 0.4})
    # t of two degrees of freedom is 4.3027
    assert (found.value, found.high - found.value) == pytest.approx((0.4, 4.3027 * 0.1 / math.sqrt(3)), rel=1e-4)
    alone = over_seeds({5: 0.3})
    assert alone.value == 0.3
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_contrasts_are_of_every_two_and_paired_by_seed() -> None:
    low, mid, high = {0: 0.8, 1: 0.9, 2: 0.7}, {2: 0.5, 1: 0.72, 0: 0.58}, {0: 0.1, 1: 0.2, 7: 0.9}
    found = contrasts({"low": low, "mid": mid, "high": high})
    assert [(each.first, each.second, each.seeds) for each in found] == [
        ("low", "mid", 3),
        ("low", "high", 2),
        ("mid", "high", 2),
    ]
    expected = ttest_rel([0.8, 0.9, 0.7], [0.58, 0.72, 0.5])
    interval = expected.confidence_interval()
    first = found[0]
    assert (first.difference, first.low, first.high) == pytest.approx((0.2, interval.low, interval.high))
    assert first.p == pytest.approx(expected.pvalue)


def test_contrasts_at_the_borders_of_what_can_be_told() -> None:
    (single,) = contrasts({"a": {0: 0.5}, "b": {0: 0.25}})
    assert (single.difference, single.seeds) == (0.25, 1)
    assert all(math.isnan(each) for each in (single.low, single.high, single.p))
    (same,) = contrasts({"a": {0: 0.5, 1: 0.75}, "b": {0: 0.5, 1: 0.75}})
    assert (same.difference, same.p) == (0, 1)
    # times that are all that of a first state; the second differ by rounding alone
    for a, b in (([0.5, 0.75, 1], [0.25, 0.5, 0.75]), ([0.9, 0.8, 0.7], [0.6, 0.5, 0.4])):
        (constant,) = contrasts({"a": dict(enumerate(a)), "b": dict(enumerate(b))})
        assert constant.difference == pytest.approx(a[0] - b[0])
        assert all(math.isnan(each) for each in (constant.low, constant.high, constant.p))
    with pytest.raises(ValueError, match=r"a and b: no seed is shared: \[0\] and \[1\]"):
        contrasts({"a": {0: 0.5}, "b": {1: 0.5}})
    with pytest.raises(ValueError, match="a and b: .*finite"):
        contrasts({"a": {0: math.nan}, "b": {0: 0.5}})
