"""Choices that share objects or people are dependent, and a layer is chosen on other objects than it is reported on."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from diffalign.human import dependence as module
from diffalign.human.ceilings import clustered
from diffalign.human.dependence import (
    best_of,
    chosen_on_other_objects,
    covariance,
    holm,
    p_of_differences,
    selection_folds,
)
from diffalign.human.triplets import Triplets
from diffalign.io.headers import StoreError
from diffalign.io.human_files import People, write_people
from human_differences import human_differences, places_of


def random_triplets(choices: int, objects: int, people: int = 0, seed: int = 0) -> Triplets:
    draws = np.random.default_rng(seed)
    table = np.stack([draws.choice(objects, 3, replace=False) for _ in range(choices)]).astype(np.int32)
    return Triplets(table, objects, draws.integers(0, people, choices) if people else None)


@pytest.mark.parametrize("over", [("objects",), ("objects", "people")])
def test_every_dependent_pair_of_choices_counts_once(over: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    triplets = random_triplets(300, 12, people=9)
    gained = np.random.default_rng(1).random((3, 300))
    residuals = (gained - gained.mean(axis=1, keepdims=True)) / 300
    shares = np.array([[bool(set(a) & set(b)) for b in triplets.objects.tolist()] for a in triplets.objects.tolist()])
    expected = residuals @ shares @ residuals.T * (12 * 11 / 81)
    if len(over) == 2:
        assert triplets.people is not None
        same = triplets.people[:, None] == triplets.people
        expected += (residuals @ same @ residuals.T - residuals @ (shares & same) @ residuals.T) * 9 / 8
    found = covariance(gained, triplets, over)
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    # sums in blocks of any size are the same
    monkeypatch.setattr(module, "_BLOCK", 20)
    np.testing.assert_allclose(covariance(gained, triplets, over).values, expected, rtol=1e-9)
    # and nothing depends on the order of choices
    order = np.random.default_rng(2).permutation(300)
    turned = covariance(gained[:, order], triplets.taken(order), over)
    np.testing.assert_allclose(turned.values, expected, rtol=1e-9)


def test_what_choices_depend_on_is_said() -> None:
    triplets = random_triplets(20, 8)
    with pytest.raises(ValueError, match="nothing says who made the choices"):
        covariance(np.zeros((1, 20)), triplets, ("objects", "people"))
    with pytest.raises(ValueError, match="allowed: \\('objects',\\)"):
        covariance(np.zeros((1, 20)), triplets, ("triplets",))


def test_equal_models_do_not_differ() -> None:
    triplets = random_triplets(500, 30)
    gained = np.repeat(np.random.default_rng(0).random((1, 500)), 2, axis=0)
    over = covariance(gained, triplets)
    interval = over.interval(np.array([[1.0, -1.0]]))
    assert (interval.low[0], interval.high[0]) == (0, 0)
    assert p_of_differences(interval, np.zeros(1), over.freedom).tolist() == [1]
    # a difference that no choice departs from has no error to be judged by
    assert np.isnan(p_of_differences(interval, np.ones(1), over.freedom)).all()


def test_holm_corrects_for_the_number_of_pairs() -> None:
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_intervals_cover_other_objects_and_people() -> None:
    simulated = runpy.run_path(str(ROOT / "benchmarks/human_dependence.py"), run_name="benchmark")
    draws = np.random.default_rng(0)
    population = simulated["Population"](draws.lognormal(-2, 1, (500, 12)), 1.0, draws)
    truth = population.truth(simulated["NOISES"], people=False, count=200_000)
    found = pd.DataFrame([simulated["study"](population, 60, 8000, 1, 0, truth) for _ in range(60)]).mean()
    # nominal 95 %; four standard errors of 60 studies are 11 %
    assert found["after accuracy"] > 0.84
    assert found["after difference"] > 0.84
    # over triplets alone, as intervals of more than 20,000 triplets were
    assert found["before accuracy"] < 0.75
    # the best of equal layers is better on the objects that chose it, and no better on others
    assert found["best before bias"] > 4 * abs(found["best after bias"])


def test_a_layer_is_chosen_without_the_objects_of_the_triplet() -> None:
    triplets = random_triplets(400, 20, seed=3)
    gained = (np.random.default_rng(4).random((4, 400)) < 0.5).astype(np.float32)
    folds = selection_folds([f"o{i}" for i in range(20)], 0)
    chosen = chosen_on_other_objects(gained, triplets, folds)
    for t in range(0, 400, 37):
        apart = ~np.isin(folds[triplets.objects], folds[triplets.objects[t]]).any(axis=1)
        layer = gained[:, apart].mean(axis=1).argmax()
        assert chosen.kept[t]
        assert chosen.credit[t] == gained[layer, t]
    assert chosen.shares.sum() == pytest.approx(1)
    best = best_of(gained, triplets, folds)
    assert best is not None
    assert best.accuracy == pytest.approx(chosen.credit.mean())
    # of three objects, no triplet has others
    few = Triplets(np.array([[0, 1, 2], [2, 1, 0]], np.int32), 3)
    assert best_of(gained[:, :2], few, np.arange(3)) is None
    assert best_of(gained[:1], triplets, folds) is not None


def test_differences_are_paired(tmp_path: Path) -> None:
    triplets = random_triplets(600, 30, people=12)
    names = tuple(f"o{i}" for i in range(30))
    write_people(
        tmp_path / "people.npz", People(names, names, triplets, None, (), np.zeros((0, 30), bool), {}, np.arange(30))
    )
    draws = np.random.default_rng(0)
    right = draws.random(600) < 0.5
    codes = {
        "x": np.where(right, 1, 2),
        "y": np.where(right, 1, 2),
        "z": np.where(right & (draws.random(600) < 0.9), 1, 2),
    }
    for bundle, closest in codes.items():
        np.savez(
            tmp_path / f"{bundle}.npz",
            closest=closest[None].astype(np.uint8),
            names=np.array(names),
            layers=np.array(["b0"]),
        )
        (tmp_path / f"{bundle}.json").write_text(json.dumps({"ties": "fair"}))
    files = [[str(tmp_path / f"{bundle}.{kind}") for bundle in codes] for kind in ("npz", "json")]
    places = places_of([("d", "clean", bundle) for bundle in codes], [str(tmp_path / "people.npz")] * 3, *files)
    about = {bundle: {"name": bundle, "miniature": False} for bundle in codes}
    human_differences(places, about, 0, tmp_path / "t.tsv", tmp_path / "t.parquet")
    table = pd.read_csv(tmp_path / "t.tsv", sep="\t").set_index(["a", "b"])
    assert table.loc[("x", "y"), ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert table.loc[("x", "y"), "p"] == 1
    assert table["reason"].isna().all()
    # where all choices differ alike, there is no error, and so no p
    for bundle, code in (("y", 1), ("z", 2)):
        np.savez(
            tmp_path / f"{bundle}.npz",
            closest=np.full((1, 600), code, np.uint8),
            names=np.array(names),
            layers=np.array(["b0"]),
        )
    human_differences(places, about, 0, tmp_path / "alike.tsv", tmp_path / "alike.parquet")
    alike = pd.read_csv(tmp_path / "alike.tsv", sep="\t").set_index(["a", "b"]).loc[("y", "z")]
    assert (alike["difference"], alike["error"]) == (1, 0)
    assert np.isnan(alike["p"])
    assert alike["reason"] == "all choices differ alike, so that the difference has no error"
    far = table.loc[("x", "z")]
    assert 0 < far["low"] < far["difference"] == pytest.approx(far["accuracy_a"] - far["accuracy_b"])
    assert far["p"] <= far["p_holm"] < 0.01
    assert far["over"] == "objects and people"
    # pairing: the error is far below that of either accuracy
    alone = clustered(right[None].astype(np.float32), triplets.groups, 0).errors[0]
    assert far["error"] < 0.8 * alone
    np.savez(tmp_path / "x.npz", closest=codes["x"][None], names=np.array(names[::-1]), layers=np.array(["b0"]))
    with pytest.raises(StoreError, match="its choices are not those of"):
        human_differences(places, about, 0, tmp_path / "t.tsv", tmp_path / "t.parquet")
