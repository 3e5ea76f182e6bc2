"""The graph: what is planned, what is planned again, and what is refused."""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Run, Workflow
from snakemake.profiles import ProfileConfigFileParser
from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

from diffalign.io.feature_files import read_features

TARGET = "results/cknna/dinov2_vs_sd3_b8.npy"
LIBRARY = "workflow_scripts/diffalign"
SINGLE = {
    "images": 1,
    "recipe": 2,
    "latents": 1,
    "prompts": 1,
    "extract_dinov2": 1,
    "extract_sd3": 1,
    "neighbors": 2,
    "alignment_settings": 1,
    "calibration_settings": 1,
    "align_default": 1,
}
OF_ALL_PAIRS = {"model_maps_figure": 1, "alignment_table": 1, "pairs_table": 1, "all": 1}
PAIRS_OF_A_MODEL = OF_ALL_PAIRS | dict.fromkeys(("align_layers", "calibrate_layers", "pair_figures"), 3)
# the score that the study names, and what looks at it closely
OF_THE_SCORE = dict.fromkeys(("align_default", "per_image", "gallery_figure", "curves_table", "curves_figure"), 1)
ALL_ALIGNMENTS = {
    **OF_ALL_PAIRS,
    **OF_THE_SCORE,
    "align_layers": 6,
    "calibrate_layers": 6,
    "pair_figures": 6,
}


def snakemake(tmp_path: Path, *arguments: str) -> Run:
    """Snakemake as a user calls it from the root of the repository, but with another working directory."""
    command = [sys.executable, "-m", "snakemake", "--directory", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return Run(done.returncode, done.stdout + done.stderr)


def test_a_single_score_plans_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    demo = snakemake(tmp_path, "--profile", "profiles/demo", "-n", TARGET)
    assert demo.code == 0, demo.output
    assert demo.jobs() == SINGLE | {"miniature_weights": 3}
    assert "siglip2" not in demo.output
    assert not (tmp_path / "results").exists()


def test_the_same_graph_is_planned_for_the_published_models(tmp_path: Path) -> None:
    real = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "--", TARGET)
    assert real.code == 0, real.output
    assert real.jobs() == SINGLE | {"weights": 3}
    assert "siglip2" not in real.output
    assert "results/features/imagenet/clean/sd3-t0.5.json" in real.outputs()


def test_a_model_that_is_told_labels_needs_no_prompts_and_reg_the_class_tokens(tmp_path: Path) -> None:
    target = "results/cknna/dinov2_vs_reg-t0.2-label_b7.npy"
    planned = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "--", target)
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    assert {rule for rule in jobs if rule.startswith("extract_")} == {
        "extract_dinov2",
        "extract_dinov2_cls",
        "extract_reg",
    }
    assert "prompts" not in jobs
    assert (jobs["weights"], jobs["latents"], jobs["neighbors"]) == (4, 1, 2)
    reg = next(part for part in planned.output.split("\n\n") if "rule extract_reg:" in part)
    assert "results/features/imagenet/clean/dinov2.cls.json" in reg
    alone = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "--", "results/cknna/dinov2_vs_sit_b8.npy").jobs()
    assert not {"prompts", "extract_dinov2_cls"} & set(alone)


@pytest.mark.parametrize("profile", ["demo", "local", "slurm"])
def test_the_whole_study_can_be_planned_under_every_profile(profile: str, tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "--profile", f"profiles/{profile}", "-n")
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    demo = profile == "demo"
    # the demo has four miniatures and the autoencoder of one, six trained transformers, their classifier, and pixels;
    # another miniature and its autoencoder give trajectories alone, two more tokens of faces
    # the study has ten models, and reads the class tokens of another and latents of one more autoencoder
    pairs, models, checkpoints = (3, 12, 9) if demo else (45, 11, 12)
    assert jobs["align_layers"] == jobs["pair_figures"] == pairs
    assert len([rule for rule in jobs if rule.startswith("extract_")]) == models
    assert jobs["miniature_weights" if demo else "weights"] == checkpoints
    # an autoencoder, too, is trained, and only other jobs read it
    assert len([rule for rule in jobs if rule.startswith("train_")]) == (8 if demo else 0)
    assert jobs.get("findings") == (1 if demo else None)


