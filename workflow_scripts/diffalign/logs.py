"""Logs of jobs. All output goes to a file; progress and a one-line reason of a failure go to the terminal."""

from __future__ import annotations

import errno
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from diffalign import job_records

log = logging.getLogger("diffalign")
T = TypeVar("T")
_LOG_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class _Job:
    """A job that runs. claim: the first line of its log, which no other job has."""

    log: Path
    claim: str


# the job of this process, while `attached` runs it
_running: list[_Job] = []


@contextmanager
def attached(path: str | Path, job: str) -> Iterator[None]:
    """Run a job with logging, stdout and stderr in the file `path`.

    An exception ends the process with exit code 1. Its traceback goes to the log, the line ``job: reason`` and the path
    of the log to the terminal.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = f"{job}: process {os.getpid()} on {platform.node()} since {datetime.now().isoformat(' ')}"
    # a file of its own, which is there at once: a job that outlived its run writes on into the one that it opened
    begun = path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}.part")
    with begun.open("w", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        root = logging.getLogger()
        root.addHandler(handler)
        log.setLevel(logging.INFO)
        logging.captureWarnings(True)
        started = time.monotonic()
        _running.append(_Job(path, claim))
        try:
            file.write(f"{claim}\n")
            begun.replace(path)
            job_records.begin(path)
            yield
            job_records.finish(path, time.monotonic() - started)
        except Exception as error:
            reason = _reason(error)
            print(f"{job}: {reason}", file=sys.__stderr__)
            print(f"{job}: the log is {path}", file=sys.__stderr__)
            # a full disk holds no log either
            with suppress(OSError):
                traceback.print_exc(file=file)
                print(f"{job}: {reason}", file=file)
            sys.exit(1)
        finally:
            _running.pop()
            log.info("%s took %.1f s", job, time.monotonic() - started)
            root.removeHandler(handler)


def _reason(error: Exception) -> str:
    """An error as the reader is told it; of an error of writing without a path, with what the job writes."""
    reason = str(error) or type(error).__name__
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None
    outputs = job_records.outputs() if is_full else []
    return f"{reason}, in one of {', '.join(outputs[:5])}" if outputs else reason


def in_job() -> bool:
    """Whether `attached` runs a job in this process."""
    return bool(_running)


def taken_over() -> str:
    """Of a job that outlived its run, the first line of the log of the job that a later run has begun in its place;
    empty where there is none.
    """
    if not _running or not _running[-1].log.is_file():
        return ""
    with _running[-1].log.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().rstrip("\n")
    return "" if first == _running[-1].claim else first or "another job"


class TerminalBar(tqdm):  # type: ignore[type-arg]
    """A progress bar on the terminal, even if stderr is redirected. It is hidden where there is no terminal."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.pop("name", None)
        terminal = sys.__stderr__
        silent = terminal is None or not terminal.isatty()
        super().__init__(*arguments, **{**options, "file": terminal, "disable": silent or options.get("disable")})


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, with a bar on the terminal and a count in the log every ten seconds."""
    bar = TerminalBar(total=total, desc=what, leave=False)
    last = time.monotonic()
    with bar:
        for number, item in enumerate(items, 1):
            yield item
            bar.update()
            if time.monotonic() - last > _LOG_EVERY_SECONDS or number == total:
                last = time.monotonic()
                log.info("%s: %d of %d", what, number, total)
