"""Denoising dynamics in the graph: from checkpoints to all tables and figures, and what is made again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from conftest import Workflow
from PIL import Image
from test_samples_graph import overlay

from diffalign.io.trajectory_files import read_trajectories

RESULTS = "results/dynamics/mine@300/plain"
FIGURES = "results/figures/dynamics"
TARGETS = [
    *(f"{FIGURES}/mine@300/plain/{name}.png" for name in ("trajectory_sheet", "spectra/images", "curves", "wavelets")),
    *(f"{FIGURES}/mine@300/plain/{name}" for name in ("layer_steps.png", "layer_statistics.png", "animation.gif")),
    *(f"{RESULTS}/{name}.tsv" for name in ("contributions", "alignment", "attention")),
    "results/tables/emergence.tsv",
    f"{FIGURES}/emergence.png",
]


def with_dynamics(folder: Path, **changes: Any) -> dict[str, Any]:
    given = overlay(folder)
    given.pop("samples")
    given["models"]["own.gaussian"] = {
        "family": "gaussian",
        "weights": {"from": "latents", "dataset": "held"},
        "latents": "sdvae",
        "noise": "t0.5",
        "path": "linear",
        "layers": {"estimate": "estimate"},
        "default_layer": "estimate",
    }
    given["dynamics"] = {
        "permutations": 100,
        "configurations": {
            "plain": {
                "models": ["mine", "own.gaussian"],
                "dataset": "held",
                "steps": 4,
                "guidance": 2,
                "samples": 12,
                "seeds": [0, 1],
                "reference": "own.vit_b1",
                "ablations": {"windows": 2, "samples": 4},
            }
        },
    }
    return given


def changed(given: Mapping[str, Any], **entry: Any) -> dict[str, Any]:
    plain = {**given["dynamics"]["configurations"]["plain"], **entry}
    return {**given, "dynamics": {**given["dynamics"], "configurations": {"plain": plain}}}


def test_trajectories_are_made_measured_and_shown(fresh: Workflow, tmp_path: Path) -> None:
    given = with_dynamics(tmp_path / "own")
    made = fresh.run(*TARGETS, overlay=given)
    assert made.code == 0, made.output
    assert made.jobs()["trajectories"] == 4
    work = fresh.directory
    for seed in (0, 1):
        trajectories = read_trajectories(work / RESULTS / "trajectories" / str(seed))
        assert len(trajectories.names) == 12
        assert [level.t for level in trajectories.levels] == [1, 0.75, 0.5, 0.25, 0]
        assert trajectories.recipe["configuration"]["guidance"] == 2
    tables = {path.stem: pd.read_csv(path, sep="\t") for path in (work / RESULTS).glob("*.tsv")}
    assert {"curves", "spectra", "times", "order", "activations", "associations", "readouts"} <= set(tables)
    for name, table in tables.items():
        assert set(table["model"]) <= {"mine@300"}, name
    assert set(tables["curves"]["step"]) == set(range(5))
    assert set(tables["contributions"]["part"]) == {"layer", "attention", "mlp"}
    assert set(tables["alignment"]["layer"]) == {"b0", "b1", "b2"}
    emergence = pd.read_csv(work / "results/tables/emergence.tsv", sep="\t")
    assert {"mine@300", "own.gaussian"} <= set(emergence["model"])
    assert json.loads((work / RESULTS / "images.json").read_text())["format"] == 1
    for target in TARGETS:
        if target.endswith(("png", "gif")):
            with Image.open(work / target) as image:
                assert min(image.size) > 100, target
    # nothing is left to do; a seed more makes only its own trajectories, and another scale of guidance all
    assert fresh.plan(*TARGETS, overlay=given).jobs() == {}
    more = fresh.plan(*TARGETS, overlay=changed(given, seeds=[0, 1, 2])).jobs()
    assert more["trajectories"] == 2
    assert more["image_dynamics"] == 2
    assert "dynamics_recipe" not in more
    again = fresh.plan(*TARGETS, overlay=changed(given, guidance=3)).jobs()
    assert again["trajectories"] == 4
    assert "latents" not in again
    again = fresh.plan(*TARGETS, overlay=changed(given, ablations={"windows": 1, "samples": 4})).jobs()
    assert set(again) == {"contributions", "layer_steps_figure"}
