"""A training in the graph: killed with Snakemake and gone on with; workers and the order of files; what is refused."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import Workflow
from PIL import Image

MODEL = "tiny.vit"
TARGET = f"results/training/{MODEL}/losses.tsv"
STATE = f"results/checkpoints/training/{MODEL}"
IMAGES = 440
TRAINING: dict[str, Any] = {
    "dataset": "tinted",
    "loss": "classification",
    "steps": 600,
    "checkpoints": [0, 20, 600],
    "batch_size": 16,
    "learning_rate": 0.003,
    "ema": 0.9,
}


def overlay(folder: Path, training: Mapping[str, Any] = {}, classes: int = 4, **compute: Any) -> dict[str, Any]:
    """A classifier of the images in a folder."""
    architecture = {
        "architecture": "vit_tiny_patch16_224",
        "img_size": 32,
        "patch_size": 16,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": classes,
        "proj_drop_rate": 0.1,
    }
    return {
        "datasets": {"tinted": {"kind": "folder", "path": str(folder), "size": 32, "labels": "prefix"}},
        "models": {
            MODEL: {
                "family": "timm_vision",
                "weights": {"from": "training"},
                "training": {**TRAINING, **training},
                "architecture": architecture,
                "input": {"size": 32},
                "layers": {"final": "norm"},
                "default_layer": "final",
            }
        },
        "compute": compute,
    }


def tinted(folder: Path, numbers: range = range(IMAGES), classes: int = 4) -> Path:
    """Images of noise with a tint that is their class, written in the order of `numbers`."""
    folder.mkdir()
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., number % 3] += np.uint8(40 * (number % classes))
        Image.fromarray(pixels).save(folder / f"class{number % classes}_{number}.png")
    return folder


def digests(workflow: Workflow) -> dict[str, str]:
    """What the training wrote: all files of checkpoints, and the losses."""
    folder = workflow.directory / f"results/training/{MODEL}"
    files = [*folder.glob("*/checkpoint/*"), folder / "losses.tsv"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_in_training(running: subprocess.Popen[bytes], folder: Path) -> None:
    """Send SIGKILL to Snakemake and to all below it once the training has written a state."""
    deadline = time.monotonic() + 120
    while not (folder / "state.pt").exists():
        assert running.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < deadline, "the training never began"
        time.sleep(0.01)
    children = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    assert any("train.py" in " ".join(child.cmdline()) for child in children)
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=30)


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(fresh: Workflow, tmp_path: Path) -> None:
    # images in memory, written in one order
    given = overlay(tinted(tmp_path / "images"), workers=0)
    with subprocess.Popen(
        fresh.command(TARGET, overlay=given), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=fresh.tree
    ) as running:
        kill_in_training(running, fresh.directory / STATE)
    assert not (fresh.directory / TARGET).exists()
    locked = fresh.run(TARGET, overlay=given)
    assert locked.code != 0
    assert "--unlock" in locked.output
    assert fresh.run(TARGET, options=["--unlock"], overlay=given).code == 0
    done = fresh.run(TARGET, overlay=given)
    assert done.code == 0, done.output
    log = (fresh.directory / f"logs/train/{MODEL}.log").read_text()
    assert f"{MODEL}: goes on after step 20" in log
    assert not (fresh.directory / STATE).exists()
    killed = digests(fresh)
    assert {path.split("/")[0] for path in killed} == {"0", "20", "600", "losses.tsv"}
    # read for every step by workers, written in the other order
    other = Workflow(fresh.tree, tmp_path / "other")
    streamed = overlay(tinted(tmp_path / "again", range(IMAGES - 1, -1, -1)), workers=2, memory_mb=10)
    assert other.run(TARGET, overlay=streamed).code == 0
    assert "are read for every step, by 2 workers" in (other.directory / f"logs/train/{MODEL}.log").read_text()
    assert digests(other) == killed


@pytest.mark.parametrize(
    ("training", "images", "classes", "said"),
    [
        ({"batch_size": 64}, 40, 4, "a batch of 64 images is larger than the data set, which has 40"),
        ({}, 40, 3, "; num_classes of the architecture must be the number of classes"),
        ({"learning_rate": 1e9, "warmup": 0}, 40, 4, "lower learning_rate, raise warmup or set clip; the last whole"),
    ],
)
def test_what_cannot_be_trained_is_said_once_and_leaves_no_checkpoint(
    training: Mapping[str, Any], images: int, classes: int, said: str, fresh: Workflow, tmp_path: Path
) -> None:
    given = overlay(tinted(tmp_path / "images", range(images)), training, classes, workers=0)
    refused = fresh.run(TARGET, overlay=given)
    assert refused.code != 0
    assert said in refused.output, refused.output
    assert not list((fresh.directory / "results/training").glob("*/*/checkpoint"))
