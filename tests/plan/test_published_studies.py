"""The profiles of published studies: what each plans, and what it computes of files in the published layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Workflow
from test_compare import clamped, massive, published_cknna
from test_graph import snakemake

PROFILE = ("--profile", "profiles/local", "--configfile", "config.yaml")
# a published study on crops of photographs, by networks with random weights
MINIATURES = {
    "defaults": {"dataset": "photographs", "weights": "miniature"},
    "datasets": {"photographs": {"per_photograph": 3}},
    "study": {"datasets": ["photographs"]},
    "alignment": {"permutations": 19, "k_max": 20},
    "compute": {"device": "cpu", "workers": 0},
}
ENCODERS = ("dinov2", "dinov2_l", "dinov2_g", "siglip2")
AUTOENCODERS = ("sdvae", "vavae", "vfmvae")
DIFFUSION = ("sit", "repa", "reg", "lightningdit", "reg_vfmvae", "lightningdit_vfmvae")


def test_vfm_vae_is_planned_with_clean_latents_for_diffusion_models_and_six_conditions_for_others(
    tmp_path: Path,
) -> None:
    planned = snakemake(tmp_path, *PROFILE, "profiles/vfmvae/study.yaml", "-n", "--", "all")
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    assert {name: jobs[f"extract_{name}"] for name in (*ENCODERS, *AUTOENCODERS)} == dict.fromkeys(
        (*ENCODERS, *AUTOENCODERS), 6
    )
    # diffusion models see noisy latents of clean images, REG the class token, too
    assert {name: jobs[f"extract_{name}"] for name in (*DIFFUSION, "dinov2_cls")} == dict.fromkeys(
        (*DIFFUSION, "dinov2_cls"), 1
    )
    assert (jobs["images"], jobs["transformed_images"], jobs["latents"], jobs["weights"]) == (1, 5, 3, 14)
    # every autoencoder and diffusion model beside every encoder, by one metric
    assert jobs["align_layers"] == len(ENCODERS) * (len(AUTOENCODERS) + len(DIFFUSION))
    assert jobs["se_cknna"] == len(ENCODERS) * len(AUTOENCODERS)
    assert "results/se_cknna/imagenet/dinov2.g_vs_vfmvae.npy" in planned.outputs()


def test_published_features_of_vfm_vae_need_no_model_and_images_only_where_they_are_shown(tmp_path: Path) -> None:
    overlay = (*PROFILE, "profiles/vfmvae/published.yaml", "-n", "--")
    planned = snakemake(tmp_path, *overlay, "all", "results/images/transformed/noise_0.050/manifest.tsv")
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    models = [f"import_{name}_published" for name in (*ENCODERS, *AUTOENCODERS)]
    assert {name: jobs[name] for name in models} == dict.fromkeys(models, 6)
    assert (jobs["se_cknna"], jobs["align_layers"]) == (12, 12)
    assert not {"weights", "latents"} & set(jobs)
    assert (jobs["archive"], jobs["images"], jobs["transformed_images"]) == (1, 1, 1)


def test_the_score_of_published_files_is_what_the_script_prints(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work", ("profiles/vfmvae/published.yaml",))
    folder = workflow.directory / "data/vfm-vae/alignment_analysis/features"
    folder.mkdir(parents=True)
    sides, names = massive(), [f"n0144_{i:03d}" for i in range(200)]
    for side, prefix in zip(sides, ("dinov2_giant", "vfm_vae_40m"), strict=True):
        content = {"features": torch.from_numpy(side), "names": names}
        torch.save(content, folder / f"{prefix}_noise_0.050.pt")
    target = "results/cknna/transformed/noise_0.050/dinov2.g.published_vs_vfmvae.published.npy"
    done = workflow.run(target)
    assert done.code == 0, done.output
    both = [clamped(x, float(np.sort(np.abs(x).ravel())[int(0.95 * x.size)])) for x in sides]
    printed = published_cknna(*both, 10, 1e-6)
    assert float(np.load(workflow.directory / target)) == pytest.approx(printed, abs=1e-5)


def test_the_study_of_vfm_vae_runs_on_miniatures_and_its_exports_give_its_score(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work", ("profiles/vfmvae/study.yaml",))
    score = "results/cknna/photographs/equivariance/dinov2_vs_vavae.npy"
    exports = [f"results/export/vfmvae/photographs/equivariance/{name}.pt" for name in ("dinov2", "vavae")]
    done = workflow.run(
        score, "results/cknna/photographs/clean/dinov2_vs_reg.vfmvae_b8.npy", *exports, overlay=MINIATURES
    )
    assert done.code == 0, done.output
    sides = [torch.load(workflow.directory / path, weights_only=True) for path in exports]
    assert sides[0]["names"] == sides[1]["names"]
    features = [side["features"].numpy() for side in sides]
    both = [clamped(x, float(np.sort(np.abs(x).ravel())[int(0.95 * x.size)])) for x in features]
    assert float(np.load(workflow.directory / score)) == pytest.approx(published_cknna(*both, 10, 1e-6), abs=1e-5)
