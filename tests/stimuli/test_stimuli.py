import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffalign import randomness
from diffalign.dataset_specs import Dataset
from diffalign.io import manifest
from diffalign.io.headers import StoreError
from diffalign.stimuli import captions, folders, kinds, squares
from diffalign.stimuli.kinds import Supplied, photographs
from diffalign.stimuli.squares import ImageError, read_rgb
from images import images

RNG = np.random.default_rng(0)


def picture(width: int = 40, height: int = 30, channels: int = 3) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, channels)[: 2 + (channels > 1)], dtype=np.uint8))


def rows(*names: str) -> list[manifest.Image]:
    return [manifest.Image(name, "", -1, "", "0" * 64, f"{name}.png", "") for name in names]


def test_photographs_give_at_least_256_distinct_crops_of_one_size() -> None:
    found = list(photographs.photographs(128, 16))
    assert len(found) == 320
    pictures = [crop.picture()[0] for crop in found if crop.picture is not None]
    assert {picture.size for picture in pictures} == {(128, 128)}
    assert len({crop.name for crop in found}) == len({picture.tobytes() for picture in pictures}) == 320
    assert all(np.asarray(picture).std() > 1 for picture in pictures)
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert len({crop.label for crop in found}) == 20
    assert [crop.name for crop in found] == sorted(crop.name for crop in found)
    assert all(crop.caption.strip() for crop in found)


def test_crops_cover_the_photograph_from_corner_to_corner() -> None:
    image = picture(300, 200)
    cut = [np.asarray(crop) for crop, _ in photographs.crops(image, 100, 6)]
    whole = np.asarray(image)
    assert np.array_equal(cut[0], whole[:100, :100])
    assert np.array_equal(cut[-1], whole[-100:, -100:])
    assert photographs.grid(448, 172, 16) == (2, 8)
    with pytest.raises(ImageError, match="do not fit"):
        list(photographs.crops(image, 201, 4))


@pytest.mark.parametrize("square", squares.SQUARES)
@pytest.mark.parametrize("size", [(40, 30), (333, 1000), (64, 64), (1, 500), (129, 65)])
def test_squares_have_the_size_asked_for(square: str, size: tuple[int, int]) -> None:
    assert squares.make_square(picture(*size), 64, square).size == (64, 64)


def test_bilinear_squares_are_those_of_torchvision() -> None:
    from torchvision.transforms import Resize

    image = picture(150, 150)
    expected = Resize(64)(image)
    assert squares.make_square(image, 64, "bilinear").tobytes() == expected.tobytes()
    assert squares.make_square(image, 64, "crop").tobytes() != expected.tobytes()


def test_a_square_of_the_right_size_is_left_alone() -> None:
    image = picture(64, 64)
    for square in squares.SQUARES:
        assert squares.make_square(image, 64, square).tobytes() == image.tobytes()
    with pytest.raises(ImageError, match="unknown way to make a square 'round'"):
        squares.make_square(image, 64, "round")


def test_modes_are_converted_and_noted(tmp_path: Path) -> None:
    grey = picture(channels=1)
    grey.save(tmp_path / "grey.png")
    picture().quantize(16).save(tmp_path / "palette.png")
    picture().convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    transparent = picture().convert("RGBA")
    transparent.putalpha(0)
    transparent.save(tmp_path / "clear.png")
    picture().save(tmp_path / "rgb.png")
    read = {path.stem: squares.read_rgb(path) for path in tmp_path.iterdir()}
    assert {image.mode for image, _ in read.values()} == {"RGB"}
    assert read["rgb"][1] == ""
    assert read["grey"][1] == "converted from L"
    assert read["palette"][1] == "converted from P"
    assert read["cmyk"][1] == "converted from CMYK"
    assert read["clear"][1] == "converted from RGBA on white"
    assert np.asarray(read["clear"][0]).min() == 255
    assert np.array_equal(np.asarray(read["deep"][0])[..., 0], np.asarray(grey))


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    picture(200, 200).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    for name in ("cut.png", "text.png"):
        with pytest.raises(ImageError, match=rf"{name}: cannot be read as an image"):
            squares.read_rgb(tmp_path / name)


