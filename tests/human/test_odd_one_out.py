import json
from pathlib import Path

import numpy as np
import pytest
from conftest import golden, things

from diffalign.human import odd_one_out as module
from diffalign.human.ceilings import ceilings, clustered, votes
from diffalign.human.dependence import covariance
from diffalign.human.odd_one_out import (
    CHANCE,
    DISTANCES,
    likelihood,
    odd_one_out,
    pair_similarities,
    per_category,
    per_object,
)
from diffalign.human.triplets import TripletError, Triplets, distinct, read_triplets, stacked


@pytest.fixture(scope="module")
def people() -> Triplets:
    return read_triplets(things("test_triplets.csv"), 1854, first=1, odd="column")


@pytest.fixture(scope="module")
def vice() -> np.ndarray:
    return np.load(things("vice_embedding.npy"))


def random_triplets(count: int, objects: int, seed: int = 0) -> Triplets:
    draws = np.random.default_rng(seed)
    return Triplets(np.stack([draws.choice(objects, 3, replace=False) for _ in range(count)]).astype(np.int32), objects)


@pytest.mark.parametrize(("distance", "published"), [("dot", 0.63565), ("cosine", 0.63195), ("correlation", 0.62485)])
def test_human_dimensions_predict_human_choices_as_published(
    people: Triplets, vice: np.ndarray, distance: str, published: float
) -> None:
    assert odd_one_out(vice, people, distance).credit().mean() == pytest.approx(published, abs=1e-12)


def test_likelihood_of_human_choices(people: Triplets, vice: np.ndarray) -> None:
    similarities, _ = pair_similarities(vice, people, "dot")
    fitted = likelihood(similarities)
    assert fitted.nll == pytest.approx(0.83652, abs=5e-6)
    assert fitted.fitted < fitted.nll
    # the fit is where the slope vanishes: no temperature nearby is better
    for factor in (0.99, 1.01):
        assert likelihood(similarities / (fitted.temperature * factor)).nll > fitted.fitted
    assert likelihood(similarities / fitted.temperature).nll == pytest.approx(fitted.fitted, abs=1e-12)


def test_a_representation_that_knows_nothing_has_an_infinite_temperature() -> None:
    triplets = random_triplets(50, 10)
    assert likelihood(np.zeros((50, 3))).fitted == pytest.approx(np.log(3))
    similarities = np.tile([0.0, 1.0, 2.0], (len(triplets), 1))
    assert likelihood(similarities).temperature == np.inf


def test_human_ceilings(people: Triplets) -> None:
    ceiling = ceilings(people)
    assert ceiling is not None
    assert ceiling.majority == pytest.approx(0.67221, abs=5e-6)
    assert ceiling.leave_one_out == pytest.approx(0.64379, abs=5e-6)
    assert (ceiling.triplets, ceiling.choices) == (1000, 20000)
    assert ceilings(people.taken(np.array([0, 1]))) is None
    distinct_triplets, counts = votes(people)
    assert (distinct_triplets[:, :2] < distinct_triplets[:, 1:]).all()
    assert counts.sum() == 20000


def test_intervals_over_triplets_and_people(people: Triplets, vice: np.ndarray) -> None:
    gained = np.stack([odd_one_out(vice, people, d).credit() for d in ("dot", "cosine")])
    by_triplet = clustered(gained, people.groups, seed=0)
    by_person = clustered(gained, people.people, seed=0)
    naive = clustered(gained, None, seed=0)
    assert by_triplet.means[0] == pytest.approx(0.63565)
    assert by_triplet.errors[0] == pytest.approx(0.0068, abs=1.5e-4)
    assert by_person.errors[0] == pytest.approx(0.0096, abs=1.5e-4)
    assert naive.errors[0] == pytest.approx(0.0034, abs=1e-4)
    assert (by_triplet.low[0], by_triplet.high[0]) == (pytest.approx(0.622, abs=1e-3), pytest.approx(0.649, abs=1e-3))
    both = covariance(gained, people, ("objects", "people")).interval().error
    assert both[0] > max(by_triplet.errors[0], by_person.errors[0])
    # the draws are keyed by the seed, and shared by all layers
    alone, other = (clustered(gained[:1], people.groups, seed=seed).low for seed in (0, 1))
    np.testing.assert_allclose(alone, by_triplet.low[:1], rtol=1e3 * np.finfo(np.float64).eps)
    assert not np.allclose(other, by_triplet.low[:1], rtol=1e-6)


