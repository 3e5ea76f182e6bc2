"""Files of samples: what is written is read, and what is no such file is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffalign.io.headers import StoreError
from diffalign.io.sample_files import KIND, Samples, read_samples, write_samples


def samples() -> Samples:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
    labels, seeds = np.array([0, 1, 0, 1]), np.array([0, 0, 7, 7])
    return Samples(images, ("a", "b", "a", "b"), labels, seeds, {"model": "net"})


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = samples()
    write_samples(tmp_path / "s.safetensors", written)
    found = read_samples(tmp_path / "s.safetensors")
    assert (found.names, dict(found.recipe)) == (written.names, {"model": "net"})
    for key in ("images", "labels", "seeds"):
        np.testing.assert_array_equal(getattr(found, key), getattr(written, key))
    (first, images, labels), (second, others, _) = found.by_seed()
    assert (first, second) == (0, 7)
    assert labels.tolist() == [0, 1]
    np.testing.assert_array_equal(images["b"], written.images[1])
    np.testing.assert_array_equal(others["b"], written.images[3])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((4, 5, 5), np.uint8)}, r"images are uint8 of shape \(4, 5, 5\)"),
        ({"images": np.zeros((4, 5, 5, 3), np.float32)}, "images are float32"),
        ({"images": np.zeros((3, 5, 5, 3), np.uint8)}, r"expected uint8 \(4, H, W, 3\)"),
        ({"labels": np.array([0, 1])}, r"labels have shape \(2,\)"),
        ({"seeds": np.array([7, 7, 0, 0])}, "not in order of seed and name"),
        ({"names": ("a", "a", "b", "b")}, "samples stand twice"),
        ({"names": ("a", "b", "a", "c")}, "seeds have other samples than each other"),
    ],
)
def test_what_are_no_samples_is_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=said):
        write_samples(tmp_path / "s.safetensors", replace(samples(), **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "s.safetensors").exists()


def test_broken_files_and_newer_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    write_samples(path, samples())
    content = load_file(path)
    save_file(content, path, {"format": str(KIND.format + 1), "recipe": "{}"})
    with pytest.raises(StoreError, match="format 2 is not known here"):
        read_samples(path)
    del content["labels"]
    save_file(content, path, {"format": str(KIND.format), "recipe": "{}"})
    with pytest.raises(StoreError, match="cannot be read as a file of samples"):
        read_samples(path)
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="cannot be read as a file of samples"):
        read_samples(path)
