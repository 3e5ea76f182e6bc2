"""Results that were edited by hand or deleted: what says so, and names the file."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import write_neighbors

from diffalign.alignment.search.exact import Neighbors
from diffalign.io import calibration_files, feature_files, matrices
from diffalign.io.calibration_files import StoredCalibration, read_calibrations, write_calibrations
from diffalign.io.headers import StoreError
from diffalign.io.neighbor_files import read_neighbors

NAMES = [f"image{i}" for i in range(6)]


def refuses(path: Path, message: str) -> "pytest.RaisesExc[StoreError]":
    return pytest.raises(StoreError, match=re.escape(f"{path}: ") + ".*" + message)


def test_a_score_that_its_metric_cannot_have(tmp_path: Path) -> None:
    path = tmp_path / "a_vs_b.npz"
    recipe = {"format": 2, "metric": "mutual_knn", "k": 10, "shape": [1, 2]}

    def write(*scores: float) -> None:
        matrices.write_matrices(path, {"mutual_knn": matrices.LayerMatrix(np.array([scores]), recipe)})

    write(0.2, np.nan)
    assert matrices.read_layer_matrices(path, ["mutual_knn"])[0].best == (0, 0)
    for wrong in (9.9, -1.0, np.inf):
        write(0.2, wrong)
        with refuses(path, "mutual_knn: the score .* lies outside of its range .*; delete it and rerun"):
            matrices.read_layer_matrices(path, ["mutual_knn"])
    recipe["format"] = 3
    write(0.2, 0.3)
    with refuses(path, "format 3 is not known here .a recipe of a score: 1 to 2.; delete the file and rerun"):
        matrices.read_layer_matrices(path, ["mutual_knn"])
    recipe["format"] = 2
    write(0.2, 0.3, 0.4)
    with refuses(path, r"mutual_knn has the shape \(1, 3\), but its recipe says \[1, 2\]"):
        matrices.read_layer_matrices(path, ["mutual_knn"])


def test_a_metric_that_a_file_of_a_pair_lacks(tmp_path: Path) -> None:
    path, beside = tmp_path / "a_vs_b.npz", tmp_path / "calibration.npz"
    grid = np.full((1, 2), 0.5)
    recipe = {"format": 2, "metric": "mutual_knn", "k": 10, "shape": [1, 2]}
    matrices.write_matrices(path, {"mutual_knn": matrices.LayerMatrix(grid, recipe)})
    write_calibrations(beside, {"mutual_knn": StoredCalibration(None, grid, grid, grid, None, {"alpha": 0.05})})
    with refuses(path, "holds no matrix of cknna; delete it and rerun"):
        matrices.read_layer_matrices(path, ["mutual_knn", "cknna"])
    with refuses(beside, "holds no calibration of cknna; delete it and rerun"):
        read_calibrations(beside, ["mutual_knn", "cknna"])


def test_a_p_of_zero(tmp_path: Path) -> None:
    from diffalign.alignment.calibration import Calibration

    grid = np.full((1, 2), 0.5)
    path = tmp_path / "a_vs_b.npz"
    for p, fits in ((0.01, True), (0.0, False), (1.5, False)):
        null = Calibration(
            **{key: grid for key in calibration_files._GRIDS if key != "p"},
            p=np.array([[0.3, p]]),
            maxima=np.full(3, 0.5),
            skewness=None,
            method="permutations",
            reason=None,
            maximum_p=0.1,
            maximum_threshold=0.1,
            maximum_calibrated=0.1,
        )
        write_calibrations(path, {"cknna": StoredCalibration(null, grid, grid, grid, None, {"alpha": 0.05})})
        if fits:
            assert read_calibrations(path, ["cknna"])[0].null is not None
        else:
            with refuses(path, f"p of cknna holds {p:g}, which no test gives; delete it and rerun"):
                read_calibrations(path, ["cknna"])


def test_neighbours_that_do_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "dinov2.npz"
    indices = np.array([[(i + 1) % 6, (i + 2) % 6] for i in range(6)], np.int32)
    similarities = np.ones((6, 2), np.float32)
    write_neighbors(path, NAMES, {"b0": Neighbors(indices, similarities)}, {}, {})
    assert read_neighbors(path).layer("b0").indices.shape == (6, 2)
    indices[3, 1] = 9999
    write_neighbors(path, NAMES, {"b0": Neighbors(indices, similarities)}, {}, {})
    with refuses(path, "layer b0 lists image number 9999 of 6, for image3; delete the file and rerun"):
        read_neighbors(path).layer("b0")
    write_neighbors(path, NAMES, {"b0": Neighbors(indices[:5], similarities[:5])}, {}, {})
    with refuses(path, r"layer b0 has lists of shape \(5, 2\) for 6 images"):
        read_neighbors(path).layer("b0")


def test_a_layer_that_was_deleted(tmp_path: Path) -> None:
    features = feature_files.Features(np.ones((6, 2), np.float32), tuple(NAMES), {"layer": "b0"})
    manifest, path = tmp_path / "x.json", tmp_path / "x" / "b0.pt"
    path.parent.mkdir()
    feature_files.write_features(path, features)
    feature_files.LAYERS.write_json(manifest, bundle="x", count=6, layers={"b0": {"sha256": "0" * 64}})
    bundle = feature_files.read_bundle(manifest)
    path.unlink()
    with refuses(path, f"is missing, but {re.escape(str(manifest))} lists it; delete that file, too"):
        bundle.read("b0")
