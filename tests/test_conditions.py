"""Conditions: their names, what they do to images, and the sizes that models are fed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import golden
from PIL import Image
from test_models import CPU, STUDY
from test_study import load, mistakes
from torch import nn

from diffalign import conditions, models
from diffalign.conditions import UnknownCondition, parse_condition
from diffalign.dataset_specs import Dataset
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.sizes import buckets, check_sides, scaled_side
from diffalign.io.manifest import read_manifest
from diffalign.models import Loaded, find_family
from diffalign.specs import ImageInput
from diffalign.stimuli import transforms
from diffalign.stimuli.squares import ImageError
from export_images import export_images
from images import images
from transformed_images import transformed_images

PUBLISHED = ("index", 42)
SIGMAS = ("0.050", "0.100", "0.150", "0.200")


# --- names ----------------------------------------------------------------------------------------------------------


def test_names_say_what_is_done() -> None:
    assert parse_condition("clean") == conditions.Condition("clean", 0, 0, 1)
    assert parse_condition("noise_0.050").sigma == 0.05
    assert parse_condition("noise_1.000").sigma == 1
    assert parse_condition("rotate_270").rotation == 270
    assert parse_condition("scale_0.500").scale == 0.5
    scaled = [name for name in ("clean", "equivariance", "noise_0.200", "rotate_90", "scale_0.750")
              if parse_condition(name).is_scaled]  # fmt: skip
    assert scaled == ["equivariance", "scale_0.750"]


@pytest.mark.parametrize(
    "name",
    ["noise_0.05", "noise_0.0500", "noise_.050", "noise_0.000", "noise_1.001", "noise_2.000", "noise", "rotate_0",
     "rotate_45", "scale_1.000", "scale_0.000", "Clean", "clean ", "mask_0.1", ""],
)  # fmt: skip
def test_other_words_are_refused(name: str) -> None:
    with pytest.raises(UnknownCondition):
        parse_condition(name)
    assert "conditions[1]" in mistakes({"conditions": ["clean", name]})


def test_conditions_of_the_study_are_those_that_anything_needs() -> None:
    asked = load({"conditions": ["clean", "noise_0.300"]})
    noise = tuple(f"noise_{sigma}" for sigma in SIGMAS)
    assert asked.conditions == ("clean", "noise_0.300", "equivariance", *noise)
    separate = load({"se_cknna": {"mean_over": "transforms", "conditions": ["noise_0.050", "equivariance"]}})
    assert separate.se_cknna.conditions == (
        "noise_0.050", "rotate_90", "rotate_180", "rotate_270", "scale_0.750", "scale_0.500", "scale_0.250",
    )  # fmt: skip
    assert set(separate.se_cknna.conditions) < set(separate.conditions)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"se_cknna": {"conditions": ["clean", "noise_0.050"]}}, "'clean' stands beside the mean"),
        ({"se_cknna": {"pairs": ["dinov2_vs_nothing"]}}, "se_cknna.pairs[0]: unknown model 'nothing'"),
        ({"se_cknna": {"pairs": ["dinov2_vs_sd3", "dinov2_vs_sd3-t0.50_b8"]}}, "se_cknna.pairs[1]: the same pair as"),
        ({"se_cknna": {"pairs": ["dinov2_vs_dinov2_final"]}}, "se_cknna.pairs[0]: both sides are dinov2_final"),
        ({"se_cknna": {"reference": "first"}}, "se_cknna.reference: 'first' is not allowed"),
        ({"study": {"conditions": ["noise_0.300"]}}, "study.conditions[0]: unknown condition 'noise_0.300'"),
        ({"transforms": {"seeding": "constant"}}, "transforms.seeding: 'constant' is not allowed"),
        ({"models": {"dinov2": {"interpolate_positions": True}}}, "models.dinov2.interpolate_positions: means nothing"),
        ({"models": {"dinov2": {"input": {"scaled": "nearest"}}}}, "models.dinov2.input.scaled: 'nearest' is not"),
    ],
)
def test_mistakes_in_the_configuration_are_named(overlay: dict[str, Any], message: str) -> None:
    assert message in mistakes(overlay)


# --- images ---------------------------------------------------------------------------------------------------------


def write_images(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / f"{name}.png")


def read_images(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


class Made:
    """A data set on disk, and what the scripts make of it."""

    def __init__(self, base: Path, arrays: dict[str, np.ndarray], kind: str = "folder", folder: str = "photographs"):
        self.base = base
        self.source = base / folder
        if not self.source.exists():
            write_images(self.source / ("clean" if kind == "transformed" else ""), arrays)
        size = next(iter(arrays.values())).shape[0]
        self.dataset = Dataset(kind, size, str(self.source))
        images("mine", self.dataset, None, 0, *self.of("clean"))

    def of(self, condition: str) -> tuple[Path, Path, Path]:
        folder = self.base / condition
        return folder / "png", folder / "manifest.tsv", folder / "dataset.json"

    def transform(self, condition: str, seeding: str, seed: int, workers: int = 0) -> Path:
        published = self.source if self.dataset.kind == "transformed" else None
        transformed_images(
            parse_condition(condition), seeding, seed, published, *self.of("clean"), *self.of(condition), workers
        )
        return self.of(condition)[0]


def pictures(count: int, side: int = 16) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {f"image{i:03d}": random.integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(count)}


@pytest.mark.parametrize("workers", [1, 8])
def test_images_are_the_published_ones_byte_for_byte(workers: int, tmp_path: Path) -> None:
    expected = np.load(golden("semantic_equivariant_transforms.npz"))
    made = Made(tmp_path, {f"{i:02d}": image for i, image in enumerate(expected["clean"])})
    for sigma in SIGMAS:
        assert np.array_equal(
            read_images(made.transform(f"noise_{sigma}", *PUBLISHED, workers)), expected[f"noise_{sigma}"]
        )
    for degrees in (90, 180, 270):
        assert np.array_equal(
            read_images(made.transform(f"rotate_{degrees}", *PUBLISHED)), expected[f"rotate_{degrees}"]
        )


def test_rotations_and_scales_are_the_published_ones() -> None:
    expected = json.loads(golden("semantic_equivariant_transforms.json").read_text())["params"]
    names = [f"image{i:03d}" for i in range(len(expected))]
    found = transforms.transforms(names[::-1], parse_condition("equivariance"), *PUBLISHED)
    assert json.loads(transforms.print_records(found)) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize("seeding", transforms.SEEDINGS)
def test_files_do_not_depend_on_the_number_of_workers(seeding: str, tmp_path: Path) -> None:
    made = Made(tmp_path, pictures(21))
    found = []
    for workers in (0, 1, 3):
        folder = made.transform("noise_0.100", seeding, 5, workers)
        found.append([path.read_bytes() for path in (*sorted(folder.iterdir()), *made.of("noise_0.100")[1:])])
    assert found[0] == found[1] == found[2]


def test_draws_by_name_do_not_depend_on_the_other_images() -> None:
    every = [f"image{i}" for i in range(400)]
    condition = parse_condition("equivariance")
    whole, part = (transforms.transforms(names, condition, "name", 0) for names in (every, every[7:90:3]))
    assert {name: whole[name] for name in part} == part
    assert transforms.transforms(every, condition, "name", 1) != whole
    for key, allowed in (("rotation", conditions.ROTATIONS), ("scale", conditions.SCALES)):
        drawn = [getattr(t, key) for t in whole.values()]
        # 400 draws of four: 100 each, give or take four standard deviations
        assert all(65 < drawn.count(value) < 135 for value in allowed)
    assert not np.array_equal(*(transforms.noise((4, 4, 3), 0.1, "name", 0, name, 0) for name in ("a", "b")))
    low, high = (transforms.noise((4, 4, 3), sigma, "name", 0, "a", 0) for sigma in (0.1, 0.2))
    assert np.allclose(2 * low, high)
    with pytest.raises(ValueError, match="unknown seeding of transforms 'constant'"):
        transforms.transforms(every, condition, "constant", 0)


def test_manifests_say_what_was_done(tmp_path: Path) -> None:
    made = Made(tmp_path, pictures(20))
    made.transform("equivariance", "name", 3)
    rows = {row.name: row for row in read_manifest(made.of("equivariance")[1])}
    clean = {row.name: row for row in read_manifest(made.of("clean")[1])}
    assert {(row.rotation, row.scale) for row in clean.values()} == {(0, 1.0)}
    assert len({row.rotation for row in rows.values()}) == 4
    for name, row in rows.items():
        turned, whole = (np.asarray(Image.open(made.of(c)[0] / f"{name}.png")) for c in ("equivariance", "clean"))
        # PNG files are turned, not scaled
        assert np.array_equal(turned, np.rot90(whole, row.rotation // 90))
        assert (row.sha256 == clean[name].sha256) == (row.rotation == 0)
    spec = json.loads(made.of("equivariance")[2].read_text())
    assert (spec["condition"], spec["transforms"]) == ("equivariance", {"seeding": "name", "seed": 3})


def published_folder(base: Path, arrays: dict[str, np.ndarray]) -> Made:
    source = base / "transformed_images"
    write_images(source / "clean", arrays)
    write_images(source / "noise_0.050", {name: 255 - array for name, array in arrays.items()})
    records = {name: {"rotation": 90 * (i % 4), "scale": 0.5} for i, name in enumerate(arrays)}
    (source / transforms.RECORDS).write_text(json.dumps(records | {"another": {"rotation": 0, "scale": 1.0}}))
    return Made(base, arrays, "transformed", "transformed_images")


def test_a_published_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    arrays = pictures(6)
    made = published_folder(tmp_path, arrays)
    noisy = made.transform("noise_0.050", "name", 0)
    for name, array in arrays.items():
        assert np.array_equal(np.asarray(Image.open(noisy / f"{name}.png")), 255 - array)
        assert (noisy / f"{name}.png").read_bytes() == (made.source / "noise_0.050" / f"{name}.png").read_bytes()
    made.transform("equivariance", "name", 0)
    rows = read_manifest(made.of("equivariance")[1])
    assert [(row.rotation, row.scale) for row in rows] == [(90 * (i % 4), 0.5) for i in range(6)]
    # what the folder does not hold is made
    assert np.array_equal(read_images(made.transform("rotate_90", "name", 0))[0], np.rot90(arrays["image000"]))


def written(text: str) -> Any:
    return lambda folder: (folder / transforms.RECORDS).write_text(text)


WRONG = json.dumps({f"image{i:03d}": {"rotation": 45, "scale": 0.5} for i in range(6)})
ONE = '{"image000": {"rotation": 0, "scale": 1}}'


@pytest.mark.parametrize(
    ("harm", "condition", "message"),
    [
        (lambda x: (x / "noise_0.050/image002.png").unlink(), "noise_0.050", "lacks 1 of 6 images, first: image002"),
        (lambda x: shutil.rmtree(x / "noise_0.050"), "noise_0.050", "noise_0.050: no such folder"),
        (
            lambda x: Image.new("RGB", (8, 8)).save(x / "noise_0.050/image001.png"),
            "noise_0.050",
            "image001.png: is 8 x 8 px; images of this data set are 16 x 16",
        ),
        (lambda x: (x / transforms.RECORDS).unlink(), "equivariance", "transforms.json: missing"),
        (written("{"), "equivariance", "cannot be read as JSON"),
        (written("[]"), "equivariance", "holds no mapping"),
        (written(ONE), "equivariance", "lacks 5 of 6 images, first: image001, image002, image003, image004, image005"),
        (written(WRONG), "equivariance", "6 of 6 have something else"),
    ],
)
def test_a_published_folder_that_cannot_be_trusted_is_named(
    harm: Any, condition: str, message: str, tmp_path: Path
) -> None:
    made = published_folder(tmp_path, pictures(6))
    harm(made.source)
    with pytest.raises(ImageError, match=message):
        made.transform(condition, "name", 0)


def test_clean_images_of_a_published_folder_must_have_their_size(tmp_path: Path) -> None:
    write_images(tmp_path / "published" / "clean", pictures(2, 20))
    with pytest.raises(ImageError, match="is 20 x 20 px; images of this data set are 16 x 16"):
        images("mine", Dataset("transformed", 16, str(tmp_path / "published")), None, 0, *(tmp_path / x for x in "abc"))


def test_images_are_exported_in_the_layout_that_is_imported(tmp_path: Path) -> None:
    made = Made(tmp_path, pictures(5))
    folders = [made.of("clean")[0], made.transform("noise_0.100", "name", 1)]
    made.transform("equivariance", "name", 1)
    target = tmp_path / "exported"
    export_images(
        folders, made.of("equivariance")[1], [target / "clean", target / "noise_0.100"], target / transforms.RECORDS
    )
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "exported").symlink_to(target)
    again = Made(tmp_path / "again", pictures(5), "transformed", "exported")
    for condition in ("noise_0.100", "equivariance"):
        again.transform(condition, "index", 9)
        assert [(row.name, row.sha256, row.rotation, row.scale) for row in read_manifest(again.of(condition)[1])] == [
            (row.name, row.sha256, row.rotation, row.scale) for row in read_manifest(made.of(condition)[1])
        ]


# --- sizes of inputs ------------------------------------------------------------------------------------------------


def test_inputs_are_scaled_once_from_the_image() -> None:
    spec = ImageInput(224, "bicubic", True, (0, 0, 0), (1, 1, 1))
    assert [scaled_side(224, scale) for scale in conditions.SCALES] == [224, 168, 112, 56]
    assert scaled_side(100, 0.29) == 29
    image = pictures(1, 256)["image000"]
    small = inputs.pixels(image, ImageInput(56, "bicubic", True, (0, 0, 0), (1, 1, 1)))
    direct = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, (56, 56), mode="bicubic", antialias=True
    )
    assert torch.allclose(small, direct[0].clamp(0, 1))
    assert spec.under_scale() == spec
    published = {name: ImageInput(224, "bicubic", True, (0, 0, 0), (1, 1, 1), name).under_scale()
                 for name in ("bilinear", "bilinear_aliased")}  # fmt: skip
    assert {name: (s.interpolation, s.antialias) for name, s in published.items()} == {
        "bilinear": ("bilinear", True), "bilinear_aliased": ("bilinear", False)
    }  # fmt: skip


def test_batches_hold_one_side_each() -> None:
    sides = [8, 4, 8, 2, 4, 8]
    assert buckets(sides, 2) == [[0, 2], [5], [1, 4], [3]]
    assert buckets([8] * 5, 2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("name", ["dinov2", "siglip2", "sdvae"])
def test_features_of_scaled_images_do_not_depend_on_the_batch_size(name: str, tmp_path: Path) -> None:
    model = STUDY.models[name]
    find_family(model.family).make_miniature(model.miniature, tmp_path / "checkpoint", 0)
    loaded = models.load(model, tmp_path / "checkpoint", CPU)
    arrays = pictures(9, 64)
    write_images(tmp_path / "png", arrays)
    scales = {image: conditions.SCALES[i % 4] for i, image in enumerate(arrays)}
    assert model.input is not None
    dataset = inputs.ImageFiles({image: tmp_path / "png" / f"{image}.png" for image in arrays}, model.input, scales)
    check_sides(name, loaded, dataset.sides)
    found = {}
    for batch_size in (1, 4, 100):
        names, features = pooled_features(loaded, model.layers, inputs.Batches(dataset, batch_size, 0, CPU))
        found[batch_size] = {layer: dict(zip(names, values, strict=True)) for layer, values in features.items()}
        assert sorted(names) == list(arrays)
    for layer in model.layers:
        for image in arrays:
            one, some, all_at_once = (found[size][layer][image] for size in (1, 4, 100))
            assert np.allclose(one, some, atol=1e-5)
            assert np.allclose(one, all_at_once, atol=1e-5)


def sized(**facts: Any) -> Loaded:
    return Loaded(nn.Identity(), lambda batch: None, lambda output: output, **facts)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"multiple": 14}, "multiple of 14, but 2 of 3 are of side 37, 50, first: b, c"),
        ({"multiple": 64}, "multiple of 64, but 3 of 3"),
        ({"only_side": 56}, "positions for inputs of side 56, but 2 of 3 are of side 37, 50, first: b, c"),
        ({"only_side": 56}, "interpolate_positions: true"),
    ],
)
def test_sides_that_a_model_cannot_take_are_refused(facts: dict[str, Any], message: str) -> None:
    sides = {"a": 56, "b": 37, "c": 50}
    with pytest.raises(ValueError, match=message):
        check_sides("dinov2", sized(**facts), sides)
    check_sides("dinov2", sized(multiple=14, only_side=56), {"a": 56})