@pytest.mark.parametrize("target", ["demo", "demo-all"])
def test_what_make_runs_can_be_planned(target: str, tmp_path: Path) -> None:
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (command,) = re.findall(r"^\.venv/bin/snakemake (.*--quiet rules.*)$", said.stdout, re.MULTILINE)
    planned = snakemake(tmp_path, "--dry-run", *shlex.split(command))
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    # of the catalogue, every model that runs here
    assert len([rule for rule in jobs if rule.startswith("extract_")]) > (25 if target == "demo-all" else 8)


def test_every_job_on_the_cluster_says_its_time_memory_and_gpu(tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "--profile", "profiles/slurm", "-n").output
    blocks = [block for block in planned.split("\n[") if "\nrule " in block]
    assert len(blocks) > 20
    for block in blocks:
        rule = block.split("\nrule ")[1].split(":")[0]
        resources = next(line for line in block.splitlines() if line.strip().startswith("resources:"))
        assert "mem_mb=" in resources, rule
        assert "runtime=" in resources, rule
        assert ("gpu=1" in resources) == (rule.startswith("extract_") or rule in ("latents", "prompts", "neighbors")), (
            rule
        )


def test_jobs_go_to_the_partition_that_has_what_they_ask_for() -> None:
    class Resources(dict[str, Any]):
        __getattr__ = dict.__getitem__

    class Job(SimpleNamespace):
        def is_group(self) -> bool:
            return False

    # a profile by its full path finds the file from every working directory
    with (ROOT / "profiles/slurm/config.yaml").open() as file:
        partitions = Path(ProfileConfigFileParser().parse(file)["slurm-partition-config"])
    assert partitions.is_absolute()

    def partition(**resources: Any) -> str | None:
        job = Job(resources=Resources(resources), threads=4, name="job")
        silent = SimpleNamespace(warning=lambda *_: None, info=lambda *_: None, debug=lambda *_: None)
        found: str | None = get_best_partition(read_partition_file(partitions), job, silent)
        return found

    assert partition(mem_mb=16000, runtime=60) == "cpu"
    assert partition(mem_mb=16000, runtime=60, gpu=1) == "gpu"


def test_memory_grows_with_every_attempt(fresh: Workflow) -> None:
    overlay = {"datasets": {"mine": {"kind": "folder", "path": "/nowhere", "size": 64}}}
    target = "results/images/mine/clean/manifest.tsv"
    failed = fresh.run(target, options=["--retries", "1"], overlay=overlay)
    assert failed.code != 0
    assert "mem_mb=4000" in failed.output
    assert "mem_mb=8000" in failed.output
    assert "retries: 1" in (ROOT / "profiles/slurm/config.yaml").read_text()


# --- what is planned again ------------------------------------------------------------------------------------------


def plan(workflow: Workflow, overlay: Mapping[str, Any]) -> dict[str, int]:
    planned = workflow.plan(overlay=overlay)
    assert "missing provenance" not in planned.output
    return planned.jobs()


def test_a_finished_study_has_nothing_to_do(finished: Workflow) -> None:
    assert "Nothing to be done" in finished.plan().output


def test_a_changed_k_reruns_alignments_and_no_list(finished: Workflow) -> None:
    assert plan(finished, {"alignment": {"k": 7}}) == ALL_ALIGNMENTS | {"alignment_settings": 1}


def test_other_permutations_calibrate_again_and_measure_nothing(finished: Workflow) -> None:
    jobs = plan(finished, {"alignment": {"permutations": 50}})
    unmeasured = {rule: count for rule, count in ALL_ALIGNMENTS.items() if rule not in ("align_layers", "per_image")}
    assert jobs == {rule: count for rule, count in unmeasured.items() if rule != "gallery_figure"} | {
        "calibration_settings": 1
    }


def test_longer_lists_rerun_neighbours_and_no_extraction(finished: Workflow) -> None:
    assert plan(finished, {"alignment": {"k_max": 25}}) == ALL_ALIGNMENTS | {"neighbors": 4}


def test_a_changed_noise_level_reruns_that_model_and_what_hangs_on_it(finished: Workflow) -> None:
    jobs = plan(finished, {"models": {"sd3": {"noise": "t0.3"}}})
    assert jobs == PAIRS_OF_A_MODEL | {"recipe": 1, "extract_sd3": 1, "neighbors": 1} | OF_THE_SCORE


