"""Sides whose neighbours are searched in memory: the same numbers as from the files of neighbours and matrices."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_layers import align_layers
from calibrate_layers import calibrate_layers
from diffalign.alignment import series
from diffalign.alignment.metrics import METRICS, Settings
from diffalign.alignment.preparation import FeatureError
from diffalign.alignment.settings import Preparation
from diffalign.io import bundles, neighbor_files, recipes, sides
from diffalign.io.feature_files import layer_path
from diffalign.io.headers import StoreError
from diffalign.io.matrices import read_matrices
from diffalign.io.unlisted_sides import Search, read_side
from diffalign.names import UnknownName
from neighbors import Search as ListSearch
from neighbors import neighbors

COUNT, K, DRAWS = 60, 4, 39
NAMES = [f"n{i:02d}" for i in range(COUNT)]
SHOWN = ("cknna", "mutual_knn", "cknna_biased", "unbiased_cka", "cka", "svcca", "ridge", "procrustes")


def write_bundle(folder: Path, bundle: str, layers: Mapping[str, np.ndarray], names: Sequence[str] = NAMES) -> Path:
    """The features of a bundle as the rule of its model leaves them."""
    recipe: dict[str, Any] = {
        "bundle": bundle,
        "model": {"name": bundle},
        "weights": {"source": "training"},
        "autoencoder_weights": None,
        "images": {"dataset": "digits"},
    }
    modules = {alias: f"blocks.{alias}" for alias in layers}
    values = {alias: np.asarray(rows, np.float32) for alias, rows in layers.items()}
    bundles.write(folder.with_name(f"{folder.name}.json"), names, values.__getitem__, recipe, modules)
    return folder.with_name(f"{folder.name}.json")


def write_settings(folder: Path, k: int = K, draws: int = DRAWS) -> tuple[Path, Path]:
    """The files of the rules alignment_settings and calibration_settings."""
    paths = folder / "alignment.json", folder / "calibration.json"
    paths[0].write_text(json.dumps({"k": k, "eps": 0, "rbf_sigma": 1}))
    drawing = {"permutations": draws, "alpha": 0.05, "seed": 0, "split_selection": True}
    paths[1].write_text(json.dumps(drawing))
    return paths


def search(k: int = K, **changed: Any) -> Search:
    given = {"preparation": Preparation(center=True), "k": k, "seed": 0, "memory_mb": 100, "threads": 1}
    return Search(**(given | changed))


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """A model of three layers, ever more like the last layer of a reference, and the reference."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((COUNT, 12))
    noise = rng.standard_normal((3, COUNT, 12))
    model = {f"b{i}": target + 3 / (1 + i) * noise[i] for i in range(3)}
    reference = {"b0": rng.standard_normal((COUNT, 5)), "final": target @ rng.standard_normal((12, 11))}
    return write_bundle(tmp_path / "model", "model", model), write_bundle(
        tmp_path / "reference", "reference", reference
    )


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(center=True),
        Preparation(clamp=0.9, clamp_over="model"),
        Preparation(clamp=0.9, whiten=True),
        Preparation(normalize=None),
    ],
)
def test_scores_nulls_and_errors_are_those_of_matrices(
    preparation: Preparation, written: tuple[Path, Path], tmp_path: Path
) -> None:
    """The whole way over files: lists, matrices, calibrations with the layers chosen on half of the images."""
    settings = write_settings(tmp_path)
    files = []
    for path in written:
        lists = tmp_path / f"{path.stem}.npz"
        neighbors(path, 10 * K, preparation, lists, ListSearch("cpu", 100, 1))
        files.append(sides.Files(lists, path))
    matrices, calibrations = tmp_path / "matrices.npz", tmp_path / "calibrations.npz"
    pair = (files[0], files[1])
    align_layers(pair, settings[0], None, recipes.Where("digits", "clean"), SHOWN, matrices, 0, 100)
    calibrate_layers(pair, *settings, None, matrices, SHOWN, calibrations, 100)

    own = search(preparation=preparation)
    reference = read_side(written[1], own, ["final"])
    model = read_side(written[0], own, like=reference, where=written[1])
    (other,) = reference.of()
    found = series.against(SHOWN, model.of(), other, Settings(K), series.Drawn(DRAWS, 0.05, 0))
    for matrix in read_matrices([matrices], [calibrations], SHOWN):
        metric, stored = matrix.metric, matrix.calibration
        np.testing.assert_allclose(found[metric].scores[:, 0], matrix.values[:, 1], rtol=1e-12)
        bounds = found[metric].interval
        for end in ("error", "low", "high"):
            expected = getattr(stored, end)[:, 1]
            of_end = np.full_like(expected, np.nan) if bounds is None else getattr(bounds, end)[:, 0]
            np.testing.assert_allclose(of_end, expected, rtol=1e-9, equal_nan=True)
        row = found[metric].row(2)
        if stored.null is None:
            assert np.isnan([row["p"], found[metric].maximum_p]).all()
            continue
        for key in ("null_mean", "null_sd", "z", "p", "threshold", "calibrated"):
            assert row[key] == pytest.approx(
                getattr(stored.null, key.removeprefix("null_"))[2, 1], rel=1e-9, nan_ok=True
            )


