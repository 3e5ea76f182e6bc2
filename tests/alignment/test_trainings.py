"""Means, contrasts and partial rank correlations over trainings."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from diffalign.alignment.trainings import mean_over_trainings, paired_contrast, partial_spearman

TREND = np.array([0.1, 0.3, 0.5, 0.8, 0.9])
# rho, p and bounds of six trainings before recipes were told apart
SINGLE = (0.2, 0.38055555555555554, -0.4392088275417703, 0.8392088275417704)


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
    assert (few.p, few.reason) == (pytest.approx(2 / 6), "no interval, since a recipe has fewer than 4 trainings")
    same = partial_spearman(np.ones((4, 2)), np.arange(8.0).reshape(4, 2), 0)
    assert same.reason == "one of them is the same in all trainings of each recipe"
    assert all(map(math.isnan, (same.rho, same.p, same.low, same.high)))
    with pytest.raises(ValueError, match="finite values"):
        partial_spearman(np.full((4, 2), np.nan), np.ones((4, 2)), 0)
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(2, 2\)"):
        partial_spearman(x, x[:2], 0)


def of_recipes(
    rng: np.random.Generator, sizes: Sequence[int], related: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Trainings of several recipes that differ in both values whatever trainings do, with the recipe of each."""
    each = [trainings(rng, size, related) for size in sizes]
    apart = [[value + 2 * rng.standard_normal() for value in pair] for pair in each]
    recipes = [f"recipe {at}" for at, size in enumerate(sizes) for _ in range(size)]
    return np.concatenate([x for x, _ in apart]), np.concatenate([y for _, y in apart]), recipes


@pytest.mark.parametrize(
    ("sizes", "has_p", "has_interval"), [((3, 3), False, False), ((4, 4), True, True), ((3, 3, 3), True, False)]
)
def test_recipes_that_differ_in_both_are_no_association(
    sizes: tuple[int, ...], has_p: bool, has_interval: bool
) -> None:
    """Of 80 studies two standard errors are .05; without recipes .3 to .6 of them would be significant."""
    rng = np.random.default_rng(4)
    found = [partial_spearman(x, y, 0, recipes) for x, y, recipes in (of_recipes(rng, sizes) for _ in range(80))]
    assert np.mean([each.p <= 0.05 for each in found]) <= 0.1
    assert np.mean([each.low > 0 or each.high < 0 for each in found]) <= 0.11
    assert abs(np.mean([each.rho for each in found])) < 0.15
    assert {math.isnan(each.p) for each in found} == {not has_p}
    assert {math.isnan(each.low) for each in found} == {not has_interval}
    assert (found[0].trainings, found[0].recipes) == (sum(sizes), len(sizes))


def test_an_association_within_recipes_is_found() -> None:
    rng = np.random.default_rng(5)
    found = [partial_spearman(x, y, 0, recipes) for x, y, recipes in (of_recipes(rng, (4, 4), 0.95) for _ in range(60))]
    assert np.mean([each.p <= 0.05 for each in found]) > 0.4
    assert np.mean([each.rho for each in found]) > 0.5


def test_values_of_whole_recipes_and_the_order_of_trainings_do_not_matter() -> None:
    x, y, recipes = of_recipes(np.random.default_rng(6), (4, 5), 0.7)
    first = partial_spearman(x, y, 0, recipes)
    far = [100.0 * (name == "recipe 1") for name in recipes]
    order = np.random.default_rng(7).permutation(9)
    for again in (
        partial_spearman(x + np.array(far)[:, None], y, 0, recipes),
        partial_spearman(x[order], y[order], 0, [recipes[at] for at in order]),
    ):
        assert (again.rho, again.p, again.low, again.high) == pytest.approx((first.rho, first.p, first.low, first.high))


def test_a_single_recipe_is_what_trainings_without_recipes_are() -> None:
    x, y = trainings(np.random.default_rng(8), 6, 0.5)
    named = partial_spearman(x, y, 0, ["SiT"] * 6)
    assert named == partial_spearman(x, y, 0)
    # as before there were recipes
    assert (named.rho, named.p, named.low, named.high) == pytest.approx(SINGLE, abs=1e-9)
    assert (named.recipes, named.reason) == (1, "")
    # a recipe with one training has nothing to be ranked with
    more = partial_spearman(np.vstack([x, x[:1]]), np.vstack([y, y[:1]]), 0, ["SiT"] * 6 + ["SiT + REPA"])
    assert (more.rho, more.p, more.trainings, more.recipes) == (named.rho, named.p, 6, 1)
    assert more.reason == "recipes with a single training do not count"