def test_a_new_layer_reruns_that_model_and_what_hangs_on_it(finished: Workflow) -> None:
    jobs = plan(finished, {"models": {"siglip2": {"layers": {"mlp": "encoder.layers.3.mlp"}}}})
    assert jobs == PAIRS_OF_A_MODEL | {"recipe": 1, "extract_siglip2": 1, "neighbors": 1}


def test_a_new_layer_and_a_changed_model_at_once_are_both_seen(finished: Workflow) -> None:
    overlay = {"models": {"siglip2": {"layers": {"mlp": "encoder.layers.3.mlp"}, "input": {"mean": [0.4, 0.4, 0.4]}}}}
    assert plan(finished, overlay) == PAIRS_OF_A_MODEL | {"recipe": 1, "extract_siglip2": 1, "neighbors": 1}


def test_a_new_layer_once_made_leaves_later_changes_visible(copied: Workflow) -> None:
    layer = {"models": {"siglip2": {"layers": {"mlp": "encoder.layers.3.mlp"}}}}
    target = "results/neighbors/photographs/clean/siglip2.npz"
    done = copied.run(target, overlay=layer)
    assert done.code == 0, done.output
    assert "Nothing to be done" in copied.plan(target, overlay=layer).output
    changed = {"models": {"siglip2": {**layer["models"]["siglip2"], "input": {"mean": [0.4, 0.4, 0.4]}}}}
    assert copied.plan(target, overlay=changed).jobs() == {"recipe": 1, "extract_siglip2": 1, "neighbors": 1}


def test_a_new_metric_and_a_changed_preparation_rerun_all_alignments(finished: Workflow) -> None:
    jobs = plan(finished, {"alignment": {"metrics": ["cknna", "mutual_knn"], "center": True}})
    assert jobs == ALL_ALIGNMENTS | {
        "align_default": 2,
        "neighbors": 4,
        "metrics_settings": 1,
    }


def test_a_new_metric_and_a_changed_eps_rerun_all_alignments(finished: Workflow) -> None:
    jobs = plan(finished, {"alignment": {"metrics": ["cknna", "mutual_knn"], "eps": 1e-6}})
    settings = {"alignment_settings": 1, "metrics_settings": 1}
    assert jobs == ALL_ALIGNMENTS | {"align_default": 2} | settings


def test_a_new_metric_alone_recomputes_no_list(finished: Workflow) -> None:
    jobs = plan(finished, {"alignment": {"metrics": ["cknna", "mutual_knn"]}})
    # galleries and rows an image are made from lists alone
    assert jobs == {
        rule: count for rule, count in ALL_ALIGNMENTS.items() if rule not in ("gallery_figure", "per_image")
    } | {"metrics_settings": 1}


SETTINGS = {"alignment_settings": 1, "calibration_settings": 1}


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("alignment/metrics/engine.py", ALL_ALIGNMENTS | SETTINGS),
        ("alignment/search/exact.py", ALL_ALIGNMENTS | SETTINGS | {"neighbors": 4}),
        # every job that imports a module of the package runs it
        ("alignment/__init__.py", ALL_ALIGNMENTS | SETTINGS | {"neighbors": 4}),
        (
            "figures/__init__.py",
            {"pair_figures": 6} | dict.fromkeys(("model_maps_figure", "gallery_figure", "curves_figure", "all"), 1),
        ),
        (
            "models/families/transformers_vision.py",
            PAIRS_OF_A_MODEL | {"miniature_weights": 1, "recipe": 1, "extract_siglip2": 1, "neighbors": 1},
        ),
        (
            "models/families/diffusers_mmdit.py",
            PAIRS_OF_A_MODEL
            | {"miniature_weights": 1, "prompts": 1, "recipe": 1, "extract_sd3": 1, "neighbors": 1}
            | OF_THE_SCORE,
        ),
    ],
)
def test_a_module_that_does_something_new_reruns_what_imports_it(
    module: str, jobs: dict[str, int], copied: Workflow
) -> None:
    assert "Nothing to be done" in copied.plan().output
    with (copied.tree / LIBRARY / module).open("a") as file:
        file.write("\nassert __name__\n")
    assert copied.plan().jobs() == jobs


def edit(workflow: Workflow, module: str, old: str, new: str) -> None:
    path = workflow.tree / LIBRARY / module
    text = path.read_text()
    assert text.count(old) >= 1, f"{module} holds no {old!r}"
    path.write_text(text.replace(old, new, 1))


