"""Masks of the parts of images: of faces, and those that a user drew."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.io.headers import StoreError
from diffalign.io.manifest import read_manifest
from diffalign.io.part_files import Parts, read_parts, write_parts
from diffalign.shared_space.token_sets import part_of_cells
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import Supplied, faces
from diffalign.stimuli.masks import square_mask
from diffalign.stimuli.squares import SQUARES, ImageError
from images import images
from part_masks import part_masks

PARTS = ("hair", "cheeks", "forehead", "nose", "mouth", "eyes")


def made(dataset: Dataset, folder: Path) -> Parts:
    """The images of a data set, and their masks."""
    files = (folder / "png", folder / "manifest.tsv", folder / "dataset.json")
    images("mine", dataset, None, 0, *files)
    part_masks(dataset, *files[1:], folder / "parts")
    return read_parts(folder / "parts")


def picture(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "png" / f"{name}.png") as image:
        return np.asarray(image).astype(float)


# --- faces ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 224])
def test_every_face_has_every_part(size: int, tmp_path: Path) -> None:
    parts = made(Dataset("faces", size), tmp_path)
    rows = read_manifest(tmp_path / "manifest.tsv")
    assert parts.names == tuple(row.name for row in rows) == tuple(faces.FACES)
    assert (parts.parts, parts.size) == (PARTS, size)
    assert parts.recipe["images"] == json.loads((tmp_path / "dataset.json").read_text())
    for name in parts.names:
        mask = parts.mask(name)
        assert (mask.shape, mask.dtype) == ((size, size), np.uint8)
        shares = np.bincount(mask.ravel(), minlength=len(PARTS) + 1) / size**2
        assert set(np.unique(mask)) == set(range(len(PARTS) + 1))
        # cheeks are a fifth of a picture or more, the small parts more than one pixel in a hundred
        assert shares[2] > 0.14
        assert shares[3:].min() > 0.012


def test_parts_of_faces_lie_as_in_a_face(tmp_path: Path) -> None:
    parts = made(Dataset("faces", 224), tmp_path)
    for name in parts.names:
        mask = parts.mask(name)
        heights = {part: np.nonzero(mask == number)[0] for number, part in enumerate(PARTS, 1)}
        mean = {part: rows.mean() for part, rows in heights.items()}
        assert mean["forehead"] < mean["eyes"] < mean["nose"] < mean["mouth"]
        assert heights["nose"].max() < heights["mouth"].max()
        # two eyes, on either side of the nose
        middle = np.nonzero(mask == PARTS.index("nose") + 1)[1].mean()
        columns = np.nonzero(mask == PARTS.index("eyes") + 1)[1]
        assert 0.3 < (columns < middle).mean() < 0.7
        # what the picture says: forehead and cheeks are lighter than the hair, and than eyes with their brows
        grey = picture(tmp_path, name).mean(2)
        light = {part: grey[mask == number].mean() for number, part in enumerate(PARTS, 1)}
        assert min(light["forehead"], light["cheeks"]) > max(light["hair"], light["eyes"]) + 10


def test_masks_of_faces_agree_between_sizes(tmp_path: Path) -> None:
    small, large = made(Dataset("faces", 64), tmp_path / "64"), made(Dataset("faces", 256), tmp_path / "256")
    for name in small.names:
        cells = part_of_cells(large.mask(name), (64, 64), coverage=0.6)
        decided = cells > 0
        assert decided.mean() > 0.5
        assert (cells[decided] == small.mask(name)[decided]).mean() > 0.995


def test_faces_are_those_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.data

    rows = list(kinds.rows(Dataset("faces", 50), Supplied()).rows)
    assert [row.name for row in rows] == sorted(faces.FACES)
    assert {(row.label, row.label_index) for row in rows} == {("face", 0)}
    assert [row.source for row in rows][:2] == ["astronaut.png", "lfw_subset.npy:46"]
    for row in rows[1:]:
        assert row.picture is not None
        shown, notes = row.picture()
        assert (shown.size, shown.mode, notes) == ((50, 50), "RGB", "converted from L")
        values = skimage.data.lfw_subset()[int(row.source.rpartition(":")[2])]
        reduced = np.asarray(shown.resize((25, 25), Image.Resampling.BOX)).astype(float)[..., 0]
        assert np.corrcoef(reduced.ravel(), values.ravel())[0, 1] > 0.99
    other = replace(faces.FACES["lfw_091"], row=92)
    monkeypatch.setattr(faces, "FACES", {**faces.FACES, "lfw_091": other})
    with pytest.raises(ImageError, match="lfw_subset.npy: the face 'lfw_091' has other pixels than in the version"):
        faces.pixels("lfw_091")
    monkeypatch.setattr(skimage.data, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ImageError, match="lfw_subset.npy: missing; reinstall scikit-image"):
        faces.pixels("lfw_091")


def test_polygons_of_faces_are_whole() -> None:
    content = json.loads(faces.POLYGONS.read_text(encoding="utf-8"))
    assert tuple(content["parts"]) == PARTS
    assert set(content["faces"]) == set(faces.FACES)
    for of_face in content["faces"].values():
        assert tuple(of_face) == PARTS
        assert len(of_face["eyes"]) == 2
        for polygon in (each for polygons in of_face.values() for each in polygons):
            corners = np.array(polygon)
            assert corners.shape[0] >= 3
            assert corners.shape[1] == 2
            assert (corners.min() >= 0, corners.max() <= 1) == (True, True)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Dataset:
    """Six pictures of several shapes: the parts of the values 4, 7 and 9 are red, green and blue, the rest is black."""
    draws = np.random.default_rng(0)
    for part in ("pictures", "masks"):
        (tmp_path / part).mkdir()
    for number, shape in enumerate([(40, 60), (90, 40), (33, 33), (200, 131), (64, 64), (16, 300)]):
        # blocks, so that interpolation leaves most pixels as they are
        blocks = draws.choice([0, 4, 7, 9], (shape[0] // 8 + 1, shape[1] // 8 + 1)).astype(np.uint8)
        mask = blocks.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
        pixels = np.stack([np.where(mask == value, 255, 0) for value in (4, 7, 9)], 2).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"image{number}.png")
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"image{number}.png")
    (tmp_path / "masks/parts.tsv").write_text("value\tpart\n9\tnose\n4\tear\n7\tleft eye\n")
    return Dataset("folder", 24, str(tmp_path / "pictures"), parts=str(tmp_path / "masks"))


@pytest.mark.parametrize("square", SQUARES)
def test_masks_of_a_folder_lie_on_their_images(folder: Dataset, square: str, tmp_path: Path) -> None:
    parts = made(replace(folder, square=square), tmp_path / "made")
    # in order of value
    assert (parts.parts, parts.size) == (("ear", "left eye", "nose"), 24)
    for name in parts.names:
        shown = picture(tmp_path / "made", name)
        # black is what the three colours leave
        colors = np.concatenate([255 - shown.sum(2, keepdims=True), shown], 2)
        # where the picture shows one part above all, which edges between parts do not
        clear = np.sort(colors, axis=2)[..., -1] - np.sort(colors, axis=2)[..., -2] > 30
        assert clear.mean() > 0.5
        assert np.array_equal(parts.mask(name)[clear], colors.argmax(2)[clear])


def test_a_sample_needs_the_masks_of_its_own_images_alone(folder: Dataset, tmp_path: Path) -> None:
    names = kinds.rows(replace(folder, sample=2), Supplied()).names
    for path in Path(str(folder.parts)).glob("*.png"):
        if path.stem not in names:
            path.unlink()
    assert made(replace(folder, sample=2), tmp_path / "made").names == tuple(names)


def test_images_without_a_mask_of_their_size_are_named(folder: Dataset, tmp_path: Path) -> None:
    masks = Path(str(folder.parts))
    Image.new("L", (60, 41)).save(masks / "image0.png")
    Image.new("L", (25, 33)).save(masks / "image2.png")
    with pytest.raises(
        ImageError,
        match=r"2 masks are not of the size of their image: image0 \(60 x 41, image 60 x 40\), image2 \(25 x 33, im",
    ):
        made(folder, tmp_path / "made")
    Image.new("RGB", (60, 40)).save(masks / "image0.png")
    with pytest.raises(ImageError, match=r"1 masks are not 8-bit pictures of one channel: image0 \(RGB\)"):
        made(folder, tmp_path / "made")
    for path in masks.glob("*.png"):
        path.unlink()
    with pytest.raises(ImageError, match="6 of 6 images have no mask: image0, image1, image2, image3, image4 …"):
        made(folder, tmp_path / "made")
    assert not (tmp_path / "made/parts").exists()


def test_values_that_are_no_part_are_named(folder: Dataset, tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[3, 5], mask[9, 9] = 11, 250
    Image.fromarray(mask).save(Path(str(folder.parts)) / "image0.png")
    with pytest.raises(
        ImageError, match=r"image0.png: has the values 11, 250, which parts.tsv does not list \(4, 7, 9, "
    ):
        made(folder, tmp_path / "made")
    with pytest.raises(StoreError, match="missing, so the folder is not whole"):
        read_parts(tmp_path / "made/parts")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("part\tvalue\n1\ta\n", "columns are part, value; expected value, part"),
        ("", "columns are ; expected value, part"),
        ("value\tpart\n", "lists no part"),
        ("value\tpart\n0\ta\n", "line 2: expected a value from 1 to 255 and a part, got"),
        ("value\tpart\n1\ta\n256\tb\n", "line 3: expected a value from 1 to 255"),
        ("value\tpart\n1\t\n", "line 2: expected a value from 1 to 255 and a part"),
        ("value\tpart\n1\n", "line 2: expected a value from 1 to 255 and a part"),
        ("value\tpart\n1\ta\n1\tb\n", "line 3: 1 or 'b' stands there twice"),
        ("value\tpart\n1\ta\n2\ta\n", "line 3: 2 or 'a' stands there twice"),
        (None, "missing; it says which part each value of a mask is"),
    ],
)
def test_a_list_of_parts_that_says_nothing_is_refused(folder: Dataset, text: str | None, said: str) -> None:
    table = Path(str(folder.parts)) / "parts.tsv"
    table.unlink()
    if text is not None:
        table.write_text(text)
    with pytest.raises(ImageError, match=rf"parts.tsv.*{said}"):
        kinds.part_masks(folder, [])


def test_a_square_mask_keeps_what_is_square_already() -> None:
    mask = np.random.default_rng(0).choice([0, 1, 5], (32, 32)).astype(np.uint8)
    for square in SQUARES:
        assert np.array_equal(square_mask(mask, 32, square), mask)
    # the value that most of a pixel has, here three of four
    small = np.array([[1, 5], [5, 5]], np.uint8)
    assert square_mask(np.tile(small, (16, 16)), 16, "adm").tolist() == np.full((16, 16), 5).tolist()


def test_which_data_sets_have_masks(folder: Dataset) -> None:
    assert [kinds.has_part_masks(each) for each in (folder, replace(folder, parts=None))] == [True, False]
    assert kinds.has_part_masks(Dataset("faces", 64))
    assert not kinds.has_part_masks(Dataset("photographs", 64))
    for dataset in (replace(folder, parts=None), Dataset("photographs", 64)):
        with pytest.raises(
            ValueError, match=f"of kind '{dataset.kind}' has no masks of parts; data sets of kinds 'faces'"
        ):
            kinds.part_masks(dataset, [])


def test_images_do_not_depend_on_masks(folder: Dataset) -> None:
    bare = replace(folder, parts=None)
    assert folder.recipe() == bare.recipe()
    assert "parts" not in bare.recipe()
    assert folder.of_images() == bare


# --- files ------------------------------------------------------------------------------------------------------------


def test_masks_come_back_and_broken_ones_are_refused(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(np.uint8)
    write_parts(tmp_path / "p", ["ear", "nose"], [("a", mask), ("b", 2 - mask)], {"from": "here"})
    parts = read_parts(tmp_path / "p")
    assert (parts.names, parts.parts, parts.size, parts.recipe) == (("a", "b"), ("ear", "nose"), 20, {"from": "here"})
    assert np.array_equal(parts.mask("a"), mask)
    assert np.array_equal(parts.mask("b"), 2 - mask)
    with pytest.raises(StoreError, match="no mask of 'c'; there: a, b"):
        parts.mask("c")
    Image.fromarray(mask + 1).save(tmp_path / "p/b.png")
    with pytest.raises(StoreError, match=r"b.png: holds uint8 \(20, 20\) up to 3, expected uint8 \(20, 20\) up to 2"):
        parts.mask("b")
    (tmp_path / "p/a.png").write_bytes(b"not a picture")
    with pytest.raises(StoreError, match="a.png: cannot be read as a list of part masks"):
        parts.mask("a")
    with pytest.raises(ValueError, match="the mask of 'b' has the value 2; there are 1 parts"):
        write_parts(tmp_path / "q", ["ear"], [("a", mask % 2), ("b", mask)], {})
    with pytest.raises(ValueError, match=r"the mask of 'b' is \(19, 20\); expected \(20, 20\)"):
        write_parts(tmp_path / "q", ["ear", "nose"], [("a", mask), ("b", mask[1:])], {})


def test_the_docs_name_where_faces_are_from() -> None:
    text = (ROOT / "docs/add-a-data-set.md").read_text(encoding="utf-8")
    assert all(name in text for name in faces.FACES)
    assert "http://vis-www.cs.umass.edu/lfw/" in text
