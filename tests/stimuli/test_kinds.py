"""The registry of kinds of data sets."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import KINDS, DatasetKind, Supplied
from diffalign.stimuli.squares import ImageError

SCHEMA = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))
ENTRY = SCHEMA["$defs"]["DatasetEntry"]["properties"]
RNG = np.random.default_rng(0)


def write(path: Path, side: int = 16, channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (side, side, channels)[: 2 + (channels > 1)], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_schema_knows_every_kind_and_every_key() -> None:
    assert set(ENTRY["kind"]["enum"]) == set(KINDS)
    assert frozenset().union(*(kind.known for kind in KINDS.values())) == set(ENTRY)
    assert KINDS["precomputed"].known == {"kind"}
    with pytest.raises(ValueError, match="needs path, which it does not read"):
        DatasetKind(None, needs=frozenset({"path"}))


def test_importing_the_registry_loads_nothing_heavy() -> None:
    code = "import sys; import diffalign.stimuli.kinds; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", capture_output=True, text=True, check=True
    )
    assert not {"torch", "skimage", "sklearn", "pandas", "pyarrow", "scipy", "timm"} & set(run.stdout.split())


@pytest.mark.parametrize(
    ("dataset", "images", "manifest"),
    [
        (Dataset("photographs", 64), True, True),
        (Dataset("packaged", 64, collection="mnist"), True, True),
        (Dataset("faces", 64), True, True),
        (Dataset("folder", 64, "x"), True, True),
        (Dataset("synsets", 64, "x"), True, True),
        (Dataset("transformed", 64, "x"), True, True),
        (Dataset("table", 64, "x", columns={"image": "a"}), True, True),
        (Dataset("table", path="x", columns={"caption": "a"}), False, True),
        (Dataset("things", 64, "x"), True, True),
        (Dataset("things"), False, True),
        (Dataset("precomputed"), False, False),
    ],
)
def test_which_data_sets_have_images_and_a_manifest(dataset: Dataset, images: bool, manifest: bool) -> None:
    assert (kinds.has_images(dataset), kinds.has_manifest(dataset)) == (images, manifest)


def test_rows_of_folders(tmp_path: Path) -> None:
    for name in ("n01_1", "n02_1", "n02_2"):
        write(tmp_path / "flat" / f"{name}.png", 20, channels=1)
        write(tmp_path / "classes" / name[:3] / f"{name}.png", 40)
        write(tmp_path / "published" / "clean" / f"{name}.png", 16)
    for kind, folder, at, notes in (
        ("folder", "flat", "n02_1.png", "converted from L"),
        ("synsets", "classes", "n02/n02_1.png", ""),
        ("transformed", "published", "clean/n02_1.png", ""),
    ):
        labels = "none" if kind == "synsets" else "prefix"
        listing = kinds.rows(Dataset(kind, 16, str(tmp_path / folder), labels=labels), Supplied())
        rows = list(listing.rows)
        assert list(listing.names) == [row.name for row in rows] == ["n01_1", "n02_1", "n02_2"]
        assert (rows[1].name, rows[1].label, rows[1].label_index, rows[1].source) == ("n02_1", "n02", 1, at)
        assert rows[1].picture is not None
        picture, converted = rows[1].picture()
        assert (picture.size, picture.mode, converted) == ((16, 16), "RGB", notes)
        row = rows[1].in_manifest("0" * 64, converted)
        assert (row.name, row.sha256, row.notes, row.caption) == ("n02_1", "0" * 64, notes, "")
        sampled = kinds.rows(Dataset(kind, 16, str(tmp_path / folder), sample=2), Supplied(seed=5))
        assert [row.name for row in sampled.rows] == list(sampled.names)
        assert len(sampled.names) == 2
    other = kinds.rows(Dataset("transformed", 32, str(tmp_path / "published")), Supplied())
    with pytest.raises(ImageError, match=r"n01_1.png: is 16 x 16 px; images of this data set are 32 x 32"):
        next(iter(other.rows)).picture()  # type: ignore[misc]


def test_a_kind_without_rows() -> None:
    with pytest.raises(ValueError, match="kind 'precomputed' have no rows"):
        kinds.rows(Dataset("precomputed"), Supplied())


def test_what_contradicts_itself_in_an_entry() -> None:
    of_table = KINDS["table"].mistakes
    assert list(of_table({"path": "x", "columns": {"caption": "a"}})) == []
    assert [key for key, _ in of_table({"columns": {}, "path": "x", "hub": {"repository": "a/b"}})] == ["", "columns"]
    assert [key for key, _ in of_table({"path": "x", "size": 8, "columns": {"caption": "a"}})] == ["size"]
    assert list(KINDS["folder"].mistakes({})) == []


def test_groups_of_images_that_are_not_independent(tmp_path: Path) -> None:
    for name in ("film_1", "film_2", "other_1"):
        write(tmp_path / "flat" / f"{name}.png")
    flat = Dataset("folder", 16, str(tmp_path / "flat"))

    def groups(dataset: Dataset) -> list[str]:
        return [row.in_manifest().group for row in kinds.rows(dataset, Supplied()).rows]

    assert groups(flat) == ["film_1", "film_2", "other_1"]
    assert groups(replace(flat, groups="prefix")) == ["film", "film", "other"]
    assert groups(replace(flat, groups="label", labels="prefix")) == ["film", "film", "other"]
    with pytest.raises(ValueError, match="groups: label needs a label; 'film_1' has none"):
        groups(replace(flat, groups="label"))
    table = tmp_path / "words.tsv"
    table.write_text("id\tword\tpair\na\tcat\tx\nb\tdog\tx\nc\tboat\t\n")
    columns = {"name": "id", "caption": "word"}
    assert groups(Dataset("table", path=str(table), columns=columns)) == ["a", "b", "c"]
    assert groups(Dataset("table", path=str(table), columns={**columns, "group": "pair"})) == ["x", "x", "c"]
    crops = groups(Dataset("photographs", 64, per_photograph=2))
    assert len(crops) == 2 * len(set(crops))


@pytest.mark.parametrize(
    ("dataset", "there"),
    [
        (Dataset("photographs", 64), True),
        (Dataset("photographs", 64, per_photograph=1), False),
        (Dataset("folder", 64, "x"), False),
        (Dataset("synsets", 64, "x", groups="label"), True),
        (Dataset("table", path="x", columns={"caption": "a", "group": "b"}), True),
        (Dataset("table", path="x", columns={"caption": "a"}), False),
        (Dataset("things", 64, "x"), False),
        (Dataset("precomputed"), False),
    ],
)
def test_which_data_sets_have_groups(dataset: Dataset, there: bool) -> None:
    assert kinds.has_groups(dataset) == there
    # an optional key is in no recipe of those without it
    assert ("groups" in dataset.recipe()) == (dataset.groups is not None)