def test_a_changed_constant_of_a_metric_reruns_scores_and_what_hangs_on_them(copied: Workflow) -> None:
    scored = "shared.per_pair(shared.credit) / (shared.count * shared.k)"
    edit(copied, "alignment/metrics/on_lists.py", scored, f"1.0 * {scored}")
    jobs = copied.plan().jobs()
    # rows an image and galleries are made from lists alone
    of_lists = ("per_image", "gallery_figure")
    assert jobs == {rule: n for rule, n in ALL_ALIGNMENTS.items() if rule not in of_lists} | SETTINGS | dict.fromkeys(
        [rule for rule in of_lists if rule in jobs], 1
    )
    assert jobs["align_layers"] == jobs["calibrate_layers"] == 6
    assert not {"recipe", "neighbors", "extract_sd3", "latents"} & set(jobs)


@pytest.mark.parametrize(
    "edits",
    [
        [("specs.py", '"""How the work is done; no result depends on it."""', '"""How the work is done."""')],
        [("alignment/search/exact.py", "# bytes per product", "# bytes of each product")],
        [("config/model_checks.py", "_DRAWN = (", "_UNUSED = 1\n_DRAWN = (")],
        [("plan/paths.py", "def fill(", "UNUSED = 1\n\n\ndef fill(")],
        # an option of models that another family will read
        [
            (
                "specs.py",
                "    series: str | None = None\n",
                "    series: str | None = None\n    texture: str | None = None\n",
            ),
            (
                "config/models.py",
                "    series: Text | None",
                '    texture: Text | None = Field(None, description="What it sees.")\n    series: Text | None',
            ),
            ("config/models.py", '*("series", ', '*("series", "texture", '),
        ],
        [("alignment/metrics/on_lists.py", "def knn_chance", "def unused() -> int:\n    return 1\n\n\ndef knn_chance")],
    ],
    ids=["docstring", "comment", "parser", "plan", "option-of-models", "unused-function"],
)
def test_what_no_job_runs_reruns_nothing(edits: list[tuple[str, str, str]], copied: Workflow) -> None:
    for module, old, new in edits:
        edit(copied, module, old, new)
    assert "Nothing to be done" in copied.plan().output


@pytest.mark.parametrize(
    "overlay",
    [
        {"human": {"distance": "dot", "reduction": {"components": [3]}}, "se_cknna": {"mean_over": "transforms"}},
        {"datasets": {"mine": {"kind": "folder", "path": "mine", "size": 64}, "theirs": {"kind": "precomputed"}}},
    ],
    ids=["unused-section", "new-data-set"],
)
def test_what_no_job_reads_reruns_nothing(overlay: dict[str, Any], finished: Workflow) -> None:
    assert "Nothing to be done" in finished.plan(overlay=overlay).output


def test_a_change_is_seen_by_what_hangs_on_it_in_a_later_call(copied: Workflow) -> None:
    changed = {"models": {"siglip2": {"input": {"mean": [0.4, 0.4, 0.4]}}}}
    done = copied.run("results/features/photographs/clean/siglip2.json", overlay=changed)
    assert done.code == 0, done.output
    assert copied.plan(overlay=changed).jobs() == PAIRS_OF_A_MODEL | {"neighbors": 1}


@pytest.mark.parametrize("shards", [1, 3])
def test_another_number_of_shards_encodes_latents_again(shards: int, finished: Workflow) -> None:
    jobs = plan(finished, {"latents": {"shards": shards}})
    assert jobs == PAIRS_OF_A_MODEL | {"latents": 1, "extract_sd3": 1, "neighbors": 1} | OF_THE_SCORE


def test_lists_that_are_searched_in_parts_are_the_same_to_the_byte(copied: Workflow) -> None:
    target = "results/neighbors/photographs/clean/dinov2.npz"
    searched = {"neighbors_part": 3, "merge_neighbors": 1}
    before = (copied.directory / target).read_bytes()
    three = {"alignment": {"parts": 3}, "compute": {"memory_mb": 10}}
    assert copied.plan(target, overlay=three).jobs() == searched
    done = copied.run(target, overlay=three)
    assert done.code == 0, done.output
    assert (copied.directory / target).read_bytes() == before
    # parts are gone, and nothing misses them until what they depend on changes
    assert not (copied.directory / target).with_suffix("").exists()
    assert "Nothing to be done" in copied.plan(target, overlay=three).output
    longer = {**three, "alignment": {"parts": 3, "k_max": 25}}
    assert copied.plan(target, overlay=longer).jobs() == searched
    changed = {**three, "models": {"dinov2": {"input": {"mean": [0.4, 0.4, 0.4]}}}}
    assert copied.plan(target, overlay=changed).jobs() == searched | {"recipe": 1, "extract_dinov2": 1}
    assert copied.plan(target).jobs() == {"neighbors": 1}