def test_p_is_of_all_orders_within_recipes() -> None:
    x = np.arange(8.0)[:, None] + np.array([0.0, 10.0])
    found = partial_spearman(x, 2 * x, 0, ["a"] * 4 + ["b"] * 4)
    # of 24 x 24 orders, the one as it is and its reverse are as extreme
    assert (found.rho, found.p) == (pytest.approx(1), pytest.approx(2 / 576))
    # fourteen trainings have too many orders to go through
    long = np.arange(14.0)[:, None]
    assert partial_spearman(long, long, 0, ["a"] * 7 + ["b"] * 7).p == pytest.approx(1 / 5001)


def test_what_recipes_of_few_trainings_cannot_show_has_a_reason() -> None:
    x = np.arange(6.0)[:, None]
    found = partial_spearman(x, x, 0, ["a", "b"] * 3)
    assert [found.rho, math.isnan(found.p), math.isnan(found.low)] == [pytest.approx(1), True, True]
    assert found.reason == (
        "no p, since of 36 orders within recipes a perfect correlation has p = 0.056; "
        "no interval, since a recipe has fewer than 4 trainings"
    )
    none = partial_spearman(x, x, 0, list("abcdef"))
    assert [math.isnan(none.rho), none.trainings, none.reason] == [True, 6, "no recipe has two trainings"]
    with pytest.raises(ValueError, match="2 recipes are given for 6 trainings"):
        partial_spearman(x, x, 0, ["a", "b"])


def test_seeds_that_recipes_share_are_what_is_permuted() -> None:
    """All that sets trainings apart is their seed, alike in both recipes: two recipes are then no more than one."""
    random = np.random.default_rng(7)
    recipes, seeds = ["a"] * 5 + ["b"] * 5, [*range(5)] * 2
    found = []
    for _ in range(80):
        x, y = (np.tile(random.standard_normal((5, 1)) + 0.3 * random.standard_normal((5, 4)), (2, 1)) for _ in "xy")
        found.append(partial_spearman(x, y, 0, recipes, seeds))
    assert np.mean([each.p <= 0.05 for each in found]) <= 0.1
    assert np.mean([each.low > 0 or each.high < 0 for each in found]) <= 0.12
    assert (found[0].trainings, found[0].recipes, found[0].steps) == (10, 2, 4)
    # the order of rows does not matter
    order = random.permutation(10)
    again = partial_spearman(x[order], y[order], 0, [recipes[at] for at in order], [seeds[at] for at in order])
    assert (again.p, again.rho) == pytest.approx((found[-1].p, found[-1].rho))
    # seeds of their own are trainings
    assert partial_spearman(x, y, 0, recipes, range(10)) == partial_spearman(x, y, 0, recipes)


@pytest.mark.parametrize(
    ("recipes", "seeds", "reason"),
    [
        ("aabb", [0, 1, 0, 2], "recipes share some of their seeds and not others"),
        ("aa", [0, 0], "all trainings have one seed"),
    ],
)
def test_seeds_that_say_nothing_are_a_reason(recipes: str, seeds: list[int], reason: str) -> None:
    values = np.arange(len(seeds), dtype=float)[:, None]
    found = partial_spearman(values, values, 0, list(recipes), seeds)
    assert math.isnan(found.rho)
    assert found.reason == reason


def test_a_single_training_does_not_touch_the_seeds_of_others() -> None:
    random = np.random.default_rng(8)
    x, y = (random.standard_normal((7, 3)) for _ in "xy")
    recipes = ["a"] * 6 + ["b"]
    apart, alike = (partial_spearman(x, y, 0, recipes, [*range(6), last]) for last in (9, 0))
    assert apart == alike
    assert apart.reason == "recipes with a single training do not count"
    assert not math.isnan(apart.p)
