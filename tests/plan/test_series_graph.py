"""Trainings and atlases as jobs: one for all checkpoints, one a model, and no lists of neighbours."""

from pathlib import Path
from typing import Any

from conftest import Workflow

FIGURES = "results/figures/photographs/clean"


def test_a_series_is_one_job_that_reads_features(fresh: Workflow, tmp_path: Path) -> None:
    for step in (0, 20, 40):
        (tmp_path / f"{step}.pt").touch()
    weights = {"from": "file", "path": f"{tmp_path}/{{step}}.pt", "steps": "all"}
    overlay: dict[str, Any] = {
        "models": {"own": {"like": "sit", "weights": weights}, "own.s1": {"like": "own", "seed": 1}},
        "through_training": {"recipes": {"SiT": ["own", "own.s1"]}, "reference": "dinov2_b5"},
        "atlas": {"models": ["own-label"], "reference": "dinov2_b5", "levels": [0.0, 0.5, 1.0]},
    }
    through = fresh.plan(f"{FIGURES}/through_training/cknna.png", f"{FIGURES}/training_maps/cknna.png", overlay=overlay)
    jobs = through.jobs()
    assert (jobs["training_alignment"], jobs["through_training_table"]) == (1, 1)
    assert (jobs["extract_own"], jobs["extract_own_s1"], jobs["extract_dinov2"]) == (3, 3, 1)
    atlas = fresh.plan(f"{FIGURES}/atlas/cknna/own-label.png", overlay=overlay)
    # three levels of the last checkpoint, and of its untrained twin
    assert (atlas.jobs()["atlas"], atlas.jobs()["extract_own"], atlas.jobs()["extract_pixels"]) == (1, 6, 1)
    for planned in (through, atlas):
        assert not {"neighbors", "align_layers"} & set(planned.jobs())
    refused = fresh.run(f"{FIGURES}/atlas/cknna/dinov2.png", options=["--dry-run"], overlay=overlay)
    assert "'dinov2' has no noise levels, so it has no atlas" in refused.output
