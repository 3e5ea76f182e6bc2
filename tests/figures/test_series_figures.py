"""Alignment through training and atlases over noise levels: tables and figures of trainings that are made up."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_figures import check_pictures, legible  # noqa: F401  (a fixture)
from test_unlisted_sides import search, write_bundle, write_settings

from atlas import Control, Inputs, Level, atlas, warn
from atlas_figure import atlas_figure
from diffalign.figures import series, style
from diffalign.io.control_sides import class_rows
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.recipes import Where
from diffalign.noise import log_snr
from findings import Sources, findings
from through_training_figure import through_training_figure
from through_training_table import through_training_table
from training_alignment import Checkpoint, training_alignment
from training_maps_figure import training_maps_figure

COUNT, K, WIDTH = 160, 5, 12
NAMES = [f"digit{i:03d}" for i in range(COUNT)]
STEPS, LAYERS, SEEDS = (0, 100, 300, 600, 1000), tuple(f"b{i}" for i in range(6)), (0, 1, 2)
LEVELS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
METRICS = ("cknna", "unbiased_cka", "procrustes")
WHERE = Where("digits", "clean")
RECIPES: Mapping[str, float] = {"SiT": 0.0, "SiT + REPA": 0.35}
TABLES = ("points", "steps", "contrasts", "correlations")


@dataclass
class Digits:
    """Images with a class, pixels, and something that both a classifier and a model that generates see beyond them."""

    random: np.random.Generator

    def drawn_anew(self, seed: int) -> None:
        """Begin with noise of this seed, so that no fixture depends on which were made before."""
        self.random = np.random.default_rng(seed)

    def __post_init__(self) -> None:
        self.labels = [str(i % 8) for i in range(COUNT)]
        classes = self.random.standard_normal((8, WIDTH))
        self.of_class = classes[[int(label) for label in self.labels]]
        self.pixels = self.random.standard_normal((COUNT, 6))
        self.of_pixels = self.pixels @ self.random.standard_normal((6, WIDTH)) / 2
        self.beyond = self.random.standard_normal((COUNT, 4)) @ self.random.standard_normal((4, WIDTH)) / 2

    def noise(self) -> np.ndarray:
        return self.random.standard_normal((COUNT, WIDTH))

    def seen(self, classes: float, pixels: float, beyond: float, noise: float) -> np.ndarray:
        return classes * self.of_class + pixels * self.of_pixels + beyond * self.beyond + noise * self.noise()

    def manifest(self, folder: Path, labels: Sequence[str]) -> Path:
        images = [
            Image(name, label, int(label) if label else -1, "", "", "", "")
            for name, label in zip(NAMES, labels, strict=True)
        ]
        write_manifest(folder / "manifest.tsv", folder / "dataset.json", images, {})
        return folder / "manifest.tsv"


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(np.random.default_rng(0))


@pytest.fixture(scope="module")
def reference(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits.drawn_anew(1)
    return write_bundle(tmp_path_factory.mktemp("vit"), "digits.vit@600", {"final": digits.seen(1, 0.6, 1, 0.4)}, NAMES)


@pytest.fixture(scope="module")
def trained(digits: Digits, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All tables of two recipes with three seeds; every training has a pace of its own, which its samples show."""
    folder = tmp_path_factory.mktemp("training")
    digits.drawn_anew(2)
    checkpoints, quality = [], []
    for recipe, bonus in RECIPES.items():
        for seed in SEEDS:
            model = f"digits.{'repa' if bonus else 'sit'}" + (f".s{seed}" if seed else "")
            pace = 1 + 0.15 * float(digits.random.standard_normal())
            for step in STEPS:
                learned = (1 - np.exp(-step / 300)) * pace
                layers = {
                    alias: digits.seen(
                        learned * (0.5 + bonus) * np.exp(-((i - 3) ** 2) / 6), 0.4, 0.5 * learned * (i == 3), 1
                    )
                    for i, alias in enumerate(LAYERS)
                }
                at = write_bundle(folder / model / str(step), f"{model}@{step}-t0.5", layers, NAMES)
                checkpoints.append(Checkpoint(recipe, model, seed, step, at))
                share = 0.1 + 0.5 * learned + 0.02 * digits.random.standard_normal()
                quality.append({"model": model, "step": step, "measure": "share of class", "value": share, "low": 0.0})
    outputs = {key: folder / f"alignment.{key}" for key in ("tsv", "parquet", "recipe")}
    settings = write_settings(folder, K)
    training_alignment(checkpoints, (reference, "final"), METRICS, settings, WHERE, search(K), outputs)
    pd.DataFrame(quality).to_csv(folder / "quality.tsv", sep="\t", index=False)
    tables = {f"{name}_{kind}": folder / f"{name}.{kind}" for name in TABLES for kind in ("tsv", "parquet")}
    through_training_table(outputs["tsv"], folder / "quality.tsv", ["share of class"], 0, tables)
    return {"alignment": outputs["tsv"], "quality": folder / "quality.tsv", "recipe": outputs["recipe"], **tables}


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])


