"""What jobs ask a cluster for, and what must hold on a SLURM cluster before the first of them is submitted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from diffalign.plan.stage import Stage, Wildcards

# where the plugin keeps the logs of jobs, below the working directory
LOGS = Path(".snakemake/slurm_logs")

_NO_ACCOUNTING = (
    "Where there is none, write `status_command: squeue` in profiles/slurm/site.yaml, or --slurm-status-command squeue "
    "in the call"
)
_FORGETS = (
    "squeue forgets ended jobs after MinJobAge (scontrol show config), which must be three times "
    "slurm-init-seconds-before-status-checks or more: set that key lower in profiles/slurm/config.yaml, or ask "
    "for a longer MinJobAge"
)
# seconds
_ANSWERS_WITHIN = 120


class Settings(Protocol):
    """What is read of the settings of Snakemake's plugin for SLURM."""

    status_command: str | None
    init_seconds_before_status_checks: int


class ClusterError(ValueError):
    """Jobs would be submitted in vain, or beside others that write the same files."""


class Cluster(Stage):
    """The GPUs of rules."""

    @property
    def of_a_job(self) -> int:
        """GPUs of a job that says nothing else: none where the study runs on CPUs."""
        return 0 if self.study.compute.device == "cpu" else 1

    def gpus(self, count: int | Callable[[Wildcards], int] | None = None) -> dict[str, Any]:
        """The resources that ask for GPUs, as the section `slurm` says. count: how many; None takes `of_a_job`."""
        slurm = self.study.slurm
        asked = self.of_a_job if count is None else count
        if slurm.gpus_by == "gres":
            kind = f"gpu:{slurm.gpu_model}" if slurm.gpu_model else "gpu"

            def gres(wildcards: Wildcards) -> str:
                number = asked(wildcards) if callable(asked) else asked
                return f"{kind}:{number}" if number else ""

            # the plugin refuses a job with both
            return {"gpu": 0, "gres": gres}
        # the plugin would ask for `a100:0`
        if asked == 0 or not self.of_a_job:
            return {"gpu": asked}
        # --gpus counts those of a job, and would be met from several nodes
        on_one: dict[str, Any] = {"gpu": asked, "nodes": 1}
        return {**on_one, "gpu_model": slurm.gpu_model} if slurm.gpu_model else on_one


def check_slurm(settings: Settings, logs: Path = LOGS) -> None:
    """Raises ClusterError where the end of jobs would not be seen, or jobs of an earlier call are still in the queue.

    logs: the folder of the plugin's logs, by which jobs of a working directory are recognised.
    """
    if asks_accounting(settings.status_command, settings.init_seconds_before_status_checks):
        answer = _call("sacct", "--allocations", "--noheader")
        if answer.returncode != 0:
            what = _FORGETS if settings.status_command == "squeue" else _NO_ACCOUNTING
            raise ClusterError(
                f"SLURM's accounting database does not answer (sacct: {answer.stderr.strip()}), so the end of no job "
                f"would be seen. {what}; docs/cluster.md"
            )
    queued = _call("squeue", "--me", "--noheader", "--Format=JobID:|,STDOUT:|")
    if queued.returncode != 0:
        raise ClusterError(
            f"squeue does not answer ({queued.stderr.strip()}), so jobs of an earlier call that write the same files "
            "would not be seen; call again"
        )
    earlier = jobs_of(queued.stdout.splitlines(), logs.resolve())
    if earlier:
        raise ClusterError(
            f"{len(earlier)} jobs of an earlier call in this working directory are still in the queue, and would run "
            f"beside new ones. Cancel them: scancel {' '.join(earlier)}. Or wait for them, and call again"
        )


def asks_accounting(status_command: str | None, seconds: int) -> bool:
    """Whether the plugin asks sacct how jobs are: where it is told so and there is one, or squeue forgets too early."""
    if shutil.which("sacct") is None:
        return False
    if status_command != "squeue":
        return True
    age = re.search(r"MinJobAge\s*=\s*(\d+)", _call("scontrol", "show", "config").stdout)
    return age is None or int(age[1]) < 3 * seconds


def jobs_of(queued: Iterable[str], logs: Path) -> list[str]:
    """The ids of jobs whose log lies below a folder. queued: lines ``id|log|`` of squeue."""
    rows = (line.strip().rstrip("|").split("|", 1) for line in queued if "|" in line)
    return [job for job, log in rows if Path(log).is_relative_to(logs)]


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    """A command and what it printed. One that is not there or hangs fails, and says so as stderr."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWERS_WITHIN)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
