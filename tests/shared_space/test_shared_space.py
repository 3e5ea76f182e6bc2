"""The scripts of a shared space, on tokens in which parts are planted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.part_files import write_parts
from diffalign.io.space_files import read_space, read_transforms
from diffalign.io.token_files import TokenBatch, write_tokens
from diffalign.shared_space.consistency import CELL_SAME_IMAGE, PART_OTHER_IMAGES, PART_SAME_IMAGE
from diffalign.shared_space.edge_maps import cell_edges
from diffalign.shared_space.stages import EIGENVECTORS, FEATURES, POSITIONS
from shared_space import GAIN, Inputs, Settings, TokenSet, shared_space
from shared_space_figure import shared_space_figure

SIDE, CELLS = 64, 8
GRID = (CELLS, CELLS)
SETTINGS = Settings(
    c=0.2,
    landmarks=48,
    choice="farthest",
    eigenvectors=6,
    grid=None,
    resample=None,
    images=None,
    permutations=99,
    seed=0,
)
SETS = (TokenSet(0, "b1", "first"), TokenSet(1, "b1", "second"))
COLORS = ((40, 40, 40), (220, 90, 60), (70, 160, 90), (60, 90, 200))


@dataclass(frozen=True)
class Study:
    folder: Path
    names: tuple[str, ...]
    masks: NDArray[np.uint8]

    @property
    def inputs(self) -> Inputs:
        tokens = [self.folder / "first", self.folder / "second"]
        return Inputs(tokens, self.folder / "manifest.tsv", self.folder / "images", self.folder / "parts")

    def run(
        self, sets: Any = SETS, settings: Settings = SETTINGS, inputs: Inputs | None = None, out: str = "again"
    ) -> Mapping[str, Path]:
        outputs = outputs_of(self.folder / out)
        shared_space(inputs or self.inputs, sets, settings, 256, outputs)
        return outputs


def outputs_of(folder: Path) -> dict[str, Path]:
    tables = {f"{name}_{kind}": f"{name}.{kind}" for name in ("consistency", "edges") for kind in ("tsv", "parquet")}
    other = {"eigenvectors": "e.safetensors", "transforms": "t.safetensors", "recipe": "recipe.json"}
    return {key: folder / name for key, name in (tables | other).items()}


def planted(study_masks: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """Tokens (I, T, 16) of parts and a little of the cell, with noise."""
    draws = np.random.default_rng(seed)
    of_cells = study_masks[:, ::8, ::8].reshape(len(study_masks), -1)
    place = draws.standard_normal((1, CELLS * CELLS, 16))
    noise = draws.standard_normal((*of_cells.shape, 16))
    return np.float32(2 * np.random.default_rng(5).standard_normal((4, 16))[of_cells] + 0.1 * place + 0.3 * noise)


def turned(tokens: NDArray[np.float32], width: int, seed: int) -> NDArray[np.float32]:
    """Rotated, scaled and shifted, in more dimensions."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return np.float32(7 * tokens @ basis[: tokens.shape[2]] + 3)


def write(folder: Path, names: tuple[str, ...], layers: Mapping[str, NDArray[np.float32]], grids: Any) -> None:
    batch = TokenBatch(list(names), layers, grids)
    write_tokens(folder, names, [batch], {"bundle": f"{folder.name}-t0.0"})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    draws = np.random.default_rng(0)
    names = tuple(f"face{number}" for number in range(6))
    masks = np.zeros((len(names), SIDE, SIDE), np.uint8)
    for mask in masks:
        top, left = 8 * draws.integers(0, 3, 2)
        for part in range(3):
            mask[top + 16 * part : top + 16 * part + 16, left : left + 40] = part + 1
    (folder / "images").mkdir()
    for name, mask in zip(names, masks, strict=True):
        noise = draws.integers(-20, 20, (SIDE, SIDE, 3))
        Picture.fromarray(np.uint8(np.clip(np.array(COLORS)[mask] + noise, 0, 255))).save(
            folder / "images" / f"{name}.png"
        )
    rows = [Image(name, "", -1, "", "0", name, "") for name in names]
    write_manifest(folder / "manifest.tsv", folder / "dataset.json", rows, {})
    write_parts(folder / "parts", ("top", "middle", "bottom"), zip(names, masks, strict=True), {})
    edges = np.stack([cell_edges(np.array(Picture.open(folder / "images" / f"{name}.png")), GRID) for name in names])
    following = edges.reshape(len(names), -1, 1) * 50 + 0.05 * draws.standard_normal((len(names), CELLS**2, 4))
    first, grid = planted(masks, 1), {"b1": GRID, "edges": GRID, "class": None}
    one = {"b1": first, "edges": np.float32(following), "class": first[:, :1]}
    write(folder / "first", names, one, grid)
    # the same as the first, so that a rotation is all that lies between them, and on twice the grid
    fine = first.reshape(-1, CELLS, CELLS, 16).repeat(2, axis=1).repeat(2, axis=2).reshape(len(names), -1, 16)
    second = {"b1": turned(first, 24, 2), "fine": turned(fine, 24, 2), "constant": np.ones_like(first)}
    write(folder / "second", names, second, {"b1": GRID, "fine": (16, 16), "constant": GRID})
    return Study(folder, names, masks)


