"""Headers of all kinds of files: versions, broken files, and files that were written before."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffalign.io import (
    calibration_files,
    factor_files,
    feature_files,
    human_files,
    language_files,
    matrices,
    neighbor_files,
    prompt_files,
    score_recipes,
    token_files,
)
from diffalign.io.checkpoints import read_record
from diffalign.io.headers import FileKind, StoreError, packed, packed_as_text

KIND = FileKind("a test file", 2)


def write_json_header(path: Path, version: object) -> Path:
    path.write_text(json.dumps({"format": version, "names": ["a"]}))
    return path


def write_archive(path: Path, version: object) -> Path:
    np.savez(path, **packed({"format": version, "names": ["a"]}), values=np.arange(3), other=np.arange(2))
    return path


def write_safetensors(path: Path, version: object) -> Path:
    save_file({"values": torch.arange(3)}, path, metadata={"format": str(version)})
    return path


def tokens(path: Path) -> object:
    return token_files.read_tokens(path.parent)


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("layers.json", write_json_header, feature_files.read_bundle),
        ("layers.json", write_json_header, tokens),
        ("x.json", write_json_header, language_files.read_texts),
        ("x.json", write_json_header, language_files.read_quality),
        ("x.json", write_json_header, score_recipes.read_recipe),
        ("weights.json", write_json_header, read_record),
        ("x.npz", write_archive, neighbor_files.read_neighbors),
        ("x.npz", write_archive, lambda path: calibration_files.read_calibrations(path, ["cknna"])),
        ("x.npz", write_archive, lambda path: matrices.read_layer_matrices(path, ["cknna"])),
        ("x.npz", write_archive, human_files.read_people),
        ("x.npz", write_archive, lambda path: factor_files.read_factors(path, "b0", ["a"])),
        ("x.safetensors", write_safetensors, prompt_files.read_prompts),
    ],
)
def test_every_kind_of_file_names_an_unknown_version(
    name: str, write: Callable[[Path, object], Path], read: Callable[[Path], object], tmp_path: Path
) -> None:
    for version in (99, 0):
        with pytest.raises(StoreError, match=rf"{name}: format {version} is not known here \(a.*: 1 to \d\); delete"):
            read(write(tmp_path / name, version))
    (tmp_path / name).write_bytes(b"not such a file")
    with pytest.raises(StoreError, match=f"{name}: cannot be read as a"):
        read(tmp_path / name)


def test_older_versions_are_read(tmp_path: Path) -> None:
    assert KIND.read_json(write_json_header(tmp_path / "x.json", 1)) == {"format": 1, "names": ["a"]}
    header, arrays = KIND.read_archive(write_archive(tmp_path / "x.npz", 1))
    assert (header["format"], sorted(arrays)) == (1, ["other", "values"])
    assert KIND.read_metadata(write_safetensors(tmp_path / "x.safetensors", 1)) == {"format": "1"}
    for version in (3, "1", True, None):
        with pytest.raises(StoreError, match=r"x.json: format .* is not known here \(a test file: 1 to 2\)"):
            KIND.read_json(write_json_header(tmp_path / "x.json", version))


def test_an_archive_gives_the_arrays_that_are_asked_for(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.npz", 2)
    assert KIND.read_archive(path, ["other", "absent"])[1].keys() == {"other"}
    assert KIND.read_archive(path, ())[1] == {}
    np.savez(path, values=np.arange(3))
    with pytest.raises(StoreError, match=r"x.npz: cannot be read as a test file \(.*header"):
        KIND.read_archive(path)


def test_a_header_is_read_as_bytes_and_as_text(tmp_path: Path) -> None:
    header = KIND.header(names=["ä"])
    for name, members in (("bytes", packed(header)), ("text", packed_as_text(header))):
        np.savez(tmp_path / f"{name}.npz", **members)  # type: ignore[arg-type]
        assert KIND.read_archive(tmp_path / f"{name}.npz")[0] == {"format": 2, "names": ["ä"]}


def test_what_is_no_mapping_and_what_is_absent(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(StoreError, match="x.json: holds a list, so it is not a test file"):
        KIND.read_json(tmp_path / "x.json")
    for read in (KIND.read_json, KIND.read_archive, KIND.read_metadata):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone")
