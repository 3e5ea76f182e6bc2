"""A job that outlives a killed Snakemake while a later call asks for other settings."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from conftest import Workflow
from kills import digests, jobs_of

CALIBRATIONS = "results/calibration/photographs/clean/dinov2_vs_siglip2.npz"
# enough that the job is caught at its work
LONG, SHORT = ({"alignment": {"permutations": permutations}} for permutations in (20_000, 60))


def within(seconds: float, found: Callable[[], psutil.Process | None]) -> psutil.Process:
    """What is found first."""
    end = time.monotonic() + seconds
    while (process := found()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def test_a_job_of_a_killed_call_does_not_write_over_one_with_other_settings(copied: Workflow, tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    log = copied.directory / "logs/calibrate_layers/photographs/clean/dinov2/siglip2.log"
    log.unlink()
    with printed.open("wb") as file:
        command = copied.command(CALIBRATIONS, overlay=LONG)
        call = subprocess.Popen(command, cwd=copied.tree, stdout=file, stderr=file)

    def at_work() -> psutil.Process | None:
        assert call.poll() is None, printed.read_text()
        jobs = [job for job in jobs_of(call.pid) if any("calibrate_layers" in word for word in job.cmdline())]
        # by then it has read its settings
        return jobs[0] if jobs and log.exists() and "permutations: " in log.read_text() else None

    orphan = within(180, at_work)
    orphan.suspend()
    call.kill()
    call.wait()
    assert copied.run(CALIBRATIONS, options=["--unlock"], overlay=SHORT).code == 0
    done = copied.run(CALIBRATIONS, overlay=SHORT)
    assert done.code == 0, done.output
    made = digests(copied.directory)
    os.kill(orphan.pid, signal.SIGCONT)
    psutil.wait_procs([orphan], timeout=300)
    assert not orphan.is_running()
    assert "is not written: results/recipes/settings/calibration.json changed while this job ran" in printed.read_text()
    assert digests(copied.directory) == made
    assert "Nothing to be done" in copied.plan(CALIBRATIONS, overlay=SHORT).output
