from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffalign.io import bundles, feature_files
from diffalign.io.headers import StoreError
from diffalign.parts import part_rows
from extract import Part

NAMES = [f"image{i}" for i in range(7)]
RECIPE: dict[str, Any] = {"bundle": "dinov2", "model": {"layers": {"b0": "blocks.0", "b1": "blocks.1"}}}


def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"b0": rng.standard_normal((7, 3), np.float32), "b1": rng.standard_normal((7, 5), np.float32)}


def parts(folder: Path, count: int = 3) -> list[Path]:
    paths = []
    for part in range(count):
        path = folder / f"{part}-of-{count}.safetensors"
        rows = Part(path, ("b0", "b1"), part, count, folder / "shards").rows(7)
        # batches of several sides come in another order than names
        order = list(reversed(rows))
        values = {alias: found[order] for alias, found in features().items()}
        bundles.write_part(path, [NAMES[row] for row in order], values, RECIPE, 7)
        paths.append(path)
    return paths


def test_parts_are_ranges_that_cover_every_image_once() -> None:
    for count in (1, 2, 3, 7, 9):
        ranges = [part_rows(7, part, count) for part in range(count)]
        assert [row for rows in ranges for row in rows] == list(range(7))
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize("count", [1, 3, 7])
def test_merged_parts_are_what_one_job_writes_to_the_byte(count: int, tmp_path: Path) -> None:
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    bundles.write(whole / "x.json", NAMES, features().__getitem__, RECIPE, RECIPE["model"]["layers"])
    bundles.merge(parts(tmp_path, count), merged / "x.json")
    for name in ("x/b0.pt", "x/b1.pt", "x.json"):
        assert (merged / name).read_bytes() == (whole / name).read_bytes()
    assert feature_files.read_bundle(merged / "x.json").read("b1").recipe["module"] == "blocks.1"


def test_layers_of_merged_parts_are_in_order_of_depth(tmp_path: Path) -> None:
    """Depths of tables, figures and exported indices are places in this order."""
    layers = {"embed": "patch_embed", "b0": "blocks.0", "b2": "blocks.2", "b10": "blocks.10"}
    values = {alias: np.full((7, 2), place, np.float32) for place, alias in enumerate(layers)}
    part = tmp_path / "part.safetensors"
    bundles.write_part(part, NAMES, values, {"bundle": "dinov2", "model": {"layers": layers}}, 7)
    bundles.merge([part], tmp_path / "x.json")
    bundle = feature_files.read_bundle(tmp_path / "x.json")
    assert list(bundle.digests) == list(layers)
    assert [bundle.read(alias).values[0, 0] for alias in bundle.digests] == [0, 1, 2, 3]


def test_a_layer_is_the_one_that_its_manifest_lists(tmp_path: Path) -> None:
    bundles.write(tmp_path / "x.json", NAMES, features().__getitem__, RECIPE, {"b0": "0", "b1": "1"})
    bundle = feature_files.read_bundle(tmp_path / "x.json")
    assert list(bundle.digests) == ["b0", "b1"]
    found = bundle.read("b1")
    assert np.array_equal(found.values, features()["b1"])
    assert (found.recipe, found.shared) == ({**RECIPE, "layer": "b1", "module": "1"}, RECIPE)
    feature_files.write_features(bundle.path("b1"), bundle.read("b0"))
    with pytest.raises(StoreError, match=r"b1\.pt: has changed since .*x\.json was written; delete both and rerun"):
        bundle.read("b1")


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    paths = parts(tmp_path)

    def merge(found: list[Path]) -> None:
        bundles.merge(found, tmp_path / "x.json")

    with pytest.raises(StoreError, match="2 parts hold 4 images of 7"):
        merge(paths[:2])
    with pytest.raises(ValueError, match="image0"):
        merge([paths[0], *paths])
    other = tmp_path / "other.safetensors"
    bundles.write_part(other, ["x"], {alias: v[:1] for alias, v in features().items()}, {**RECIPE, "noise": "t0.2"}, 7)
    with pytest.raises(StoreError, match="other.safetensors has another recipe than"):
        merge([*paths, other])
    assert not (tmp_path / "x.json").exists()
