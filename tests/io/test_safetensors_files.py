"""Safetensors files: the same content is the same bytes, and new files have the permissions of others."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffalign.io.safetensors_files import save_file


@pytest.fixture(autouse=True)
def mask() -> "object":
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_metadata_stands_in_the_order_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {key: f"{key} ä \n\u2028 \\" for key in "hgfedcba"}
    written = set()
    for order in (metadata, dict(reversed(metadata.items()))):
        for _ in range(4):
            save_file({"x": torch.arange(6).reshape(2, 3), "y": torch.ones(1)}, path, order)
            written.add(path.read_bytes())
    assert len(written) == 1
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("x"), torch.arange(6).reshape(2, 3))


@pytest.mark.parametrize("metadata", [None, {"format": "1"}])
def test_others_can_read_what_umask_lets_them(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones(3, np.float32)}, path, metadata)
    assert path.stat().st_mode & 0o777 == 0o644
    os.umask(0o077)
    save_file({"x": np.ones(3, np.float32)}, path, metadata)
    assert path.stat().st_mode & 0o777 == 0o600