def test_features_that_are_extracted_in_parts_are_the_same(copied: Workflow) -> None:
    folder = "results/features/photographs/clean/sd3-t0.5"
    target = f"{folder}.json"
    extracted = {"extract_sd3_part": 3, "merge_features_sd3": 1}
    layers = ("embed", "b8", "final")
    before = {layer: read_features(copied.directory / folder / f"{layer}.pt") for layer in layers}
    three = {"extraction": {"parts": 3}}
    assert copied.plan(target, overlay=three).jobs() == extracted
    done = copied.run(target, overlay=three)
    assert done.code == 0, done.output
    for layer, expected in before.items():
        merged = read_features(copied.directory / folder / f"{layer}.pt")
        assert merged.names == expected.names
        assert merged.recipe == expected.recipe
        assert np.abs(merged.values - expected.values).max() <= 1e-5
    # parts are gone, and nothing misses them until what they depend on changes
    assert not list((copied.directory / "results/feature_parts").rglob("*.safetensors"))
    assert "Nothing to be done" in copied.plan(target, overlay=three).output
    changed = {**three, "models": {"sd3": {"seeding": "constant"}}}
    assert copied.plan(target, overlay=changed).jobs() == extracted | {"recipe": 1}
    assert copied.plan(target).jobs() == {"extract_sd3": 1}


def test_another_precision_reruns_that_model_and_what_hangs_on_it(finished: Workflow) -> None:
    jobs = plan(finished, {"models": {"siglip2": {"precision": "bfloat16"}}})
    assert jobs == PAIRS_OF_A_MODEL | {"recipe": 1, "extract_siglip2": 1, "neighbors": 1}


def test_a_gpu_that_is_asked_for_must_be_there(copied: Workflow) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    target = "results/neighbors/photographs/clean/dinov2.npz"
    (copied.directory / target).unlink()
    refused = copied.run(target, overlay={"compute": {"device": "cuda"}})
    assert refused.code != 0
    assert "neighbors: compute.device is cuda, but torch sees no GPU here" in refused.output
    assert not (copied.directory / target).exists()
    # for the search alone, the device is a resource of its rule
    done = copied.run(
        target, options=["--set-resources", "neighbors:device=cpu"], overlay={"compute": {"device": "cuda"}}
    )
    assert done.code == 0, done.output


def test_a_tap_of_an_autoencoder_leaves_its_latents_alone(finished: Workflow) -> None:
    overlay = {"models": {"sd3vae": {"layers": {"conv": "encoder.conv_out"}}}}
    assert "Nothing to be done" in finished.plan(overlay=overlay).output


def test_figures_depend_on_the_matrices_that_they_read(copied: Workflow) -> None:
    figure = "results/figures/photographs/clean/layer_maps/dinov2_vs_sd3.png"
    (copied.directory / "results/alignment/photographs/clean/dinov2_vs_sd3.npz").unlink()
    (copied.directory / figure).unlink()
    assert copied.plan(figure).jobs() == {"align_layers": 1, "calibrate_layers": 1, "pair_figures": 1}


def test_only_the_layers_that_are_taken_are_planned(finished: Workflow) -> None:
    planned = finished.plan(overlay={"models": {"sd3": {"take": [8, "embed"]}}})
    assert planned.jobs() == PAIRS_OF_A_MODEL | {"recipe": 1, "extract_sd3": 1, "neighbors": 1} | OF_THE_SCORE
    made = {path for path in planned.outputs() if path.startswith("results/features")}
    folder = "results/features/photographs/clean/sd3-t0.5"
    assert made == {folder, f"{folder}.json"}


