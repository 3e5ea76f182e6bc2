"""Logs of jobs. All output goes to a file; progress and a one-line reason of a failure go to the terminal."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger("diffalign")
T = TypeVar("T")
_LOG_EVERY_SECONDS = 10.0
# the job of this process, while `attached` runs it
_running: list[str] = []


@contextmanager
def attached(path: str | Path, job: str) -> Iterator[None]:
    """Run a job with logging, stdout and stderr in the file `path`.

    An exception ends the process with exit code 1. Its traceback goes to the log, the line ``job: reason`` and the path
    of the log to the terminal.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        root = logging.getLogger()
        root.addHandler(handler)
        log.setLevel(logging.INFO)
        logging.captureWarnings(True)
        started = time.monotonic()
        _running.append(job)
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=file)
            print(f"{job}: {error}" if str(error) else f"{job}: {type(error).__name__}", file=sys.__stderr__)
            print(f"{job}: the log is {path}", file=sys.__stderr__)
            print(f"{job}: {error}", file=file)
            sys.exit(1)
        finally:
            _running.pop()
            log.info("%s took %.1f s", job, time.monotonic() - started)
            root.removeHandler(handler)


def in_job() -> bool:
    """Whether `attached` runs a job in this process."""
    return bool(_running)


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
