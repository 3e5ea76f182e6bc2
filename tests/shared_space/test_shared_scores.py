"""From two feature files to transforms, scores, contrasts and their figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import shared_scores as scores_script
from diffalign.io.feature_files import Features, write_features
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.shared_transform_files import read_shared_transform
from diffalign.shared_space.transforms import METHODS, Settings, arrays, is_held_out, run_name
from shared_scores import shared_scores
from shared_scores_figure import shared_scores_figure
from shared_transforms import shared_transforms

NAMES = tuple(f"image_{number:03d}" for number in range(120))
LABELS = tuple("abc"[number % 3] for number in range(120))
PLAIN: dict[str, Any] = {
    "methods": list(METHODS),
    "landmarks": 20,
    "choice": "kmeans",
    "c": 0.1,
    "held_out": 0.5,
    "components": [3, 6],
    "penalties": [0.001, 0.1],
    "half_shared": {"steps": 10},
    "seeds": [0, 1],
    "permutations": 39,
    "bootstrap": 100,
    "seed": 0,
    "k": 5,
}


def layers() -> tuple[np.ndarray, np.ndarray]:
    """Two layers that have six dimensions in common; the second is wider, and bent."""
    draws = np.random.default_rng(0)
    z = draws.standard_normal((120, 6)) + 2 * np.eye(6)[np.arange(120) % 3]
    x = z @ draws.standard_normal((6, 10)) + 0.2 * draws.standard_normal((120, 10))
    y = np.tanh(0.5 * z @ draws.standard_normal((6, 14))) + 0.1 * draws.standard_normal((120, 14))
    return x.astype(np.float32), y.astype(np.float32)


def write(
    folder: Path, x: np.ndarray, y: np.ndarray, names: tuple[str, ...] = NAMES, groups: tuple[str, ...] = NAMES
) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    for path, values, bundle in ((folder / "a.pt", x, "vit"), (folder / "b.pt", y, "sit-t0.2")):
        write_features(path, Features(values, names, {"bundle": bundle, "layer": "b3"}))
    images = [
        Image(name, label, "abc".index(label), "", "", "", "", group=group)
        for name, label, group in zip(NAMES, LABELS, groups, strict=True)
    ]
    write_manifest(folder / "manifest.tsv", folder / "dataset.json", images, {})
    return folder / "a.pt", folder / "b.pt"


def outputs(folder: Path) -> dict[str, Path]:
    files = ("scores_tsv", "scores_parquet", "contrasts_tsv", "contrasts_parquet", "recipe")
    return {name: folder / "out" / name.replace("_", ".") for name in files}


def transforms(folder: Path, settings: Settings) -> dict[str, Path]:
    return {run_name(*run): folder / "shared" / f"{run_name(*run)}.safetensors" for run in settings.runs}


def run(folder: Path, settings: Settings, labelled: bool = True) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Both scripts. Returns scores, contrasts and the recipe."""
    features, manifest = (folder / "a.pt", folder / "b.pt"), folder / "manifest.tsv" if labelled else None
    made, written = transforms(folder, settings), outputs(folder)
    shared_transforms(features, manifest, settings, made, folder / "fitted.json")
    shared_scores(list(made.values()), features, manifest, folder / "fitted.json", settings, written)
    tables = (pd.read_parquet(written[f"{name}_parquet"]) for name in ("scores", "contrasts"))
    scores, contrasts = tables
    return scores, contrasts, json.loads(written["recipe"].read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shared")
    write(folder, *layers())
    return (folder, *run(folder, Settings.of(PLAIN)))


Study = tuple[Path, pd.DataFrame, pd.DataFrame, dict[str, Any]]


def test_tables_have_every_method_metric_and_part(study: Study) -> None:
    _, scores, contrasts, recipe = study
    metrics = {"own_index", "own_label", "cka", "cknna", "predictivity"}
    held_out = int(is_held_out(NAMES, 0.5, 0).sum())
    assert recipe["images"] == {"fit": 120 - held_out, "held_out": held_out}
    assert set(scores["method"]) == set(METHODS)
    # two parts of five metrics; six methods have a row, trained encoders one for each seed and the mean
    assert len(scores) == 2 * 5 * (6 + 3)
    assert (set(scores["a"]), set(scores["b"])) == ({"vit_b3"}, {"sit-t0.2_b3"})
    inside, outside = (scores[scores["images"] == part] for part in ("fit", "held_out"))
    assert inside[["low", "high", "null_mean", "p"]].isna().all(axis=None)
    assert outside[["score", "low", "high", "null_mean", "p"]].notna().all(axis=None)
    assert (outside["n"] == held_out).all()
    assert (outside["low"] <= outside["score"]).all()
    assert (outside["score"] <= outside["high"]).all()
    trained = outside[(outside["method"] == "half_shared") & (outside["metric"] == "cka")]
    assert trained["seed"].fillna(-1).tolist() == [0, 1, -1]
    assert trained["seeds"].tolist() == [1, 1, 2]
    assert trained["score"].iloc[2] == pytest.approx(trained["score"].iloc[:2].mean())
    best = recipe["selection"]["best"]
    assert best in ("procrustes", "cca", "ridge")
    against = contrasts[contrasts["reference"] == "best_linear"]
    assert set(against["against"]) == {best}
    assert set(against["method"]) == set(METHODS) - {"padded", best}
    assert set(contrasts.loc[contrasts["reference"] == "padded", "method"]) == set(METHODS) - {"padded"}
    assert set(contrasts["metric"]) == metrics
    of_mean = outside[outside["seed"].isna()]
    score = {(row["method"], row["metric"]): row["score"] for row in of_mean.to_dict("records")}
    for row in contrasts.to_dict("records"):
        expected = score[row["method"], row["metric"]] - score[row["against"], row["metric"]]
        assert row["difference"] == pytest.approx(expected, abs=1e-12)
        assert row["low"] <= row["difference"] <= row["high"]


def test_what_is_known_of_these_layers_shows(study: Study) -> None:
    _, scores, _, _ = study
    at = scores[(scores["images"] == "held_out") & scores["seed"].isna()].set_index(["metric", "method"])["score"]
    # layers of other widths have no common axes, and linear maps find them
    assert at["own_index", "padded"] < 0.2
    assert at["own_index", "cca"] > 0.8
    assert at["own_index", "ridge"] > 0.8
    # CKA does not see rotations and scales
    assert at["cka", "procrustes"] == pytest.approx(at["cka", "padded"], abs=0.1)


def test_no_method_has_seen_held_out_images(tmp_path: Path, study: Study) -> None:
    folder, *_ = study
    x, y = layers()
    held_out = is_held_out(NAMES, 0.5, 0)
    y[held_out] = np.random.default_rng(1).standard_normal((int(held_out.sum()), 14)).astype(np.float32)
    write(tmp_path, x, y)
    settings = Settings.of(PLAIN)
    made, moved = transforms(folder, settings), transforms(tmp_path, settings)
    shared_transforms(
        (tmp_path / "a.pt", tmp_path / "b.pt"), tmp_path / "manifest.tsv", settings, moved, tmp_path / "r.json"
    )
    assert len(made) == 8
    for name, path in made.items():
        before, after = read_shared_transform(path), read_shared_transform(moved[name])
        assert set(before.names) == {name for name, out in zip(NAMES, held_out, strict=True) if not out}
        assert after.names == before.names
        (kinds, of_before), (_, of_after) = arrays(before.pair), arrays(after.pair)
        assert len(kinds) == 2
        assert of_before.keys() == of_after.keys()
        assert all(np.array_equal(values, of_after[key]) for key, values in of_before.items())


def test_seeds_of_the_split_and_labels_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, *layers())
    settings = Settings.of(PLAIN | {"methods": ["padded", "rbf"], "seeds": [], "seed": 1})
    scores, contrasts, recipe = run(tmp_path, settings, labelled=False)
    assert "own_label" not in set(scores["metric"])
    assert set(contrasts["reference"]) == {"padded"}
    assert recipe["selection"] is None


