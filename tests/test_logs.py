import logging
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from diffalign import logs

CODE = """
import sys, warnings
sys.path.insert(0, "workflow_scripts")
from diffalign import logs
with logs.attached(sys.argv[1], "job"):
    print("printed"); logs.log.info("logged"); warnings.warn("warned")
    for _ in logs.progress(range(3), 3, "work"):
        pass
    if len(sys.argv) > 2:
        raise ValueError("sd3 has no layer 'b99'")
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_everything_goes_to_the_log_and_nothing_to_a_terminal_that_is_none(tmp_path: Path) -> None:
    done = run(str(tmp_path / "deep" / "job.log"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (tmp_path / "deep" / "job.log").read_text()
    for part in ("printed", "logged", "warned", "work: 3 of 3", "job took"):
        assert part in text


def test_a_failure_is_one_line_for_the_reader_and_a_traceback_for_the_log(tmp_path: Path) -> None:
    done = run(str(tmp_path / "job.log"), "fail")
    assert done.returncode == 1
    assert done.stderr == f"job: sd3 has no layer 'b99'\njob: the log is {tmp_path / 'job.log'}\n"
    assert "Traceback" in (tmp_path / "job.log").read_text()


def test_the_logger_of_the_library_is_quiet_until_a_job_attaches_it() -> None:
    assert logging.getLogger("diffalign").handlers == []


def test_a_job_that_outlives_its_run_writes_into_a_log_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with logs.attached(path, "first"):
        assert logs.taken_over() == ""
        done = run(str(path))
        assert done.returncode == 0
        # what the first still says stands in no other job's log
        logs.log.info("loading weights, " * 20)
        assert logs.taken_over().startswith("job: process ")
    text = path.read_text()
    assert text.startswith("job: process ")
    assert "loading weights" not in text
