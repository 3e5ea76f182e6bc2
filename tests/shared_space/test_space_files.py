"""Files of eigenvectors, colours and transforms: read as they were written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffalign.io.headers import StoreError
from diffalign.io.space_files import SpaceFile, Stage, read_space, read_transforms, write_space, write_transforms
from diffalign.shared_space.rbf import Rbf

DRAWS = np.random.default_rng(0)


def space() -> SpaceFile:
    stages = {
        name: Stage(
            DRAWS.standard_normal((2, 3, 20, 4), np.float32),
            DRAWS.standard_normal(4, np.float32),
            DRAWS.random((2, 3, 20, 3), np.float32),
        )
        for name in ("before", "after")
    }
    return SpaceFile(stages, ("a_b0", "b_b1"), ("a", "b"), ("b0", "b1"), ("x", "y", "z ü"), (4, 5))


def test_eigenvectors_and_colours_are_read_as_written(tmp_path: Path) -> None:
    written = space()
    write_space(tmp_path / "e.safetensors", written)
    found = read_space(tmp_path / "e.safetensors")
    for key in ("sets", "models", "layers", "names", "grid"):
        assert getattr(found, key) == getattr(written, key)
    assert list(found.stages) == ["before", "after"]
    for name, stage in written.stages.items():
        for key in ("vectors", "values", "rgb"):
            np.testing.assert_array_equal(getattr(found.stages[name], key), getattr(stage, key))
    with pytest.raises(ValueError, match=r"before: \(2, 3, 20, 4\) eigenvectors .* of \(2, 3, 24\)"):
        write_space(tmp_path / "e.safetensors", replace(written, grid=(4, 6)))


def test_transforms_give_the_same_features_to_the_bit(tmp_path: Path) -> None:
    transforms = {
        name: Rbf(DRAWS.standard_normal((4, width), np.float32), 0.1 + width, 2 / 3)
        for name, width in (("a_b0", 6), ("b_b1", 3))
    }
    write_transforms(tmp_path / "t.safetensors", transforms, ["x/0/0", "x/0/1", "y/2/2", "z/0/3"])
    found, keys = read_transforms(tmp_path / "t.safetensors")
    assert keys == ("x/0/0", "x/0/1", "y/2/2", "z/0/3")
    for name, transform in transforms.items():
        rows = DRAWS.standard_normal((10, transform.landmarks.shape[1]), np.float32)
        np.testing.assert_array_equal(found[name].apply(rows), transform.apply(rows))
    with pytest.raises(ValueError, match="a_b0: 4 landmarks of 3 keys"):
        write_transforms(tmp_path / "t.safetensors", transforms, ["x/0/0", "x/0/1", "y/2/2"])


def test_files_that_cannot_be_trusted_are_named(tmp_path: Path) -> None:
    broken, newer, unnamed = (tmp_path / f"{name}.safetensors" for name in ("broken", "newer", "unnamed"))
    broken.write_bytes(b"no tensors")
    save_file({"x": np.ones(1)}, newer, {"format": "9"})
    save_file({"x": np.ones(1)}, unnamed, {"format": "1"})
    with pytest.raises(StoreError, match="broken.safetensors: cannot be read as eigenvectors of tokens"):
        read_space(broken)
    with pytest.raises(StoreError, match="newer.safetensors: format 9 is not known"):
        read_transforms(newer)
    with pytest.raises(StoreError, match="unnamed.safetensors: lacks the names"):
        read_space(unnamed)
