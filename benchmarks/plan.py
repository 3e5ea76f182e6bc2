"""Time and memory of planning studies of many models, beside Snakemake's own. python benchmarks/plan.py

Calls of Snakemake, each a process of its own: the plan of a single score of a study of 30 models; of the study (all
pairs and all metrics at 11 noise levels, SE-CKNNA of all pairs under six conditions), and once all of its files are
there; of the study without figures of pairs, likewise; of all pairs under all six conditions. Each stands beside a
workflow of one short rule with the same jobs, the same number of files and the same inputs.

No job is run: a finished study is files without content, with the records that Snakemake keeps of finished jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

VISION = (
    *("dinov2", "dinov2.l", "dinov2.g", "dinov2.reg", "dinov3", "mae", "vit", "clip", "aimv2", "convnext", "sam"),
    *("siglip2", "sdvae", "sd3vae", "vavae", "vfmvae", "fluxvae"),
)
DIFFUSION = (
    *("sit", "repa", "reg", "lightningdit", "dit", "sd1", "sd2", "sd2turbo", "sd3", "sd3.5", "flux", "pixart", "sana"),
)
CONDITIONS = ("equivariance", "noise_0.050", "noise_0.100", "noise_0.150", "noise_0.200")
METRICS = (
    *("cknna", "mutual_knn", "unbiased_cka", "svcca", "cycle_knn", "lcs_knn", "edit_distance_knn", "cknna_biased"),
    *("cka", "cka_rbf", "unbiased_cka_rbf", "procrustes", "rsa", "rsa_pearson", "ridge", "ridge_back"),
)
CALLS = ("single", "study", "undrawn", "crossed")
SINGLE = "results/cknna/dinov2_vs_sd3_b8.npy"
# of a bare workflow: as many outputs a job as its rule has
BARE = """
import json

with open("graph.json") as file:
    JOBS = json.load(file)


def paths(numbers):
    return [f"made/{JOBS[job]['outputs']}/{job}/{file}" for job, file in numbers]


rule all:
    input:
        paths([(job, 0) for job, each in enumerate(JOBS) if each["is_target"]]),


for count in sorted({each["outputs"] for each in JOBS}):

    rule:
        name:
            f"job_{count}"
        input:
            lambda wildcards: paths(JOBS[int(wildcards.job)]["inputs"]),
        output:
            [f"made/{count}/{{job}}/{file}" for file in range(count)],
        shell:
            "touch {output}"
"""


def study(levels: int, crossed: bool = False, drawn: bool = True) -> dict[str, Any]:
    """What overrides config.yaml. levels: noise levels of every diffusion model, from clean to noise. crossed: whether
    all pairs at all levels are compared under every condition, in place of clean images alone. drawn: whether every
    pair has figures.

    A pair of two diffusion models is compared at the same level.
    """
    steps = [f"t{(i + 1) / (levels + 1):.4f}".rstrip("0") for i in range(levels)]
    plain = list(itertools.combinations(VISION, 2))
    noisy = [(a, f"{b}-{t}") for t in steps for a in VISION for b in DIFFUSION]
    both = [(f"{a}-{t}", f"{b}-{t}") for t in steps for a, b in itertools.combinations(DIFFUSION, 2)]
    models = [*VISION, *(f"{name}-{t}" for name in DIFFUSION for t in steps)]
    every = itertools.combinations((*VISION, *DIFFUSION), 2)
    return {
        "conditions": ["clean", *CONDITIONS],
        "study": {
            "models": models,
            "pairs": [list(pair) for pair in (*plain, *noisy, *both)],
            "pair_figures": "all" if drawn else [],
            "conditions": ["clean", *CONDITIONS] if crossed else ["clean"],
            "scores": ["dinov2_vs_sd3_b8"],
        },
        "alignment": {"metrics": list(METRICS)},
        "se_cknna": {"conditions": list(CONDITIONS), "pairs": [f"{a}_vs_{b}" for a, b in every]},
    }


@dataclass(frozen=True)
class Measured:
    """One call: seconds by the clock, processor seconds of it and its children, its largest resident set in GB."""

    seconds: float
    processor: float
    gigabytes: float


def measure(command: Sequence[str], folder: Path) -> Measured:
    """Run a command in a folder. Raises RuntimeError with its last lines where it fails."""
    started = time.perf_counter()
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(list(command), cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise RuntimeError((folder / "printed").read_text(errors="replace")[-2000:])
    return Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def ours(folder: Path, *targets: str) -> list[str]:
    """The dry run of the study in a folder."""
    files = [str(ROOT / "config.yaml"), str(folder / "study.yaml")]
    return [*_dry_run(ROOT / "Snakefile"), "--configfile", *files, "--", *targets]


def _dry_run(snakefile: Path) -> list[str]:
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    return [*snakemake, "--dry-run", "--cores", "1", "--quiet", "all"]


@dataclass(frozen=True)
class Graph:
    """What a plan is made of. jobs: per job, the number of its outputs, whether it is a target's, and its inputs, as
    (job, number of the output).
    """

    jobs: list[dict[str, Any]]

    @property
    def inputs(self) -> int:
        """Input files of all jobs."""
        return sum(len(job["inputs"]) for job in self.jobs)

    @property
    def outputs(self) -> int:
        """Output files of all jobs."""
        return sum(job["outputs"] for job in self.jobs)


def read_graph(folder: Path, targets: Iterable[str], finish: bool) -> Graph:
    """The graph of the study in a folder. finish: whether to make all files of it and Snakemake's records of them."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    files = (ROOT / "config.yaml", folder / "study.yaml")
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=files),
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )
        workflow.dag(DAGSettings(targets=frozenset(targets))).execute_workflow(executor="dryrun")
        dag = workflow._workflow.dag
        jobs = [job for job in dag.jobs if job.output]
        if finish:
            asyncio.run(_finish(dag, folder))
        number = {str(file): (i, j) for i, job in enumerate(jobs) for j, file in enumerate(job.output)}
        read = {i for job in jobs for file in job.input if str(file) in number for i in [number[str(file)][0]]}
        return Graph(
            [
                {
                    "outputs": len(job.output),
                    "inputs": [number[str(file)] for file in job.input if str(file) in number],
                    "is_target": i not in read,
                }
                for i, job in enumerate(jobs)
            ]
        )


