import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_neighbors

from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.io import atomic, feature_files, neighbor_files
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError, check_same_names

VALUES = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
NAMES = tuple(f"image{i}" for i in range(8))


def test_features_come_back_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "b0.pt"
    feature_files.write_features(path, Features(VALUES, NAMES, {"layer": "b0", "σ": 0.5}))
    read = feature_files.read_features(path)
    assert np.array_equal(read.values, VALUES)
    assert read.names == NAMES
    assert read.recipe == {"layer": "b0", "σ": 0.5}
    # peers read it with one line
    content = torch.load(path, weights_only=True)
    assert content["features"].shape == (8, 3)
    assert content["names"] == list(NAMES)
    assert list(path.parent.iterdir()) == [path]
    # the same features give the same bytes
    before = path.read_bytes()
    feature_files.write_features(path, read)
    assert path.read_bytes() == before


def content(**changes: object) -> dict[str, object]:
    return {"format": 1, "features": torch.from_numpy(VALUES), "names": list(NAMES), "recipe": "{}"} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": torch.full((8, 3), float("nan"))},
            "8 of 8 rows are NaN or infinite, first: image0, image1, image2",
        ),
        ({"names": ["a"] * 8}, "1 names stand more than once, first: a$"),
        ({"names": list(NAMES[:7])}, "8 rows for 7 names"),
        ({"features": torch.zeros(8)}, r"shape \(8,\); expected \(N, D\)"),
        ({"format": 99}, "format 99 is not known here"),
        ({"format": "1"}, "format '1' is not known here"),
    ],
)
def test_feature_files_that_cannot_be_trusted(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "b0.pt"
    torch.save(content(**changes), path)
    with pytest.raises(ValueError, match=f"b0.pt: .*{message}"):
        feature_files.read_features(path)


def test_files_with_other_keys_or_other_content(tmp_path: Path) -> None:
    path = tmp_path / "b0.pt"
    torch.save({"feats": torch.zeros(3)}, path)
    with pytest.raises(StoreError, match=r"b0.pt: not a feature file.*features, format, names, recipe"):
        feature_files.read_features(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="b0.pt: cannot be read"):
        feature_files.read_features(path)
    with pytest.raises(FileNotFoundError):
        feature_files.read_features(tmp_path / "absent.pt")


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "b0.pt"
    torch.save(content(names=Dangerous(tmp_path / "executed")), path)
    with pytest.raises(StoreError, match="b0.pt: cannot be read"):
        feature_files.read_features(path)
    assert not (tmp_path / "executed").exists()


def test_nothing_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    bad = VALUES.copy()
    bad[3, 1] = np.inf
    with pytest.raises(StoreError, match="first: image3"):
        feature_files.write_features(tmp_path / "b0.pt", Features(bad, NAMES, {}))
    assert not list(tmp_path.iterdir())


def test_neighbours_come_back_as_they_went(tmp_path: Path) -> None:
    lists = {layer: nearest_neighbors(unit_rows(VALUES + i, NAMES), 4) for i, layer in enumerate(("b0", "b1"))}
    path = tmp_path / "m.npz"
    write_neighbors(path, NAMES, lists, {"clamp": None}, {"bundle": "m"})
    read = neighbor_files.read_neighbors(path)
    assert (read.names, read.layers, read.settings, read.recipe) == (
        NAMES,
        ("b0", "b1"),
        {"clamp": None},
        {"bundle": "m"},
    )
    for layer, expected in lists.items():
        assert np.array_equal(read.layer(layer).indices, expected.indices)
        assert np.array_equal(read.layer(layer).similarities, expected.similarities)
    with pytest.raises(StoreError, match="no layer 'b2'; it has b0, b1"):
        read.layer("b2")
    path.write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="m.npz: cannot be read as a neighbour file"):
        neighbor_files.read_neighbors(path)
    np.savez(path, header=np.array([Dangerous(tmp_path / "executed")], dtype=object))
    with pytest.raises(StoreError, match="m.npz: cannot be read"):
        neighbor_files.read_neighbors(path)
    assert not (tmp_path / "executed").exists()


def write_part(path: Path, rows: range, k: int = 3, recipe: str = "m") -> Path:
    with neighbor_files.writing(path) as file:
        for i, layer in enumerate(("b0", "b1")):
            file.add(layer, nearest_neighbors(unit_rows(VALUES + i, NAMES), k, rows))
        file.finish(NAMES, {"k_max": k}, {"bundle": recipe}, rows)
    return path


def test_merged_parts_are_to_the_byte_what_one_search_writes(tmp_path: Path) -> None:
    lists = {layer: nearest_neighbors(unit_rows(VALUES + i, NAMES), 3) for i, layer in enumerate(("b0", "b1"))}
    write_neighbors(tmp_path / "m.npz", NAMES, lists, {"k_max": 3}, {"bundle": "m"})
    edges = [0, 3, 3, len(NAMES)]
    parts = [write_part(tmp_path / f"{a}.{b}.npz", range(a, b)) for a, b in itertools.pairwise(edges)]
    neighbor_files.merge_parts(parts, tmp_path / "merged.npz")
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "m.npz").read_bytes()
    with pytest.raises(StoreError, match=r"0.3.npz: holds the lists of rows 0 to 3 only"):
        neighbor_files.read_neighbors(parts[0])


def test_parts_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    first = write_part(tmp_path / "first.npz", range(3))
    last = write_part(tmp_path / "last.npz", range(3, len(NAMES)))
    longer = write_part(tmp_path / "longer.npz", range(3, len(NAMES)), k=4, recipe="other")
    for parts, message in (
        ([first, longer], "longer.npz: its settings and recipe differ from those of .*first.npz"),
        ([last, first], "last.npz: holds the lists of rows 3 to 8; expected them to begin at row 0"),
        ([first], "first.npz: the lists end at row 3 of 8; parts are missing"),
    ):
        with pytest.raises(StoreError, match=message):
            neighbor_files.merge_parts(parts, tmp_path / "merged.npz")
        assert not (tmp_path / "merged.npz").exists()


def test_names_that_differ_are_named() -> None:
    a, b = Path("a.npz"), Path("b.npz")
    check_same_names(NAMES, list(NAMES), a, b)
    with pytest.raises(
        StoreError, match=r"8 only in a.npz: image0, image1, image2, image3, image4 …; 1 only in b.npz: x$"
    ):
        check_same_names(NAMES, ["x"], a, b)
    with pytest.raises(StoreError, match="in another order"):
        check_same_names(NAMES, NAMES[::-1], a, b)


def test_a_crash_leaves_no_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def crash() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, {"value": float("nan")})


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_whole_or_absent_and_never_pickled(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "arrays.npz"
    atomic.write_arrays(path, {"rows": np.arange(3), "names": ("a", "bc")}, compressed)
    with np.load(path, allow_pickle=False) as found:
        assert (found["rows"].tolist(), found["names"].tolist()) == ([0, 1, 2], ["a", "bc"])
    with pytest.raises(ValueError, match="allow_pickle"):
        atomic.write_arrays(path, {"x": np.array([{}], object)}, compressed)
    with np.load(path) as found:
        assert "names" in found
    assert [each.name for each in tmp_path.iterdir()] == ["arrays.npz"]


def test_a_folder_is_emptied(tmp_path: Path) -> None:
    for _ in range(2):
        atomic.make_empty(tmp_path / "a" / "b")
        assert not list((tmp_path / "a" / "b").iterdir())
        (tmp_path / "a" / "b" / "old").write_text("old")