def test_a_fifth_model_runs_only_its_own_jobs(finished: Workflow) -> None:
    entry = {
        "family": "timm_vision",
        "weights": {"from": "miniature"},
        "miniature": {"architecture": "vit_tiny_patch16_224", "embed_dim": 24, "img_size": 64},
        "input": {"size": 64},
        "layers": {"b{0..11}": "blocks.{}"},
        "default_layer": -1,
    }
    models = ["dinov2", "siglip2", "sdvae", "sd3", "vit.tiny"]
    jobs = plan(finished, {"models": {"vit.tiny": entry}, "study": {"models": models}})
    assert jobs == {
        "miniature_weights": 1,
        "recipe": 1,
        "extract_vit_tiny": 1,
        "neighbors": 1,
        "align_layers": 4,
        "calibrate_layers": 4,
        "pair_figures": 4,
        **OF_ALL_PAIRS,
    }


def test_how_the_work_is_done_reruns_nothing(finished: Workflow) -> None:
    compute = {"batch_size": 3, "workers": 2, "device": "auto", "memory_mb": 50, "compile": True}
    overlay = {"compute": compute, "models": {"sd3": {"batch_size": 5}}}
    assert "Nothing to be done" in finished.plan(overlay=overlay).output


def test_a_default_layer_changes_what_a_name_means_and_no_feature(finished: Workflow) -> None:
    jobs = plan(finished, {"models": {"dinov2": {"default_layer": "b3"}}})
    figures = {"pair_figures": 3, "model_maps_figure": 1}
    assert jobs == OF_THE_SCORE | figures | {"alignment_table": 1, "pairs_table": 1, "all": 1}


# --- conditions -----------------------------------------------------------------------------------------------------

SE_CKNNA = "results/se_cknna/dinov2_vs_sdvae.npy"
FIVE = ["equivariance", "noise_0.050", "noise_0.100", "noise_0.150", "noise_0.200"]
OF_SE_CKNNA = {
    "images": 1,
    "transformed_images": 5,
    "miniature_weights": 2,
    "recipe": 2,
    "extract_dinov2": 6,
    "extract_sdvae": 6,
    "neighbors": 12,
    "alignment_settings": 1,
    "calibration_settings": 1,
    "se_cknna_default": 1,
}


def test_a_condition_is_made_from_clean_images(fresh: Workflow) -> None:
    jobs = fresh.plan("results/latents/photographs/noise_0.050/sd3vae/latents_stats.pt").jobs()
    assert jobs == {"images": 1, "transformed_images": 1, "miniature_weights": 1, "latents": 1}
    measured = {"models": {"sd3vae": {"latent_statistics": "measured"}}}
    jobs = fresh.plan("results/latents/photographs/noise_0.050/sd3vae/latents_stats.pt", overlay=measured).jobs()
    # transformed latents are normalised as clean ones
    assert jobs == {"images": 1, "transformed_images": 1, "miniature_weights": 1, "latents": 2}


def test_se_cknna_needs_every_condition_of_both_models(fresh: Workflow) -> None:
    assert fresh.plan(SE_CKNNA).jobs() == OF_SE_CKNNA
    outputs = fresh.plan("results/se_cknna/photographs/dinov2_vs_sdvae.npy").outputs()
    assert {f"results/neighbors/photographs/{c}/sdvae.npz" for c in ("clean", *FIVE)} < outputs


def test_with_a_clean_reference_the_second_model_sees_no_transformed_images(fresh: Workflow) -> None:
    jobs = fresh.plan(SE_CKNNA, overlay={"se_cknna": {"reference": "clean"}}).jobs()
    assert jobs == OF_SE_CKNNA | {"extract_sdvae": 1, "neighbors": 7}


def test_separate_transforms_are_conditions_of_their_own(fresh: Workflow) -> None:
    jobs = fresh.plan(SE_CKNNA, overlay={"se_cknna": {"mean_over": "transforms"}}).jobs()
    assert jobs == OF_SE_CKNNA | {"transformed_images": 10, "extract_dinov2": 11, "extract_sdvae": 11, "neighbors": 22}


def test_pairs_of_se_cknna_are_part_of_the_study(finished: Workflow) -> None:
    planned = finished.plan(overlay={"se_cknna": {"pairs": ["dinov2_vs_sdvae", "siglip2_vs_sdvae"]}})
    jobs = planned.jobs()
    assert (jobs["se_cknna"], jobs["se_cknna_table"], jobs["se_cknna_figure"]) == (2, 1, 1)
    assert (jobs["transformed_images"], jobs["neighbors"]) == (5, 15)
    assert "results/figures/photographs/se_cknna.png" in planned.outputs()


