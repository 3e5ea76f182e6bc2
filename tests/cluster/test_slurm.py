"""A part of the demo on a real SLURM cluster, through profiles/slurm: what SLURM says of its jobs, and what comes out.

The cluster is this machine (`mini_slurm.py`). Of the profile only the file of the site is replaced; jobs are asked for
more often than by default.
"""

import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mini_slurm
import pytest
import yaml
from conftest import SMALL, Run, Workflow, copy_tree, shared_folder
from filelock import FileLock
from mini_slurm import Cluster, Job, wait_for

PARTITIONS = {
    name: {"max_runtime": 2880, "max_mem_mb": mini_slurm.MEMORY_MB, "max_threads": mini_slurm.CPUS, **more}
    for name, more in {"cpu": {}, "gpu": {"max_gpu": 1}}.items()
}
# MB of the largest node, as a site says
LARGEST = 15_000
SITE = {"partitions": PARTITIONS, "site": {"largest_node_mb": LARGEST, "status_command": "squeue"}}
OFTEN = ("--slurm-init-seconds-before-status-checks", "10", "--seconds-between-status-checks", "1")
# a GPU where there is one: that of this cluster is an empty file, which jobs are given and torch does not see
OVERLAY = {"compute": {"device": "auto"}}
STUDIES = ("profiles/demo/study.yaml", "profiles/slurm/site.yaml", SMALL)
PAIR = "dinov2_vs_pixels"
FIGURES = [f"results/figures/photographs/clean/{name}/{PAIR}.png" for name in ("layer_maps", "depth_curves")]
# models of which only the weights are made
ASIDE = ("siglip2", "vit.t.cls")
TARGETS = [*FIGURES, *(f"resources/weights/{model}/weights.json" for model in ASIDE)]
WEIGHTS = "rule_miniature_weights_wildcards_{}"
NEIGHBORS = "rule_neighbors_wildcards_photographs_clean_{}"
OF_PAIR = "rule_pair_align_layers_calibrate_layers_pair_figures"
# jobs of SLURM, by the comments that the plugin gives them, and whether they ask for a GPU
EXPECTED = {
    "rule_images_wildcards_photographs_clean": False,
    **{WEIGHTS.format(model): False for model in ("dinov2", *ASIDE)},
    **{f"rule_extract_{model}_wildcards_photographs_clean_{model}": True for model in ("dinov2", "pixels")},
    **{NEIGHBORS.format(model): True for model in ("dinov2", "pixels")},
    OF_PAIR: False,
}
# what is done to a running job; True once it is done
Deed = Callable[[Cluster, Job], bool]


@dataclass
class Story:
    """All calls of one study, and what SLURM said of their jobs.

    calls: name -> outcome. jobs: at the end. first: those of the call `disturbed`. submitted_…: how many jobs calls
    submitted that were to submit none. after_stop: states of the jobs of one rule once a call has ended by a signal.
    there_after_first: which results lay there after `disturbed`. left: processes of the cluster after its end.
    """

    calls: dict[str, Run] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    first: list[Job] = field(default_factory=list)
    submitted_unwatched: int = -1
    submitted_beside: int = -1
    after_stop: dict[str, list[str]] = field(default_factory=dict)
    there_after_first: dict[str, bool] = field(default_factory=dict)
    cluster: Workflow | None = None
    local: Workflow | None = None
    left: dict[int, str] = field(default_factory=dict)

    def of(self, comment: str) -> list[Job]:
        """The jobs with a comment, in order."""
        return [job for job in self.jobs if job.comment == comment]


def installed() -> None:
    """Skip where SLURM is not installed, which in CI it must be."""
    missing = mini_slurm.missing()
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"SLURM is missing ({', '.join(missing)}), and in CI it must not be")
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge")


def of_site(workflow: Workflow) -> None:
    """What a site changes of the profile."""
    (workflow.tree / "profiles" / "slurm" / "site.yaml").write_text(yaml.safe_dump(SITE))