@pytest.fixture(scope="module")
def finished(study: Study) -> Mapping[str, Path]:
    return study.run((*SETS, TokenSet(0, "edges", "first")), out="finished")


def rows_of(outputs: Mapping[str, Path], name: str, **equal: str) -> pd.DataFrame:
    table = pd.read_parquet(outputs[f"{name}_parquet"])
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def row_of(outputs: Mapping[str, Path], name: str, **equal: str) -> Any:
    (row,) = rows_of(outputs, name, **equal).to_dict("records")
    return row


@pytest.mark.parametrize("space", [FEATURES, EIGENVECTORS])
def test_parts_are_shared_by_models_after_alignment_and_not_before(finished: Mapping[str, Path], space: str) -> None:
    pair = {"set_a": "first_b1", "set_b": "second_b1", "space": space}
    for measure in (PART_OTHER_IMAGES, PART_SAME_IMAGE):
        before, after, gain = (
            row_of(finished, "consistency", measure=measure, stage=stage, **pair) for stage in ("before", "after", GAIN)
        )
        assert after["score"] > 0.97
        assert after["p"] == 0.01
        assert before["score"] < 0.65
        assert gain["score"] == pytest.approx(after["score"] - before["score"])
        assert np.isnan([gain["p"], gain["null_high"]]).all()
        # planted parts are found in every image alike, which leaves no error
        assert np.isnan([gain["low"], gain["high"]]).all()
        assert gain["reason"] == (
            "no interval: the difference is the same in all 6 images; no p: shifts tell whether there is a relation, "
            "not whether two stages differ"
        )
    gain = row_of(finished, "consistency", measure=CELL_SAME_IMAGE, stage=GAIN, **pair)
    assert 0 < gain["low"] < gain["score"] < gain["high"]
    assert gain["reason"] == "no p: shifts tell whether there is a relation, not whether two stages differ"
    cells = row_of(finished, "consistency", measure=CELL_SAME_IMAGE, stage="after", **pair)
    assert cells["p"] == 0.01
    assert cells["null_mean"] == pytest.approx(1 / 64, abs=0.01)
    for name in ("first_b1", "second_b1"):
        same = {"set_a": name, "set_b": name, "measure": PART_OTHER_IMAGES, "space": space}
        assert row_of(finished, "consistency", stage="before", **same)["score"] > 0.97
        assert row_of(finished, "consistency", stage="after", **same)["score"] > 0.97


def test_place_alone_is_a_row(finished: Mapping[str, Path]) -> None:
    place = row_of(finished, "consistency", space=POSITIONS)
    assert 0.2 < place["score"] < 0.9
    assert place["stage"] == "none"


def test_aligned_features_are_equal_of_sets_that_differ_by_a_rotation(
    study: Study, finished: Mapping[str, Path]
) -> None:
    transforms, keys = read_transforms(finished["transforms"])
    assert list(transforms) == ["first_b1", "second_b1", "first_edges"]
    assert len(keys) == len(set(keys)) == 48
    assert transforms["first_b1"].gamma == pytest.approx(transforms["second_b1"].gamma, rel=1e-3)
    image, row, column = keys[0].rsplit("/", 2)
    assert image in study.names
    assert int(row) < CELLS
    assert int(column) < CELLS
    space = read_space(finished["eigenvectors"])
    assert space.grid == GRID
    assert space.names == study.names
    after, before = (space.stages[stage].rgb for stage in ("after", "before"))
    assert np.abs(after[0] - after[1]).mean() < 0.02
    assert np.abs(before[0] - before[1]).mean() > 0.1
    vectors = space.stages["after"].vectors.reshape(-1, 6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-4)


