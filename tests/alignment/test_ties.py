"""Images that are equally similar: lists, credit for shared places, nulls, and what renaming changes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_neighbors
from dense_metrics import dense_credit, names, related, unit, with_ties

from diffalign.alignment import METRICS
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.graphs import UnlistedTies, broken_graphs, knn_graphs
from diffalign.alignment.metrics import Layer, NeighborScores, Settings, measure_grid
from diffalign.alignment.nulls import mutual_knn_moments
from diffalign.alignment.per_image import per_image
from diffalign.alignment.search import exact
from diffalign.alignment.search.exact import Neighbors, Ties, nearest_neighbors
from diffalign.alignment.ties import ListsTooShort, first, joined, restricted
from diffalign.io import neighbor_files
from diffalign.io.headers import StoreError

ON_LISTS = [name for name, metric in METRICS.items() if metric.uses_k]
UNORDERED = [name for name in ON_LISTS if not METRICS[name].ordered]


def one_hot(seed: int, count: int, classes: int = 6) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.random.default_rng(seed).integers(0, classes, count)]


def labels(seed: int, count: int = 60, k: int = 5) -> Neighbors:
    return nearest_neighbors(unit(one_hot(seed, count)), k)


def same(a: Neighbors, b: Neighbors) -> None:
    assert np.array_equal(a.indices, b.indices)
    assert np.array_equal(a.similarities, b.similarities)
    assert (a.ties is None) == (b.ties is None)
    if a.ties and b.ties:
        for member in ("tied", "counts", "rest", "unlisted"):
            assert np.array_equal(getattr(a.ties, member), getattr(b.ties, member)), member


def test_lists_say_who_shares_their_last_places() -> None:
    classes = np.array([0, 0, 0, 0, 1, 1])
    lists = nearest_neighbors(np.eye(2, dtype=np.float32)[classes], 2)
    assert lists.indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [5, 0], [4, 0]]
    assert lists.ties is not None
    assert lists.ties.tied.tolist() == [[False, True]] * 4 + [[False, False]] * 2
    assert lists.ties.counts.tolist() == [1, 1, 1, 1, 3, 3]
    assert lists.ties.rest.tolist() == [3, 3, 3, 2, 1, 2, 3, 1, 2, 3]
    assert not lists.ties.unlisted.any()
    graph = knn_graphs([lists], 2)
    assert graph.credit == pytest.approx([2 / 3] * 12 + [1, *[1 / 4] * 4] * 2)
    assert graph.degree == pytest.approx(22 / 6)
    assert knn_graphs([lists], 1).credit == pytest.approx([1 / 3] * 12 + [1] * 2)
    # nothing is shared at the end of these lists
    assert knn_graphs([nearest_neighbors(np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]], 2)], 2).credit is None


def test_features_without_ties_have_lists_without_ties() -> None:
    lists = nearest_neighbors(unit(related(0)[0]), 10)
    assert lists.ties is None
    assert first(lists, 4).ties is None
    assert restricted(lists, np.arange(0, 60, 2), 2).ties is None
    assert knn_graphs([lists], 10).credit is None
    assert np.array_equal(broken_graphs([lists], 10, "0").lists[0], lists.indices)


@pytest.mark.parametrize("k", [1, 4, 9, 30])
@pytest.mark.parametrize("features", [one_hot(0, 60), with_ties(0)[0], np.ones((60, 3), np.float32)])
def test_the_credit_of_edges_is_their_probability_under_random_orders(features: np.ndarray, k: int) -> None:
    lists = nearest_neighbors(unit(features), k)
    graph = knn_graphs([lists], k)
    credit = np.zeros((60, 60))
    credit[graph.images, graph.targets] = 1 if graph.credit is None else graph.credit
    assert credit == pytest.approx(dense_credit(unit(features), k))
    assert credit.sum(axis=1) == pytest.approx(k)
    drawn = np.zeros((60, 60))
    for draw in range(200):
        once = broken_graphs([lists], k, str(draw))
        assert (once.credit, once.degree) == (None, k)
        drawn[once.images, once.targets] += 1 / 200
    assert np.abs(drawn - credit).max() < 0.19
    assert np.abs(drawn - credit).mean() < 0.03


@pytest.mark.parametrize("features", [one_hot(0, 60), with_ties(0)[0]])
def test_shorter_lists_are_those_of_another_search(features: np.ndarray) -> None:
    rows = unit(features)
    for long, short in ((40, 7), (12, 11), (59, 1)):
        same(first(nearest_neighbors(rows, long), short), nearest_neighbors(rows, short))


@pytest.mark.parametrize("keep", [np.arange(0, 60, 2), np.arange(5, 60), np.arange(60)])
@pytest.mark.parametrize("features", [one_hot(0, 60), with_ties(0)[0]])
def test_restricted_lists_with_ties_are_those_of_a_new_search(features: np.ndarray, keep: np.ndarray) -> None:
    rows = unit(features)
    fresh = nearest_neighbors(np.ascontiguousarray(rows[keep]), 4)
    for k_max in (30, 45, 59):
        same(restricted(nearest_neighbors(rows, k_max), keep, 4), fresh)


def test_ties_beyond_a_list_count_among_its_neighbours() -> None:
    rows, keep = np.eye(6, dtype=np.float32)[np.arange(60) % 6], np.arange(30, 60)
    lists = nearest_neighbors(rows, 3)
    # four of the nine images of a class are left, and of the first three images in a list none
    same(restricted(lists, keep, 3), nearest_neighbors(rows[keep], 3))
    with pytest.raises(ListsTooShort, match="30 of 60 images leave 4 of 3 neighbours in a list, and k = 5"):
        restricted(lists, keep, 5)


@pytest.mark.parametrize("metric", ON_LISTS)
def test_renaming_changes_nothing(metric: str) -> None:
    """Random orders of ties are drawn anew, so scores that need them stay within what these change."""
    random = np.random.default_rng(0)
    for kind in (labelled(80), duplicated(80)):
        values = []
        for _ in range(12):
            order = random.permutation(80)
            layers = [[array_layer(side[order], names(80), 5)] for side in kind]
            values.append(measure_grid([metric], *layers, Settings(5))[metric][0, 0])
        assert np.ptp(values) <= {"lcs_knn": 0.15, "edit_distance_knn": 0.03}.get(metric, 1e-11)
        assert np.mean(values) > 0


def labelled(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which half are the same on both sides."""
    a, b = one_hot(0, count), one_hot(1, count)
    b[: count // 2] = a[: count // 2]
    return a, b


def duplicated(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with rows that stand twice: other rows on each side."""
    a, b = related(0, count)
    a[: count // 4], b[: count // 4] = a[count // 4 : count // 2], b[count // 2 : 3 * count // 4]
    return a, b


@pytest.mark.parametrize("metric", ON_LISTS)
def test_independent_labels_are_significant_as_often_as_they_should_be(
    metric: str, labels_p: dict[str, np.ndarray]
) -> None:
    p = labels_p[metric]
    # 60 independent studies: .05 and two standard errors; ties in the order of names gave .6 to .9
    assert (p <= 0.05).mean() <= 0.12
    assert 0.38 < p.mean() < 0.62


@pytest.fixture(scope="module")
def labels_p() -> dict[str, np.ndarray]:
    """p-values (60,) of every metric for independent labels of 40 images."""
    found = []
    for seed in range(60):
        sides = [[array_layer(one_hot(1000 * side + seed, 40, 4), names(40), 4)] for side in range(2)]
        scores = measure_grid(ON_LISTS, *sides, Settings(4))
        calibrations = calibrate(scores, *sides, Settings(4), 39, 0.05, seed)
        found.append([calibrations[name].p[0, 0] for name in ON_LISTS])
    return dict(zip(ON_LISTS, np.array(found).T, strict=True))


@pytest.mark.parametrize("metric", [name for name in ON_LISTS if METRICS[name].symmetric])
def test_symmetric_metrics_stay_symmetric(metric: str) -> None:
    sides = [[nearest_neighbors(unit(x), 5)] for x in labelled(60)]
    forth, back = (NeighborScores([metric], *pair, 5).scores()[metric] for pair in (sides, sides[::-1]))
    assert forth == back


@pytest.mark.parametrize("metric", UNORDERED)
def test_permuted_scores_with_ties_are_those_of_shuffled_features(metric: str) -> None:
    sides = labelled(60)
    order = np.random.default_rng(0).permutation(60)
    # one side without ties, too
    for a, b in (sides, (sides[0], related(0)[0]), (related(0)[0], sides[1])):
        rows = unit(a), unit(b)
        lists = [[nearest_neighbors(x, 5)] for x in (*rows, np.ascontiguousarray(rows[1][order]))]
        under = NeighborScores([metric], lists[0], lists[1], 5).scores(permutation=order)
        assert under == NeighborScores([metric], lists[0], lists[2], 5).scores()


def test_grids_with_ties_are_their_single_pairs() -> None:
    a, b = labelled(60)
    sides = [[nearest_neighbors(unit(x), 5) for x in side] for side in ((a, related(0)[0]), (related(0)[1], b, a))]
    order = np.random.default_rng(0).permutation(60)
    whole = NeighborScores(ON_LISTS, *sides, 5)
    for permutation in (None, order):
        grids = whole.scores(permutation=permutation)
        for i in range(2):
            for j in range(3):
                one = NeighborScores(ON_LISTS, sides[0][i : i + 1], sides[1][j : j + 1], 5)
                for name, value in one.scores(permutation=permutation).items():
                    assert grids[name][i, j] == pytest.approx(value[0, 0], abs=1e-11), name


@pytest.mark.parametrize("classes", [(2, 3), (3, 3)])
def test_moments_of_mutual_knn_with_ties_over_all_permutations(classes: tuple[int, int]) -> None:
    from itertools import permutations

    neighbors = [[nearest_neighbors(unit(one_hot(i, 6, c)), 2)] for i, c in enumerate(classes)]
    scores = NeighborScores(["mutual_knn"], neighbors[0], neighbors[1], 2)
    values = np.array([scores.scores(0, np.array(o))["mutual_knn"][0, 0] for o in permutations(range(6))])
    null = mutual_knn_moments(*(knn_graphs(side, 2) for side in neighbors))
    assert null.mean[0, 0] == pytest.approx(values.mean(), abs=1e-10)
    assert null.sd[0, 0] == pytest.approx(values.std(), abs=1e-9)
    assert null.sd[0, 0] > 0


def test_a_tie_of_too_many_images_is_refused_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_FURTHER", 20 * 60)
    classes = np.arange(60) % 6
    rows = np.eye(6, dtype=np.float32)[classes]
    lists = nearest_neighbors(rows, 20)
    assert lists.ties is not None
    # 50 images of other classes share eleven places
    assert set(lists.ties.unlisted.tolist()) == {39}
    assert len(lists.ties.rest) == 0
    with pytest.raises(UnlistedTies, match=r"k = 12 nearest neighbours of 60 of 60 .* up to 47 more .* such as cka"):
        knn_graphs([nearest_neighbors(rows, 12)], 12)
    for ordered in (knn_graphs, lambda x, k: broken_graphs(x, k, "0")):
        with pytest.raises(UnlistedTies, match="up to 39 more images"):
            ordered([lists], 20)
    # within the classes all is known
    assert knn_graphs([lists], 9).credit is None
    assert knn_graphs([lists], 5).credit == pytest.approx(5 / 9)
    assert restricted(lists, np.arange(0, 60, 2), 4).ties is not None
    with pytest.raises(UnlistedTies):
        knn_graphs([restricted(lists, np.arange(0, 60, 2), 10)], 10)


def test_files_keep_ties_and_parts_are_merged_to_the_byte(tmp_path: Path) -> None:
    rows = {"labels": unit(one_hot(0, 60)), "plain": unit(related(0)[0])}
    write_neighbors(tmp_path / "m.npz", names(60), {x: nearest_neighbors(r, 7) for x, r in rows.items()}, {}, {})
    read = neighbor_files.read_neighbors(tmp_path / "m.npz")
    for layer, of_layer in rows.items():
        same(read.layer(layer), nearest_neighbors(of_layer, 7))
    parts = []
    for start, stop in ((0, 13), (13, 13), (13, 60)):
        parts.append(tmp_path / f"{start}.{stop}.npz")
        with neighbor_files.writing(parts[-1]) as file:
            for layer, of_layer in rows.items():
                file.add(layer, nearest_neighbors(of_layer, 7, range(start, stop)))
            file.finish(names(60), {}, {}, range(start, stop))
    neighbor_files.merge_parts(parts, tmp_path / "merged.npz")
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "m.npz").read_bytes()


def test_files_that_do_not_say_where_ties_are_must_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbor_files, "KIND", neighbor_files.FileKind("a neighbour file", 1))
    write_neighbors(tmp_path / "m.npz", names(60), {"b0": labels(0)}, {}, {})
    monkeypatch.undo()
    with pytest.raises(StoreError, match="format 1 does not say which neighbours are equally similar; delete"):
        neighbor_files.read_neighbors(tmp_path / "m.npz")


def test_the_mean_overlap_is_mutual_knn_with_ties() -> None:
    a, b = labels(0), labels(1)
    columns = per_image(a, b, 5)
    score = NeighborScores(["mutual_knn"], [a], [b], 5).scores()["mutual_knn"][0, 0]
    assert columns.overlap.mean() == pytest.approx(score)
    credit = [dense_credit(unit(one_hot(seed, 60)), 5) for seed in range(2)]
    both = credit[0] * credit[1]
    assert columns.shared == pytest.approx(both.sum(axis=1))
    with np.errstate(invalid="ignore"):
        reciprocal = (both * both.T).sum(axis=1) / both.sum(axis=1)
    assert columns.reciprocal == pytest.approx(reciprocal, nan_ok=True)
    assert columns.in_degree_b == pytest.approx(credit[1].sum(axis=0))
    for lists, seed in ((columns.neighbors_a, 0), (columns.neighbors_b, 1)):
        assert (np.take_along_axis(credit[seed], lists.astype(np.intp), 1) > 0).all()
    # orders of ties are not the same on both sides
    alike = per_image(a, a, 5)
    assert alike.is_shared_a.mean() < 0.8
    assert alike.shared.mean() < 4


def test_parts_with_and_without_ties_are_joined() -> None:
    plain = nearest_neighbors(unit(related(0)[0]), 5)
    both = joined([plain, labels(0)])
    assert isinstance(both.ties, Ties)
    assert not both.ties.tied[:60].any()
    same(joined([plain]), plain)


def test_an_influence_over_random_orders_is_their_mean() -> None:
    a, b = ([nearest_neighbors(unit(x), 5)] for x in labelled(40))
    edges = NeighborScores(["lcs_knn"], a, b, 5).influence("lcs_knn")
    assert edges.shape == (40, 40)
    assert edges.sum() == pytest.approx(0, abs=1e-9)


def test_relabelled_layers_with_ties_are_measured_by_their_edges() -> None:
    layer = Layer(60, lambda: labels(0), lambda: unit(one_hot(0, 60)), lambda: np.arange(60))
    found = measure_grid(ON_LISTS, [layer], [layer], Settings(5))
    # a layer shares places with itself in expectation only
    assert 0 < found["mutual_knn"][0, 0] < 1
    assert 0 < found["cknna"][0, 0] < 1
