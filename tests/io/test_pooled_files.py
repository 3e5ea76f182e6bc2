"""Features of the states of a sampler as a file."""

from pathlib import Path

import numpy as np
import pytest

from diffalign.io.headers import StoreError
from diffalign.io.pooled_files import read_pooled, write_pooled
from diffalign.noise import NoiseLevel

LEVELS = tuple(NoiseLevel(1 - t, t, t) for t in (1.0, 0.5, 0.0))
GROUPS = {"0/a": "cat", "0/b": "dog", "1/a": "cat"}
LAYERS = ("embed", "b0")


def features() -> dict[tuple[int, str], np.ndarray]:
    random = np.random.default_rng(0)
    return {
        (step, layer): random.standard_normal((3, 2 + (layer == "b0"))).astype(np.float32)
        for step in (0, 1)
        for layer in LAYERS
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, written = tmp_path / "pooled.safetensors", features()
    write_pooled(path, written, GROUPS, LAYERS, LEVELS, {"model": {"name": "sit"}})
    pooled = read_pooled(path)
    assert (pooled.names, pooled.groups) == (tuple(GROUPS), ("cat", "dog", "cat"))
    assert (pooled.layers, pooled.steps, pooled.levels) == (LAYERS, (0, 1), LEVELS)
    assert pooled.recipe == {"model": {"name": "sit"}}
    for (step, layer), values in written.items():
        np.testing.assert_array_equal(pooled.values(step, layer), values)
        assert pooled.values(step, layer).dtype == np.float32


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pooled.safetensors"
    write_pooled(path, features(), GROUPS, LAYERS, LEVELS, {})
    with pytest.raises(StoreError, match=r"no layer 'b1' at step 0; steps: 0, 1; layers: embed, b0"):
        read_pooled(path).values(0, "b1")
    with pytest.raises(StoreError, match="at step 2"):
        read_pooled(path).values(2, "b0")


def test_undefined_features_are_named_and_not_written(tmp_path: Path) -> None:
    path, written = tmp_path / "pooled.safetensors", features()
    written[1, "b0"][2, 0] = np.nan
    with pytest.raises(StoreError, match=r"layer b0 at step 1 is NaN or infinite for 1/a"):
        write_pooled(path, written, GROUPS, LAYERS, LEVELS, {})
    assert not path.exists()


def test_features_of_other_rows_or_steps_are_refused(tmp_path: Path) -> None:
    path, written = tmp_path / "pooled.safetensors", features()
    with pytest.raises(StoreError, match=r"has shape \(3, 2\) for 2 names"):
        write_pooled(path, written, {"0/a": "cat", "0/b": "dog"}, LAYERS, LEVELS, {})
    del written[1, "b0"]
    with pytest.raises(StoreError, match="features of 3 steps and layers"):
        write_pooled(path, written, GROUPS, LAYERS, LEVELS, {})
    (tmp_path / "other").write_bytes(b"no file of tensors")
    with pytest.raises(StoreError, match="cannot be read as a file of features"):
        read_pooled(tmp_path / "other")