def test_a_set_that_follows_edges_is_told_from_one_that_does_not(finished: Mapping[str, Path]) -> None:
    edges = row_of(finished, "edges", set="first_edges", other="", stage="own")
    assert edges["correlation"] > 0.8
    assert edges["p"] == 0.01
    contrast = row_of(finished, "edges", set="first_b1", other="first_edges")
    assert contrast["correlation"] < 0
    assert contrast["high"] < 0
    assert contrast["p"] < 0.05
    assert set(rows_of(finished, "edges", other="")["stage"]) == {"own", "before", "after"}


def test_the_recipe_says_what_was_done(study: Study, finished: Mapping[str, Path]) -> None:
    recipe = json.loads(finished["recipe"].read_text())
    assert recipe["grid"] == list(GRID)
    assert recipe["settings"]["images"] == list(study.names)
    assert recipe["eigenvectors"] == {"before": "exact", "after": "exact"}
    assert recipe["parts"] == ["top", "middle", "bottom"]
    assert recipe["sets"][1]["features"]["bundle"] == "second-t0.0"
    assert "mirrored" in recipe["null"]


def test_results_do_not_depend_on_the_order_of_folders_or_the_global_generator(study: Study) -> None:
    def scores(sets: tuple[TokenSet, ...], swapped: bool) -> pd.DataFrame:
        inputs = study.inputs
        if swapped:
            inputs = replace(inputs, tokens=inputs.tokens[::-1])
        table = rows_of(study.run(sets, inputs=inputs), "consistency", measure=PART_OTHER_IMAGES)
        table["pair"] = ["+".join(sorted(pair)) for pair in zip(table["set_a"], table["set_b"], strict=True)]
        return table.set_index(["pair", "space", "stage"])[["score", "null_mean", "p"]].sort_index()

    np.random.seed(0)  # noqa: NPY002
    first = scores(SETS, swapped=False)
    np.random.seed(1)  # noqa: NPY002
    pd.testing.assert_frame_equal(first, scores(SETS, swapped=False))
    turned_round = scores((TokenSet(0, "b1", "second"), TokenSet(1, "b1", "first")), swapped=True)
    pd.testing.assert_frame_equal(first, turned_round, atol=0.02)


def test_one_image_has_no_scores_across_images(study: Study) -> None:
    outputs = study.run(settings=replace(SETTINGS, images=["face2"], landmarks=20))
    across = rows_of(outputs, "consistency", measure=PART_OTHER_IMAGES)
    assert across["score"].isna().all()
    assert set(across["undefined"]) == {"one image: there is no other"}
    assert rows_of(outputs, "consistency", measure=CELL_SAME_IMAGE)["score"].notna().all()
    few = row_of(outputs, "edges", set="first_b1", other="second_b1")
    assert few["undefined"] == ""
    assert few["reason"] == "no interval and p: 1 images, fewer than 5"
    assert np.isnan(few["p"])


def test_intervals_are_over_groups_of_the_manifest(study: Study, tmp_path: Path) -> None:
    def gains(groups: tuple[str, ...]) -> pd.DataFrame:
        rows = [
            Image(name, "", -1, "", "0", name, "", group=group) for name, group in zip(study.names, groups, strict=True)
        ]
        write_manifest(tmp_path / "manifest.tsv", tmp_path / "dataset.json", rows, {})
        inputs = replace(study.inputs, manifest=tmp_path / "manifest.tsv")
        outputs = study.run(inputs=inputs, out="grouped")
        edges = row_of(outputs, "edges", set="first_b1", other="second_b1")
        assert edges["groups"] == len(set(groups))
        assert json.loads(outputs["recipe"].read_text())["groups"] == len(set(groups))
        found = rows_of(outputs, "consistency", stage=GAIN, set_a="first_b1", set_b="second_b1")
        assert set(found["groups"]) == {len(set(groups))}
        return found[found["measure"] == CELL_SAME_IMAGE]

    alone, pairs = gains(study.names), gains(("a", "a", "b", "b", "c", "c"))
    assert alone["low"].notna().all()
    assert pairs["score"].tolist() == alone["score"].tolist()
    assert pairs["low"].isna().all()
    assert pairs["reason"].str.startswith("no interval: 3 groups of 6 images, fewer than 5; no p: ").all()
    five = gains(("a", "a", "b", "c", "d", "e"))
    assert five["low"].notna().all()
    assert not np.allclose(five["low"], alone["low"])


