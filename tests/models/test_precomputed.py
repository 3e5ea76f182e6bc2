"""Features that were made elsewhere, through the same graph: no images, no checkpoints, the same scores."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Workflow, copy_tree
from dense_metrics import dense_cknna, unit

from diffalign.io import feature_files
from diffalign.io.layouts import platonic
from diffalign.io.layouts.feature_tables import read_layers
from diffalign.io.matrices import read_layer_matrices
from diffalign.provenance import file_sha256
from export_features import export_features

COUNT = 40
NAMES = [f"n{i % 4:02d}_{i:03d}" for i in range(COUNT)]
RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((COUNT, 8))
TURNED = TRUTH @ np.linalg.qr(RNG.standard_normal((8, 8)))[0]
NOISE = RNG.standard_normal((COUNT, 8))
ORDER = RNG.permutation(COUNT)
STUDY: dict[str, Any] = {
    "datasets": {"theirs": {"kind": "precomputed"}},
    "models": {
        "left": {
            "family": "precomputed",
            "features": {"path": "feats/{dataset}/left_{layer}_{condition}.pt"},
            "layers": {"b{0..1}": "block_{}"},
            "default_layer": "b0",
        },
        "right": {
            "family": "precomputed",
            "features": {"path": "feats/right.pt", "layout": "platonic"},
            "layers": {"b{0..1}": "{}"},
            "default_layer": -1,
        },
    },
}
FEATURES = "results/features/theirs/clean"
MATRIX = "results/cknna/theirs/clean/layers/left_vs_right.npy"
MATRICES = "results/alignment/theirs/clean/left_vs_right.npz"
SCORE = "results/cknna/theirs/clean/left_vs_right.npy"
THINGSVISION = "results/export/thingsvision/theirs/clean/left_b0/features.npy"
PLATONIC = "results/export/platonic/theirs/clean/left_vs_right/cknna_k5.npy"


def write_files(work: Path) -> None:
    """left: a file a layer, in order. right: one file, other order, names with folder and suffix; b1 is left's b0."""
    left = work / "feats" / "theirs"
    left.mkdir(parents=True)
    for i, values in enumerate((TRUTH, NOISE)):
        content = {"features": torch.from_numpy(values), "names": NAMES, "transformations": [{"mode": "clean"}] * COUNT}
        torch.save(content, left / f"left_block_{i}_clean.pt")
    stack = np.stack([RNG.standard_normal((COUNT, 8)), TURNED], axis=1)[ORDER]
    torch.save({"feats": torch.from_numpy(stack).float(), "num_params": 1}, work / "feats" / "right.pt")
    (work / "feats" / "right.txt").write_text("".join(f"images/{NAMES[i]}.png\n" for i in ORDER))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Two precomputed models through neighbours and alignment, and exported. Tests leave its files as they are."""
    base = tmp_path_factory.mktemp("imported")
    workflow = Workflow(copy_tree(base / "tree"), base / "work")
    write_files(workflow.directory)
    done = workflow.run(MATRIX, SCORE, THINGSVISION, PLATONIC, overlay=STUDY)
    assert done.code == 0, done.output
    assert done.jobs() == {
        "alignment_settings": 1,
        "calibration_settings": 1,
        "metrics_settings": 1,
        "recipe": 2,
        "feature_sources": 2,
        "import_left": 1,
        "import_right": 1,
        "neighbors": 2,
        "align": 1,
        "align_layers": 1,
        "layer_matrix": 1,
        "export_thingsvision": 1,
        "export_platonic_alignment": 1,
    }
    return workflow


@pytest.fixture
def mine(imported: Workflow, tmp_path: Path) -> Workflow:
    """A copy of it that a test may change."""
    shutil.copytree(imported.tree, tmp_path / "tree", symlinks=True)
    shutil.copytree(imported.directory, tmp_path / "work", symlinks=True)
    return Workflow(tmp_path / "tree", tmp_path / "work")


def test_planted_features_meet_on_their_names(imported: Workflow) -> None:
    work = imported.directory
    (matrix,) = read_layer_matrices(work / MATRICES, ["cknna"])
    assert np.array_equal(np.load(work / MATRIX), matrix.values)
    assert (matrix.layers("a"), matrix.layers("b")) == (["b0", "b1"], ["b0", "b1"])
    # right's b1 is left's b0, turned: the same neighbours, whatever the order of the rows
    assert matrix.values[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.abs(matrix.values[[0, 1, 1], [0, 0, 1]]).max() < 0.5
    # a matrix sums its cells in other pieces
    near = pytest.approx(matrix.values[0, 1], rel=1e3 * np.finfo(np.float64).eps)
    assert float(np.load(work / SCORE)) == near
    assert not matrix.miniature
    assert not (work / "results/images").exists()
    assert not (work / "resources").exists()


def test_recipes_say_where_features_came_from(imported: Workflow) -> None:
    work = imported.directory
    schema = yaml.safe_load((ROOT / "schemas/recipe.schema.yaml").read_text())
    for path in (MATRIX, SCORE):
        jsonschema.validate(json.loads((work / path).with_suffix(".json").read_text()), schema)
    recipe = json.loads((work / SCORE).with_suffix(".json").read_text())
    (layer_a,), (layer_b,) = (recipe[side]["layers"] for side in "ab")
    assert (layer_a["layer"], layer_a["module"]) == ("b0", "block_0")
    assert (layer_b["layer"], layer_b["module"]) == ("b1", "1")
    assert recipe["a"]["source"]["b1"] == {
        "path": "feats/theirs/left_block_1_clean.pt",
        "part": None,
        "layout": "vfmvae",
        "dtype": "float64",
        "names": "inside",
    }
    assert recipe["b"]["source"]["b1"]["part"] == "1"
    assert recipe["b"]["weights"]["source"] == "precomputed"
    assert recipe["b"]["weights"]["sha256"] == {
        path: file_sha256(work / path) for path in ("feats/right.pt", "feats/right.txt")
    }
    assert recipe["a"]["images"]["names_sha256"] == recipe["b"]["images"]["names_sha256"]


def test_feature_files_are_ours_with_rows_in_order_of_name(imported: Workflow) -> None:
    features = feature_files.read_features(imported.directory / FEATURES / "right/b1.pt")
    assert features.names == tuple(sorted(NAMES))
    assert np.array_equal(features.values, TURNED[np.argsort(NAMES)].astype(np.float32))


def test_exports_are_what_was_measured(imported: Workflow) -> None:
    work = imported.directory
    ours = feature_files.read_features(work / FEATURES / "left/b0.pt")
    table = read_layers((work / THINGSVISION).parent, layout="thingsvision")
    assert np.array_equal(table.values[0], ours.values)
    recipe = json.loads((work / THINGSVISION).with_name("recipe.json").read_text())
    assert recipe["layers"] == [{"layer": "b0", "module": "block_0"}]
    scores, indices = platonic.read_alignment(work / PLATONIC)
    assert scores.tolist() == [[np.load(work / MATRIX).max()]]
    assert indices.tolist() == [[[0, 1]]]
    # the published files as they came, measured by the definition
    right = torch.load(work / "feats" / "right.pt", weights_only=True)["feats"].numpy()[np.argsort(ORDER)]
    left = [torch.load(work / "feats" / "theirs" / f"left_block_{i}_clean.pt")["features"].numpy() for i in (0, 1)]
    grid = [[dense_cknna(unit(left[i]), unit(right[:, j]), 5) for j in (0, 1)] for i in (0, 1)]
    assert scores.max() == pytest.approx(np.max(grid), abs=1e-6)
    assert np.load(work / MATRIX) == pytest.approx(np.array(grid), abs=1e-6)


def test_every_layout_is_exported(imported: Workflow, tmp_path: Path) -> None:
    folder = imported.directory / FEATURES / "right"
    layers = [folder / "b0.pt", folder / "b1.pt"]
    path, names, recipe = tmp_path / "right.pt", tmp_path / "right.txt", tmp_path / "right.json"
    for layout, sources, part in (("vfmvae", layers[1:], None), ("platonic", layers, "1")):
        export_features(layout, "clean", sources, None, path, names, recipe)
        table = read_layers(path, [part], layout)
        assert table.names == tuple(sorted(NAMES))
        assert np.array_equal(table.values[0], feature_files.read_features(layers[1]).values)
        assert len(json.loads(recipe.read_text())["layers"]) == len(sources)
    with pytest.raises(ValueError, match="not exported as 'hdf5'; known: vfmvae, vfmvae_files, platonic, thingsvision"):
        export_features("hdf5", "clean", layers, None, path, names, recipe)
    export = "results/export/{}/theirs/clean/{}"
    targets = [export.format("vfmvae", "right.pt"), export.format("platonic", "right.pt")]
    assert imported.plan(*targets, overlay=STUDY).jobs() == {"export_vfmvae": 1, "export_platonic": 1}


def overlay(model: str, **changes: object) -> dict[str, Any]:
    models = {name: dict(entry) for name, entry in STUDY["models"].items()}
    models[model] |= changes
    return {**STUDY, "models": models}


def test_files_that_change_are_noticed_even_when_a_layer_is_added(mine: Workflow) -> None:
    assert "Nothing to be done" in mine.plan(MATRIX, SCORE, overlay=STUDY).output
    left = mine.directory / "feats/theirs"
    shutil.copy(left / "left_block_1_clean.pt", left / "left_block_2_clean.pt")
    more = overlay("left", layers={"b{0..2}": "block_{}"})
    done = mine.run(SCORE, overlay=more)
    assert done.code == 0, done.output
    again = {"feature_sources": 1, "import_left": 1, "neighbors": 1, "align": 1}
    assert done.jobs() == {"recipe": 1, **again}
    torch.save({"features": torch.from_numpy(NOISE), "names": NAMES}, left / "left_block_0_clean.pt")
    assert mine.plan(SCORE, overlay=more).jobs() == again


def test_names_that_are_not_those_of_the_other_model(mine: Workflow) -> None:
    renamed = [f"{name}_other" if i < 7 else name for i, name in enumerate(NAMES)]
    (mine.directory / "feats/right.txt").write_text("".join(f"{renamed[i]}\n" for i in ORDER))
    refused = mine.run(SCORE, overlay=STUDY)
    assert refused.code != 0
    assert (
        "images differ: 7 only in results/neighbors/theirs/clean/left.npz: "
        "n00_000, n00_004, n01_001, n01_005, n02_002 …; 7 only in results/neighbors/theirs/clean/right.npz: "
        "n00_000_other, n00_004_other"
    ) in refused.output
    assert not (mine.directory / SCORE).exists()


def check_import_refused(workflow: Workflow, message: str, study: Mapping[str, Any] = STUDY) -> None:
    refused = workflow.run(f"{FEATURES}/left.json", overlay=study)
    assert refused.code != 0
    assert f"import_left: {message}" in refused.output, refused.output
    folder = workflow.directory / FEATURES / "left"
    assert not folder.exists() or not list(folder.iterdir())


def test_a_dry_run_needs_no_file_and_a_run_names_the_one_that_is_missing(fresh: Workflow) -> None:
    planned = fresh.plan(SCORE, overlay=STUDY)
    assert planned.jobs()["import_left"] == 1
    assert "images" not in planned.jobs()
    check_import_refused(fresh, "feats/theirs/left_block_0_clean.pt: no such feature file")


def test_layers_of_other_images_stop_the_import(fresh: Workflow) -> None:
    write_files(fresh.directory)
    second = fresh.directory / "feats/theirs/left_block_1_clean.pt"
    torch.save({"features": torch.from_numpy(NOISE[:-1]), "names": NAMES[:-1]}, second)
    message = "images differ: 1 only in feats/theirs/left_block_0_clean.pt: n03_039"
    check_import_refused(fresh, message)


def test_a_data_set_without_images_is_not_run_through_a_model(fresh: Workflow) -> None:
    refused = fresh.run("results/cknna/theirs/clean/left_vs_dinov2.npy", options=["-n"], overlay=STUDY)
    assert refused.code != 0
    assert "the data set 'theirs' has no images, so dinov2 cannot be run on it" in refused.output


def test_precomputed_features_meet_those_of_a_model_that_runs_here(copied: Workflow) -> None:
    ours = feature_files.read_features(copied.directory / "results/features/photographs/clean/dinov2/b3.pt")
    order = np.random.default_rng(1).permutation(len(ours.names))
    folder = copied.directory / "feats"
    folder.mkdir()
    np.save(folder / "features.npy", ours.values[order])
    (folder / "file_names.txt").write_text("".join(f"photographs/{ours.names[i]}.jpg\n" for i in order))
    entry = {"family": "precomputed", "features": {"path": "feats"}, "layers": {"b0": "0"}, "default_layer": "b0"}
    target = "results/cknna/dinov2_b3_vs_mine.npy"
    study = {"models": {"mine": entry}}
    done = copied.run(target, overlay=study)
    assert done.code == 0, done.output
    assert float(np.load(copied.directory / target)) == pytest.approx(1, abs=1e-12)
    np.save(folder / "features.npy", ours.values[order][:-1])
    refused = copied.run(target, overlay=study)
    assert refused.code != 0
    assert "import_mine: feats/features.npy: 39 rows for 40 names in feats/file_names.txt" in refused.output
