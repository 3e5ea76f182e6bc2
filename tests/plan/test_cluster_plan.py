"""What jobs ask a cluster for, and what is checked before the first is submitted; tests/cluster runs it for real."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, catalogue, demo_config, merge
from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file
from snakemake_executor_plugin_slurm.utils import set_gres_string
from test_graph import snakemake
from test_study import mistakes

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.models import all_families
from diffalign.plan import Plan, cluster

CUDA = {"compute": {"device": "cuda"}}


def asked(overlay: Mapping[str, Any], count: Any = None) -> dict[str, Any]:
    """The resources of a job on GPUs, as Snakemake works them out."""
    config = demo_config()
    merge(config, overlay)
    families = all_families()
    resources = Plan(study.load(config, catalogue(), families, METRICS), families).cluster.gpus(count)
    return {name: value(SimpleNamespace()) if callable(value) else value for name, value in resources.items()}


class Resources(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Job(SimpleNamespace):
    name = "job"
    threads = 4

    def is_group(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("slurm", "count", "option", "partition"),
    [
        ({}, None, " --gpus=1", "gpu"),
        ({}, 2, " --gpus=2", "gpu"),
        ({}, lambda wildcards: 3, " --gpus=3", "gpu"),
        ({"gpu_model": "a100"}, None, " --gpus=a100:1", "gpu"),
        ({"gpus_by": "gres"}, None, " --gres=gpu:1", "gpu"),
        ({"gpus_by": "gres", "gpu_model": "a100"}, lambda wildcards: 2, " --gres=gpu:a100:2", "gpu"),
        ({"gpus_by": "gres"}, 0, "", "cpu"),
        ({"gpu_model": "a100"}, 0, "", "cpu"),
    ],
    ids=lambda value: "per job" if callable(value) else str(value),
)
def test_gpus_are_asked_for_as_the_cluster_wants_it(
    slurm: dict[str, Any], count: Any, option: str, partition: str
) -> None:
    job = Job(resources=Resources(asked(CUDA | {"slurm": slurm}, count), mem_mb=4000, runtime=60))
    assert set_gres_string(job) == option
    silent = SimpleNamespace(warning=lambda *_: None, info=lambda *_: None, debug=lambda *_: None)
    partitions = read_partition_file(ROOT / "profiles/slurm/site.yaml")
    assert get_best_partition(partitions, job, silent) == partition


def test_a_study_on_cpus_asks_for_no_gpu(tmp_path: Path) -> None:
    assert asked({"compute": {"device": "cpu"}, "slurm": {"gpu_model": "a100"}}) == {"gpu": 0}
    spread = asked({"compute": {"device": "cpu"}, "slurm": {"gpu_model": "a100"}}, lambda wildcards: 0)
    assert spread == {"gpu": 0}
    # all GPUs of a job are on one node
    assert asked({"compute": {"device": "auto"}}) == {"gpu": 1, "nodes": 1}
    arguments = ["--profile", "profiles/slurm", "-n", "--config", "compute={device: cpu}", "--"]
    planned = snakemake(tmp_path, *arguments, "results/cknna/dinov2_vs_sd3_b8.npy")
    assert planned.code == 0, planned.output
    assert "gpu=0" in planned.output
    assert "gpu=1" not in planned.output


def test_a_model_of_several_gpus_asks_for_none_on_cpus(tmp_path: Path) -> None:
    files = ["config.yaml", "profiles/slurm/site.yaml", "profiles/platonic/study.yaml", "profiles/platonic/test.yaml"]
    arguments = ["--profile", "profiles/slurm", "-n", "--configfile", *files, "--config", "compute={device: cpu}", "--"]
    planned = snakemake(tmp_path, *arguments, "results/features/wit1024/clean/llama65b.json")
    assert planned.code == 0, planned.output
    [resources] = [line for line in planned.output.splitlines() if "spread=" in line]
    assert "gpu=0" in resources
    assert "spread=0" in resources
    # which would take the GPUs that it sees
    assert "device_map=auto" not in resources


def test_gres_is_asked_for_by_every_rule_on_a_gpu(tmp_path: Path) -> None:
    arguments = ["--profile", "profiles/slurm", "-n", "--config", "slurm={gpus_by: gres}", "--"]
    planned = snakemake(tmp_path, *arguments, "results/cknna/dinov2_vs_sd3_b8.npy")
    assert planned.code == 0, planned.output
    resources = [line for line in planned.output.splitlines() if line.strip().startswith("resources:")]
    # two extractions, two searches, latents and prompts
    assert sum("gres=gpu:1" in line for line in resources) == 6
    assert not any("gpu=1" in line for line in resources)


def test_a_wrong_word_of_the_section_is_named() -> None:
    assert "slurm.gpus_by: 'gre' is not allowed; did you mean 'gres'?" in mistakes({"slurm": {"gpus_by": "gre"}})
    assert "slurm.gpu_model: 'a100:2' is not the name of a GPU" in mistakes({"slurm": {"gpu_model": "a100:2"}})


def test_jobs_of_a_working_directory_are_known_by_their_logs() -> None:
    queued = [
        "7|/scratch/mine/.snakemake/slurm_logs/rule_images/a b/7.log|",
        "8|/scratch/other/.snakemake/slurm_logs/rule_images/8.log|",
        "9|/home/me/slurm-9.out|",
        "",
    ]
    assert cluster.jobs_of(queued, Path("/scratch/mine/.snakemake/slurm_logs")) == ["7"]


@pytest.mark.parametrize(
    ("answers", "status_command", "message"),
    [
        ({}, None, None),
        ({"sacct": "exit 1"}, "squeue", None),
        ({"sacct": "echo down >&2; exit 1"}, None, r"\(sacct: down\).*write `status_command: squeue`"),
        ({"sacct": "exit 1", "scontrol": "echo 'MinJobAge = 60 sec'"}, "squeue", "squeue forgets ended jobs"),
        ({"squeue": "echo unreachable >&2; exit 1"}, "squeue", r"squeue does not answer \(unreachable\)"),
        ({"squeue": "sleep 9"}, "squeue", r"squeue does not answer \(.* timed out"),
    ],
    ids=["sound", "no accounting needed", "no accounting", "squeue forgets", "squeue fails", "squeue hangs"],
)
def test_a_cluster_that_does_not_answer_is_refused(
    answers: dict[str, str],
    status_command: str | None,
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = {"sacct": "exit 0", "squeue": "exit 0", "scontrol": "echo 'MinJobAge = 300 sec'"}
    for name, script in (sound | answers).items():
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(cluster, "_ANSWERS_WITHIN", 1)
    settings = SimpleNamespace(status_command=status_command, init_seconds_before_status_checks=40)
    if message is None:
        cluster.check_slurm(settings, tmp_path)
        return
    with pytest.raises(cluster.ClusterError, match=message):
        cluster.check_slurm(settings, tmp_path)
