"""Calls of Snakemake in forks of a process that has imported it: its imports take seconds, and tests call it often.

Its jobs are forks as well (`forked_jobs.py`).
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from forked_jobs import JobServer

_ROOT = Path(__file__).resolve().parent.parent
# what every call imports; nothing of this project, since tests change copies of it
_PRELOADED = [
    "snakemake.cli",
    "snakemake.workflow",
    "snakemake.scheduling.job_scheduler",
    "snakemake.script",
    "pandas",
    "pydantic",
    "yaml",
]


def call(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """The exit code of ``python -m snakemake`` with these arguments in a folder, and what it printed."""
    with TemporaryDirectory() as printed:
        streams = [Path(printed) / name for name in ("stdout", "stderr")]
        process = start(arguments, folder, streams)
        process.join()
        return int(process.exitcode or 0), "".join(path.read_text(errors="replace") for path in streams)


def start(arguments: Sequence[str], folder: Path, streams: Sequence[Path]) -> ForkServerProcess:
    """The same as a process that runs. streams: files of its standard output and standard error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(
        target=_main, args=(list(arguments), folder, list(streams), dict(os.environ), _server().python)
    )
    process.start()
    return process


@cache
def _server() -> JobServer:
    """The server of the jobs of this process, which is started once."""
    return JobServer(Path(mkdtemp(prefix="jobs")))


def _main(
    arguments: list[str], folder: Path, streams: Sequence[Path], environment: Mapping[str, str], python: str
) -> None:
    """Become a process of Snakemake: its folder, its environment, its streams, and no path of the tests."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(streams, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    ours = tuple(str(_ROOT / name) for name in ("tests", "workflow_scripts"))
    sys.path[:] = [path for path in sys.path if not path.startswith(ours)]
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main
    from snakemake.script import PythonScript

    def execute_script(script: PythonScript, fname: str, edit: bool = False) -> None:
        script._execute_cmd("{python} {fname:q}", python=python, fname=fname)

    PythonScript.execute_script = execute_script
    main(arguments)
