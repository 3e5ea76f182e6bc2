"""A job that outlives a killed Snakemake while a later call asks for other settings."""

import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
from conftest import Workflow
from kills import digests, jobs_of
from mini_slurm import wait_for

CALIBRATIONS = "results/calibration/photographs/clean/dinov2_vs_siglip2.npz"
# enough that the job is caught at its work
LONG, SHORT = ({"alignment": {"permutations": permutations}} for permutations in (20_000, 60))


def test_a_job_of_a_killed_call_does_not_write_over_one_with_other_settings(copied: Workflow, tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    log = copied.directory / "logs/calibrate_layers/photographs/clean/dinov2/siglip2.log"
    log.unlink()
    with printed.open("wb") as file:
        command = copied.command(CALIBRATIONS, overlay=LONG)
        call = subprocess.Popen(command, cwd=copied.tree, stdout=file, stderr=file)

    def at_work() -> list[psutil.Process]:
        assert call.poll() is None, printed.read_text()
        # by then it has read its settings
        begun = log.exists() and "permutations: " in log.read_text()
        return [job for job in jobs_of(call.pid) if begun and any("calibrate_layers" in word for word in job.cmdline())]

    found: list[psutil.Process] = []
    try:
        found = wait_for("the job at its work", at_work, 180)
        orphan = found[0]
        orphan.suspend()
        call.kill()
        call.wait()
        assert copied.run(CALIBRATIONS, options=["--unlock"], overlay=SHORT).code == 0
        done = copied.run(CALIBRATIONS, overlay=SHORT)
        assert done.code == 0, done.output
        made = digests(copied.directory)
        orphan.resume()
        psutil.wait_procs([orphan], timeout=300)
        assert not orphan.is_running()
    finally:
        for process in (*(jobs_of(call.pid) if call.poll() is None else found), call):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert "is not written: results/recipes/settings/calibration.json changed while this job ran" in printed.read_text()
    assert digests(copied.directory) == made
    assert "Nothing to be done" in copied.plan(CALIBRATIONS, overlay=SHORT).output
