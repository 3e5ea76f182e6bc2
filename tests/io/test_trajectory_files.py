"""Folders of trajectories: what is written is read, part by part, and what cannot be trusted is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffalign.io.headers import StoreError
from diffalign.io.trajectory_files import Chunk, read_trajectories, write_trajectories
from diffalign.noise import NoiseLevel

LEVELS = (NoiseLevel(0.0, 1.0, 1000.0), NoiseLevel(0.6, 0.8, 400.0, 40), NoiseLevel(1.0, 0.0, 0.0))
GROUPS = {"a": "class_0", "b": "class_1", "c": "class_1"}


def chunk(names: str, **changes: Any) -> Chunk:
    random, n = np.random.default_rng(ord(names[0])), len(names)
    arrays = {
        "latents": random.standard_normal((n, 3, 4, 2, 2)).astype(np.float32),
        "x0": random.standard_normal((n, 3, 4, 2, 2)).astype(np.float32),
        "images": random.random((n, 3, 8, 8, 3)).astype(np.float16),
        "x0_images": random.random((n, 3, 8, 8, 3)).astype(np.float16),
    }
    return Chunk(tuple(names), {**arrays, **changes})


def test_what_is_written_is_read_part_by_part(tmp_path: Path) -> None:
    folder, parts = tmp_path / "trajectories" / "0", [chunk("ab"), chunk("c")]
    write_trajectories(folder, iter(parts), GROUPS, LEVELS, {"seed": 0})
    found = read_trajectories(folder)
    assert (found.names, found.groups) == (("a", "b", "c"), ("class_0", "class_1", "class_1"))
    assert found.levels == LEVELS
    assert found.recipe == {"seed": 0}
    assert found.tensors == ("latents", "x0", "images", "x0_images")
    for written, read in zip(parts, found.chunks(), strict=True):
        assert read.names == written.names
        for key, array in written.arrays.items():
            np.testing.assert_array_equal(read.arrays[key], array)
            assert read.arrays[key].dtype == array.dtype
    assert [set(part.arrays) for part in found.chunks("x0", "images")] == [{"x0", "images"}] * 2
    for key, final in (("images", found.final_images()), ("latents", found.final_latents())):
        assert final.dtype == np.float32
        np.testing.assert_array_equal(final, np.concatenate([part.arrays[key][:, -1] for part in parts]))
    with pytest.raises(ValueError, match="no tensor 'class_tokens'; there are latents, x0, images, x0_images"):
        list(found.chunks("class_tokens"))
    assert [path.name for path in folder.parent.iterdir()] == ["0"]


def test_class_tokens_are_there_where_a_model_has_them(tmp_path: Path) -> None:
    tokens = np.ones((3, 3, 5), np.float32)
    write_trajectories(tmp_path / "0", [chunk("abc", class_tokens=tokens)], GROUPS, LEVELS, {})
    (found,) = read_trajectories(tmp_path / "0").chunks("class_tokens")
    np.testing.assert_array_equal(found.arrays["class_tokens"], tokens)


def test_numbers_that_are_none_are_named_with_step_and_sample(tmp_path: Path) -> None:
    bad = chunk("c")
    bad.arrays["x0"][0, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"x0 is NaN or infinite at step 1 of 2, t = 0\.571, for c$"):
        write_trajectories(tmp_path / "0", [chunk("ab"), bad], GROUPS, LEVELS, {})
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_sampler_leaves_what_was_there(tmp_path: Path) -> None:
    def breaks() -> Iterator[Chunk]:
        yield chunk("ab")
        raise ValueError("no more")

    write_trajectories(tmp_path / "0", [chunk("abc")], GROUPS, LEVELS, {"seed": 0})
    with pytest.raises(ValueError, match="no more"):
        write_trajectories(tmp_path / "0", breaks(), GROUPS, LEVELS, {"seed": 1})
    assert read_trajectories(tmp_path / "0").recipe == {"seed": 0}
    assert len(list(tmp_path.iterdir())) == 1
    write_trajectories(tmp_path / "0", [chunk("a"), chunk("bc")], GROUPS, LEVELS, {"seed": 2})
    assert len(list(read_trajectories(tmp_path / "0").chunks("x0"))) == 2


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([chunk("ab")], "chunks hold 2 samples, not the 3 of groups once and in order, first: c$"),
        ([chunk("c"), chunk("ab")], "not the 3 of groups once and in order, first: c, a, b$"),
        ([chunk("abc"), chunk("c")], "chunks hold 4 samples"),
        ([chunk("abc", x0=np.zeros((3, 3, 4, 2, 2)))], "x0 is float64 of shape"),
        (
            [chunk("abc", latents=np.zeros((3, 2, 4, 2, 2), np.float32))],
            r"that begin with \(3, 3\): samples",
        ),
        ([chunk("ab"), chunk("c", images=np.zeros((1, 3, 4, 4, 3), np.float16))], "chunk_0001.safetensors: tensors of"),
        ([chunk("abc", noise=np.zeros(3))], "expected latents, x0, images, x0_images and perhaps class_tokens"),
        ([Chunk(("a", "b", "c"), {"x0": chunk("abc").arrays["x0"]})], "tensors x0; expected"),
    ],
)
def test_what_are_no_trajectories_is_refused(parts: list[Chunk], said: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=said):
        write_trajectories(tmp_path / "0", parts, GROUPS, LEVELS, {})
    assert not (tmp_path / "0").exists()


def test_no_samples_and_levels_that_do_not_end_at_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no samples"):
        write_trajectories(tmp_path / "0", [], {}, LEVELS, {})
    for levels in (LEVELS[:2], LEVELS[2:]):
        with pytest.raises(StoreError, match="expected at least 2, of which the last is t = 0"):
            write_trajectories(tmp_path / "0", [chunk("abc")], GROUPS, levels, {})


def test_folders_that_are_not_whole_and_newer_formats_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    with pytest.raises(StoreError, match="missing, so the folder is not whole"):
        read_trajectories(folder)
    write_trajectories(folder, [chunk("ab"), chunk("c")], GROUPS, LEVELS, {})
    whole = read_trajectories(folder)
    with pytest.raises(StoreError, match="x0 is float32 of 2 samples, not of 3"):
        list(replace(whole, members=(("chunk_0000.safetensors", 3),)).chunks("x0"))
    (folder / "chunk_0001.safetensors").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"chunk_0001.safetensors: cannot be read as a folder of trajectories"):
        list(whole.chunks())
    (folder / "chunk_0001.safetensors").unlink()
    with pytest.raises(StoreError, match=r"chunk_0001.safetensors: missing"):
        read_trajectories(folder)
    manifest = folder / "trajectories.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "groups": ["x"]}))
    with pytest.raises(StoreError, match="names, groups and chunks are of 1, 3 samples"):
        read_trajectories(folder)
    manifest.write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(StoreError, match="format 2 is not known here"):
        read_trajectories(folder)