def test_groups_of_the_manifest_are_fitted_or_held_out_as_wholes(tmp_path: Path) -> None:
    groups = tuple(f"photograph_{number // 5:02d}" for number in range(120))
    write(tmp_path, *layers(), groups=groups)
    settings = Settings.of(PLAIN | {"methods": ["padded", "ridge", "rbf"], "seeds": []})
    scores, contrasts, recipe = run(tmp_path, settings)
    fitted = set(read_shared_transform(transforms(tmp_path, settings)["ridge"]).names)
    of = dict(zip(NAMES, groups, strict=True))
    inside, outside = {of[name] for name in fitted}, {of[name] for name in set(NAMES) - fitted}
    assert not inside & outside
    assert recipe["groups"] == {"fit": len(inside), "held_out": len(outside)}
    assert recipe["exchanged"] == "whole groups of one size"
    for part, count in recipe["groups"].items():
        rows = scores[scores["images"] == part]
        assert set(rows["groups"]) == {count}
        assert set(rows["n"]) == {5 * count}
    held_out = scores[scores["images"] == "held_out"]
    assert held_out[["low", "high", "p"]].notna().all(axis=None)
    assert set(held_out["reason"].fillna("")) == {""}
    assert set(contrasts["groups"]) == {len(outside)}
    written = outputs(tmp_path)
    shared_scores_figure(written["scores_tsv"], written["contrasts_tsv"], [tmp_path / "a.png"], miniature=False)
    # a manifest that has other groups than the transforms were fitted with
    write(tmp_path, *layers(), groups=tuple(f"film_{number % 20:02d}" for number in range(120)))
    made = list(transforms(tmp_path, settings).values())
    features = (tmp_path / "a.pt", tmp_path / "b.pt")
    with pytest.raises(
        StoreError, match=r"of 20 groups some images were fitted and others are held out, first: film_00"
    ):
        shared_scores(made, features, tmp_path / "manifest.tsv", tmp_path / "fitted.json", settings, written)
    write(tmp_path, *layers(), groups=tuple(f"film_{number // 40}" for number in range(120)))
    with pytest.raises(ValueError, match="3 groups of images are too few"):
        run(tmp_path, settings)