def test_images_of_the_study_are_exported(finished: Workflow) -> None:
    planned = finished.plan("results/export/transformed_images/photographs/equivariance_transforms.json")
    assert planned.jobs() == {"transformed_images": 5, "export_images": 1}


def test_language_models_run_once_for_all_conditions(fresh: Workflow) -> None:
    conditions = ["clean", "noise_0.050", "noise_0.100"]
    overlay = {
        "conditions": conditions,
        "study": {"conditions": conditions, "models": ["dinov2"], "against": ["minilm", "minilm-last"], "scores": []},
    }
    planned = fresh.plan(overlay=overlay)
    jobs = planned.jobs()
    assert (jobs["extract_minilm"], jobs["texts"], jobs["extract_dinov2"], jobs["align_layers"]) == (1, 1, 3, 6)
    # lists of both poolings, under clean alone
    assert jobs["neighbors"] == 5
    assert "results/neighbors/photographs/clean/minilm-last.npz" in planned.outputs()
    refused = fresh.run(
        "results/neighbors/photographs/noise_0.050/minilm.npz",
        options=["--dry-run"],
        overlay={"conditions": conditions},
    )
    assert "language models read no image, so their files lie under the condition 'clean'" in refused.output


def test_a_new_data_set_imports_no_features_again(fresh: Workflow) -> None:
    def overlay(*datasets: str) -> dict[str, Any]:
        theirs = {"path": str(fresh.directory / "{dataset}.npy"), "layout": "array", "names": "rows"}
        entry = {"family": "precomputed", "features": theirs, "layers": {"h0": "0"}, "default_layer": "h0"}
        return {"datasets": {name: {"kind": "precomputed"} for name in datasets}, "models": {"theirs": entry}}

    fresh.directory.mkdir()
    np.save(fresh.directory / "first.npy", np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32))
    target = "results/features/first/clean/theirs.json"
    done = fresh.run(target, overlay=overlay("first"))
    assert done.code == 0, done.output
    assert "Nothing to be done" in fresh.plan(target, overlay=overlay("first", "second")).output
    np.save(fresh.directory / "second.npy", np.zeros((3, 2), np.float32))
    assert "Nothing to be done" in fresh.plan(target, overlay=overlay("first", "second")).output
    np.save(fresh.directory / "first.npy", np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32))
    assert fresh.plan(target, overlay=overlay("first", "second")).jobs() == {"feature_sources": 1, "import_theirs": 1}


# --- variants -------------------------------------------------------------------------------------------------------


def test_texts_and_given_embeddings_alone_need_no_image_model(tmp_path: Path) -> None:
    target = "results/cknna/sd1-textlast-caption_vs_sd1-textlast-label-untrained.npy"
    planned = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "--", target)
    assert planned.code == 0, planned.output
    assert planned.jobs() == {
        "images": 1,
        "weights": 1,
        "untrained_configuration": 1,
        "prompts": 1,
        "prompts_untrained": 1,
        "recipe": 2,
        "text_features": 2,
        "neighbors": 2,
        "alignment_settings": 1,
        "calibration_settings": 1,
        "align_default": 1,
    }
    assert "results/features/imagenet/clean/sd1-textlast-caption.json" in planned.outputs()


def test_a_given_embedding_is_the_prompt_after_a_noise_level(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("models: {sd1: {embeddings: {optim: 'mine/{dataset}.npz'}}}")
    configs = ("--configfile", "config.yaml", str(overlay))
    target = "results/cknna/sd1-optim_vs_sd1-s20-optim_mid.npy"
    planned = snakemake(tmp_path, *configs, "-n", "--", target)
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    assert (jobs["given_prompts"], jobs["text_features"], jobs["extract_sd1"]) == (1, 1, 1)
    assert "prompts" not in jobs
    # weights of the model and of its autoencoder, none for the embedding alone
    assert jobs["weights"] == 2
    assert "sd1-optim.safetensors" in planned.output


def test_untrained_twins_read_trained_latents(tmp_path: Path) -> None:
    target = "results/cknna/dinov2-untrained_vs_flux-untrained_b8.npy"
    planned = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "--", target)
    assert planned.code == 0, planned.output
    jobs = planned.jobs()
    assert (jobs["untrained_configuration"], jobs["weights"], jobs["prompts_untrained"]) == (2, 1, 1)
    assert "resources/weights/flux-untrained/weights.json" in planned.outputs()
    assert "resources/weights/fluxvae/weights.json" in planned.outputs()
    # of an architecture in the entry, so nothing is fetched but the autoencoder and DINOv2
    planned = snakemake(tmp_path, "--configfile", "config.yaml", "-n", "results/cknna/dinov2_vs_sit-untrained_b8.npy")
    assert planned.code == 0, planned.output
    assert (planned.jobs()["untrained_weights"], planned.jobs()["weights"]) == (1, 2)


