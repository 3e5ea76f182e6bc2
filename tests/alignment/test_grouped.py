"""Images in groups: what the group has in common is no evidence, and errors are over groups."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from diffalign.alignment import grouped
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import over_images
from diffalign.alignment.grouped import Grouped, against, within_groups
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Layer, Settings, measure_grid
from diffalign.alignment.nulls import permutations
from diffalign.alignment.series import Drawn

SHOWN = ("cknna", "mutual_knn", "unbiased_cka", "cka", "svcca", "rsa_pearson", "procrustes")
K = 4
SETTINGS = Settings(K)
Order = np.ndarray


def sides(a: Sequence[np.ndarray], b: np.ndarray, groups: Sequence[str]) -> Grouped:
    names = [f"n{i:03d}" for i in range(len(groups))]

    def of(features: Sequence[np.ndarray], keep: Order | None) -> list[Layer]:
        kept = np.arange(len(names)) if keep is None else keep
        return [array_layer(each[kept].astype(np.float32), [names[i] for i in kept], K).held() for each in features]

    return Grouped(names, groups, lambda keep: of(a, keep), lambda keep: of([b], keep))


def study(
    random: np.random.Generator, sizes: Sequence[int], strength: float = 2.0, shared: float = 0.0, depth: int = 1
) -> Grouped:
    """Groups have effects of their own on either side; `shared` is what both sides see of each image."""
    at = np.repeat(np.arange(len(sizes)), sizes)
    common = shared * random.standard_normal((len(at), 12))

    def side() -> np.ndarray:
        effects = strength * random.standard_normal((len(sizes), 12))
        return effects[at] + common + random.standard_normal((len(at), 12))

    return sides([side() for _ in range(depth)], side(), [f"g{group}" for group in at])


def test_orders_stay_within_groups_and_are_keyed() -> None:
    groups = ["b", "a", "b", "c", "a", "b"]
    orders = list(within_groups(groups, 50, 3))
    for order in orders:
        assert sorted(order) == list(range(6))
        assert [groups[i] for i in order] == groups
    assert len({tuple(order) for order in orders}) == 12
    again = list(within_groups(groups, 50, 3))
    assert all(np.array_equal(a, b) for a, b in zip(orders, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(orders, within_groups(groups, 50, 4), strict=True))
    with pytest.raises(ValueError, match="each of 3 images is a group of its own"):
        next(within_groups(["a", "b", "c"], 9, 0))


def test_nulls_are_scores_of_relabelled_images() -> None:
    random = np.random.default_rng(0)
    groups = [f"g{i % 3}" for i in range(24)]
    a, b = [random.standard_normal((24, 12)) for _ in range(2)], random.standard_normal((24, 12))
    both = sides(a, b, groups)
    scores = measure_grid(SHOWN, both.a(None), both.b(None), SETTINGS)
    orders = list(within_groups(groups, 5, 0))
    null = grouped._permuted(scores, both.a(None), both.b(None), SETTINGS, orders, 2**30)
    # procrustes declares none
    assert set(null) == set(SHOWN) - {"procrustes"}
    for draw, order in enumerate(orders):
        moved = measure_grid(list(null), both.a(None), sides(a, b[order], groups).b(None), SETTINGS)
        for name, values in null.items():
            assert np.allclose(values[draw], moved[name], atol=1e-6), name
    unmoved = grouped._permuted(scores, both.a(None), both.b(None), SETTINGS, [np.arange(24)], 2**30)
    for name, values in unmoved.items():
        # a tie counts against the score
        assert np.array_equal(values[0], scores[name]), name


def test_groups_alone_are_significant_at_the_level_of_the_test() -> None:
    random, metrics, studies = np.random.default_rng(0), ("mutual_knn", "unbiased_cka"), 400
    rejected, free = dict.fromkeys(metrics, 0), dict.fromkeys(metrics, 0)
    with threadpool_limits(1):
        for number in range(studies):
            both = study(random, ([10] * 4, [18, 9, 6, 4, 3])[number % 2])
            layers, reference = both.a(None), both.b(None)
            scores = measure_grid(metrics, layers, reference, SETTINGS)
            orders = list(within_groups(both.groups, 19, number))
            if number < 20:
                orders += permutations(len(both.names), 19, number)
            null = grouped._permuted(scores, layers, reference, SETTINGS, orders, 2**30)
            for name in metrics:
                # of 20 values with the score, the largest is significant at .05
                rejected[name] += bool(scores[name] > null[name][:19].max())
                free[name] += len(orders) > 19 and bool(scores[name] > null[name][19:].max())
    for name in metrics:
        assert 0.03 <= rejected[name] / studies <= 0.07, name
        assert free[name] >= 18, name


def test_what_is_shared_beyond_groups_is_found_and_what_groups_make_is_the_mean_of_the_null() -> None:
    found = against(
        SHOWN, study(np.random.default_rng(1), [15] * 4, shared=2.0, depth=2), None, SETTINGS, Drawn(99, 0.05, 0)
    )
    alone = against(SHOWN, study(np.random.default_rng(2), [15] * 4, depth=2), None, SETTINGS, Drawn(99, 0.05, 0))
    for name in ("cknna", "mutual_knn", "unbiased_cka", "cka"):
        assert found[name].row(1)["p"] == 0.01, name
        assert found[name].row(1)["calibrated"] > 0
        assert found[name].maximum_p == 0.01
        row = alone[name].row(0)
        assert row["p"] > 0.05, name
        assert row["calibrated"] == 0
        assert row["null_mean"] == pytest.approx(row["score"], abs=3 * row["null_sd"])
        assert row["score"] > 0.15
    assert found["procrustes"].null is None


def test_errors_leave_out_whole_groups() -> None:
    both = study(np.random.default_rng(3), [8] * 5, shared=1.0)
    found = against(["mutual_knn", "cka"], both, None, SETTINGS, Drawn(19, 0.05, 0))
    for name in ("mutual_knn", "cka"):
        left = [
            measure_grid([name], both.a(keep), both.b(keep), SETTINGS)[name].item()
            for group in sorted(set(both.groups))
            for keep in [np.flatnonzero([each != group for each in both.groups])]
        ]
        expected = np.sqrt(4 / 5 * np.square(np.array(left) - np.mean(left)).sum())
        assert found[name].row(0)["error"] == pytest.approx(expected)


def test_errors_over_groups_are_wider_than_over_images_where_groups_differ() -> None:
    """Of 12 studies: the spread of scores, which errors should be near or above."""
    random, scores, errors, naive = np.random.default_rng(4), [], [], []
    for _ in range(12):
        # groups that are near each other on one side are near each other on the other, but for few groups
        both = study(random, [6] * 8, strength=2, shared=0.5)
        measured = measure_grid(["cka"], both.a(None), both.b(None), SETTINGS)
        scores.append(measured["cka"].item())
        errors.append(against(["cka"], both, None, SETTINGS, Drawn(19, 0.05, 0))["cka"].row(0)["error"])
        naive.append(over_images(measured, both.a(None), both.b(None), SETTINGS)["cka"].error.item())
    assert np.mean(errors) > 1.3 * np.mean(naive)
    assert np.mean(errors) > 0.7 * np.std(scores, ddof=1)


def test_many_groups_are_left_out_in_parts_and_one_group_sample_by_sample() -> None:
    random = np.random.default_rng(5)
    for sizes in ([2] * 30, [30]):
        both = study(random, sizes, shared=1.0)
        seen: list[Order] = []

        def counted(keep: Order | None, of: grouped.LayersOf = both.a, seen: list[Order] = seen) -> Sequence[Layer]:
            if keep is not None:
                seen.append(keep)
            return of(keep)

        watched = Grouped(both.names, both.groups, counted, both.b)
        error = against(["cka"], watched, None, SETTINGS, Drawn(19, 0.05, 0))["cka"].row(0)["error"]
        assert error > 0
        assert len(seen) == grouped.PARTS
        for keep in seen:
            left = set(range(len(both.names))) - set(keep)
            of_left = [both.groups[i] for i in left]
            assert len(sizes) == 1 or all(of_left.count(group) == 2 for group in set(of_left))


def test_halves_are_of_whole_groups_if_there_are_four() -> None:
    groups = [f"g{i % 6}" for i in range(36)]
    both = sides([np.ones((36, 3))], np.ones((36, 3)), groups)
    first, second = both.halves(0)
    assert sorted([*first, *second]) == list(range(36))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert len(first) == len(second) == 18
    assert all(a < b for a, b in pairwise(first))
    few = sides([np.ones((36, 3))], np.ones((36, 3)), [f"g{i % 3}" for i in range(36)])
    assert all(np.array_equal(a, b) for a, b in zip(few.halves(0), Groups.of(few.names).halves(0), strict=True))
    assert not np.array_equal(both.halves(1)[0], first)


def test_groups_of_one_image_have_scores_and_no_null() -> None:
    both = study(np.random.default_rng(6), [1] * 20, shared=1.0)
    row = against(["mutual_knn"], both, None, SETTINGS, Drawn(19, 0.05, 0))["mutual_knn"].row(0)
    assert row["score"] > 0
    assert row["error"] > 0
    assert np.isnan(row["p"])


def test_what_is_refused() -> None:
    both = study(np.random.default_rng(7), [5] * 4)
    with pytest.raises(ValueError, match="9 permutations cannot reject anything at alpha = 0.05"):
        against(["cka"], both, None, SETTINGS, Drawn(9, 0.05, 0))
    with pytest.raises(ValueError, match="3 groups of 20 images"):
        Grouped(both.names, ["a", "b", "c"], both.a, both.b)
    assert METRICS["procrustes"].null.__class__.__name__ == "NoNull"