def test_flat_folders(tmp_path: Path) -> None:
    for name in ("n02_2.png", "n01_1.png", "n02_1.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    found = folders.flat_folder(tmp_path, "prefix")
    assert [(s.name, s.label, s.label_index) for s in found] == [
        ("n01_1", "n01", 0),
        ("n02_1", "n02", 1),
        ("n02_2", "n02", 1),
    ]
    assert {s.label for s in folders.flat_folder(tmp_path, "none")} == {""}
    (tmp_path / "bare.png").touch()
    with pytest.raises(ImageError, match=r"1 have no underscore, first: bare\.png"):
        folders.flat_folder(tmp_path, "prefix")


def test_the_order_of_a_listing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("n02/b.png", "n01/c.png", "n01/a.png", "n03/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    synsets = folders.synset_folders(tmp_path)
    flat = folders.flat_folder(tmp_path / "n01", "none")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    assert folders.synset_folders(tmp_path) == synsets
    assert folders.flat_folder(tmp_path / "n01", "none") == flat


def test_an_image_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    (folder / "b.png").symlink_to(folder / "a.png")
    assert [source.name for source in folders.flat_folder(folder)] == ["a", "b"]
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    for read, where in ((folders.flat_folder, folder), (folders.synset_folders, tmp_path)):
        with pytest.raises(ImageError, match=r"class: 2 images are links that lead nowhere, first: gone\.png, itself"):
            read(where)


def test_synset_folders(tmp_path: Path) -> None:
    for name in ("n02/a.png", "n01/b.JPEG", "n03/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = folders.synset_folders(tmp_path)
    assert [(s.name, s.label, s.label_index) for s in found] == [("a", "n02", 1), ("b", "n01", 0), ("c", "n03", 2)]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        folders.flat_folder(tmp_path / "absent", "none")
    with pytest.raises(ImageError, match="no images"):
        folders.flat_folder(tmp_path, "none")
    with pytest.raises(ImageError, match="no class folders"):
        folders.synset_folders(tmp_path)
    (tmp_path / "n01").mkdir()
    with pytest.raises(ImageError, match="none with images"):
        folders.synset_folders(tmp_path)
    (tmp_path / "n01" / "a.png").touch()
    (tmp_path / "n02").mkdir()
    (tmp_path / "n02" / "a.jpg").touch()
    with pytest.raises(ImageError, match=r"two files with the stem 'a': n01/a\.png and n02/a\.jpg"):
        folders.synset_folders(tmp_path)


def test_samples_are_keyed_by_seed_and_name() -> None:
    names = [f"image{i}" for i in range(1000)]
    few, many = randomness.sample(names, 50, 0), randomness.sample(names[::-1], 100, 0)
    assert many[:50] == few
    assert set(randomness.sample(names, 50, 1)) != set(few)


def test_manifests_are_sorted_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    path.write_text(
        manifest.print_manifest([*rows("b", "a"), manifest.Image("c", "x", 3, 'tab\t"quote"', "f" * 64, "s", "n")])
    )
    read = manifest.read_manifest(path)
    assert [image.name for image in read] == ["a", "b", "c"]
    assert read[2].caption == 'tab\t"quote"'
    lines = ("a dog\rin the grass", "\r", 'two\r\nlines of "text"\r', "one\nmore")
    for text in lines:
        path.write_text(manifest.print_manifest([manifest.Image("c", text, 3, text, "", "", "", description=text)]))
        (found,) = manifest.read_manifest(path)
        assert (found.label, found.caption, found.description) == (text, text, text)


def test_manifests_that_cannot_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="1 names stand more than once, first: a$"):
        manifest.print_manifest(rows("a", "a"))
    for key in ("label", "caption", "description", "group"):
        halves = dataclasses.replace(rows("a")[0], **{key: "a \ud800 dog"})
        with pytest.raises(StoreError, match="1 of 2 texts hold half a character .a lone surrogate., first: a$"):
            manifest.print_manifest([halves, *rows("b")])
    path = tmp_path / "manifest.tsv"
    head, row, other = manifest.print_manifest(rows("a", "b")).splitlines()
    for text, message in (
        ("name\tlabel\n", "columns are name, label"),
        (f"{head}\n", "holds no images"),
        (f"{head}\n{row}\n{row}\n", "stand more than once"),
        (f"{head}\n{other}\n{row}\n", "not sorted"),
    ):
        path.write_text(text)
        with pytest.raises(StoreError, match=message):
            manifest.read_manifest(path)


def test_the_unconditional_prompt_is_empty_for_all() -> None:
    assert captions.prompt_texts(rows("a", "b"), "uncond") == ([""], [0, 0])
    with pytest.raises(ValueError, match="unknown conditioning 'labl'"):
        captions.prompt_texts(rows("a"), "labl")


def test_noise_is_keyed_by_model_and_name_by_name_or_constant() -> None:
    shape = (4, 8, 8)

    def draw(name: str, seeding: str = "name", kind: str = "noise", seed: int = 0, model: str = "sit") -> np.ndarray:
        return randomness.normal(shape, randomness.NoiseKey(seeding, seed, model), name, kind)

    assert np.array_equal(draw("a"), draw("a"))
    assert not np.array_equal(draw("a"), draw("b"))
    assert not np.array_equal(draw("a"), draw("a", seed=1))
    assert not np.array_equal(draw("a"), draw("a", kind="posterior"))
    # models see noise of their own unless they share it
    assert not np.array_equal(draw("a"), draw("a", model="dit"))
    assert np.array_equal(draw("a", "common"), draw("a", "common", model="dit"))
    assert not np.array_equal(draw("a", "common"), draw("b", "common"))
    assert not np.array_equal(draw("a", "common"), draw("a"))
    assert np.array_equal(draw("a", "constant"), draw("b", "constant"))
    assert np.array_equal(draw("a", "constant"), draw("a", "constant", model="dit"))
    assert not np.array_equal(draw("a", "constant"), draw("a", "constant", "posterior"))
    many = np.stack([draw(str(i)) for i in range(500)])
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    with pytest.raises(ValueError, match="unknown seeding 'random'"):
        draw("a", "random")
    with pytest.raises(ValueError, match="unknown draw 'dice'"):
        draw("a", kind="dice")


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [("1", (20000, 20000), "is too large"), ("RGB", (600000, 1), "is 600000 x 1 px: with a shorter side of 64")],
)
def test_an_image_that_no_memory_holds_is_named(mode: str, size: tuple[int, int], message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "bomb.png"
    Image.new(mode, size).save(path)
    listing = kinds.rows(Dataset("folder", 64, path=str(path.parent)), Supplied(0))
    with pytest.raises(ImageError, match=rf"bomb\.png: {message}"):
        [row.picture() for row in listing.rows if row.picture]


def test_texts_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"a": "x", "b": null, "c": 3}')
    with pytest.raises(
        captions.CaptionError, match=r"captions.json: expected a mapping .*; 2 of 3 have none: b \(null\), c \(int\)"
    ):
        captions.read_texts(path)
    path.write_text('{"a": "' + "x" * 200_000 + '"}')
    with pytest.raises(captions.CaptionError, match=r"1 of 1 texts are longer than 131,072 characters, first: a"):
        captions.read_texts(path)


def test_all_images_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b", "c"):
        picture().save(folder / f"{name}.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "c.png").write_text("no picture")
    out = tmp_path / "out"
    with pytest.raises(
        ImageError, match=r"2 of 3 images cannot be used: .*a.png: .*; .*c.png: cannot be read as an im"
    ):
        images("mine", Dataset("folder", 8, str(folder)), None, 0, out, tmp_path / "manifest.tsv", tmp_path / "x.json")
    assert list(out.iterdir()) == []
    assert not (tmp_path / "manifest.tsv").exists()


def test_what_is_enlarged_or_not_turned_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    picture().save(folder / "turned.jpg", exif=turned)
    picture(1, 1).save(folder / "small.png")
    picture().convert("L").resize((4, 9)).save(folder / "both.png")
    picture().save(folder / "plain.png")
    images(
        "mine", Dataset("folder", 8, str(folder)), None, 0, tmp_path / "out", tmp_path / "m.tsv", tmp_path / "x.json"
    )
    notes = {row.name: row.notes for row in manifest.read_manifest(tmp_path / "m.tsv")}
    assert notes == {
        "turned": "EXIF orientation 6 ignored",
        "small": "enlarged from 1 x 1 px",
        "both": "converted from L; enlarged from 4 x 9 px",
        "plain": "",
    }


def test_a_picture_is_what_its_bytes_say_and_no_program(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError, match="x.png: cannot be read as an image"):
        squares.read_rgb(path)


@pytest.mark.parametrize(("dtype", "said"), [(np.float32, "floats"), (np.int32, "32-bit numbers")])
def test_images_of_no_known_range_are_refused(dtype: type, said: str, tmp_path: Path) -> None:
    """They would become black."""
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.linspace(0, 1, 64).reshape(8, 8).astype(dtype)).save(path)
    with pytest.raises(ImageError, match=rf"deep\.tiff: .*holds {said} of no known range; save it as 8 bits"):
        read_rgb(path)