def test_other_texts_embed_prompts_again_and_make_no_image(finished: Workflow, tmp_path: Path) -> None:
    texts = tmp_path / "captions.json"
    texts.write_text("{}")
    overlay = {"datasets": {"photographs": {"texts": {"caption": str(texts)}}}}
    assert "Nothing to be done" in finished.plan(overlay=overlay).output
    jobs = finished.plan("results/prompts/photographs/sd3-caption.safetensors", overlay=overlay).jobs()
    assert jobs == {"prompts": 1}


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/cknaa/dinov2_vs_sd3_b8.npy", "unknown metric or stage 'cknaa'; did you mean 'cknna'?"),
        ("results/cknna/dinov22_vs_sd3_b8.npy", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("results/cknna/dinov2_vs_sd3_b99.npy", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        ("results/cknna/photographs/claen/dinov2_vs_sd3.npy", "unknown condition 'claen'; did you mean 'clean'?"),
        (
            "results/cknna/photographs/noise_0.300/dinov2_vs_sd3.npy",
            "the condition 'noise_0.300' is not among conditions",
        ),
        ("results/se_cknna/photographs/dinov2_vs_sdvea.npy", "unknown model 'sdvea'; did you mean 'sdvae'?"),
        ("results/figures/photographs/se_cnna.png", "unknown figure 'se_cnna'; did you mean 'se_cknna'?"),
        ("results/export/images/photographs/x.json", "unknown layout 'images'; allowed: diffusion-alignment"),
        ("results/features/photographs/clean/sd3/b8.pt", "write 'sd3-t0.5' for 'sd3'"),
        ("results/latents/photographs/clean/dinov2/latents_stats.pt", "unknown autoencoder 'dinov2'"),
        ("results/prompts/photographs/dinov2-uncond.safetensors", "dinov2 has no variant 'uncond'"),
        ("results/prompts/photographs/sd3-labl.safetensors", "sd3 has no variant 'labl'; did you mean 'label'?"),
        ("results/features/photographs/clean/sd1-textlast-label/mid.pt", "sd1 has no layer 'mid'; it has text"),
        ("results/cknna/dinov2_vs_sd1-textlast.npy", "textlast is followed by a text: label, caption"),
        ("resources/weights/dinov22/weights.json", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("al", "'al' is neither a rule nor a file of this workflow; did you mean 'all'?"),
    ],
)
def test_an_unknown_word_in_a_target_is_named(target: str, message: str, tmp_path: Path) -> None:
    refused = snakemake(tmp_path, "--profile", "profiles/demo", "-n", target)
    assert refused.code != 0
    assert message in refused.output
    assert "No rule to produce" not in refused.output


def test_a_misspelt_key_is_named_with_a_suggestion_before_anything_runs(fresh: Workflow) -> None:
    refused = fresh.run(overlay={"aligment": {"k": 3}, "alignment": {"metrics": ["cknna"], "epsilon": 0}})
    assert refused.code != 0
    assert "small_study.yaml" in refused.output
    assert "has 2 mistake(s)" in refused.output
    assert "(top level): unknown key 'aligment'; did you mean 'alignment'?" in refused.output
    assert "alignment: unknown key 'epsilon'; did you mean 'eps'?" in refused.output
    assert "Traceback" not in refused.output
    assert not (fresh.directory / "results").exists()


def test_the_typed_name_decides_the_bundle(finished: Workflow) -> None:
    planned = finished.plan(
        "results/mutual_knn/sd3-t0.50_b1_vs_sd3-s20.npy", overlay={"alignment": {"metrics": ["mutual_knn"]}}
    )
    assert planned.jobs() == {"recipe": 1, "extract_sd3": 1, "neighbors": 1} | {"align_default": 1}
    assert "results/features/photographs/clean/sd3-s20.json" in planned.outputs()
