"""Scores over k and over N: grids, tables, figures, and what is planned for single pairs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Workflow, copy_tree, write_neighbors
from matplotlib import pyplot as plt
from test_graph import SINGLE, snakemake
from test_precomputed import STUDY, write_files

from curves_figure import curves_figure
from curves_table import curves_table
from diffalign.alignment import METRICS, measure
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.curves import measured, neighbor_counts, nested_subset, subset_sizes
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Settings
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.io import feature_files, prepared_features, sides
from diffalign.io.recipes import Where

COUNT, K, K_MAX = 64, 3, 20
NAMES = tuple(f"n{i:02d}" for i in range(COUNT))
SHOWN = ("cknna", "mutual_knn", "lcs_knn", "unbiased_cka", "ridge")
PAIR = "dinov2_vs_sd3_b8"


def related(width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((COUNT, width))
    return a, a + 0.7 * rng.standard_normal((COUNT, width))


def write_side(folder: Path, bundle: str, layers: Mapping[str, np.ndarray], prepared: Preparation) -> sides.Files:
    """Feature files of some layers and their neighbour lists, as rules leave them."""
    manifest, lists = folder / "bundle.json", {}
    for alias, values in layers.items():
        features = feature_files.Features(values.astype(np.float32), NAMES, {"layer": alias})
        path = feature_files.layer_path(manifest, alias)
        path.parent.mkdir(parents=True, exist_ok=True)
        feature_files.write_features(path, features)
        lists[alias] = nearest_neighbors(unit_rows(features.values, NAMES, prepared), K_MAX)
    settings = {**prepared_features.preparation_settings(prepared), "k_max": K_MAX, "bounds": {}}
    recipe = {"bundle": bundle, "modules": dict.fromkeys(layers, ""), "spreads": dict.fromkeys(layers, 1.0)}
    write_neighbors(folder / "lists.npz", NAMES, lists, settings, recipe)
    return sides.Files(folder / "lists.npz", manifest)


def write_settings(folder: Path, **changed: Any) -> tuple[Path, Path]:
    """The files of the rules alignment_settings and calibration_settings."""
    drawing = {"permutations": 39, "alpha": 0.05, "seed": 0, "split_selection": False}
    paths = folder / "alignment.json", folder / "calibration.json"
    paths[0].write_text(json.dumps({"k": K, "eps": 0, "rbf_sigma": 1} | changed))
    paths[1].write_text(json.dumps(drawing))
    return paths


def test_grids_are_geometric_and_hold_what_the_study_uses() -> None:
    assert neighbor_counts(10, 100) == [2, 3, 4, 6, 8, 10, 12, 17, 24, 34, 49, 70, 100]
    assert neighbor_counts(2, 2) == [2]
    with pytest.raises(ValueError, match="k = 9 lies outside of 2 to k_max = 8"):
        neighbor_counts(9, 8)
    assert subset_sizes(1000, 10) == [62, 125, 250, 500, 1000]
    assert subset_sizes(30, 10) == [30]


def test_subsets_are_nested_and_do_not_depend_on_order() -> None:
    sets = [{NAMES[i] for i in nested_subset(Groups.of(NAMES), size, 0)} for size in (8, 16, 64)]
    assert sets[0] < sets[1] < sets[2]
    turned = NAMES[::-1]
    assert {turned[i] for i in nested_subset(Groups.of(turned), 8, 0)} == sets[0]
    assert {NAMES[i] for i in nested_subset(Groups.of(NAMES), 8, 1)} != sets[0]


def test_measured_is_the_score_and_its_calibration() -> None:
    a, b = (array_layer(side, NAMES, K) for side in related())
    settings = Settings(K)
    by_metric = measured(SHOWN, a, b, settings, 39, 0.05, 0)
    nulls = calibrate({"cknna": np.array([[by_metric["cknna"].score]])}, [a], [b], settings, 39, 0.05, 0)
    assert by_metric["cknna"].null_mean == nulls["cknna"].mean[0, 0]
    assert by_metric["cknna"].p == nulls["cknna"].p[0, 0] == 1 / 40
    assert 0 < by_metric["cknna"].calibrated < by_metric["cknna"].score
    assert by_metric["unbiased_cka"].null_mean == 0
    assert math.isnan(by_metric["ridge"].null_mean)
    assert by_metric["ridge"].score == measure("ridge", *related(), k=K, names=NAMES).value


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    files = [
        write_side(folder / side, side, {"b0": values}, Preparation(center=True))
        for side, values in zip("ab", related(), strict=True)
    ]
    alignment, calibration = write_settings(folder)
    path = folder / "table.tsv"
    pair = (files[0], files[1])
    outputs = (path, folder / "table.parquet")
    curves_table(pair, ("b0", "b0"), alignment, calibration, None, Where("theirs", "clean"), SHOWN, outputs, 100, 1)
    assert len(pd.read_parquet(outputs[1])) == len(pd.read_csv(path, sep="\t"))
    return path


def test_every_point_is_a_score_of_its_own(table: Path) -> None:
    frame = pd.read_csv(table, sep="\t").set_index(["curve", "metric", "n", "k"])
    a, b = related()
    centred = Preparation(center=True)
    for k in neighbor_counts(K, K_MAX):
        assert set(frame.loc["k"].index.get_level_values("k")) >= {k}
        for metric in ("cknna", "mutual_knn", "lcs_knn"):
            expected = measure(metric, a, b, k=k, preparation=centred).value
            assert frame.loc[("k", metric, COUNT, k), "score"] == pytest.approx(expected, abs=1e-8)
    assert "unbiased_cka" not in frame.loc["k"].index.get_level_values("metric")
    assert sorted(set(frame.loc["n"].index.get_level_values("n"))) == [16, 32, 64]
    rows = [unit_rows(side, NAMES, centred) for side in (a, b)]
    for size in (16, 32, 64):
        keep = nested_subset(Groups.of(NAMES), size, 0)
        for metric in SHOWN:
            names = [NAMES[i] for i in keep]
            expected = measure(metric, rows[0][keep], rows[1][keep], k=K, names=names).value
            assert frame.loc[("n", metric, size, K), "score"] == pytest.approx(expected, abs=1e-6)
    same = ["score", "null_mean", "null_sd", "z", "p", "calibrated"]
    assert frame.loc[("n", "cknna", COUNT, K), same].equals(frame.loc[("k", "cknna", COUNT, K), same])
    assert frame.loc[("n", "ridge", COUNT, K), same[1:]].isna().all()


def test_the_curves_are_drawn(table: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "c.png", tmp_path / "c.pdf"]
    curves_figure(table, outputs, miniature=False)
    assert plt.imread(outputs[0]).shape[0] > 500
    frame = pd.read_csv(table, sep="\t")
    bare = tmp_path / "bare.tsv"
    frame[frame["metric"] == "ridge"].to_csv(bare, sep="\t", index=False)
    curves_figure(bare, outputs, miniature=True)
    # every metric has a look of its own
    every = pd.concat([frame[frame["curve"] == "n"].iloc[:1].assign(metric=metric) for metric in METRICS])
    every.to_csv(bare, sep="\t", index=False)
    curves_figure(bare, outputs, miniature=False)


# --- what is planned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "jobs"),
    [
        (f"results/per_image/photographs/clean/{PAIR}.parquet", {"per_image": 1}),
        (f"results/figures/photographs/clean/gallery/{PAIR}.png", {"gallery_figure": 1}),
        (
            f"results/figures/photographs/clean/curves/{PAIR}.png",
            {"calibration_settings": 1, "curves_table": 1, "curves_figure": 1},
        ),
        (f"results/tables/curves/photographs/clean/{PAIR}.tsv", {"calibration_settings": 1, "curves_table": 1}),
        (
            f"results/tables/sensitivity/photographs/clean/{PAIR}.parquet",
            {"calibration_settings": 1, "sensitivity_table": 1},
        ),
        (
            f"results/tables/power/photographs/clean/{PAIR}.tsv",
            {"calibration_settings": 1, "power_table": 1, "neighbors": 0},
        ),
        (
            f"results/figures/photographs/clean/variance/{PAIR}.png",
            {
                **dict.fromkeys(("calibration_settings", "sensitivity_table", "variance_table", "variance_figure"), 1),
                # four redraws of one of two sides
                "extract_sd3": 5,
                "recipe": 6,
            },
        ),
    ],
)
def test_a_single_pair_plans_what_it_needs_and_nothing_else(target: str, jobs: dict[str, int], tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "--profile", "profiles/demo", "-n", target)
    assert planned.code == 0, planned.output
    features = {rule: count for rule, count in SINGLE.items() if rule not in ("align_default", "calibration_settings")}
    wanted = features | {"miniature_weights": 3} | jobs
    assert planned.jobs() == {rule: count for rule, count in wanted.items() if count}


def test_the_study_looks_at_the_pairs_that_it_names_and_at_no_other(tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "--profile", "profiles/demo", "-n")
    jobs = planned.jobs()
    shown = ("per_image", "gallery_figure", "curves_table", "curves_figure", "sensitivity_table")
    assert [jobs.get(rule) for rule in shown] == [1, 1, 1, 1, None]


def test_other_permutations_draw_curves_again_and_search_no_list(tmp_path: Path) -> None:
    workflow = Workflow(copy_tree(tmp_path / "tree"), tmp_path / "work")
    write_files(workflow.directory)
    pair = "theirs/clean/left_vs_right"
    table, rows = f"results/tables/curves/{pair}.tsv", f"results/per_image/{pair}.parquet"
    wanted = (table, rows, f"results/tables/sensitivity/{pair}.tsv")
    done = workflow.run(*wanted, overlay=STUDY)
    assert done.code == 0, done.output
    assert "Nothing to be done" in workflow.plan(*wanted, overlay=STUDY).output
    drawn = workflow.plan(*wanted, overlay={**STUDY, "alignment": {"permutations": 50}})
    assert drawn.jobs() == {"calibration_settings": 1, "curves_table": 1, "sensitivity_table": 1}
    other_k = workflow.plan(*wanted, overlay={**STUDY, "alignment": {"k": 4}})
    assert other_k.jobs() == {"alignment_settings": 1, "per_image": 1, "curves_table": 1, "sensitivity_table": 1}
    metrics = {**STUDY, "alignment": {"metrics": ["cknna", "mutual_knn"]}}
    assert workflow.plan(*wanted, overlay=metrics).jobs() == {"curves_table": 1, "sensitivity_table": 1}
    quick = {**STUDY, "compute": {"memory_mb": 50}}
    assert "Nothing to be done" in workflow.plan(*wanted, overlay=quick).output
    # without images there are no labels and no gallery
    frame = pd.read_parquet(workflow.directory / rows)
    assert (frame["label"] == "").all()
    refused = workflow.run(f"results/figures/{pair.replace('left', 'gallery/left')}.png", overlay=STUDY)
    assert refused.code != 0
    assert "the data set 'theirs' has no images, so there is no gallery of them" in refused.output