def test_every_checkpoint_layer_and_metric_has_a_row(trained: Mapping[str, Path]) -> None:
    table = read(trained["alignment"])
    assert len(table) == len(RECIPES) * len(SEEDS) * len(STEPS) * len(LAYERS) * len(METRICS)
    assert not table.duplicated(["bundle", "layer", "metric"]).any()
    # one layer a checkpoint and metric, the largest on the first half
    chosen = table[table["chosen"]].set_index(["bundle", "metric"])
    assert len(chosen) == len(table) / len(LAYERS)
    largest = table.groupby(["bundle", "metric"])["first_half"].max()
    assert (chosen["first_half"].sort_index() == largest.sort_index()).all()
    assert set(table["n_second_half"]) == {COUNT // 2}
    recipe = json.loads(trained["recipe"].read_text())
    assert recipe["reference"]["layers"] == {"final": "blocks.final"}
    assert len(recipe["bundles"]) == table["bundle"].nunique()
    exchanged = {"exchanged": "images", "groups": COUNT, "groups_moved": COUNT}
    assert recipe["calibration"] == {"permutations": 39, "alpha": 0.05, "seed": 0, "level": 0.95, **exchanged}


def test_gains_contrasts_and_correlations_are_those_of_the_points(trained: Mapping[str, Path]) -> None:
    points, steps = read(trained["points_tsv"]), read(trained["steps_tsv"])
    cknna = points[points["measure"] == "cknna"].pivot(index="model", columns="step", values="value")
    sit = [model for model in cknna.index if "sit" in model]
    last = steps[(steps["recipe"] == "SiT") & (steps["measure"] == "cknna") & (steps["step"] == 1000)].iloc[0]
    assert last["mean"] == pytest.approx(cknna.loc[sit, 1000].mean())
    assert last["gain"] == pytest.approx((cknna.loc[sit, 1000] - cknna.loc[sit, 0]).mean())
    assert last["trainings"] == 3
    contrasts = read(trained["contrasts_tsv"])
    at_last = contrasts[(contrasts["measure"] == "cknna") & (contrasts["step"] == 1000)].iloc[0]
    assert at_last[["recipe", "other"]].tolist() == ["SiT + REPA", "SiT"]
    paired = [cknna.loc[model.replace("sit", "repa"), 1000] - cknna.loc[model, 1000] for model in sit]
    assert at_last["difference"] == pytest.approx(np.mean(paired))
    correlations = read(trained["correlations_tsv"]).set_index("metric")
    # step 0 is before any training
    assert correlations.loc["cknna", "steps"] == len(STEPS) - 1
    assert correlations.loc["cknna", "trainings"] == 6
    assert (pd.read_parquet(trained["points_parquet"])["value"] - points["value"]).abs().max() < 1e-8


def test_quality_is_joined_by_model_and_step(trained: Mapping[str, Path], tmp_path: Path) -> None:
    shuffled = read(trained["quality"]).sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "quality.tsv", sep="\t", index=False)
    outputs = {f"{name}_{kind}": tmp_path / f"{name}.{kind}" for name in TABLES for kind in ("tsv", "parquet")}
    through_training_table(trained["alignment"], tmp_path / "quality.tsv", ["share of class"], 0, outputs)
    for name in ("steps", "contrasts", "correlations"):
        pd.testing.assert_frame_equal(read(outputs[f"{name}_tsv"]), read(trained[f"{name}_tsv"]))
    with pytest.raises(ValueError, match="has the measure 'FID'"):
        through_training_table(trained["alignment"], tmp_path / "quality.tsv", ["FID"], 0, outputs)
    twice = pd.concat([shuffled, shuffled.iloc[:1]])
    twice.to_csv(tmp_path / "quality.tsv", sep="\t", index=False)
    with pytest.raises(ValueError, match="two values of share of class at step"):
        through_training_table(trained["alignment"], tmp_path / "quality.tsv", [], 0, outputs)
    shuffled.drop(columns="value").to_csv(tmp_path / "quality.tsv", sep="\t", index=False)
    with pytest.raises(StoreError, match="lacks the columns value; expected model, step, measure, value"):
        through_training_table(trained["alignment"], tmp_path / "quality.tsv", [], 0, outputs)