async def _finish(dag: Any, folder: Path) -> None:
    """Make the files of all jobs, in the order of the jobs, and the records that Snakemake keeps of finished jobs."""
    # newer than all scripts
    now = time.time()
    for step, layer in enumerate(dag.toposorted()):
        for job in layer:
            for file in job.output:
                path = folder / str(file)
                if "directory" in file.flags:
                    path.mkdir(parents=True, exist_ok=True)
                    path = path / ".snakemake_timestamp"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                os.utime(path, (now + 0.01 * step, now + 0.01 * step))
            await dag.workflow.persistence.finished(job)


def compare(name: str, folder: Path, targets: Sequence[str], finished: bool = False) -> Graph:
    """Measure one plan beside a bare workflow, print a line of the table, and return the graph. finished: measure the
    plan again once all files are there.
    """
    measured = measure(ours(folder, *targets), folder)
    graph = _graph_in_a_process(folder, targets, finished)
    bare = folder / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "graph.json").write_text(json.dumps(graph.jobs))
    (bare / "Snakefile").write_text(BARE)
    _line(name, graph, measured, measure(_dry_run(bare / "Snakefile"), bare))
    if finished:
        again = measure(ours(folder, *targets), folder)
        said = (folder / "printed").read_text()
        if "Nothing to be done" not in said:
            raise RuntimeError(f"a finished study has jobs left: {said[-2000:]}")
        _line(f"{name}, finished", graph, again, None)
    return graph


def _graph_in_a_process(folder: Path, targets: Sequence[str], finish: bool) -> Graph:
    """`read_graph` in a process of its own: one cannot hold two workflows."""
    command = [sys.executable, __file__, "--graph", str(folder), *(["--finish"] if finish else []), *targets]
    subprocess.run(command, check=True)
    return Graph(json.loads((folder / "graph.json").read_text()))


def _line(name: str, graph: Graph, measured: Measured, bare: Measured | None) -> None:
    beside = "| | |" if bare is None else f"| {bare.processor:.1f} s | {measured.processor / bare.processor:.2f} |"
    print(
        f"| {name} | {len(graph.jobs):,} | {graph.outputs:,} | {graph.inputs:,} | {measured.seconds:.1f} s "
        f"| {measured.processor:.1f} s | {measured.gigabytes:.2f} {beside}",
        flush=True,
    )


def write_study(folder: Path, content: dict[str, Any]) -> None:
    """Write study.yaml of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content))


def main() -> None:
    """Print the table of docs/scale.md."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--levels", type=int, default=11, help="noise levels of every diffusion model")
    command.add_argument("--only", choices=CALLS, nargs="*", help="some of the calls")
    command.add_argument("--graph", type=Path, help=argparse.SUPPRESS)
    command.add_argument("--finish", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("targets", nargs="*", help=argparse.SUPPRESS)
    given = command.parse_args()
    if given.graph is not None:
        graph = read_graph(given.graph, given.targets, given.finish)
        (given.graph / "graph.json").write_text(json.dumps(graph.jobs))
        return
    chosen = given.only or CALLS
    print("| plan | jobs | files | inputs | seconds | processor seconds | GB | bare Snakemake | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_study(folder / "study", study(given.levels))
        if "single" in chosen:
            compare("a single score", folder / "study", [SINGLE])
        if "study" in chosen:
            compare("the study", folder / "study", ["all"], finished=True)
        if "undrawn" in chosen:
            write_study(folder / "undrawn", study(given.levels, drawn=False))
            compare("the study without figures of pairs", folder / "undrawn", ["all"], finished=True)
        if "crossed" in chosen:
            write_study(folder / "crossed", study(given.levels, crossed=True))
            compare("levels x conditions", folder / "crossed", ["all"])


if __name__ == "__main__":
    main()