def test_halves_are_searched_among_themselves(written: tuple[Path, Path]) -> None:
    side = read_side(written[0], search())
    first, second = side.groups.halves(0)
    assert sorted([*first, *second]) == list(range(COUNT))
    half = side.layer("b1", first)
    # of longer lists, what is left of them
    full = read_side(written[0], search(10 * K)).layer("b1").restricted(first, K)
    assert half.count == full.count == COUNT // 2
    np.testing.assert_array_equal(half.rows(), full.rows())
    np.testing.assert_array_equal(half.lists().indices, full.lists().indices)


def test_nothing_depends_on_threads_memory_or_the_order_of_layers(written: tuple[Path, Path]) -> None:
    def scores(own: Search, aliases: Sequence[str]) -> list[float]:
        reference = read_side(written[1], own, ["final"])
        side = read_side(written[0], own, aliases)
        found = series.against(
            ["cknna", "unbiased_cka"], side.of(), reference.of()[0], Settings(K), series.Drawn(19, 0.05, 0)
        )
        at = {alias: i for i, alias in enumerate(aliases)}
        return [value for i in sorted(at) for each in found.values() for value in each.row(at[i]).values()]

    first = scores(search(), ["b0", "b1", "b2"])
    assert scores(search(threads=2, memory_mb=1), ["b2", "b0", "b1"]) == first


def test_other_images_and_layers_are_refused(written: tuple[Path, Path], tmp_path: Path) -> None:
    reference = read_side(written[1], search(), ["final"])
    rows = np.random.default_rng(0).standard_normal((COUNT, 4))
    others = write_bundle(tmp_path / "others", "others", {"b0": rows}, [*NAMES[:-1], "z"])
    with pytest.raises(StoreError, match=r"images differ: 1 only in .*reference.*: n59; 1 only in .*others.*: z"):
        read_side(others, search(), like=reference, where=written[1])
    with pytest.raises(UnknownName, match=r"unknown layer of .* 'finale'; did you mean 'final'\?"):
        read_side(written[1], search(), ["finale"])
    rows[3] = 0
    empty = write_bundle(tmp_path / "empty", "empty", {"b0": rows})
    with pytest.raises(FeatureError, match=r"empty/b0\.pt: 1 of 60 images have features of zero norm.*n03"):
        read_side(empty, search(preparation=Preparation()))


def test_a_layer_is_the_one_that_its_manifest_lists(written: tuple[Path, Path]) -> None:
    path = layer_path(written[0], "b1")
    path.write_bytes(layer_path(written[0], "b0").read_bytes())
    with pytest.raises(StoreError, match=r"b1\.pt: has changed since"):
        read_side(written[0], search())


def test_every_metric_can_be_measured(written: tuple[Path, Path]) -> None:
    own = search()
    (other,) = read_side(written[1], own, ["final"]).of()
    found = series.against(
        list(METRICS), read_side(written[0], own).of(), other, Settings(K), series.Drawn(19, 0.05, 0)
    )
    assert set(found) == set(METRICS)
    for metric in METRICS:
        assert np.isfinite(found[metric].scores).all()


def test_a_common_mean_is_reported_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((COUNT, 12))
    path = write_bundle(tmp_path / "m", "m", {"b0": rows, "b1": rows + 3, "b2": rows + 1e3, "b3": rows + 1e6})
    lists = tmp_path / "lists.npz"
    with caplog.at_level("WARNING"):
        neighbors(path, K, Preparation(), lists, ListSearch("cpu", 100, 1))
    spreads = neighbor_files.read_neighbors(lists).recipe["spreads"]
    assert spreads["b0"] > 0.9
    assert 0.05 < spreads["b1"] < 0.2
    assert spreads["b2"] == pytest.approx(1e-6, rel=0.2)
    assert spreads["b3"] == pytest.approx(1e-12, rel=0.2)
    of_b2, of_b3 = [record.getMessage() for record in caplog.records]
    assert f"{layer_path(path, 'b2')}: all images have nearly the same direction" in of_b2
    assert "uncertain" not in of_b2
    assert of_b3.endswith("so that neighbours are uncertain.")
    caplog.clear()
    with caplog.at_level("WARNING"):
        neighbors(path, K, Preparation(center=True), lists, ListSearch("cpu", 100, 1))
    assert not caplog.records