@pytest.mark.parametrize("metric", METRICS)
def test_training_figures(metric: str, trained: Mapping[str, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / "maps.png", tmp_path / "maps.pdf"]
    training_maps_figure(trained["alignment"], metric, outputs)
    check_pictures(outputs)
    tables = {name: trained[f"{name}_tsv"] for name in TABLES}
    for measure in ("share of class", None):
        outputs = [tmp_path / f"through_{measure}.png", tmp_path / f"through_{measure}.pdf"]
        through_training_figure(trained["alignment"], tables, metric, measure, outputs)
        check_pictures(outputs)


def test_axes_are_named_by_what_the_tables_hold(
    trained: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw values may stand beside calibrated scores on all images, and a correlation may have no p."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, *_: figures.append(figure))
    tables = {name: trained[f"{name}_tsv"] for name in TABLES}
    points = read(tables["points"])
    points["scale"] = points["scale"].replace("calibrated", "raw")
    points.to_csv(tmp_path / "points.tsv", sep="\t", index=False)
    for given in (tables, {**tables, "points": tmp_path / "points.tsv"}):
        through_training_figure(trained["alignment"], given, "cknna", "share of class", [])
    assert [figure.axes[0].get_ylabel() for figure in figures] == ["calibrated CKNNA", "CKNNA"]
    (said,) = [text.get_text() for text in figures[0].axes[2].texts]
    assert said.startswith("ρ given step, recipe")
    assert said.endswith("\n6 trainings")


# --- atlas ----------------------------------------------------------------------------------------------------------


def at_level(digits: Digits, level: float, depth: int, trained: bool) -> np.ndarray:
    """What a layer holds: nothing of the image at t = 1; the class most in the middle and at moderate noise."""
    seen = 1 - level
    middle = np.exp(-((depth - 3) ** 2) / 5) * np.exp(-((level - 0.3) ** 2) / 0.1) * (depth > 0)
    return digits.seen(0.9 * middle * trained * seen, 0.7 * seen, 0.8 * middle * trained * seen, 0.8)


@pytest.fixture(scope="module")
def inputs(digits: Digits, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("levels")
    digits.drawn_anew(3)

    def bundle(level: float, step: int) -> Path:
        layers = {alias: at_level(digits, level, i, step > 0) for i, alias in enumerate(LAYERS)}
        return write_bundle(folder / f"{step}-{level}", f"digits.sit@{step}-t{level:g}", layers, NAMES)

    pixels = write_bundle(folder / "pixels", "pixels", {"p8": digits.pixels}, NAMES)
    return Inputs(
        "digits.sit",
        [Level(level, bundle(level, 1000), bundle(level, 0)) for level in LEVELS],
        (reference, "final"),
        [Control("labels"), Control("pixels_p8", pixels, ("p8",)), Control("untrained")],
        digits.manifest(folder, digits.labels),
    )


def outputs_of(folder: Path) -> dict[str, Path]:
    keys = ("scores_tsv", "scores_parquet", "beyond_tsv", "beyond_parquet", "recipe")
    return {key: folder / key.replace("_", ".") for key in keys}


@pytest.fixture(scope="module")
def written(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("atlas")
    outputs = outputs_of(folder)
    atlas(inputs, METRICS, 20, write_settings(folder, K), WHERE, search(K), outputs)
    return outputs


def test_an_atlas_has_every_layer_at_every_level(written: Mapping[str, Path]) -> None:
    scores = read(written["scores_tsv"])
    counts = scores.groupby("source").size().to_dict()
    assert counts == {
        **dict.fromkeys(("trained", "untrained"), len(LEVELS) * len(LAYERS) * len(METRICS)),
        **dict.fromkeys(("labels", "pixels_p8"), len(METRICS)),
    }
    assert scores.loc[scores["source"] == "labels", "level"].isna().all()
    assert [log_snr(0.5), log_snr(0), log_snr(1)] == [0, np.inf, -np.inf]
    assert scores.loc[scores["level"] == 1, "log_snr"].eq(-np.inf).all()
    chosen = scores[scores["chosen"] & (scores["metric"] == "cknna")].set_index("source")
    assert chosen.loc["trained", "layer"] in ("b2", "b3", "b4")
    assert 0.1 <= chosen.loc["trained", "level"] <= 0.5
    assert json.loads(written["recipe"].read_text())["controls"] == ["labels", "pixels_p8", "untrained"]


def test_pure_noise_is_at_chance(written: Mapping[str, Path]) -> None:
    scores = read(written["scores_tsv"])
    floor = scores[(scores["level"] == 1) & (scores["metric"] == "cknna")].drop_duplicates("source")
    assert len(floor) == 2
    assert (floor["maximum_p"] > 0.05).all()
    assert not scores.loc[scores["level"] == 1, "chosen"].any()


def test_pure_noise_above_its_null_is_a_warning() -> None:
    rows: list[dict[str, Any]] = [
        {"source": source, "metric": "cknna", "level": level, "maximum_p": p}
        for source, level, p in (("trained", 1.0, 0.005), ("untrained", 1.0, 0.4), ("trained", 0.5, 0.005))
    ]
    rows.append({"source": "trained", "metric": "procrustes", "level": 1.0, "maximum_p": float("nan")})
    warn(rows, 0.05)
    assert [row.get("warning") for row in rows] == ["pure noise above its null, p = 0.005", None, None, None]


def test_what_is_planted_beyond_the_controls_is_found_and_nothing_else(written: Mapping[str, Path]) -> None:
    beyond = read(written["beyond_tsv"])
    everything = beyond[beyond["given"] == "labels+pixels_p8+untrained"]
    assert len(everything) == len(LEVELS) * len(LAYERS)
    planted = everything[(everything["layer"] == "b3") & (everything["level"] == 0.3)].iloc[0]
    assert planted["share_low"] > 0
    # the first layer sees pixels alone; of several 95 % intervals one may miss 0
    first = everything[(everything["layer"] == "b0") & everything["share"].notna()]
    assert len(first) >= 4
    assert (first["share_low"] > 0).sum() <= 1
    assert planted["share"] > 5 * first["share"].abs().median()
    labels = beyond[(beyond["given"] == "labels")]
    assert set(labels["controls"]) == {7}
    # at pure noise there is nothing to have a share of
    assert everything.loc[everything["level"] == 1, "share"].isna().mean() > 0.6


def test_all_directions_between_classes_are_controlled_for(inputs: Inputs, tmp_path: Path) -> None:
    few = replace(inputs, levels=inputs.levels[:1], controls=inputs.controls[:2])
    outputs = outputs_of(tmp_path)
    atlas(few, METRICS[:1], 3, write_settings(tmp_path, K), WHERE, search(K), outputs)
    controls = read(outputs["beyond_tsv"]).groupby("given")["controls"].unique().map(list).to_dict()
    assert controls == {"labels+pixels_p8": [10], "labels": [7], "pixels_p8": [3]}


def test_controls_that_explain_single_images_are_a_reason(inputs: Inputs, digits: Digits, tmp_path: Path) -> None:
    manifest = digits.manifest(tmp_path, [str(i // 2) for i in range(COUNT)])
    few = replace(inputs, levels=inputs.levels[:1], controls=inputs.controls[:1], manifest=manifest)
    outputs = outputs_of(tmp_path)
    atlas(few, METRICS[:1], 3, write_settings(tmp_path, K), WHERE, search(K), outputs)
    beyond = read(outputs["beyond_tsv"])
    assert beyond["share"].isna().all()
    assert beyond["reason"].str.contains("a class needs at least three images").all()
    atlas_figure(outputs["scores_tsv"], outputs["beyond_tsv"], METRICS[0], [tmp_path / "atlas.png"])


def test_bounds_of_a_metric_that_counts_are_on_its_scale() -> None:
    row = {"metric": "lcs_knn", "k": 10, "calibrated": 0.2, "second_half": 2.0, "second_half_low": 1.8}
    row |= {"second_half_high": 2.2, "second_half_threshold": 0.4, "second_half_calibrated": (2.0 - 0.4) / (10 - 0.4)}
    (value,), (low,), (high,) = series.second_half(pd.DataFrame([row]))
    assert (low, value, high) == pytest.approx((1.4 / 9.6, 1.6 / 9.6, 1.8 / 9.6))


def test_labels_are_neighbours_at_random_within_their_class(digits: Digits) -> None:
    rows = class_rows(digits.labels, NAMES, 0)
    near = np.argsort(-(rows @ rows.T), axis=1)[:, 1 : K + 1]
    labels = np.array(digits.labels)
    assert (labels[near] == labels[:, None]).all()
    # in order of name, the first images of a class would be the neighbours of all
    assert np.bincount(near.ravel(), minlength=COUNT).max() < 4 * K
    again = class_rows(digits.labels[::-1], NAMES[::-1], 0)[::-1]
    np.testing.assert_allclose(rows, again, atol=1e-7)


def test_images_without_a_label_are_refused(inputs: Inputs, digits: Digits, tmp_path: Path) -> None:
    manifest = digits.manifest(tmp_path, ["", *digits.labels[1:]])
    bare = Inputs(inputs.model, inputs.levels, inputs.reference, inputs.controls, manifest)
    with pytest.raises(StoreError, match="1 images have no label, first: digit000"):
        atlas(bare, METRICS, 20, write_settings(tmp_path, K), WHERE, search(K), outputs_of(tmp_path))


@pytest.mark.parametrize("metric", METRICS)
def test_the_atlas_figure(metric: str, written: Mapping[str, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / "atlas.png", tmp_path / "atlas.pdf"]
    atlas_figure(written["scores_tsv"], written["beyond_tsv"], metric, outputs)
    check_pictures(outputs)


def test_findings_are_read_from_these_tables(
    trained: Mapping[str, Path], written: Mapping[str, Path], tmp_path: Path
) -> None:
    of_trainings = {name: trained[f"{name}_tsv"] for name in ("steps", "contrasts", "correlations")}
    sources = Sources([(written["scores_tsv"], written["beyond_tsv"])], **of_trainings)
    outputs = tmp_path / "findings.tsv", tmp_path / "findings.parquet", tmp_path / "findings.txt"
    findings(sources, METRICS, "digits.vit_final", outputs)
    table = read(outputs[0])
    # a gain a recipe, metric and measure of quality, and a contrast a metric and measure; procrustes has no null
    assert table["topic"].value_counts().to_dict() == {
        "training": 2 * (len(METRICS) + 1),
        "recipes": len(METRICS) + 1,
        "quality": len(METRICS),
        "atlas": len(METRICS),
        "floor": len(METRICS) - 1,
        "controls": 1,
    }
    assert not table["sentence"].str.contains("nan").any()
    steps = read(trained["steps_tsv"])
    last = steps[(steps["recipe"] == "SiT") & (steps["measure"] == "cknna") & (steps["step"] == STEPS[-1])].iloc[0]
    told = table[(table["topic"] == "training") & (table["measure"] == "cknna")].iloc[0]
    assert told[["value", "low", "high"]].tolist() == last[["gain", "gain_low", "gain_high"]].tolist()
    # planted at b3
    left = table[table["topic"] == "controls"].iloc[0]
    assert left["low"] > 0
    assert "is left beyond labels + pixels_p8 + untrained" in left["sentence"]


def test_nothing_depends_on_the_order_of_inputs(inputs: Inputs, written: Mapping[str, Path], tmp_path: Path) -> None:
    turned = Inputs(inputs.model, inputs.levels[::-1], inputs.reference, inputs.controls, inputs.manifest)
    outputs = outputs_of(tmp_path)
    atlas(turned, METRICS, 20, write_settings(tmp_path, K), WHERE, search(K, threads=2), outputs)
    keys: Any = ["source", "level", "layer", "metric"]
    both = [read(paths["scores_tsv"]).sort_values(keys, ignore_index=True) for paths in (outputs, written)]
    pd.testing.assert_frame_equal(*both)
