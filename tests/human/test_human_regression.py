import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import things
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from diffalign.human.concepts import Concept
from diffalign.human.folds import folds_of
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.regression import ALPHAS, best_on_other_folds, cross_predicted, explained, fit
from diffalign.human.triplets import Triplets, read_triplets
from diffalign.io.human_files import ordered
from diffalign.randomness import dealt
from regression import Outputs, Settings, regression


def planted(count: int, width: int, targets: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    rows = (draws.standard_normal((count, width)) * np.geomspace(10, 0.01, width) + 3).astype(np.float32)
    y = rows @ draws.standard_normal((width, targets)) + noise * draws.standard_normal((count, targets))
    return rows, y.astype(np.float32)


@pytest.mark.parametrize(("count", "width"), [(120, 30), (40, 90), (50, 50)])
def test_every_target_is_that_of_scikit_learn(count: int, width: int) -> None:
    rows, targets = planted(count, width, 6, noise=5.0)
    targets[:, 3] = np.random.default_rng(9).standard_normal(count)
    ridge = fit(rows, targets)
    for m in range(6):
        known = RidgeCV(alphas=ALPHAS, fit_intercept=True).fit(
            rows.astype(np.float64), targets[:, m].astype(np.float64)
        )
        assert ridge.alphas[m] == known.alpha_
        expected = known.predict(rows.astype(np.float64))
        assert np.abs(ridge.predict(rows)[:, m] - expected).max() < 1e-6 * max(1, np.abs(expected).max())
        assert np.abs(ridge.weights[:, m] - known.coef_).max() < 1e-6


def test_folds_do_not_see_what_they_predict() -> None:
    rows, targets = planted(60, 20, 2, noise=0.1)
    folds = np.arange(60) % 5
    before = cross_predicted(rows, targets, folds)
    moved = targets.copy()
    moved[folds == 2] += 1000
    after = cross_predicted(rows, moved, folds)
    assert np.array_equal(before.values[folds == 2], after.values[folds == 2])
    assert np.array_equal(before.alphas[2], after.alphas[2])
    assert not np.array_equal(before.values[folds == 1], after.values[folds == 1])


def test_a_planted_map_is_found_and_noise_is_not() -> None:
    rows, targets = planted(300, 20, 3, noise=0.1)
    targets[:, 2] = np.random.default_rng(5).standard_normal(300)
    predicted = cross_predicted(rows, targets, np.arange(300) % 5)
    r2 = explained(targets, predicted, np.random.default_rng(0))
    assert r2.values[:2].min() > 0.99
    assert r2.low[2] < 0.01
    assert abs(r2.values[2]) < 0.1
    assert (r2.low < r2.values).all()
    assert (r2.values < r2.high).all()
    assert np.abs(r2.per_fold.mean(axis=0)[:2] - r2.values[:2]).max() < 0.01


def test_r2_within_folds_is_that_of_scikit_learn() -> None:
    rows, targets = planted(50, 10, 1, noise=3.0)
    folds = np.arange(50) % 5
    r2 = explained(targets, cross_predicted(rows, targets, folds), np.random.default_rng(0))
    for fold in range(5):
        known = RidgeCV(alphas=ALPHAS).fit(rows[folds != fold], targets[folds != fold, 0])
        assert r2.per_fold[fold, 0] == pytest.approx(
            known.score(rows[folds == fold], targets[folds == fold, 0]), abs=1e-5
        )


def test_human_dimensions_survive_a_turn() -> None:
    # features that hold all that people do: the dimensions themselves, mixed, with noise
    vice = np.load(things("vice_embedding.npy"))
    draws = np.random.default_rng(0)
    rows = vice @ draws.standard_normal((42, 64)) + 0.3 * draws.standard_normal((1854, 64))
    folds = dealt([str(i) for i in range(1854)], 5, 0, "folds")
    predicted = cross_predicted(rows, vice, folds)
    assert np.median(explained(vice, predicted, draws).values) > 0.9
    people = read_triplets(things("test_triplets.csv"), 1854, first=1, odd="column")
    assert odd_one_out(predicted.values, people, "dot").credit().mean() == pytest.approx(0.6357, abs=0.02)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="3 rows for 4 rows of targets"):
        fit(np.zeros((3, 2)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match="each must be above 0"):
        fit(np.zeros((3, 2)), np.zeros((3, 1)), [0.0, 1.0])
    rows, targets = planted(20, 4, 2, noise=1.0)
    targets[:, 1] = 7
    with pytest.raises(ValueError, match="the same value for all objects"):
        explained(targets, cross_predicted(rows, targets, np.arange(20) % 5), np.random.default_rng(0))


@pytest.mark.parametrize(("objects", "folds"), [(1854, 3), (1854, 5), (11, 4), (10, 5)])
def test_published_folds_are_those_of_scikit_learn(objects: int, folds: int) -> None:
    listed = np.random.default_rng(0).permutation(objects)
    found = folds_of("published", [str(i) for i in listed], listed, folds, seed=0)
    for fold, (_, held_out) in enumerate(KFold(folds, shuffle=True, random_state=42).split(np.arange(objects))):
        assert sorted(listed[found == fold]) == sorted(held_out)


def test_folds_by_name_do_not_depend_on_the_list() -> None:
    names = [f"n{i}" for i in range(20)]
    assert np.array_equal(folds_of("name", names, np.arange(20)[::-1], 4, 1), dealt(names, 4, 1, "folds"))
    with pytest.raises(ValueError, match="unknown rule of folds 'order'; allowed: name, published"):
        folds_of("order", names, np.arange(20), 4, 1)


@pytest.mark.parametrize("rule", ["name", "published"])
@pytest.mark.parametrize(
    ("objects", "folds", "allowed"),
    [(20, 20, "2 to 10"), (20, 11, "2 to 10"), (5, 3, "2 to 2"), (3, 2, "none, from 4")],
)
def test_folds_of_one_object_are_refused(rule: str, objects: int, folds: int, allowed: str) -> None:
    names = [f"n{i}" for i in range(objects)]
    said = f"{folds} folds of {objects} objects: a fold holds fewer than 2; allowed numbers of folds: {allowed}"
    with pytest.raises(ValueError, match=said):
        folds_of(rule, names, np.arange(objects), folds, 1)
    if objects == 20:
        assert np.bincount(folds_of(rule, names, np.arange(objects), 10, 1)).tolist() == [2] * 10


def test_the_best_layer_is_that_of_folds_in_which_targets_vary() -> None:
    # (L, F, M); the second target is constant in every fold, the first in the first fold
    per_fold = np.full((3, 3, 2), np.nan)
    per_fold[:, 1:, 0] = [[0.1, 0.9], [0.3, 0.35], [0.4, 0.1]]
    assert best_on_other_folds(per_fold).layers.tolist() == [0, 0, 2]
    # nothing is known of the first layer
    per_fold[0] = np.nan
    assert best_on_other_folds(per_fold).layers.tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="within any of the 1 folds other than fold 1, so no layer is best on them"):
        best_on_other_folds(per_fold[:, :2])


