"""Contrasts as files: the table of a family and of all layers, the table of a study, and the figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_neighbors
from matplotlib import pyplot as plt
from PIL import Image
from test_curves import write_settings
from test_groups import write_manifest
from test_score_contrasts import views

from contrast import Named, contrast
from contrasts_figure import contrasts_figure
from contrasts_table import contrasts_table
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.io import feature_files, prepared_features, sides
from diffalign.io.recipes import Where

COUNT = 64
NAMES = tuple(f"n{i:02d}" for i in range(COUNT))
METRICS = ("mutual_knn", "unbiased_cka", "cknna_biased", "procrustes")
SIDES = {"early": ("a", "b"), "late": ("worse", "c"), "vit": ("reference",)}


def write_side(folder: Path, bundle: str, layers: dict[str, np.ndarray]) -> sides.Files:
    manifest, lists = folder / "bundle.json", {}
    for alias, values in layers.items():
        features = feature_files.Features(values.astype(np.float32), NAMES, {"layer": alias})
        path = feature_files.layer_path(manifest, alias)
        path.parent.mkdir(parents=True, exist_ok=True)
        feature_files.write_features(path, features)
        lists[alias] = nearest_neighbors(unit_rows(features.values, NAMES, Preparation()), 5)
    settings = {**prepared_features.preparation_settings(Preparation()), "k_max": 5, "bounds": {}}
    model = {"name": bundle, "trained_towards": ["vit"] if bundle == "late" else []}
    recipe = {"bundle": bundle, "modules": dict.fromkeys(layers, ""), "spreads": dict.fromkeys(layers, 1.0)}
    weights = {"weights": {"source": "miniature"}, "autoencoder_weights": None}
    write_neighbors(folder / "lists.npz", NAMES, lists, settings, recipe | weights | {"model": model})
    return sides.Files(folder / "lists.npz", manifest)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("contrasts")
    features = views(np.random.default_rng(0), COUNT)
    files = {
        bundle: write_side(folder / bundle, bundle, {f"b{i}": features[view] for i, view in enumerate(its)})
        for bundle, its in SIDES.items()
    }
    settings, manifest = write_settings(folder), write_manifest(folder / "m.tsv", NAMES, 2)
    vit, early = ("vit", "b0"), ("early", "b0")
    layers = [
        Named(f"early_{layer}_vs_vit_minus_late_{layer}_vs_vit", (("early", layer), vit, ("late", layer), vit))
        for layer in ("b0", "b1")
    ]
    same = Named("early_vs_vit_minus_vit_vs_early", (early, vit, vit, early))
    families = (("early_vs_vit_minus_late_vs_vit", layers, None), ("mixed", [*layers, same], manifest))
    written = {}
    for family, compared, groups in families:
        outputs = folder / f"{family}.tsv", folder / f"{family}.parquet"
        contrast(family, compared, files, settings, groups, Where("it", "clean"), METRICS, outputs)
        written[family] = outputs[1]
    return written


def test_a_row_has_both_scores_their_difference_and_what_it_was_corrected_over(tables: dict[str, Path]) -> None:
    frame = pd.read_parquet(tables["mixed"]).set_index(["metric", "contrast"])
    assert len(frame) == 3 * len(METRICS)
    assert frame["difference"].to_numpy() == pytest.approx((frame["score_ab"] - frame["score_cd"]).to_numpy())
    assert (frame["groups"] == COUNT // 2).all()
    assert frame["miniature"].all()
    of_metric = frame.loc["unbiased_cka"]
    # a symmetric score the other way round is the same, and no member of the family
    assert of_metric.loc["early_vs_vit_minus_vit_vs_early", ["difference", "error", "p"]].tolist() == [0, 0, 1]
    assert (of_metric["contrasts"] == 2).all()
    assert of_metric["differs"].tolist() == ((of_metric["band_low"] > 0) | (of_metric["band_high"] < 0)).tolist()
    assert of_metric.loc["early_b0_vs_vit_minus_late_b0_vs_vit", "leak"] == "late was trained towards vit"
    # lists of k are too short for a jackknife of lists
    short = frame.loc["cknna_biased"].iloc[:2]
    assert short["error"].isna().all()
    assert short["differs"].isna().all()
    assert short["reason"].str.contains("k_max").all()


def test_the_table_of_a_study_keeps_the_correction_of_each_family(tables: dict[str, Path], tmp_path: Path) -> None:
    contrasts_table(list(tables.values()), (tmp_path / "all.tsv", tmp_path / "all.parquet"))
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert frame["family"].unique().tolist() == list(tables)
    own = pd.read_parquet(tables["mixed"])
    pd.testing.assert_frame_equal(frame[frame["family"] == "mixed"].reset_index(drop=True), own)


def test_a_figure_shows_layers_or_contrasts(tables: dict[str, Path], tmp_path: Path) -> None:
    for family, table in tables.items():
        contrasts_figure(table, [tmp_path / f"{family}.png"], miniature=True)
        with Image.open(tmp_path / f"{family}.png") as image:
            assert image.size[0] >= 6.75 * 300 - 2
    assert not plt.get_fignums()
