"""A full disk, results that may not be written, two calls at once: each is said, and a later call finishes."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Workflow
from kills import Running, digests

from diffalign.io import atomic, feature_files, tables, trajectory_files
from diffalign.io.safetensors_files import save_file
from diffalign.io.shard_files import Shard, Shards
from diffalign.io.training_checkpoints import TrainingCheckpoint
from diffalign.noise import NoiseLevel

MATRICES = "results/alignment/photographs/clean/dinov2_vs_siglip2.npz"


def lacking(why: str) -> None:
    """Skip the test, or fail it in CI, which runs as root and may mount."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def mount(*arguments: str) -> None:
    """Call mount. Skips the test where that is not allowed."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lacking(f"no file system of a given size can be made here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, which a test may mount anew with another size."""
    if os.geteuid():
        lacking("only root makes a file system of a given size")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


LARGE = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
NAMES = tuple(f"i{row}" for row in range(1000))


def trajectories(path: Path) -> None:
    arrays = {key: np.zeros((1, 2, 3, 200, 200), np.float32) for key in ("latents", "x0")}
    arrays |= {key: np.zeros((1, 2, 200, 200, 3), np.float16) for key in ("images", "x0_images")}
    levels = (NoiseLevel(0.0, 1.0, 1000.0), NoiseLevel(1.0, 0.0, 0.0))
    trajectory_files.write_trajectories(path, [trajectory_files.Chunk(("a",), arrays)], {"a": "g"}, levels, {})


def array(path: Path) -> None:
    with atomic.replacing(path) as temporary:
        np.save(temporary, LARGE)


def tensors(path: Path) -> None:
    with atomic.replacing(path) as temporary:
        save_file({"a": torch.from_numpy(LARGE)}, temporary)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text.txt": lambda path: atomic.write_text(path, "word " * 10**6),
    "arrays.npz": lambda path: atomic.write_arrays(path, {"a": LARGE}),
    "array.npy": array,
    "tensors.safetensors": tensors,
    "features.pt": lambda path: feature_files.write_features(path, feature_files.Features(LARGE, NAMES, {})),
    "state.pt": lambda path: TrainingCheckpoint(path).write({"a": torch.from_numpy(LARGE)}),
    "table.parquet": lambda path: tables.write_parquet(pd.DataFrame(LARGE, columns=NAMES), path),
    "table.tsv": lambda path: tables.write_tsv(pd.DataFrame(LARGE, columns=NAMES), path),
    "trajectories": trajectories,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_with_the_file_that_did_not_fit(name: str, disk: Path) -> None:
    with pytest.raises(OSError, match=rf"No space left on device: '.*/disk/{name}'"):
        WRITERS[name](disk / name)
    assert list(disk.iterdir()) == []


def test_shards_on_a_full_disk_are_said_and_none_is_half(disk: Path) -> None:
    shards = Shards(disk / "job", {})
    with pytest.raises(OSError, match="No space left on device: '.*000000.safetensors'"):
        shards.append(Shard({"a": LARGE}, {}))
    assert list(Shards(disk / "job", {}).finished()) == []


def test_a_study_goes_on_once_the_disk_has_room(fresh: Workflow, finished: Workflow, disk: Path) -> None:
    workflow = Workflow(fresh.tree, disk / "work", fresh.studies)
    mount("-o", "remount,size=4m", str(disk))
    full = workflow.run(MATRICES)
    assert full.code != 0
    assert "No space left on device" in full.output
    mount("-o", "remount,size=200m", str(disk))
    done = workflow.run(MATRICES)
    if "--unlock" in done.output:
        assert workflow.run(MATRICES, options=["--unlock"]).code == 0
        done = workflow.run(MATRICES)
    assert done.code == 0, done.output
    found, expected = digests(workflow.directory), digests(finished.directory)
    assert MATRICES in found
    assert {path: expected[path] for path in found} == found


def test_results_that_may_not_be_written_are_said_before_any_job(fresh: Workflow, disk: Path) -> None:
    workflow = Workflow(fresh.tree, disk / "work", fresh.studies)
    target = "results/images/photographs/clean/manifest.tsv"
    mount("-o", "remount,size=50m", str(disk))
    (disk / "work").mkdir()
    mount("-o", "remount,ro", str(disk))
    refused = workflow.run(target)
    assert refused.code != 0
    assert "Read-only file system" in refused.output
    mount("-o", "remount,rw", str(disk))
    assert workflow.run(target).code == 0


def test_of_two_calls_at_once_the_second_says_so_and_harms_nothing(
    fresh: Workflow, finished: Workflow, tmp_path: Path
) -> None:
    first = Running(fresh.command(MATRICES), fresh.tree, tmp_path)
    locks = fresh.directory / ".snakemake" / "locks"
    deadline = time.monotonic() + 60
    while not (locks.is_dir() and any(locks.iterdir())):
        assert time.monotonic() < deadline, "the first call never began"
        time.sleep(0.02)
    second = fresh.run(MATRICES)
    assert second.code != 0
    assert "cannot be locked" in second.output
    code, said = first.ended()
    assert code == 0, said
    found, expected = digests(fresh.directory), digests(finished.directory)
    assert {path: expected[path] for path in found} == found