def test_many_clusters_have_the_error_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    gained = np.random.default_rng(0).random((1, 4000))
    groups = np.arange(4000) // 2
    drawn = clustered(gained, groups, seed=0)
    monkeypatch.setattr("diffalign.human.ceilings._MOST_CLUSTERS", 10)
    linearised = clustered(gained, groups, seed=0)
    assert (drawn.method, linearised.method) == ("bootstrap", "sandwich")
    assert linearised.errors[0] == pytest.approx(drawn.errors[0], rel=0.05)
    assert linearised.low[0] == pytest.approx(drawn.low[0], abs=1e-3)
    pairs = gained.reshape(-1, 2).mean(axis=1)
    assert linearised.errors[0] == pytest.approx(pairs.std(ddof=1) / np.sqrt(len(pairs)))


def test_ties_on_a_binarised_embedding(people: Triplets, vice: np.ndarray) -> None:
    choices = odd_one_out((vice > 0.5).astype(np.float32), people, "dot")
    assert choices.credit("published").mean() == pytest.approx(0.6199, abs=1e-4)
    assert choices.credit().mean() == pytest.approx(0.5713, abs=1e-4)
    assert 0.3 < choices.tie_rate < 0.32


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "dot"])
def test_choices_of_the_published_code(distance: str) -> None:
    with np.load(golden("odd_one_out.npz")) as file:
        features, objects = file["features"], file["triplets"]
    expected = json.loads(golden("odd_one_out.json").read_text())["values"][distance]
    triplets = Triplets(objects.astype(np.int32), len(features))
    choices = odd_one_out(features, triplets, distance)
    assert choices.odd[: len(expected["choices_head"])].tolist() == expected["choices_head"]
    assert choices.credit("published").mean() == pytest.approx(expected["exact"], abs=1e-7)
    similarities, _ = pair_similarities(features, triplets, "dot")
    shares = np.exp(similarities - similarities.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert np.abs(shares[: len(expected["proba_head"])] - expected["proba_head"]).max() < 1e-5


@pytest.mark.parametrize("distance", DISTANCES)
def test_blocks_of_any_size_choose_alike(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # few values, many ties, wherever blocks begin
    rows = np.random.default_rng(1).integers(0, 2, (60, 5)).astype(np.float32) / 3
    triplets = random_triplets(500, 60)
    whole = odd_one_out(rows, triplets, distance)
    monkeypatch.setattr(module, "_blocks", lambda x, _: ((i, x[i : i + 7] @ x.T) for i in range(0, len(x), 7)))
    assert np.array_equal(odd_one_out(rows, triplets, distance).closest, whole.closest)
    assert whole.tie_rate > 0


def test_fair_ties_share_one_credit() -> None:
    # two objects alike and a third: both pairs with the third are equal
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    alike = Triplets(np.array([[0, 2, 1], [1, 0, 2], [2, 1, 0]], np.int32), 3)
    choices = odd_one_out(rows, alike)
    assert choices.credit().tolist() == [0, 1, 0]
    flat = odd_one_out(np.ones((3, 2)), alike)
    assert flat.credit() == pytest.approx([CHANCE] * 3)
    assert flat.odd.tolist() == [-1, -1, -1]
    assert flat.credit("published").tolist() == [0, 0, 0]
    # two pairs are the most similar: the published rule takes the first of them
    line = np.array([[0.0], [1.0], [2.0]])
    middle = odd_one_out(line, Triplets(np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]], np.int32), 3), "euclidean")
    assert middle.credit().tolist() == [0.5, 0, 0.5]
    assert middle.credit("published").tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="unknown rule of ties 'first'; allowed: fair, published"):
        middle.credit("first")


def test_accuracy_of_every_object_and_category() -> None:
    triplets = Triplets(np.array([[0, 1, 2], [0, 1, 3], [0, 3, 1]], np.int32), 5)
    means, counts = per_object(np.array([1.0, 0.0, 0.0]), triplets)
    assert counts.tolist() == [3, 3, 1, 2, 0]
    assert means[:4].tolist() == pytest.approx([1 / 3, 1 / 3, 1, 0])
    assert np.isnan(means[4])
    members = np.array([[False, False, True, True, False], [False, False, False, False, True]])
    means_of_categories, sizes = per_category(np.array([1.0, 0.0, 0.0]), triplets, members)
    assert (means_of_categories[0], sizes.tolist()) == (pytest.approx(1 / 3), [3, 0])
    assert np.isnan(means_of_categories[1])


