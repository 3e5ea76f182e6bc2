"""Alignment along a trajectory: a layer that foretells the image is found, one that knows its class alone is not."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_unlisted_sides import write_settings

from diffalign.alignment.preparation import FeatureError
from diffalign.alignment.settings import Preparation
from diffalign.extraction.readers import Reader
from diffalign.io.checkpoints import describe
from diffalign.io.headers import StoreError
from diffalign.io.pooled_files import write_pooled
from diffalign.io.trajectory_files import Chunk, write_trajectories
from diffalign.io.unlisted_sides import Search
from diffalign.noise import NoiseLevel
from diffalign.specs import Compute
from trajectory_alignment import COLUMNS, trajectory_alignment

SEEDS, CLASSES, EACH, SIDE, K = (0, 3), 5, 5, 16, 4
NAMES = [f"class_{label}_{n:05d}" for label in range(CLASSES) for n in range(EACH)]
GROUPS = {name: name[:7] for name in NAMES}
LEVELS = (NoiseLevel(0, 1, 1), NoiseLevel(0.5, 0.5, 0.5), NoiseLevel(1, 0, 0))
PIXELS = {
    "name": "pixels",
    "family": "image_statistics",
    "weights": {"source": "none"},
    "layers": {"p4": "pixels4"},
    "input": {"size": SIDE, "interpolation": "bilinear", "antialias": True, "mean": [0, 0, 0], "std": [1, 1, 1]},
}
RECIPE = {
    "model": {"name": "tiny", "step": 7},
    "autoencoder": {},
    "configuration": {"name": "plain", "start": "noise"},
    "weights": {"source": "training"},
    "autoencoder_weights": None,
    "layers": {"class": "blocks.0", "image": "blocks.1"},
}


def made(random: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images by name of all seeds, and what they are made of: that of their class, and their own."""
    of_class = random.standard_normal((CLASSES, 4, 4, 3))
    names = [f"{seed}/{name}" for seed in SEEDS for name in NAMES]
    own = random.standard_normal((len(names), 4, 4, 3))
    labels = [int(name.split("_")[1]) for name in names]
    coarse = 0.5 + 0.1 * (of_class[labels] + own)
    images = np.kron(coarse.clip(0, 1), np.ones((1, SIDE // 4, SIDE // 4, 1)))
    return dict(zip(names, images.astype(np.float16), strict=True)), own.reshape(len(names), -1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    images, own = made(random)
    names = list(images)
    codes = random.standard_normal((CLASSES, 20))
    labels = [int(name.split("_")[1]) for name in names]
    features = {}
    for step, level in enumerate(LEVELS):
        features[step, "class"] = 3 * codes[labels] + random.standard_normal((len(names), 20))
        features[step, "image"] = np.concatenate(
            [level.alpha * own, level.sigma * random.standard_normal(own.shape)], 1
        )
    groups = {name: GROUPS[name.split("/")[1]] for name in names}
    as_float = {key: value.astype(np.float32) for key, value in features.items()}
    write_pooled(tmp_path / "pooled.safetensors", as_float, groups, ["class", "image"], LEVELS, RECIPE)
    folders = []
    for seed in SEEDS:
        whole = np.stack([images[f"{seed}/{name}"] for name in NAMES])
        states = np.repeat(whole[:, None], len(LEVELS), axis=1)
        # the result is the last state
        states[:, :-1] = 0
        latents = np.zeros((len(NAMES), len(LEVELS), 1, 2, 2), np.float32)
        arrays = {"latents": latents, "x0": latents, "images": states, "x0_images": states}
        folders.append(tmp_path / "trajectories" / str(seed))
        folders[-1].parent.mkdir(exist_ok=True)
        kept = {key: value for key, value in RECIPE.items() if key != "layers"}
        write_trajectories(folders[-1], [Chunk(tuple(NAMES), arrays)], GROUPS, LEVELS, {**kept, "seed": seed})
    (tmp_path / "weights").mkdir()
    describe(tmp_path / "weights.json", tmp_path / "weights", {"source": "none"}, may_be_empty=True)
    (tmp_path / "reference.json").write_text(json.dumps({"bundle": "pixels", "model": PIXELS}))
    return {
        "pooled": tmp_path / "pooled.safetensors",
        "folders": folders,
        "reader": Reader(tmp_path / "reference.json", tmp_path / "weights", tmp_path / "weights.json", "p4"),
        "metrics": ["cknna", "mutual_knn", "unbiased_cka"],
        "settings": write_settings(tmp_path, K, 99),
        "search": Search(Preparation(center=True), K, 0, 100, 1),
        "outputs": {
            "alignment_tsv": tmp_path / "alignment.tsv",
            "alignment_parquet": tmp_path / "alignment.parquet",
            "recipe": tmp_path / "alignment.json",
        },
        "compute": Compute("cpu", 8, 0),
    }


def table(files: Mapping[str, Any]) -> pd.DataFrame:
    trajectory_alignment(**files)
    return pd.read_parquet(files["outputs"]["alignment_parquet"])


def test_a_layer_that_foretells_the_image_and_one_that_knows_its_class(files: dict[str, Any]) -> None:
    found = table(files)
    assert list(found.columns) == list(COLUMNS)
    assert len(found) == len(LEVELS) * 2 * 3
    assert set(found.n) == {len(SEEDS) * len(NAMES)}
    rows = found.set_index(["metric", "step", "layer"]).sort_index()
    for metric in ("cknna", "mutual_knn", "unbiased_cka"):
        of_class, of_image = (rows.loc[metric].xs(layer, level="layer") for layer in ("class", "image"))
        # the class alone aligns, which is what its null is made of
        assert (of_class.score > 0.1).all()
        assert (of_class.p > 0.05).all()
        assert of_image.p[0] > 0.05
        assert of_image.p[2] == 0.01
        assert of_image.calibrated[2] > 0
        assert of_image.score.is_monotonic_increasing
    assert list(found.drop_duplicates("step").t) == [1, 0.5, 0]
    assert list(found.drop_duplicates("layer").depth) == [0, 1]
    assert set(found.bundle) == {"tiny@7"}
    best = found.loc[found.groupby("metric").first_half.idxmax()]
    assert sorted(best.index) == sorted(found[found.chosen].index)
    # halves of whole classes
    assert set(found.n_second_half) == {3 * EACH * len(SEEDS)}
    recipe = json.loads(files["outputs"]["recipe"].read_text())
    assert recipe["groups"] == {f"class_{label}": EACH * len(SEEDS) for label in range(CLASSES)}
    assert "within groups" in recipe["null"]
    assert recipe["reference"]["layers"] == {"p4": "pixels4"}


def test_results_do_not_depend_on_the_order_of_seeds_nor_on_batches(files: dict[str, Any]) -> None:
    one = table(files)
    other = table({**files, "folders": files["folders"][::-1], "compute": Compute("cpu", 3, 0)})
    pd.testing.assert_frame_equal(one, other)


def test_other_samples_and_other_checkpoints_are_refused(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"25 only in .*pooled.safetensors: 3/class_0_00000"):
        table({**files, "folders": files["folders"][:1]})
    for changed in ({"model": {"name": "tiny", "step": 8}}, {"weights": {"source": "hub"}}):
        names = list(dict.fromkeys(f"{seed}/{name}" for seed in SEEDS for name in NAMES))
        features = {(0, "class"): np.ones((len(names), 2), np.float32)}
        groups = {name: GROUPS[name.split("/")[1]] for name in names}
        write_pooled(tmp_path / "other.safetensors", features, groups, ["class"], LEVELS, {**RECIPE, **changed})
        (key,) = changed
        with pytest.raises(StoreError, match=f"0: is of another {key} than .*other.safetensors"):
            table({**files, "pooled": tmp_path / "other.safetensors"})
    moved = {**groups, "3/class_0_00001": "class_1"}
    write_pooled(tmp_path / "moved.safetensors", features, moved, ["class"], LEVELS, RECIPE)
    with pytest.raises(StoreError, match="1 samples are of other groups, first: 3/class_0_00001"):
        table({**files, "pooled": tmp_path / "moved.safetensors"})


def test_features_without_a_direction_name_step_and_layer(files: dict[str, Any], tmp_path: Path) -> None:
    names = [f"{seed}/{name}" for seed in SEEDS for name in NAMES]
    values = np.random.default_rng(0).standard_normal((len(names), 6)).astype(np.float32)
    zero = values.copy()
    zero[1] = 0
    groups = {name: GROUPS[name.split("/")[1]] for name in names}
    features = {(0, "class"): values, (1, "class"): zero}
    write_pooled(tmp_path / "zero.safetensors", features, groups, ["class"], LEVELS, RECIPE)
    search = replace(files["search"], preparation=Preparation())
    with pytest.raises(FeatureError, match=r"zero.safetensors, step 1, layer class: .*zero norm.*0/class_0_00001"):
        table({**files, "pooled": tmp_path / "zero.safetensors", "search": search})


@pytest.mark.parametrize("over", ["layer", "model"])
def test_clamped_features(files: dict[str, Any], over: str) -> None:
    search = replace(files["search"], preparation=Preparation(clamp=0.95, clamp_over=over, center=True))
    assert np.isfinite(table({**files, "search": search}).score).all()