def test_other_grids_are_resampled_by_a_named_rule_and_never_cut(study: Study) -> None:
    sets = (SETS[0], TokenSet(1, "fine", "second"))
    with pytest.raises(ValueError, match="first_b1 has tokens on a grid of 8 x 8, second_fine on one of 16 x 16"):
        study.run(sets)
    with pytest.raises(ValueError, match="first_b1 has tokens on a grid of 8 x 8, the space on one of 4 x 4"):
        study.run(sets, replace(SETTINGS, grid=4))
    outputs = study.run(sets, replace(SETTINGS, resample="area"))
    after = row_of(
        outputs, "consistency", measure=PART_OTHER_IMAGES, space=FEATURES, stage="after", set_a="first_b1",
        set_b="second_fine",
    )  # fmt: skip
    assert after["score"] > 0.97
    assert read_space(outputs["eigenvectors"]).grid == GRID
    outputs = study.run(SETS, replace(SETTINGS, resample="area", grid=4, images=3))
    assert read_space(outputs["eigenvectors"]).grid == (4, 4)
    assert len(read_space(outputs["eigenvectors"]).names) == 3


def test_without_parts_only_cells_are_scored(study: Study) -> None:
    outputs = study.run(inputs=replace(study.inputs, parts=None))
    assert set(rows_of(outputs, "consistency")["measure"]) == {CELL_SAME_IMAGE}
    assert json.loads(outputs["recipe"].read_text())["parts"] is None


def test_bad_input_is_refused_by_name(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="second_constant: features are constant, all 384 tokens are equal"):
        study.run((SETS[0], TokenSet(1, "constant", "second")))
    with pytest.raises(StoreError, match="layer class: its 1 tokens an image have no known grid"):
        study.run((SETS[0], TokenSet(0, "class", "first")))
    with pytest.raises(StoreError, match="no layer 'b7'; there are b1, edges, class"):
        study.run((TokenSet(0, "b7", "first"),))
    with pytest.raises(ValueError, match="named once each; there are first_b1, first_b1"):
        study.run((SETS[0], SETS[0]))
    with pytest.raises(ValueError, match="400 landmarks of 384 tokens of all images"):
        study.run(settings=replace(SETTINGS, landmarks=400))
    with pytest.raises(ValueError, match="images: there is no nobody"):
        study.run(settings=replace(SETTINGS, images=["nobody", "face1"]))
    with pytest.raises(ValueError, match="images: 9 of 6"):
        study.run(settings=replace(SETTINGS, images=9))
    with pytest.raises(ValueError, match=r"first_b1: c = 0.0001: .* between 0.002604"):
        study.run(settings=replace(SETTINGS, c=0.0001))
    other = planted(study.masks, 1)
    write(tmp_path / "second", ("face0", "face9"), {"b1": other[:2]}, {"b1": GRID})
    with pytest.raises(StoreError, match="images differ: .* face1, face2"):
        study.run(inputs=replace(study.inputs, tokens=[study.inputs.tokens[0], tmp_path / "second"]))
    write(tmp_path / "broken", study.names, {"b1": other}, {"b1": GRID})
    stored = np.load(tmp_path / "broken" / "b1.npy", mmap_mode="r+")
    stored[3, 5, 2] = np.nan
    stored.flush()
    with pytest.raises(ValueError, match="second_b1: tokens are NaN or infinite for face3"):
        study.run(inputs=replace(study.inputs, tokens=[study.inputs.tokens[0], tmp_path / "broken"]))


@pytest.mark.parametrize("images", [None, 1])
def test_the_figure_is_as_wide_as_a_page(
    study: Study, finished: Mapping[str, Path], tmp_path: Path, images: int | None
) -> None:
    made = finished if images is None else study.run(settings=replace(SETTINGS, images=1, landmarks=20))
    outputs = [tmp_path / "space.png", tmp_path / "space.pdf"]
    tables = [made["consistency_parquet"], made["edges_parquet"]]
    shared_space_figure(made["eigenvectors"], *tables, study.folder / "images", 3, outputs, miniature=images is None)
    with Picture.open(outputs[0]) as picture:
        assert picture.width == pytest.approx(6.75 * 300, abs=20)
        assert picture.height > 600
    assert outputs[1].read_bytes().startswith(b"%PDF")
    with pytest.raises(StoreError, match="images have no PNG file, first: face"):
        shared_space_figure(made["eigenvectors"], *tables, tmp_path, 3, outputs, miniature=False)
