"""Images that come in groups: what is exchanged, left out and held out together, and what errors hold."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from diffalign.alignment import kernel_permutations, nulls
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.calibration import Calibration, calibrate, over_images
from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.groups import Exchanges, Groups
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, Settings, measure_grid
from diffalign.alignment.moments import moments
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, groups_of, print_manifest

K = 5
CKA = ("cka", "unbiased_cka")
ON_LISTS = [name for name, metric in METRICS.items() if metric.shares]


def as_layer(features: np.ndarray, groups: Sequence[str], k: int = K) -> Layer:
    rows = unit_rows(features.astype(np.float32), [str(i) for i in range(len(features))])
    return rows_layer(rows, groups, lambda: nearest_neighbors(rows, k))


def named(size: int, count: int) -> list[str]:
    return [f"g{i // size:03d}" for i in range(count)]


def views(random: np.random.Generator, size: int, count: int) -> list[np.ndarray]:
    """Two noisy linear views of the same latents, half of whose variance groups have in common."""
    latent = random.standard_normal((count // size, 6))[np.arange(count) // size] + random.standard_normal((count, 6))
    maps = np.random.default_rng(9)
    return [latent @ maps.standard_normal((6, 12)) + 2 * random.standard_normal((count, 12)) for _ in "ab"]


def test_images_alone_are_exchanged_as_before() -> None:
    groups = Groups.of([f"i{i}" for i in range(30)])
    assert groups.alone
    assert groups.freedom == 29
    assert groups.exchanges.is_free
    for order, expected in zip(groups.exchanges.orders(5, 3), nulls.permutations(30, 5, 3), strict=True):
        assert np.array_equal(order, expected)


def moved_whole(groups: Groups, order: np.ndarray) -> bool:
    """Whether each group takes the place of one group of its size, image by image."""
    places = [np.flatnonzero(groups.codes == code) for code in range(groups.count)]
    return all(any(np.array_equal(order[place], other) for other in places) for place in places)


def test_groups_of_one_size_are_exchanged_as_wholes() -> None:
    names = ["c", "a", "b", "a", "c", "d", "b", "e", "e", "e"]
    groups = Groups.of(names)
    exchanges = groups.exchanges
    # three of two images, one of one and one of three
    assert (exchanges.groups, exchanges.moved, exchanges.arrangements) == (5, 3, 6)
    orders = list(exchanges.orders(60, 0))
    assert all(moved_whole(groups, order) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert all(order[5] == 5 and list(order[7:]) == [7, 8, 9] for order in orders)
    assert "6 arrangements" in str(exchanges.refusal(0.05))
    assert exchanges.refusal(0.2) is None
    # whatever the order of groups, those drawn are the same
    assert all(np.array_equal(a, b) for a, b in zip(orders, Groups.of(names).exchanges.orders(60, 0), strict=True))


def test_within_labels_only_groups_of_equal_labels_are_exchanged() -> None:
    groups, labels = Groups.of(named(2, 16)), ["cat", "dog", "cat", "dog", *["cat"] * 6, *["dog"] * 6]
    exchanges = groups.exchanges_within(labels)
    assert sorted(len(stratum) for stratum in exchanges.strata) == [2, 3, 3]
    for order in exchanges.orders(20, 1):
        assert moved_whole(groups, order)
        assert [labels[i] for i in order] == labels
    # a label that is the group leaves nothing to exchange
    assert groups.exchanges_within(named(2, 16)).arrangements == 1
    inside = groups.exchanges_inside
    assert all((groups.codes[order] == groups.codes).all() for order in inside.orders(20, 1))
    with pytest.raises(ValueError, match="3 labels of 16 images"):
        groups.exchanges_within(["a"] * 3)


def test_parts_and_halves_are_of_whole_groups() -> None:
    groups = Groups.of(named(4, 48))
    parts = groups.dealt(5, 0, "folds")
    assert all(len(set(parts[groups.codes == code])) == 1 for code in range(12))
    assert sorted(set(parts)) == [0, 1, 2, 3, 4]
    first, second = groups.halves(0)
    assert sorted([*first, *second]) == list(range(48))
    assert not set(groups.codes[first]) & set(groups.codes[second])
    assert groups.at(first).count == 6
    with pytest.raises(ValueError, match="one group"):
        Groups.of(["a"] * 4).halves(0)


def test_ridge_does_not_predict_independent_codes_of_groups() -> None:
    random = np.random.default_rng(0)
    names, group = named(16, 160), np.arange(160) // 16
    codes = [random.standard_normal((10, 12))[group] for _ in "ab"]
    sides = [code + 0.5 * random.standard_normal((160, 12)) for code in codes]
    apart = [[as_layer(side, [str(i) for i in range(160)])] for side in sides]
    whole = [[as_layer(side, names)] for side in sides]
    assert measure_grid(["ridge"], *apart, Settings(K))["ridge"][0, 0] > 0.3
    assert measure_grid(["ridge"], *whole, Settings(K))["ridge"][0, 0] < 0.1
    few = [[as_layer(side, named(80, 160))] for side in sides]
    assert few[0][0].folds().max() == 1
    assert np.isfinite(measure_grid(["ridge"], *few, Settings(K))["ridge"]).all()
    one = [[as_layer(side, ["a"] * 160)] for side in sides]
    with pytest.raises(ValueError, match="160 images are one group"):
        measure_grid(["ridge"], *one, Settings(K))


def dense_variance(influence: np.ndarray, groups: Groups, competing: bool) -> float:
    """Sum of e_ij e_kl over all pairs of edges with images of a common group, or both where that is more."""
    edges = [(i, j) for i, j in np.argwhere(influence).tolist()]
    code = groups.codes
    ends = {edge: {code[edge[0]], code[edge[1]]} for edge in edges}
    dependent = sum(influence[x] * influence[y] for x in edges for y in edges if ends[x] & ends[y])
    if competing:
        return dependent
    return max(dependent, sum(influence[x] * influence[y] for x in edges for y in edges if ends[x] == ends[y]))


@pytest.mark.parametrize("metric", ON_LISTS)
def test_errors_over_groups_equal_their_definition(metric: str) -> None:
    names = [*named(3, 18), "x", "y", "z", "z", "x", "z"]
    a, b = (as_layer(side, names, 3) for side in views(np.random.default_rng(4), 4, 24))
    groups = Groups.of(names)
    scorer = NeighborScores([metric], [a.lists()], [b.lists()], 3)
    influence = scorer.influence(metric)
    expected = math.sqrt(dense_variance(influence.toarray(), groups, METRICS[metric].competing))
    assert scorer.spreads(groups)[metric].error[0, 0] == pytest.approx(expected, rel=1e-8)
    least = dense_variance(influence.toarray(), groups, competing=False)
    assert Covariances([influence], groups).of(np.ones((1, 1)))[0, 0] == pytest.approx(least, rel=1e-8)
    # of images alone, by the same sums
    alone = Groups.of([str(i) for i in range(24)])
    one, other = scorer.spreads(alone)[metric], scorer.spreads()[metric]
    for part in ("error", "of_single", "of_pairs"):
        assert getattr(one, part)[0, 0] == pytest.approx(getattr(other, part)[0, 0], rel=1e-8), part


def test_intervals_over_groups_cover_where_those_over_images_do_not() -> None:
    """20 groups of 8: in benchmarks/groups.py, 200 studies of each size."""
    random, names = np.random.default_rng(1), named(8, 160)
    groups, metrics = Groups.of(names), ("unbiased_cka", "mutual_knn")
    found = []
    for _ in range(60):
        a, b = ([as_layer(side, names).held()] for side in views(random, 8, 160))
        scores = measure_grid(metrics, a, b, Settings(K))
        bounds = [over_images(scores, a, b, Settings(K), groups=given) for given in (None, groups)]
        ends = [{name: getattr(each[name], end) for name in metrics} for each in bounds for end in ("low", "high")]
        found.append([[each[name][0, 0] for name in metrics] for each in (scores, *ends)])
    measured, *ends = np.array(found).swapaxes(0, 1)
    truth = measured.mean(axis=0)
    covered = [((low <= truth) & (truth <= high)).mean(axis=0) for low, high in (ends[:2], ends[2:])]
    assert covered[0][0] < 0.87
    assert (covered[1] >= 0.9).all()


def test_codes_of_groups_are_significant_against_images_and_not_against_groups() -> None:
    random, names = np.random.default_rng(2), named(6, 72)
    group, hits = np.arange(72) // 6, []
    metrics = ("unbiased_cka", "mutual_knn")
    for _ in range(40):
        codes = [3 * random.standard_normal((12, 8))[group] for _ in "ab"]
        a, b = ([as_layer(code + random.standard_normal((72, 8)), names).held()] for code in codes)
        scores = measure_grid(metrics, a, b, Settings(K))
        p = [
            calibrate(scores, a, b, Settings(K), 19, 0.05, 0, exchanges=each)
            for each in (None, Groups.of(names).exchanges)
        ]
        assert p[1]["unbiased_cka"].method == "permutations"
        hits.append([[each[name].p[0, 0] <= 0.05 for name in metrics] for each in p])
    rates = np.mean(hits, axis=0)
    assert (rates[0] > 0.9).all()
    assert (rates[1] <= 0.15).all()


def with_outliers(random: np.random.Generator, count: int, outliers: int) -> np.ndarray:
    rows = 30 * random.standard_normal(32) + random.standard_normal((count, 32))
    rows[random.choice(count, outliers, replace=False)] = 30 * random.standard_normal((outliers, 32))
    return rows


def test_cka_of_nearly_collinear_rows_with_outliers_is_permuted() -> None:
    random, names = np.random.default_rng(3), [str(i) for i in range(100)]
    by_moments, reported = [], []
    for _ in range(30):
        a, b = ([as_layer(with_outliers(random, 100, 3), names)] for _ in "ab")
        scores = measure_grid(CKA, a, b, Settings(K))
        found = calibrate(scores, a, b, Settings(K), 39, 0.05, 0)
        assert {each.method for each in found.values()} == {"permutations"}
        assert len(found["cka"].maxima) == 39
        reported.append([each.p[0, 0] <= 0.05 for each in found.values()])
        sums = [moments(side[0].rows()) for side in (a, b)]
        cubes = ([nulls.kernel_cubes(sums[0])], [nulls.kernel_cubes(sums[1])])
        closed = nulls.unbiased_cka_moments(sums[:1], sums[1:], cubes)
        by_moments.append(closed.p(scores["unbiased_cka"])[0, 0] <= 0.05)
    assert np.mean(by_moments) > 0.5
    assert (np.mean(reported, axis=0) <= 0.17).all()


def pair_of(random: np.random.Generator, outliers: int) -> tuple[list[Layer], list[Layer]]:
    names = [str(i) for i in range(60)]
    both = [as_layer(random.standard_normal((60, 8)), names) for _ in "ab"]
    return both[:1], [both[1], as_layer(with_outliers(random, 60, outliers), names)]


def test_kernels_give_the_scores_of_relabelled_layers() -> None:
    a, b = pair_of(np.random.default_rng(5), 3)
    orders = list(nulls.permutations(60, 3, 0))
    sums = [[lambda layer=layer: moments(layer.rows()) for layer in side] for side in (a, b)]  # type: ignore[misc]
    for memory in (1, 2**30):
        found = kernel_permutations.permuted_cka(CKA, sums[0], sums[1], orders, 0.0, memory)
        for i, order in enumerate(orders):
            moved = measure_grid(CKA, a, [layer.relabelled(order) for layer in b], Settings(K))
            for name in CKA:
                assert found[name][i] == pytest.approx(moved[name], abs=1e-6)
    with pytest.raises(ValueError, match="no statistic of 'rsa'"):
        kernel_permutations.permuted_cka(["rsa"], sums[0], sums[1], orders, 0.0)


def calibrated(a: list[Layer], b: list[Layer], metric: str, exchanges: Exchanges | None = None) -> Calibration:
    scores = measure_grid([metric], a, b, Settings(K))
    return calibrate(scores, a, b, Settings(K), 19, 0.05, 0, exchanges=exchanges)[metric]


def test_p_is_refused_where_its_method_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    a, b = [as_layer(with_outliers(random, 60, 3), ["a"] * 60)], pair_of(random, 3)[1]
    monkeypatch.setattr(kernel_permutations, "MOST_PRODUCTS", 10)
    found = calibrated(a, b, "unbiased_cka")
    assert found.method == "moments"
    assert np.isnan(found.p[0, 1])
    assert np.isnan(found.threshold[0, 1])
    assert math.isnan(found.maximum_p)
    assert "few images make up most" in str(found.reason)
    assert "products of kernel entries" in str(found.reason)
    groups = Groups.of(named(3, 60))
    refused = calibrated(a, b, "unbiased_cka", groups.exchanges)
    assert refused.method == "refused"
    assert np.isnan(refused.mean).all()
    assert "images come in groups" in str(calibrated(a, b, "rsa_pearson", groups.exchanges).reason)
    few = Groups.of(named(20, 60)).exchanges
    without = calibrated(a, b, "mutual_knn", few)
    assert np.isnan(without.p).all()
    assert np.isfinite(without.mean).all()
    assert "have 6 arrangements" in str(without.reason)


def test_no_p_is_below_what_moments_resolve() -> None:
    a, _ = pair_of(np.random.default_rng(7), 0)
    same = calibrated(a, a, "unbiased_cka")
    assert same.method == "moments"
    assert same.p[0, 0] == nulls.SMALLEST_P


def write_manifest(path: Path, names: Sequence[str], size: int) -> Path:
    images = [Image(name, f"c{i % 4}", i % 4, "", "", "", "", group=f"g{i // size}") for i, name in enumerate(names)]
    path.write_text(print_manifest(images))
    return path


def test_a_manifest_says_groups(tmp_path: Path) -> None:
    assert Image("a", "", -1, "", "", "", "").group == "a"
    path = write_manifest(tmp_path / "m.tsv", ["a", "b", "c"], 2)
    assert groups_of(path, ["c", "a"]) == ("g1", "g0")
    with pytest.raises(StoreError, match="lacks 1 of 2 images, first: z"):
        groups_of(path, ["a", "z"])
