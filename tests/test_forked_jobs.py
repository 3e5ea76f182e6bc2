"""Jobs that tests run in forks are like processes of their own: streams, folder, environment, exit codes, signals."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_jobs import JobServer

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
print(Path.cwd(), os.environ["GIVEN"], sys.argv[0], sys.path[0], __name__, sys.stdin.read())
what = os.environ["WHAT"]
if what == "raise":
    raise ValueError("a reason")
if what == "signal":
    os.kill(os.getpid(), signal.SIGTERM)
if what == "wait":
    Path("pid").write_text(str(os.getpid()))
    time.sleep(60)
sys.exit(int(what))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    server = JobServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def started(server: JobServer, folder: Path, what: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    given = {**os.environ, "GIVEN": "a value", "WHAT": what}
    command = [*server.python.split(), str(script)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=given)


@pytest.mark.parametrize(("what", "code"), [("0", 0), ("7", 7), ("raise", 1), ("signal", -signal.SIGTERM)])
def test_a_job_has_its_folder_environment_and_exit_code(
    what: str, code: int, server: JobServer, tmp_path: Path
) -> None:
    job = started(server, tmp_path, what)
    printed, said = job.communicate("")
    assert job.returncode == code
    if what != "signal":
        assert printed.split() == [str(tmp_path), "a", "value", str(tmp_path / "script.py"), str(tmp_path), "__main__"]
    assert ("ValueError: a reason" in said) == (what == "raise")


def test_a_job_ends_with_its_client(server: JobServer, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with started(server, tmp_path, "wait") as job:
        assert job.stdin is not None
        job.stdin.close()
        while not pid.exists() or not pid.read_text():
            time.sleep(0.05)
        job.kill()
    for _ in range(200):
        if not Path(f"/proc/{pid.read_text()}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the job outlived its client by 10 seconds")
