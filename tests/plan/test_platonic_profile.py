"""profiles/platonic: the published sets, from checkpoints and from files of features, and what their jobs ask for."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run, catalogue, merge, read_yaml
from test_graph import snakemake
from test_study import load, mistakes

from diffalign.alignment.metrics import METRICS
from diffalign.config.study import load as read_study
from diffalign.models import all_families
from diffalign.specs import Model

FOLDER = ROOT / "profiles/platonic"
# get_models of tasks.py, by set
LANGUAGE = {
    "val": [
        *(f"bigscience/bloomz-{size}" for size in ("560m", "1b1", "1b7", "3b", "7b1")),
        *(f"openlm-research/open_llama_{size}" for size in ("3b", "7b", "13b")),
        *(f"huggyllama/llama-{size}" for size in ("7b", "13b", "30b", "65b")),
    ],
    "test": [
        *("allenai/OLMo-1B-hf", "allenai/OLMo-7B-hf", "google/gemma-2b", "google/gemma-7b"),
        *("mistralai/Mistral-7B-v0.1", "mistralai/Mixtral-8x7B-v0.1"),
        *("NousResearch/Meta-Llama-3-8B", "NousResearch/Meta-Llama-3-70B"),
    ],
}
VISION = [
    *(f"vit_{size}_patch16_224.augreg_in21k" for size in ("tiny", "small", "base", "large")),
    *("vit_base_patch16_224.mae", "vit_large_patch16_224.mae", "vit_huge_patch14_224.mae"),
    *(f"vit_{size}_patch14_dinov2.lvd142m" for size in ("small", "base", "large", "giant")),
    *("vit_base_patch16_clip_224.laion2b", "vit_large_patch14_clip_224.laion2b", "vit_huge_patch14_clip_224.laion2b"),
    *(f"vit_{size}_clip_224.laion2b_ft_in12k" for size in ("base_patch16", "large_patch14", "huge_patch14")),
]
ALIGNMENT = "results/export/platonic/wit1024/clean/mutual_knn_k10.npy"


def study(*files: str) -> tuple[dict[str, Any], dict[str, Model]]:
    config = read_yaml(ROOT / "config.yaml")
    for file in files:
        merge(config, read_yaml(FOLDER / file))
    return config["study"], dict(read_study(config, catalogue(), all_families(), METRICS).models)


@pytest.mark.parametrize(("files", "set_"), [(["study.yaml"], "val"), (["study.yaml", "test.yaml"], "test")])
def test_the_models_are_those_of_the_published_set_in_its_order(files: list[str], set_: str) -> None:
    section, models = study(*files)
    assert [models[name].weights.hub for name in section["against"]] == LANGUAGE[set_]
    assert [models[name].weights.hub for name in section["models"]] == [f"timm/{name}" for name in VISION]
    assert {models[name].precision for name in section["against"]} == {"bfloat16"}


@pytest.mark.parametrize(
    ("files", "set_"), [(["published.yaml"], "val"), (["published.yaml", "published_test.yaml"], "test")]
)
def test_files_of_features_have_their_published_names(files: list[str], set_: str) -> None:
    section, models = study(*files)
    sources = [models[name].features for name in section["against"]]
    named = [Path(str(each.url or each.path)).name for each in sources if each is not None]
    assert named == [f"{model.replace('/', '_')}_pool-avg.pt" for model in LANGUAGE[set_]]
    of_catalogue = load().models
    for name in section["against"]:
        # as many layers as the model that would run here
        assert models[name].layers == of_catalogue[name.removesuffix(".published")].layers, name


def planned(tmp_path: Path, *files: str, more: tuple[str, ...] = ()) -> Run:
    configs = [str(FOLDER / file) for file in files]
    run = snakemake(tmp_path, "-n", "--configfile", "config.yaml", *configs, "--", "all", *more)
    assert run.code == 0, run.output
    return run


def resources(output: str, rule: str) -> dict[str, str]:
    """What the only job of a rule asks for."""
    block = next(block for block in output.split("\n[") if re.search(rf"\nrule {rule}:", block))
    line = next(line for line in block.splitlines() if line.strip().startswith("resources:"))
    return dict(re.findall(r"(\w+)=([^,\s]+)", line))


def test_the_published_set_is_planned_and_large_models_ask_for_what_they_need(tmp_path: Path) -> None:
    run = planned(tmp_path, "study.yaml", more=("results/export/platonic/wit1024/clean/bloom560m.pt",))
    jobs = run.jobs()
    assert (jobs["bits_per_byte_table"], jobs["bits_per_byte_figure"], jobs["export_platonic_set"]) == (1, 2, 2)
    assert (jobs["align_layers"], jobs["export_platonic"]) == (12 * 17, 1)
    assert sum(count for job, count in jobs.items() if job.startswith("extract_")) == 29
    assert (jobs["weights"], jobs["hub_table"], jobs["texts"], jobs["images"]) == (29, 1, 1, 1)
    # the whole set is part of the study
    assert ALIGNMENT in run.outputs()
    export = next(block for block in run.output.split("\n[") if "\nrule export_platonic:" in block)
    assert "results/language/wit1024/clean/bloom560m.json" in export
    assert "results/language/wit1024/clean/bloom560m.tsv" in export
    # 65B is about 130 GB in bfloat16; 30B asks for its weights beside what any language model of its depth does
    asked = {name: resources(run.output, f"extract_{name}") for name in ("llama65b", "llama30b", "bloom560m")}
    assert (asked["llama65b"]["gpu"], asked["llama65b"]["mem_mb"]) == ("2", "160000")
    features = 16000 + 2 * 50_000 * 61 * 2048 * 4 / 2**20
    assert int(asked["llama30b"]["mem_mb"]) == round(round(features) + 32.5e9 * 2 / 2**20)
    assert int(asked["bloom560m"]["mem_mb"]) == round(16000 + 2 * 50_000 * 25 * 2048 * 4 / 2**20)
    assert {(each["gpu"], each["runtime"]) for name, each in asked.items() if name != "llama65b"} == {("1", "720")}


def test_the_set_test_is_planned(tmp_path: Path) -> None:
    run = planned(tmp_path, "study.yaml", "test.yaml")
    jobs = run.jobs()
    assert (jobs["align_layers"], jobs["export_platonic_set"]) == (8 * 17, 2)
    assert sum(count for job, count in jobs.items() if job.startswith("extract_")) == 25
    assert resources(run.output, "extract_llama3_70b")["gpu"] == "2"


def test_the_published_features_are_planned(tmp_path: Path) -> None:
    run = planned(tmp_path, "published.yaml")
    jobs = run.jobs()
    assert (jobs["fetch_features"], jobs["align_layers"], jobs["bits_per_byte_table"]) == (26, 12 * 14, 1)
    assert sum(count for job, count in jobs.items() if job.startswith("import_bits_per_byte")) == 12
    assert not any(job.startswith(("extract", "images", "texts", "hub")) for job in jobs)
    assert ALIGNMENT in run.outputs()


def test_feature_files_of_the_set_test_are_planned(tmp_path: Path) -> None:
    jobs = planned(tmp_path, "published.yaml", "published_test.yaml").jobs()
    assert (jobs["fetch_features"], jobs["align_layers"], jobs["feature_sources"]) == (14, 8 * 14, 8)
    assert sum(count for job, count in jobs.items() if job.startswith("import_bits_per_byte")) == 8


def test_what_an_entry_asks_for_is_asked_for_and_changes_no_recipe() -> None:
    entry = {"memory_mb": 5000, "gpus": 3, "device_map": "auto", "runtime": 90, "parameters": 1e9}
    changed, plain = (load({"models": {"minilm": each}}).models["minilm"] for each in (entry, {}))
    assert changed.recipe() == plain.recipe()
    assert (plain.memory_mb, plain.gpus, plain.runtime, plain.weights_mb) == (None, None, None, 0)
    assert (changed.memory_mb, changed.gpus, changed.runtime) == (5000, 3, 90)
    whole = study("study.yaml")[1]
    assert whole["llama65b"].weights_mb == pytest.approx(65.2e9 * 2 / 2**20)
    assert load().models["llama65b"].weights_mb == 0, "a miniature asks for nothing"
    found = mistakes({"models": {"minilm": {"gpus": 2}, "dinov2": {"memory_mb": 0, "parameters": -1, "runtime": 0}}})
    assert "models.minilm.gpus: 2 GPUs are used only where device_map spreads the model over them" in found
    for key in ("memory_mb", "parameters", "runtime"):
        assert f"models.dinov2.{key}: " in found
