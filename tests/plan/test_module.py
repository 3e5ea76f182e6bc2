"""diffalign as a module of another workflow: everything lies below its prefix."""

import subprocess
import sys
from pathlib import Path

import yaml
from conftest import SMALL, Run, Workflow, demo_config, merge, read_yaml

OUTER = """
config = {config!r}


module diffalign:
    snakefile:
        {snakefile!r}
    config:
        config
    prefix:
        "alike"


use rule * from diffalign as diffalign_*


for name, param in (("extract_dinov2", "shards"), ("weights", "downloads"), ("probe", "checkpoints")):
    print(param, getattr(workflow.get_rule(f"diffalign_{{name}}").params, param))
print("local", *sorted(workflow._localrules))


rule outer:
    input:
        "alike/results/images/photographs/clean/manifest.tsv",
    default_target: True
"""


def snakemake(folder: Path, *arguments: str) -> Run:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return Run(done.returncode, done.stdout + done.stderr)


def test_another_workflow_uses_the_rules_under_a_prefix(fresh: Workflow, tmp_path: Path) -> None:
    config = demo_config()
    merge(config, read_yaml(SMALL))
    outer = tmp_path / "outer"
    outer.mkdir()
    snakefile = OUTER.format(config=yaml.safe_load(yaml.safe_dump(config)), snakefile=str(fresh.tree / "Snakefile"))
    (outer / "Snakefile").write_text(snakefile)
    score = "alike/results/cknna/dinov2_vs_sd3_b8.npy"
    planned = snakemake(outer, "--dry-run", score, "alike/results/tables/pairs.tsv")
    assert planned.code == 0, planned.output
    assert planned.jobs()["diffalign_align_default"] == 1
    assert all(path.startswith("alike/") for path in planned.outputs())
    # also what is no output
    for folder in ("shards alike/results/checkpoints/features/", "downloads alike/", "checkpoints alike/results/"):
        assert folder in planned.output
    # downloads, links and small files run where Snakemake does
    assert "localrules" not in planned.output
    (local,) = (line.split()[1:] for line in planned.output.splitlines() if line.startswith("local "))
    assert {f"diffalign_{rule}" for rule in ("weights", "alignment_settings", "cost", "feature_sources")} < set(local)
    assert not {f"diffalign_{rule}" for rule in ("images", "align", "prompts")} & set(local)
    made = snakemake(outer, "alike/results/features/photographs/clean/dinov2.json")
    assert made.code == 0, made.output
    assert {path.name for path in outer.iterdir()} <= {"Snakefile", "alike", ".snakemake"}
    refused = snakemake(outer, "--dry-run", "alike/results/cknna/dinov22_vs_sd3_b8.npy")
    assert refused.code != 0
    assert "'results/cknna/dinov22_vs_sd3_b8.npy': unknown model 'dinov22'; did you mean 'dinov2'?" in refused.output
    assert "No rule to produce al " in snakemake(outer, "--dry-run", "al").output