def test_published_layouts_hold_the_same_choices(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("3\t1\t2\t2\t7\n1\t2\t3\t1\t8\n")
    raw = read_triplets(tmp_path / "raw.csv", 3, first=1, odd="column")
    assert raw.objects.tolist() == [[2, 1, 0], [1, 2, 0]]
    assert raw.people is not None
    assert raw.people.tolist() == [7, 8]
    assert raw.groups.tolist() == [0, 0]
    np.save(tmp_path / "train_90.npy", raw.objects.astype(np.float64))
    again = read_triplets(tmp_path / "train_90.npy", 3, first=0, odd="last")
    assert np.array_equal(again.objects, raw.objects)
    assert again.people is None


@pytest.mark.parametrize(
    "text",
    [
        *("2 1 0\n1 2 0\n", "2\t1\t0\n1\t2\t0\n", "2,1,0\n1,2,0\n", "2, 1, 0\n1, 2, 0\n", "2.0 1.0 0.0\n1 2 0"),
        *("  2  1 0\n 1 2  0 \n", "# a, b, odd\n2 1 0\n1 2 0 # twice\n", "\n2,1,0\r\n1,2,0\r\n"),
    ],
)
def test_numbers_are_separated_by_commas_or_white_space(tmp_path: Path, text: str) -> None:
    (tmp_path / "triplets.txt").write_text(text, newline="")
    triplets = read_triplets(tmp_path / "triplets.txt", 3, first=0, odd="last")
    assert triplets.objects.tolist() == [[2, 1, 0], [1, 2, 0]]


@pytest.mark.parametrize(
    ("text", "first", "odd", "message"),
    [
        ("1 2 3\n", 0, "last", r"1 of 1 triplets name an object outside of 0 … 2 .*row 0 \[1, 2, 3\]"),
        ("0 1 2\n", 1, "last", r"name an object outside of 0 … 2"),
        ("0 1 1\n", 0, "last", r"1 of 1 triplets repeat an object"),
        ("0 1 2\n", 0, "first", "unknown place of the odd one 'first'; allowed: last, column"),
        ("0 1 2\n", 2, "last", "numbered from 0 or from 1, not from 2"),
        ("0 1 2\n", 0, "column", r"holds a table \(1, 3\); with odd: column expected 4 or 5 columns"),
        ("1 2 3 1\n", 1, "last", r"with odd: last expected 3 columns"),
        ("1 2 3 4\n", 1, "column", "row 0 has the odd one at 4; expected 1, 2 or 3"),
        ("0 1 1.5\n", 0, "last", "expected whole numbers"),
        ("a b c\n", 0, "last", "expected whole numbers"),
    ],
)
def test_mistaken_triplets_are_refused(tmp_path: Path, text: str, first: int, odd: str, message: str) -> None:
    path = tmp_path / "triplets.txt"
    path.write_text(text)
    with pytest.raises(TripletError, match=message):
        read_triplets(path, 3, first, odd)


def test_files_are_stacked_in_their_order() -> None:
    first, second = random_triplets(40, 10, seed=1), random_triplets(7, 10, seed=2)
    both = stacked([first, second])
    assert np.array_equal(both.objects, np.concatenate([first.objects, second.objects]))
    assert (both.count, both.people, both.where) == (10, None, "triplets, triplets")
    known = [Triplets(part.objects, 10, np.full(len(part), 5)) for part in (first, second)]
    people = stacked(known).people
    assert people is not None
    assert people.tolist() == [5] * 47
    assert stacked([first]) is first
    with pytest.raises(TripletError, match="says who chose and triplets does not"):
        stacked([known[0], second])


def test_files_of_other_objects_are_not_stacked() -> None:
    whole, few = random_triplets(400, 12), random_triplets(400, 10)
    with pytest.raises(TripletError, match="choices among 12 objects; triplets: among 10"):
        stacked([whole, few])
    narrow = Triplets(few.objects, 12, where="test_10.npy")
    with pytest.raises(TripletError, match=r"test_10.npy: 400 choices name no object beyond number 9 .* name 11"):
        stacked([whole, narrow])
    # a handful of choices need not name all of them
    assert len(stacked([whole, Triplets(few.objects[:5], 12)])) == 405


def test_folds_of_real_objects_hold_few_of_the_triplets(people: Triplets) -> None:
    # why a probe cannot be judged on this file
    folds = np.random.default_rng(0).permutation(1854) % 3
    for fold in range(3):
        outside, inside = people.where_all(folds != fold), people.where_all(folds == fold)
        assert 20 <= distinct(people, inside) <= 60
        assert distinct(people, outside) > 200


def test_rows_must_be_objects() -> None:
    triplets = random_triplets(5, 10)
    with pytest.raises(ValueError, match="9 rows of features for 10 objects"):
        odd_one_out(np.zeros((9, 2)), triplets)
    with pytest.raises(ValueError, match="NaN or infinite"):
        odd_one_out(np.full((10, 2), np.nan), triplets)
    with pytest.raises(ValueError, match="unknown distance 'manhattan'; allowed: cosine"):
        odd_one_out(np.zeros((10, 2)), triplets, "manhattan")
