"""Samples in the graph: from a user's own checkpoints to sheets and the table, and what is made again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from conftest import Workflow
from PIL import Image
from test_latent_transformers import checkpoint, published

from diffalign.io.sample_files import read_samples
from diffalign.models.families import timm_vision

# ten features, which stand for the logits of ten classes
NARROW = {"architecture": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 16, "embed_dim": 10, "depth": 2}
TABLE = "results/tables/sample_quality.tsv"
SHEET = "results/figures/held/clean/samples/mine.png"


def overlay(folder: Path) -> dict[str, Any]:
    """A SiT of ten classes at two steps, an encoder, and 30 images of ten classes."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "sit").mkdir()
    for n in range(30):
        pixels = random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n % 10}_{n}.png")
    checkpoint("sit", folder / "sit")
    (folder / "sit" / "last.pt").rename(folder / "sit" / "0000.pt")
    checkpoint("sit", folder / "sit")
    (folder / "sit" / "last.pt").rename(folder / "sit" / "0300.pt")
    timm_vision.make_miniature({**NARROW, "num_heads": 2}, folder / "vit", 0)
    keys = (
        "input_size",
        "in_channels",
        "patch_size",
        "hidden_size",
        "depth",
        "num_heads",
        "num_classes",
        "learn_sigma",
    )
    return {
        "datasets": {"held": {"kind": "folder", "path": str(folder / "images"), "size": 64, "labels": "prefix"}},
        "models": {
            "mine": {
                "family": "sit",
                "weights": {"from": "file", "path": str(folder / "sit" / "{step}.pt"), "steps": "all"},
                "architecture": {key: published("sit")[0]["config"][key] for key in keys},
                "latents": "sdvae",
                "noise": "t0.5",
                "path": "linear",
                "conditionings": ["uncond", "label"],
                "layers": {"b{0..2}": "blocks.{}"},
                "default_layer": "b1",
            },
            "sdvae": {"latent_statistics": "measured"},
            "own.vit": {
                "family": "timm_vision",
                "weights": {"from": "folder", "folder": str(folder / "vit")},
                "input": {"size": 32},
                "layers": {"b{0..1}": "blocks.{}"},
                "default_layer": "b1",
            },
        },
        "samples": {
            "models": ["mine"],
            "dataset": "held",
            "sampler": "euler",
            "steps": 2,
            "per_class": 2,
            "seeds": [0, 5],
            "classifier": "own.vit_b1",
            "features": "own.vit_b0",
            "neighbors": 3,
        },
    }


def changed(given: Mapping[str, Any], **samples: Any) -> dict[str, Any]:
    return {**given, "samples": {**given["samples"], **samples}}


def test_samples_of_all_checkpoints_are_made_measured_and_shown(fresh: Workflow, tmp_path: Path) -> None:
    given = overlay(tmp_path / "own")
    planned = fresh.plan(TABLE, SHEET, overlay=given).jobs()
    assert {name: planned[name] for name in ("samples", "sample_quality", "extract_own_vit", "latents")} == {
        "samples": 2,
        "sample_quality": 2,
        "extract_own_vit": 1,
        "latents": 1,
    }
    made = fresh.run(TABLE, SHEET, overlay=given)
    assert made.code == 0, made.output
    work = fresh.directory
    table = pd.read_csv(work / TABLE, sep="\t")
    assert set(zip(table["model"], table["step"], strict=True)) == {("mine", 0), ("mine", 300)}
    # both steps have the same weights here, and so, from the same noise, the same samples
    values = table.pivot_table(index="measure", columns="step", values="value")
    np.testing.assert_allclose(values[0], values[300])
    drawn = [read_samples(work / f"results/samples/held/mine@{step}.safetensors") for step in (0, 300)]
    np.testing.assert_array_equal(drawn[0].images, drawn[1].images)
    assert (work / SHEET).with_suffix(".pdf").exists()
    # nothing is left to do, and only what depends on a key is done again
    assert fresh.plan(TABLE, SHEET, overlay=given).jobs() == {}
    again = fresh.plan(TABLE, SHEET, overlay=changed(given, neighbors=2)).jobs()
    assert set(again) == {"sample_quality", "sample_quality_table", "sample_sheet_figure"}
    again = fresh.plan(TABLE, overlay=changed(given, guidance=2.0)).jobs()
    assert set(again) == {"samples_recipe", "samples", "sample_quality", "sample_quality_table"}
    # a file that was replaced is measured again, and no other
    first = tmp_path / "own/sit/0000.pt"
    whole, times = first.read_bytes(), first.stat()
    changed_weights = torch.load(first, weights_only=True)
    changed_weights["ema"]["final_layer.linear.bias"] += 0.1
    torch.save(changed_weights, first)
    again = fresh.plan(TABLE, overlay=given).jobs()
    assert (again["samples"], again["sample_quality"], again["weights"]) == (1, 1, 1)
    first.write_bytes(whole)
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fresh.plan(TABLE, SHEET, overlay=given).jobs() == {}
    # a training that has gone on adds its checkpoint and leaves the others
    (tmp_path / "own/sit/0600.pt").write_bytes((tmp_path / "own/sit/0300.pt").read_bytes())
    more = fresh.plan(TABLE, overlay=given).jobs()
    assert (more["samples"], more["sample_quality"], more["weights"]) == (1, 1, 1)


def test_a_table_of_the_user_s_needs_no_samples(fresh: Workflow, tmp_path: Path) -> None:
    given = changed(overlay(tmp_path / "own"), models=[], table=str(tmp_path / "fid.tsv"))
    (tmp_path / "fid.tsv").write_text("model\tstep\tFID\nmine\t0\t80\nmine\t300\t12.5\n")
    made = fresh.run(TABLE, overlay=given)
    assert made.code == 0, made.output
    assert made.jobs() == {"sample_quality_table": 1}
    table = pd.read_csv(fresh.directory / TABLE, sep="\t")
    assert table["value"].tolist() == [80, 12.5]
    (tmp_path / "fid.tsv").write_text("model\tstep\tFID\nmine\t7\t80\n")
    refused = fresh.run(TABLE, overlay=given)
    assert refused.code != 0
    assert "fid.tsv, line 2: mine has no step 7; its steps: 0, 300" in refused.output
