"""What a study costs: hours by rates that were measured or are given, jobs as planned, and what jobs ask for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, Workflow, catalogue, merge, read_yaml

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.config.catalogue import resolve
from diffalign.job_records import gpus_of
from diffalign.models import all_families
from diffalign.models.networks.sit import SiT, SiTArchitecture
from diffalign.plan import Plan
from diffalign.plan.cost import MEASURED, UNKNOWN, Job

WHERE = {"dataset": "imagenet", "condition": "clean"}


def plan(overlay: Mapping[str, Any] | None = None) -> Plan:
    """The plan of config.yaml, with its published models."""
    config = read_yaml(ROOT / "config.yaml")
    merge(config, overlay or {})
    return Plan(study.load(config, catalogue(), all_families(), METRICS), all_families())


def job(rule: str, gpus: int = 0, **wildcards: str) -> Job:
    return Job(rule, {**WHERE, **wildcards}, cores=4, gpus=gpus, hours=2.0)


def test_hours_of_a_gpu_follow_from_its_rate_and_are_unknown_without_one() -> None:
    extraction = job("extract_dinov2", gpus=1, bundle="dinov2")
    unknown = plan().cost.of(extraction)
    assert (unknown.core_hours, unknown.gpu_hours, unknown.basis) == (None, None, UNKNOWN)
    known = plan({"hardware": {"gpu_tflops": 50.0}}).cost.of(extraction)
    # 10,000 images of 46.32 GFLOP
    assert known.gpu_hours == pytest.approx(10_000 * 46.32e9 / 50e12 / 3600)
    assert known.core_hours == pytest.approx(4 * (known.gpu_hours or 0))
    assert known.basis.endswith("hardware.gpu_tflops")
    four = plan({"hardware": {"gpu_tflops": 50.0}}).cost
    single = four.of(job("extract_sit", gpus=1, bundle="sit-t0.5")).gpu_hours
    draws = four.of(job("extract_sit", gpus=1, bundle="sit-t0.5-draws4")).gpu_hours
    assert single is not None
    assert draws == pytest.approx(4 * single)
    on_cpu = plan({"compute": {"device": "cpu"}, "hardware": {"cpu_gflops": 20.0}}).cost.of(extraction)
    assert (on_cpu.core_hours, on_cpu.gpu_hours) == (pytest.approx(10_000 * 46.32 / 20 / 3600), 0)


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 0),
        ({"gpu": 2}, 2),
        ({"gpu": 0, "gres": "gpu:a100:4"}, 4),
        ({"gpu": 0, "gres": "gpu:1"}, 1),
        ({"gres": ""}, 0),
    ],
)
def test_gpus_are_counted_however_a_cluster_is_asked_for_them(resources: dict[str, Any], gpus: int) -> None:
    assert gpus_of(resources) == gpus


def test_measured_jobs_cost_what_was_measured_and_grow_as_they_do() -> None:
    def hours(rule: str, images: int, **wildcards: str) -> float:
        cost = plan({"datasets": {"imagenet": {"sample": images}}}).cost.of(job(rule, **wildcards))
        assert cost.basis == MEASURED
        assert cost.core_hours is not None
        return cost.core_hours

    pair = {"a": "dinov2", "b": "sd3-t0.5"}
    # docs/performance.md: 141 seconds on two cores for 672 pairs of layers and eight metrics
    cells = 14 * 26 * 4
    assert hours("align_layers", 10_000, **pair) == pytest.approx(141 * 2 / 3600 * cells / (672 * 8))
    assert hours("calibrate_layers", 10_000, **pair) == pytest.approx(120 * 2 / 3600 * cells / (672 * 5))
    for rule, words, growth in (
        ("align_layers", pair, 10),
        ("calibrate_layers", pair, 10),
        ("neighbors", {"bundle": "dinov2"}, 100),
        ("factors", {"bundle": "dinov2"}, 10),
    ):
        assert hours(rule, 100_000, **words) == pytest.approx(growth * hours(rule, 10_000, **words)), rule


def test_bytes_are_of_features_lists_and_checkpoints() -> None:
    cost = plan({"models": {"unknown": {"like": "sit", "parameters": None}}}).cost
    assert cost.of(job("neighbors", bundle="dinov2")).gigabytes == pytest.approx(10_000 * 14 * 100 * 8 / 1e9)
    assert cost.of(job("extract_sit", bundle="sit-t0.5")).gigabytes == pytest.approx(10_000 * 30 * 1152 * 4 / 1e9)
    assert cost.of(Job("weights", {"model": "dinov2"}, 1, 0, None)).download_gigabytes == pytest.approx(85.7e6 * 4e-9)
    assert np.isnan(cost.of(Job("weights", {"model": "unknown"}, 1, 0, None)).download_gigabytes)
    # lists, in parts or not, latents and texts are no features
    lists = cost.of(job("neighbors", bundle="sit-t0.5")).gigabytes
    assert cost.of(job("merge_neighbors", bundle="sit-t0.5")).gigabytes == lists
    assert cost.of(job("import_latents", model="sdvae")).gigabytes is None
    assert cost.of(job("extract_sit_part", bundle="sit-t0.5")).gigabytes is None
    whole = cost.of(job("extract_sit", bundle="sit-t0.5")).gigabytes
    assert cost.of(job("merge_features_sit", bundle="sit-t0.5")).gigabytes == whole
    assert cost.of(job("align_layers", a="dinov2", b="siglip2")).download_gigabytes == 0


def test_extractions_ask_for_the_time_and_the_gpus_that_they_need() -> None:
    def asked(overlay: Mapping[str, Any], name: str) -> tuple[int, int]:
        made = plan(overlay)
        model = made.study.models[name]
        return made.features.gpus(model), made.features.runtime(model)(_words(model.name))

    assert asked({}, "dinov2.g") == (1, 720)
    # twice 10,000 images of 598.8 GFLOP at 10 TFLOP/s, and half an hour
    assert asked({"hardware": {"gpu_tflops": 10.0}}, "dinov2.g") == (1, 30 + 20)
    assert asked({"hardware": {"gpu_tflops": 10.0}, "models": {"dinov2.g": {"runtime": 99}}}, "dinov2.g") == (1, 99)
    spread = {"models": {"llama65b": {"precision": "bfloat16", "device_map": "auto"}}}
    assert asked(spread, "llama65b")[0] == 1
    assert asked({**spread, "hardware": {"gpu_memory_mb": 80_000}}, "llama65b")[0] == 2
    assert asked({**spread, "hardware": {"gpu_memory_mb": 40_000}}, "llama65b")[0] == 4
    assert asked({"hardware": {"gpu_memory_mb": 40_000}}, "llama65b")[0] == 1, "nothing spreads it"
    # on CPUs, the rate of a GPU says nothing
    on_cpu = {"compute": {"device": "cpu"}, "hardware": {"gpu_tflops": 100.0}}
    assert asked(on_cpu, "dinov2") == (0, 720)
    # all tokens are never extracted in parts
    in_parts = plan({"hardware": {"gpu_tflops": 1.0}, "extraction": {"parts": 16}}).features
    alone = plan({"hardware": {"gpu_tflops": 1.0}}).features
    assert in_parts.unpooled_runtime(_words("sit")) == alone.unpooled_runtime(_words("sit")) == 30 + 80
    assert in_parts.runtime(plan().study.models["sit"])(_words("sit")) == 30 + 5
    memory = plan().features.extraction_memory(16000, plan().study.models["dinov2.g"])(_words("dinov2.g"), 1)
    assert memory > 16000 + 1134.8e6 * 4 / 2**20
    # weights of diffusion models are loaded in float32, whatever their precision; language models in theirs
    half = {"precision": "bfloat16"}
    made = plan({"models": {"flux": half, "llama65b": half}})
    for name, size in (("flux", 11901.4e6 * 4), ("llama65b", 65.2e9 * 2)):
        assert made.features.loaded_megabytes(made.study.models[name]) == pytest.approx(size / 2**20)
    assert made.features.checkpoint_memory(16000, "flux")(_words("flux"), 2) == round(32000 + 11901.4e6 * 4 / 2**20)


class _Wildcards(dict[str, str]):
    def __getattr__(self, name: str) -> str:
        return self[name]


def _words(bundle: str) -> Any:
    return _Wildcards(**WHERE, bundle=bundle)


@pytest.mark.parametrize("name", ["dinov2", "dinov2.l.reg", "vit.t.cls", "laion.h.cls", "convnext", "clip", "sit"])
def test_numbers_of_the_catalogue_are_counted_from_the_architecture(name: str) -> None:
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    entry = resolve(catalogue(), {}, None, [])[name]
    with torch.device("meta"), torch.no_grad():
        if entry["family"] == "sit":
            net: torch.nn.Module = SiT(SiTArchitecture(**entry["architecture"]))
            inputs = (torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.long))
            run = net.eval()
        else:
            size = entry["input"]["size"]
            architecture = entry.get("architecture", entry["miniature"])["architecture"]
            net = timm.create_model(architecture, num_classes=0, **({"img_size": size} if "dinov2" in name else {}))
            inputs, run = (torch.zeros(1, 3, size, size),), net.eval().forward_features
        with FlopCounterMode(display=False) as counter:
            run(*inputs)
    assert sum(each.numel() for each in net.parameters()) == pytest.approx(entry["parameters"], rel=1e-3)
    assert counter.get_total_flops() == pytest.approx(entry["gigaflops"] * 1e9, rel=1e-3)


def test_the_table_has_the_jobs_of_the_plan(fresh: Workflow) -> None:
    mine = {"kind": "folder", "path": "nowhere", "sample": 20, "size": 64}
    overlay: dict[str, Any] = {
        "hardware": {"gpu_tflops": 10.0},
        "datasets": {"mine": mine},
        "defaults": {"dataset": "mine"},
        "study": {"datasets": ["mine"]},
    }
    made = fresh.run("results/tables/cost.tsv", overlay=overlay)
    assert made.code == 0, made.output
    assert made.jobs() == {"cost": 1}
    assert {path.name for path in fresh.directory.iterdir()} <= {".snakemake", "results", "logs"}
    table = pd.read_csv(fresh.directory / "results/tables/cost.tsv", sep="\t", keep_default_na=False, na_values=[""])
    total = table[table["rule"] == "total"]
    rows = table[table["rule"] != "total"]
    planned = fresh.plan("all", overlay=overlay).jobs()
    del planned["all"]
    assert rows.groupby("rule")["jobs"].sum().to_dict() == planned
    assert total["jobs"].item() == sum(planned.values())
    assert total["core_hours"].item() == pytest.approx(rows["core_hours"].sum())
    by_model = rows[rows["rule"] == "neighbors"].set_index("model")
    assert set(by_model.index) == {"dinov2", "siglip2", "sdvae", "sd3"}
    assert (by_model["core_hours"] > 0).all()
    assert (by_model["cores"] == 8).all()
    # miniatures are not the models whose operations were counted
    assert (rows.loc[rows["rule"] == "extract_dinov2", "basis"] == UNKNOWN).all()
    assert "Nothing to be done" in fresh.plan("results/tables/cost.tsv", overlay=overlay).output
    # as profiles/slurm gives the study, whose site.yaml has been read before
    site = replace(fresh, studies=(*fresh.studies, "profiles/slurm/site.yaml"))
    on_cluster = site.run("results/tables/cost.tsv", overlay=overlay)
    assert on_cluster.code == 0, on_cluster.output
    assert on_cluster.jobs() == {"cost": 1}
    other = fresh.plan("results/tables/cost.tsv", overlay={**overlay, "seed": 1})
    assert other.jobs() == {"cost": 1}
