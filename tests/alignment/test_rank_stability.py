"""How firmly models stand in an order."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, read_yaml
from matplotlib import pyplot as plt
from scipy.stats import norm
from test_plan import plan
from test_unlisted_sides import COUNT, NAMES, K, search, write_bundle, write_settings
from test_variance import Words

from diffalign.alignment import measure
from diffalign.alignment.groups import Groups
from diffalign.alignment.rank_stability import halves, kept, tau_b
from diffalign.alignment.settings import ALTERNATIVES, Preparation
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.recipes import Where
from rank_stability import Models, rank_stability
from rank_stability_figure import rank_stability_figure


def test_tau_b_counts_ties_on_both_sides() -> None:
    # of six pairs of models five agree, and one is tied in y
    assert tau_b(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 2, 3])) == pytest.approx(5 / math.sqrt(6 * 5))
    assert tau_b(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1
    assert math.isnan(tau_b(np.array([1.0, 2]), np.array([1.0, 2])))
    assert math.isnan(tau_b(np.array([1.0, 2, math.nan]), np.array([1.0, 2, 3])))
    with pytest.raises(ValueError, match="3 and 2 scores"):
        tau_b(np.zeros(3), np.zeros(2))


def test_halves_are_of_whole_groups_and_other_ones_every_time() -> None:
    groups = Groups.of([f"g{i // 4}" for i in range(80)])
    found = list(halves(groups, 0, 3))
    assert [len(half) for half in found] == [40] * 6
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert sorted([*one, *other]) == list(range(80))
        assert not set(groups.codes[one]) & set(groups.codes[other])
    assert len({tuple(half) for half in found}) == 6


def test_a_difference_of_d_errors_keeps_its_sign_in_so_many_halves() -> None:
    # means of 200 images whose difference is one standard error
    values = np.random.default_rng(0).standard_normal((200, 2))
    gap = values[:, 0] - values[:, 1]
    values[:, 0] += 1.0 * gap.std(ddof=1) / math.sqrt(200) - gap.mean()
    drawn = np.array([values[half].mean(axis=0) for half in halves(Groups.of(list(map(str, range(200)))), 0, 300)])
    share = kept(values.mean(axis=0), drawn)
    assert share[0, 1] == share[1, 0] == pytest.approx(norm.cdf(1.0), abs=0.06)
    # ties count one half
    assert kept(np.array([1.0, 2]), np.array([[1.0, 1], [0, 5]]))[0, 1] == 0.75


def test_tables_of_orders_and_pairs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    target = random.standard_normal((COUNT, 6))
    features = {
        name: target + noise * random.standard_normal(target.shape)
        for name, noise in zip("abc", (0.3, 0.9, 0.95), strict=True)
    }
    files = {name: write_bundle(tmp_path / name, name, {"b0": rows}) for name, rows in features.items()}
    reference = write_bundle(tmp_path / "r", "r", {"final": target})
    outputs = {
        f"{table}_{kind}": tmp_path / f"{table}.{kind}" for table in ("orders", "pairs") for kind in ("tsv", "parquet")
    }
    shown = ["mutual_knn", "cka"]
    models = Models(list(files.values()), ["b0"] * 3, reference, "final")
    centred = search(k=20, preparation=Preparation(center=True))
    rank_stability(models, shown, write_settings(tmp_path)[0], Where("digits", "clean"), centred, outputs)
    orders = pd.read_parquet(outputs["orders_parquet"]).set_index(["metric", "over", "value"]).sort_index()
    assert (orders.loc[("mutual_knn", "metric", "mutual_knn"), ["tau_b", "kept"]] == 1).all()
    scores = {
        metric: [
            measure(metric, rows, target, k=K, preparation=Preparation(center=True), names=NAMES).value
            for rows in features.values()
        ]
        for metric in shown
    }
    assert orders.loc[("mutual_knn", "metric", "cka"), "tau_b"] == pytest.approx(tau_b(*map(np.array, scores.values())))
    assert (orders["first"] == "a").all()
    assert set(orders.loc["mutual_knn"].index.get_level_values("over")) == {"metric", "k", "n", "preparation", "halves"}
    assert "k" not in orders.loc["cka"].index.get_level_values("over")
    assert set(orders.loc[("cka", "preparation")].index) == set(ALTERNATIVES)
    assert (orders["reason"] == "").all()
    pairs = pd.read_parquet(outputs["pairs_parquet"]).set_index(["metric", "a", "b"])
    assert pairs.loc[("cka", "a", "b"), ["score_a", "score_b"]].tolist() == pytest.approx(scores["cka"][:2], abs=1e-6)
    # a is far from both others, which are close
    assert pairs.loc[("cka", "a", "b"), "kept"] > 0.95
    assert pairs.loc[("cka", "b", "c"), "kept"] < 0.95
    pictures = [tmp_path / "r.png", tmp_path / "r.pdf"]
    rank_stability_figure(outputs["orders_tsv"], pictures, miniature=True)
    assert plt.imread(pictures[0]).shape[1] > 1500
    with pytest.raises(ValueError, match="an order of 2 models says nothing; at least 3 are needed"):
        rank_stability(
            Models(models.files[:2], ["b0"] * 2, reference, "final"),
            shown,
            tmp_path / "alignment.json",
            Where("digits", "clean"),
            centred,
            outputs,
        )


def ordered(folder: Path, k: int, shown: Sequence[str], manifest: Path | None = None) -> dict[str, pd.DataFrame]:
    """The tables of three models that see a reference, each with more noise."""
    random = np.random.default_rng(0)
    target = random.standard_normal((COUNT, 6))
    files = [
        write_bundle(folder / name, name, {"b0": target + noise * random.standard_normal(target.shape)})
        for name, noise in zip("abc", (0.3, 0.9, 1.5), strict=True)
    ]
    reference = write_bundle(folder / "r", "r", {"final": target})
    outputs = {
        f"{table}_{kind}": folder / f"{table}.{kind}" for table in ("orders", "pairs") for kind in ("tsv", "parquet")
    }
    rules = search(k=50, preparation=Preparation(center=True), manifest=manifest)
    models = Models(files, ["b0"] * 3, reference, "final")
    rank_stability(models, shown, write_settings(folder, k)[0], Where("digits", "clean"), rules, outputs)
    rank_stability_figure(outputs["orders_tsv"], [folder / "r.png"], miniature=True)
    return {table: pd.read_parquet(outputs[f"{table}_parquet"]) for table in ("orders", "pairs")}


def test_halves_with_fewer_images_than_neighbours_say_so(tmp_path: Path) -> None:
    """Halves of 30 images have no 40 neighbours; metrics without lists are measured on them."""
    tables = ordered(tmp_path, 40, ["mutual_knn", "cka"])
    rows = tables["orders"].query("over == 'halves'").set_index("metric")
    assert np.isnan(rows.loc["mutual_knn", ["tau_b", "kept"]].to_numpy(float)).all()
    assert rows.loc["mutual_knn", "reason"] == "30 images are too few for k = 40; at least 41 are needed"
    assert (rows["value"] == "40").all()
    assert rows.loc["cka", "tau_b"] > 0.9
    assert rows.loc["cka", "reason"] == ""
    pairs = tables["pairs"].set_index("metric")
    assert pairs.loc["mutual_knn", "kept"].isna().all()
    assert pairs.loc["mutual_knn", "score_a"].notna().all()
    assert pairs.loc["cka", "kept"].notna().all()
    # all other rows are there
    assert {"metric", "k", "preparation"} <= set(tables["orders"]["over"])


def grouped(path: Path, size: int) -> Path:
    """A manifest of the images in groups of this size."""
    images = [Image(name, "", -1, "", "", "", "", group=f"g{i // size}") for i, name in enumerate(NAMES)]
    write_manifest(path, path.with_suffix(".json"), images, {})
    return path


def test_images_of_one_group_have_no_halves(tmp_path: Path) -> None:
    manifest = grouped(tmp_path / "manifest.tsv", COUNT)
    rows = ordered(tmp_path, K, ["cka"], manifest)["orders"].query("over == 'halves'")
    assert rows["tau_b"].isna().all()
    assert list(rows["reason"]) == ["images of one group have no halves of whole groups"]


def test_halves_and_subsets_of_one_group_have_no_folds(tmp_path: Path) -> None:
    tables = ordered(tmp_path, K, ["ridge", "cka"], grouped(tmp_path / "manifest.tsv", COUNT // 2))
    rows = tables["orders"].query("over in ['halves', 'n']").set_index(["metric", "over"])
    for over in ("halves", "n"):
        assert math.isnan(rows.loc[("ridge", over), "tau_b"])
        assert rows.loc[("ridge", over), "reason"] == "30 images are one group, which has no folds of whole groups"
        assert rows.loc[("cka", over), "tau_b"] > 0.9


def test_models_of_an_order_are_the_other_sides_of_the_pairs_of_the_study() -> None:
    listed = ["own.vit", "own.sit", "own.sit.s1", "own.repa"]
    study = {"models": listed, "datasets": ["held"], "scores": []}
    made = plan(read_yaml(ROOT / "tests/plan/every_rule.yaml") | {"study": study, "defaults": {"dataset": "held"}})
    words = Words("own.vit_b0", "")
    assert made.variance.ordered(words) == ["own.sit@20-t0.3", "own.sit.s1@20-t0.3", "own.repa@20-t0.3"]
    assert made.variance.order_layers(words) == ["b1"] * 3
    assert made.variance.order_inputs(words)["reference"] == "results/features/held/clean/own.vit@20.json"
    assert not made.variance.order_miniature(words)
    assert made.variance.order_memory(1000)(words, 1) >= 1000
    with pytest.raises(ValueError, match="0 of study.pairs stand beside 'dinov2'"):
        made.variance.ordered(Words("dinov2", ""))