def start(cluster: Cluster, workflow: Workflow, output: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """A call of Snakemake as a user makes it, from the root of the repository."""
    overlay = workflow.directory.parent / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(OVERLAY))
    command = [
        *(sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--directory", str(workflow.directory)),
        *OFTEN,
        *("--configfile", "config.yaml", *map(str, STUDIES), str(overlay)),
    ]
    with output.open("wb") as file:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=workflow.tree,
            env=cluster.environment,
            stdout=file,
            stderr=file,
            # tests that run in the background ignore it, and so would their children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )


def watched(
    cluster: Cluster,
    workflow: Workflow,
    *arguments: str,
    deeds: Mapping[str, Sequence[Deed]] | None = None,
    stopped_with: tuple[str, signal.Signals] | None = None,
    seconds: float = 1200,
) -> Run:
    """A call, run to its end. deeds: comment -> what is done to its first job, its second … once it runs.

    stopped_with: the comment of the job whose deed is followed by a signal to Snakemake, and the signal.
    """
    output = workflow.directory.parent / "output.txt"
    before = {job.number for job in cluster.jobs()}
    process = start(cluster, workflow, output, *arguments)
    open_deeds = {comment: list(each) for comment, each in (deeds or {}).items()}
    dealt_with: set[int] = set()

    def ended() -> bool:
        for job in cluster.jobs():
            waiting = open_deeds.get(job.comment)
            if not waiting or job.number in before | dealt_with or job.state != "RUNNING":
                continue
            if waiting[0](cluster, job):
                dealt_with.add(job.number)
                waiting.pop(0)
                if stopped_with is not None and job.comment == stopped_with[0]:
                    process.send_signal(stopped_with[1])
        return process.poll() is not None

    try:
        wait_for(f"the end of snakemake {' '.join(arguments)}", ended, seconds)
    finally:
        process.kill()
        code = process.wait()
        text = output.read_text(errors="replace")
        sys.stdout.write(text)
    return Run(code, text)


def signalled(cluster: Cluster, job: Job, word: str, what: signal.Signals) -> bool:
    """Send a signal to the processes of a job whose command has a word, and say whether there were any."""
    numbers = [number for number, command in cluster.processes(job.number).items() if word in command]
    for number in numbers:
        os.kill(number, what)
    return bool(numbers)


def script_dies(cluster: Cluster, job: Job) -> bool:
    """End the script of a job as the kernel does where memory runs out."""
    return signalled(cluster, job, "/.snakemake/scripts/", signal.SIGKILL)


def is_cancelled(cluster: Cluster, job: Job) -> bool:
    cluster.call("scancel", str(job.number))
    return True


def hangs(cluster: Cluster, job: Job) -> bool:
    """Let a job do nothing more."""
    return signalled(cluster, job, "snakemake", signal.SIGSTOP)


def hangs_beyond_its_time(cluster: Cluster, job: Job) -> bool:
    if not hangs(cluster, job):
        return False
    cluster.call("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    return True


def node_loses_power(cluster: Cluster, job: Job) -> bool:
    """Let the node die while the script of a job runs, and come back."""
    if not any("/.snakemake/scripts/" in command for command in cluster.processes(job.number).values()):
        return False
    mini_slurm.lose_power(cluster)
    mini_slurm.return_to_service(cluster)
    return True


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Story:
    """What the first worker of pytest that needs it has seen; the others wait for it."""
    installed()
    base = shared_folder(tmp_path_factory, worker_id) / "cluster"
    told = base / "story.pickle"
    with FileLock(f"{base}.lock"):
        if not told.exists():
            assert not base.exists(), "another test saw how the cluster failed"
            base.mkdir()
            told.write_bytes(pickle.dumps(see(base)))
        return pickle.loads(told.read_bytes())


def see(base: Path) -> Story:
    """One study on the cluster: called without a way to see how jobs are, disturbed, killed, called beside its old
    jobs, and finished; and the same study on this machine alone.
    """
    on_cluster, locally = (
        Workflow(copy_tree(base / name / "tree"), base / name / "work", STUDIES) for name in ("slurm", "local")
    )
    told = Story(cluster=on_cluster, local=locally)
    of_site(on_cluster)
    # the path of a socket must be short
    folder = Path(tempfile.mkdtemp(prefix="slurm-")) / "mini"
    try:
        with mini_slurm.running(folder) as cluster:
            told.calls["unwatched"] = watched(cluster, on_cluster, "--slurm-status-command", "sacct", "--", *TARGETS)
            told.submitted_unwatched = len(cluster.jobs())
            disturbed = {
                WEIGHTS.format("siglip2"): [script_dies],
                WEIGHTS.format("vit.t.cls"): [hangs_beyond_its_time],
                NEIGHBORS.format("pixels"): [is_cancelled, is_cancelled],
            }
            told.calls["disturbed"] = watched(cluster, on_cluster, "--", *TARGETS, deeds=disturbed)
            told.first = cluster.jobs()
            told.there_after_first = {
                name: (on_cluster.directory / path).exists()
                for name, path in {
                    "neighbours of dinov2": "results/neighbors/photographs/clean/dinov2.npz",
                    "neighbours of pixels": "results/neighbors/photographs/clean/pixels.npz",
                    "figure": TARGETS[0],
                    **{f"weights of {model}": f"resources/weights/{model}/weights.json" for model in ASIDE},
                }.items()
            }
            # the other way to ask for GPUs
            again = ("--config", "slurm={gpus_by: gres}", "--", *TARGETS)
            killed = NEIGHBORS.format("pixels")
            for name, stop in {"interrupted": signal.SIGINT, "killed": signal.SIGKILL}.items():
                deeds = {killed: [hangs]}
                told.calls[name] = watched(cluster, on_cluster, *again, deeds=deeds, stopped_with=(killed, stop))
                told.after_stop[name] = [job.state for job in cluster.jobs() if job.comment == killed]
                if stop is signal.SIGINT:
                    wait_for("the end of the interrupted job", lambda: all(job.over for job in cluster.jobs()), 60)
            told.calls["unlock"] = watched(cluster, on_cluster, "--unlock", *again)
            count = len(cluster.jobs())
            told.calls["beside"] = watched(cluster, on_cluster, *again)
            told.submitted_beside = len(cluster.jobs()) - count
            advised = re.search(r"Cancel them: (scancel [\d ]*\d)", told.calls["beside"].output)
            assert advised is not None, told.calls["beside"].output
            cluster.call(*shlex.split(advised[1]))
            wait_for("the end of the cancelled job", lambda: all(job.over for job in cluster.jobs()), 60)
            told.calls["finished"] = watched(cluster, on_cluster, *again, deeds={OF_PAIR: [node_loses_power]})
            told.jobs = cluster.jobs()
        told.left = cluster.processes()
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
    # as many threads a job as on the cluster, where a job has no more than the machine
    told.calls["local"] = locally.run(*TARGETS, options=["--cores", "all"], overlay=OVERLAY)
    return told


def test_jobs_land_where_what_they_ask_for_is(story: Story) -> None:
    assert {job.comment for job in story.jobs} == set(EXPECTED)
    for job in story.jobs:
        # the first call asks for GPUs by --gpus, the others by --gres
        of_gpu = (job.gpus, job.gpus_of_a_node) == (("gres:gpu:1", "") if job in story.first else ("", "gres:gpu:1"))
        assert (job.partition, of_gpu) == (("gpu", True) if EXPECTED[job.comment] else ("cpu", False)), job
    cores = {job.comment: job.cpus for job in story.jobs}
    assert (cores[NEIGHBORS.format("dinov2")], cores[WEIGHTS.format("dinov2")]) == (8, 1)


def test_a_failed_job_is_tried_again_with_more_memory(story: Story) -> None:
    for comment, states in {
        WEIGHTS.format("siglip2"): ["FAILED", "COMPLETED"],
        WEIGHTS.format("vit.t.cls"): ["TIMEOUT", "COMPLETED"],
        NEIGHBORS.format("pixels"): ["CANCELLED", "CANCELLED"],
    }.items():
        tries = [job for job in story.first if job.comment == comment]
        assert [job.state for job in tries] == states
        # but for rounding
        assert abs(tries[1].memory - min(2 * tries[0].memory, LARGEST)) <= 1
    assert [job.memory for job in story.of(WEIGHTS.format("siglip2"))] == [4000, 8000]
    # twice 9.6 GB is more than the largest node has
    assert max(job.memory for job in story.jobs) == LARGEST


def test_every_failure_is_reported_with_the_path_of_its_log(story: Story) -> None:
    run = story.calls["disturbed"]
    assert run.code != 0
    failed = [job for job in story.first if job.state != "COMPLETED"]
    assert Counter(job.state for job in failed) == {"CANCELLED": 2, "FAILED": 1, "TIMEOUT": 1}
    for job in failed:
        said = f"SLURM-job '{job.number}' failed, SLURM status is: '{job.state}'"
        (block,) = (part for part in run.output.split("\nError in rule ") if said in part)
        rule, words = job.comment.removeprefix("rule_").split("_wildcards_")
        assert f"logs/{rule}/{words.replace('_', '/')}.log" in block
        assert str(job.log) in block
        assert job.log.exists()


def test_the_rest_of_the_study_is_finished_beside_a_failure(story: Story) -> None:
    assert story.there_after_first == {
        "neighbours of dinov2": True,
        "neighbours of pixels": False,
        "figure": False,
        "weights of siglip2": True,
        "weights of vit.t.cls": True,
    }


def test_another_call_completes_the_study_and_does_nothing_twice(story: Story) -> None:
    assert story.calls["finished"].code == 0, story.calls["finished"].output
    assert Counter(job.comment for job in story.jobs if job.state == "COMPLETED") == dict.fromkeys(EXPECTED, 1)
    ended_otherwise = Counter(job.state for job in story.jobs if job.state != "COMPLETED")
    # the third cancelled one is that of the interrupted call, the fourth that of the killed one
    assert ended_otherwise == {"CANCELLED": 4, "FAILED": 1, "TIMEOUT": 1}


def test_jobs_of_a_pair_share_a_job_of_the_cluster(story: Story) -> None:
    (job,) = story.of(OF_PAIR)
    assert (job.state, job.cpus) == ("COMPLETED", 8)


def test_a_job_whose_node_dies_begins_anew(story: Story) -> None:
    assert {job.comment: job.restarts for job in story.jobs if job.restarts} == {OF_PAIR: 1}


def test_without_an_accounting_database_nothing_is_submitted_and_the_message_says_what_to_set(story: Story) -> None:
    run = story.calls["unwatched"]
    assert run.code != 0
    assert "SLURM's accounting database does not answer" in run.output
    assert "status_command: squeue" in run.output
    assert story.submitted_unwatched == 0


def test_a_call_that_is_interrupted_cancels_its_jobs(story: Story) -> None:
    assert story.calls["interrupted"].code != 0
    # two of the disturbed call, and its own
    assert story.after_stop["interrupted"] == ["CANCELLED"] * 3


def test_jobs_of_a_killed_call_are_not_joined_by_others(story: Story) -> None:
    assert story.calls["killed"].code == -signal.SIGKILL
    assert story.after_stop["killed"] == ["CANCELLED"] * 3 + ["RUNNING"]
    assert story.calls["unlock"].code == 0
    beside = story.calls["beside"]
    assert beside.code != 0
    _, left = (job for job in story.jobs if job.state == "CANCELLED" and job not in story.first)
    assert "1 jobs of an earlier call in this working directory are still in the queue" in beside.output
    assert f"scancel {left.number}." in beside.output
    assert story.submitted_beside == 0


def test_results_are_those_of_one_machine_to_the_bit(story: Story) -> None:
    """All but the records of jobs, which hold their time."""
    assert story.calls["local"].code == 0, story.calls["local"].output
    assert story.cluster is not None
    assert story.local is not None
    found = [
        {
            path.relative_to(each.directory).as_posix(): path.read_bytes()
            for path in sorted((each.directory / "results").rglob("*"))
            if path.suffix in (".npy", ".npz", ".pt", ".json", ".png", ".tsv") and "provenance" not in path.parts
        }
        for each in (story.cluster, story.local)
    ]
    assert set(found[0]) == set(found[1])
    assert len(found[0]) > 20
    assert [name for name, content in found[0].items() if content != found[1][name]] == []


def test_no_process_of_the_cluster_is_left(story: Story) -> None:
    assert story.left == {}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_cluster_that_is_interrupted_leaves_no_process(end: signal.Signals) -> None:
    installed()
    base = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        script = f"sbatch --output={base}/job.log --wrap 'touch {base}/runs; sleep 600' && sleep 600"
        command = [sys.executable, mini_slurm.__file__, str(base / "mini"), "sh", "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for("a running job", (base / "runs").exists, 120)
            cluster = Cluster(base / "mini", {})
            assert len(cluster.processes()) > 4
        finally:
            process.send_signal(end)
        assert process.wait(120) != 0
        assert cluster.processes() == {}
    finally:
        shutil.rmtree(base)
