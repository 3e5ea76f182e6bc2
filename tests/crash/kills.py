"""SIGKILL at random times: Snakemake, or a job that it runs, dies again and again, and the same command finishes later
with the files of an undisturbed run. ``make soak`` kills fifty times.
"""

import argparse
import hashlib
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import forked_snakemake
import psutil
from conftest import SMALL, Workflow, copy_tree

# two models of the small study: images, checkpoints, extractions, alignments, a table and a figure
STUDY = {"study": {"models": ["dinov2", "sdvae"]}}
TARGETS = (
    "results/tables/alignment.tsv",
    "results/cknna/photographs/clean/dinov2_vs_sdvae.npy",
    "results/figures/photographs/clean/layer_maps/dinov2_vs_sdvae.png",
)
# share of kills that hit Snakemake itself; the others hit one of its jobs
_SNAKEMAKE = 0.4
# what a command takes that is called again and again
_CALLS = 6


class Running:
    """A call of Snakemake that runs. printed: the folder of what it prints."""

    def __init__(self, command: Sequence[str], folder: Path, printed: Path) -> None:
        self._printed = [printed / name for name in ("stdout.txt", "stderr.txt")]
        for path in self._printed:
            path.unlink(missing_ok=True)
        # without `python -m snakemake`
        self._process = forked_snakemake.start(command[3:], folder, self._printed)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def ended(self) -> tuple[int, str]:
        """The exit code and what was printed, once it has ended."""
        self._process.join()
        printed = "".join(path.read_text(errors="replace") for path in self._printed if path.exists())
        return int(self._process.exitcode or 0), printed


@dataclass
class Kills:
    """A study that is disturbed. base: a folder for everything. seed: of targets and times. seconds: that an
    undisturbed run took, once it has been made.
    """

    base: Path
    seed: int
    tree: Path = field(init=False)
    expected: dict[str, str] = field(init=False)
    seconds: float = field(init=False)
    killed: list[str] = field(default_factory=list)
    orphans: list[psutil.Process] = field(default_factory=list)
    said_unlock: bool = False
    slower: float = 1.0
    refused: int = 0

    def __post_init__(self) -> None:
        print(f"seed {self.seed}", flush=True)
        self.random = random.Random(self.seed)
        self.tree = copy_tree(self.base / "tree")
        undisturbed = self.workflow(0)
        # the servers of forks start, which takes as long as a study
        code, said = self._started(undisturbed, "--dry-run").ended()
        assert code == 0, said
        began = time.monotonic()
        self.call(undisturbed)
        self.seconds = time.monotonic() - began
        self.expected = digests(undisturbed.directory)
        print(f"undisturbed: {len(self.expected)} files in {self.seconds:.0f} s", flush=True)

    def workflow(self, number: int) -> Workflow:
        """The same study in a folder of its own."""
        return Workflow(self.tree, self.base / f"work{number}", ("profiles/demo/study.yaml", SMALL))

    def survive(self, kills: int) -> None:
        """Kill so often, beginning anew wherever the study is finished; every study must end as the undisturbed one."""
        number = 0
        while len(self.killed) < kills:
            number += 1
            workflow = self.workflow(number)
            while len(self.killed) < kills and not self._finishes_before_a_kill(workflow):
                pass
            self.call(workflow)
            psutil.wait_procs(self.orphans, timeout=300)
            self.check(workflow.directory)
            print(f"study {number}: {len(self.expected)} files as undisturbed", flush=True)
        print(f"{len(self.killed)} kills survived, seed {self.seed}", flush=True)

    def check(self, folder: Path) -> None:
        """Every result is the undisturbed one, and nothing of a killed job lies about."""
        found = digests(folder)
        different = sorted(path for path in {*found, *self.expected} if found.get(path) != self.expected.get(path))
        assert not different, (self.seed, different)
        left = [*folder.glob("results/**/.*.part*"), *(folder / "results" / "checkpoints").rglob("*.*")]
        assert not left, (self.seed, left)

    def call(self, workflow: Workflow) -> None:
        """The command until it is done: unlocked where Snakemake says so, and again where a killed job failed."""
        for _ in range(_CALLS):
            code, said = self._started(workflow).ended()
            if code == 0:
                return
            self._unlock_if_said(workflow, said)
        raise AssertionError(f"seed {self.seed}: not finished in {_CALLS} calls:\n{said}")

    def _finishes_before_a_kill(self, workflow: Workflow) -> bool:
        """Call the command and kill at a random time. True where the study was finished before."""
        running = self._started(workflow)
        before = len(digests(workflow.directory))
        due = time.monotonic() + self.random.uniform(0, self.slower * self.seconds / 3)
        wants_snakemake = self.random.random() < _SNAKEMAKE
        while True:
            if not running.is_running():
                code, said = running.ended()
                if code:
                    # locked by a Snakemake that was killed, for example
                    self.refused += 1
                    assert self.refused < _CALLS, (self.seed, said)
                    self._unlock_if_said(workflow, said)
                return code == 0
            jobs = jobs_of(running.pid)
            if time.monotonic() >= due and (wants_snakemake or jobs):
                break
            time.sleep(0.1)
        target = running.pid if wants_snakemake else self.random.choice(jobs).pid
        what = "Snakemake" if wants_snakemake else _script(target)
        if wants_snakemake:
            self.orphans += jobs
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            running.ended()
            return False
        self.killed.append(what)
        self.refused = 0
        print(f"kill {len(self.killed)}: {what}", flush=True)
        running.ended()
        # where nothing was finished before the kill, this machine is slower than it was
        self.slower = self.slower * 1.5 if len(digests(workflow.directory)) <= before else 1.0
        return False

    def _started(self, workflow: Workflow, *options: str) -> Running:
        command = workflow.command(*TARGETS, overlay=STUDY)
        at = command.index("--configfile")
        return Running([*command[:at], *options, *command[at:]], self.tree, self.base)

    def _unlock_if_said(self, workflow: Workflow, said: str) -> None:
        if "--unlock" not in said:
            return
        self.said_unlock = True
        code, said = self._started(workflow, "--unlock").ended()
        assert code == 0, said


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all results and resources, but for hidden files and what tells of times and memory."""
    files = [path for top in ("results", "resources") for path in (folder / top).rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(names.items())
        if not any(word.startswith(".") for word in name.split("/")) and not name.startswith("results/provenance")
    }


def jobs_of(pid: int) -> list[psutil.Process]:
    """The processes below Snakemake that run a script."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [each for each in below if _script(each.pid)]


def _script(pid: int) -> str:
    """The script that a process runs; empty for a shell and for what is gone."""
    try:
        words = psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
    if not words or "python" not in words[0]:
        return ""
    # a copy that Snakemake has made: .snakemake/scripts/tmp….align.py
    return next((Path(word).name.split(".", 1)[-1] for word in words if "/scripts/" in word), "")


def main() -> None:
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="where studies are made; a temporary one by default")
    asked = parser.parse_args()
    folder = asked.folder or Path(mkdtemp(prefix="kills"))
    Kills(folder, asked.seed).survive(asked.kills)


if __name__ == "__main__":
    main()