def test_the_figure_is_drawn(study: Study, tmp_path: Path) -> None:
    folder = study[0]
    written = [tmp_path / "scores.png", tmp_path / "scores.pdf"]
    shared_scores_figure(
        outputs(folder)["scores_parquet"], outputs(folder)["contrasts_parquet"], written, miniature=True
    )
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert written[1].read_bytes().startswith(b"%PDF")


def test_a_figure_without_a_linear_method_or_labels(tmp_path: Path) -> None:
    write(tmp_path, *layers())
    run(tmp_path, Settings.of(PLAIN | {"methods": ["padded", "relative"], "seeds": []}), labelled=False)
    written = outputs(tmp_path)
    shared_scores_figure(written["scores_tsv"], written["contrasts_tsv"], [tmp_path / "a.png"], miniature=False)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_files_that_do_not_belong_together_are_refused(study: Study, tmp_path: Path) -> None:
    folder = study[0]
    settings = Settings.of(PLAIN)
    made, features = list(transforms(folder, settings).values()), (folder / "a.pt", folder / "b.pt")
    arguments = (folder / "manifest.tsv", folder / "fitted.json", settings, outputs(tmp_path))
    with pytest.raises(StoreError, match="transforms are of padded, rbf, .*; expected padded, rbf"):
        shared_scores(made[:-1], features, *arguments)
    x, y = layers()
    other = write(tmp_path, x + 1, y)
    with pytest.raises(StoreError, match=r"a.pt: has changed since .*fitted.json was written"):
        shared_scores(made, other, *arguments)
    write(tmp_path, x, y)
    write_features(
        tmp_path / "b.pt", Features(y, tuple(f"x{name}" for name in NAMES), {"bundle": "sit", "layer": "b3"})
    )
    with pytest.raises(StoreError, match="images differ: 120 only in"):
        shared_scores(made, (tmp_path / "a.pt", tmp_path / "b.pt"), *arguments)
    write_features(tmp_path / "b.pt", Features(y[:119], NAMES[:119], {"bundle": "sit", "layer": "b3"}))
    with pytest.raises(StoreError, match=r"images differ: 1 only in .*: image_119"):
        shared_scores(made, (tmp_path / "a.pt", tmp_path / "b.pt"), *arguments)


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    x, y = layers()

    def attempt(named: dict[str, Path] | None = None, **change: Any) -> None:
        settings = Settings.of(PLAIN | change)
        files = (tmp_path / "a.pt", tmp_path / "b.pt")
        given = transforms(tmp_path, settings) if named is None else named
        shared_transforms(files, tmp_path / "manifest.tsv", settings, given, tmp_path / "r.json")

    write(tmp_path, x, np.ones_like(y))
    with pytest.raises(StoreError, match=r"b.pt: features are constant: all 120 rows are equal"):
        attempt()
    write(tmp_path, x[:15], y[:15], NAMES[:15])
    with pytest.raises(ValueError, match="15 images are too few"):
        attempt()
    write(tmp_path, x, y)
    with pytest.raises(ValueError, match=r"100 landmarks of \d\d images to fit"):
        attempt(landmarks=100)
    with pytest.raises(ValueError, match="transforms are padded, rbf, .*; files are given for none"):
        attempt(named={})
    other = tuple(f"z{name}" for name in NAMES)
    write(tmp_path, x, y, other)
    with pytest.raises(StoreError, match="manifest.tsv: lacks 120 images of .*a.pt, first: zimage_000"):
        attempt()


def test_references_follow_the_recipe() -> None:
    assert scores_script.references({"selection": None}) == [("padded", "padded")]
    assert scores_script.references({"selection": {"best": "cca"}}) == [("padded", "padded"), ("best_linear", "cca")]
