"""Files that are whole or absent: written beside their place and moved there when complete."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffalign import job_records, logs

# files that what a job writes depends on, as it read them
_read: dict[Path, bytes] = {}
# a full disk as the operating system, and as libraries without its number, say it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID_FULL = re.compile("No space left|os error 28|quota exceeded|requested and [0-9]+ written|file write failed")
# after this time, what another machine left is taken for abandoned
_ABANDONED_SECONDS = 7 * 86400.0


class ChangedMeanwhile(RuntimeError):
    """A job outlived its run: another run has written other settings, or has begun the same job."""


def read_settings_file(path: Path) -> Any:
    """The content of a JSON file that a later run may write anew with other settings.

    From then on `replacing` moves nothing into place in this job once the file has changed: a job that outlives a
    killed run must not write over the results of a later one.
    """
    content = path.read_bytes()
    parsed = json.loads(content)
    if logs.in_job():
        _read[path] = content
        job_records.note_settings(parsed)
    return parsed


def check_current(path: Path) -> None:
    """Raise ChangedMeanwhile where this job must not write to `path`: a later run has written other settings than it
    has read, or has begun the same job.
    """
    if not logs.in_job():
        return
    for settings, content in _read.items():
        if not settings.is_file() or settings.read_bytes() != content:
            raise ChangedMeanwhile(
                f"{path} is not written: {settings} changed while this job ran, so it belongs to an earlier run"
            )
    other = logs.taken_over()
    if other:
        raise ChangedMeanwhile(f"{path} is not written: a later run has begun the same job ({other})")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; moved to it on success, removed on failure.

    Raises ChangedMeanwhile as `check_current`, and OSError that names `path` where the disk is full. What a killed
    process left beside it is removed too.
    """
    check_current(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with naming_full_disk(path):
            yield temporary
            _reach_the_disk(temporary)
        check_current(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """The same of a folder: an empty one beside it, which takes its place on success."""
    check_current(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    make_empty(temporary)
    try:
        with naming_full_disk(folder):
            yield temporary
            for path in temporary.rglob("*"):
                _reach_the_disk(path)
        check_current(folder)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raise OSError that names `path` where writing there finds the disk full, or a quota: libraries do not say where
    they write, and some not even why they cannot.
    """
    try:
        yield
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None:
            number = seen.errno if isinstance(seen, OSError) else None
            if number in _FULL or _SAID_FULL.search(str(seen)):
                number = number if number in _FULL else errno.ENOSPC
                raise OSError(number, os.strerror(number), str(path)) from error
            seen = seen.__cause__ or seen.__context__
        raise


def _beside(path: Path) -> Path:
    """A temporary path beside `path`, of this process; those that killed processes left are removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part*"):
        if _is_abandoned(left, path.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}.part{path.suffix}")


def _is_abandoned(left: Path, name: str) -> bool:
    """Whether the process that writes a temporary file is gone; of another machine, whether the file is old."""
    written = re.match(r"([0-9]+)(?:@(.*?))?\.part", left.name.removeprefix(f".{name}."))
    if written is None:
        return False
    try:
        if written[2] in (None, platform.node()):
            os.kill(int(written[1]), 0)
            return False
        return time.time() - left.stat().st_mtime > _ABANDONED_SECONDS
    except ProcessLookupError:
        return True
    except OSError:
        # of another user, or gone meanwhile
        return False


def _reach_the_disk(path: Path) -> None:
    """Wait until a file is on the disk: else a machine that dies can leave a moved file without its content."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def make_readable(path: Path) -> None:
    """Give a file the permissions that new files have, for libraries that give theirs to the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def make_empty(folder: Path) -> None:
    """Make a folder that holds nothing: what an earlier run left there is removed. Raises as `check_current`."""
    check_current(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, ArrayLike], compressed: bool = False) -> None:
    """Write named arrays of numbers and text as one ``.npz``, as a whole."""
    save = np.savez_compressed if compressed else np.savez
    with replacing(path) as temporary, temporary.open("wb") as file:
        save(file, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})


def write_json(path: Path, value: Any) -> None:
    """Write JSON as a whole: indented, keys in order of insertion, NaN refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