def test_r2_within_folds_leaves_out_folds_in_which_a_target_is_constant() -> None:
    rows, targets = planted(40, 6, 2, noise=1.0)
    folds = np.arange(40) % 4
    targets[folds == 1, 0] = 3
    targets[:, 1] = folds
    r2 = explained(targets, cross_predicted(rows, targets, folds), np.random.default_rng(0))
    assert r2.within_folds[0] == r2.per_fold[[0, 2, 3], 0].mean()
    assert np.isnan(r2.within_folds[1])


def test_a_job_refuses_folds_of_one_object_and_names_dimensions_without_r2_within_folds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"o{i:02d}" for i in range(12)]
    rows, dimensions = planted(12, 4, 3, noise=0.1)
    dimensions[:, 1] = folds_of("name", names, np.arange(12), 3, 0)
    triplets = Triplets(np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.int32), 12, None, "choices")
    people = ordered([Concept(name, name, name, ()) for name in names], triplets, dimensions, {})
    outputs = Outputs(*(tmp_path / name for name in ("r.tsv", "r.parquet", "r.json", "r.npz")))

    def predict(folds: int) -> None:
        draws = np.random.default_rng(1)
        noise: Any = SimpleNamespace(values=draws.standard_normal((12, 4)), shared={"bundle": "m"})
        seen: Any = SimpleNamespace(values=rows, shared={"bundle": "m"})
        layers = [("noise", noise), ("seen", seen)]
        regression(layers, people, Settings(folds, "name", (0.01, 1.0), "cosine", "fair", 0), 100, outputs)

    with pytest.raises(ValueError, match="12 folds of 12 objects: a fold holds fewer than 2; .*: 2 to 6"):
        predict(12)
    assert not list(tmp_path.iterdir())
    predict(3)
    assert "r2_within_folds is undefined of dimensions that vary within no fold: 1" in caplog.text
    undefined = pd.read_csv(outputs.table, sep="\t").groupby("dimension")["r2_within_folds"].count()
    assert undefined.tolist() == [2, 0, 2]
    assert json.loads(outputs.recipe.read_text())["best_r2"]["layers"] == ["seen"] * 3
