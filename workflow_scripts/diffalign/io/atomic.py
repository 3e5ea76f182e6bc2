"""Files that are whole or absent: written beside their place and moved there when complete."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffalign import logs

# seconds after which a temporary file of another machine is taken for abandoned
_UNTOUCHED = 86_400
# files that what a job writes depends on, as it read them
_read: dict[Path, bytes] = {}


class ChangedMeanwhile(RuntimeError):
    """A job outlived its run: another run has written other settings."""


def read_settings_file(path: Path) -> Any:
    """The content of a JSON file that a later run may write anew with other settings.

    From then on `replacing` moves nothing into place in this job once the file has changed: a job that outlives a
    killed run must not write over the results of a later one.
    """
    content = path.read_bytes()
    if logs.in_job():
        _read[path] = content
    return json.loads(content)


def _check_settings(path: Path) -> None:
    for settings, content in _read.items() if logs.in_job() else ():
        if not settings.is_file() or settings.read_bytes() != content:
            raise ChangedMeanwhile(
                f"{path} is not written: {settings} changed while this job ran, so it belongs to an earlier run"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; moved to it on success, removed on failure.

    Raises ChangedMeanwhile where settings that the job has read are others now (`read_settings_file`), and OSError that
    names the path where the disk is full, whatever a library says of it. What a killed process left beside it is
    removed too; what another one writes at the same time is not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.part*"):
        if _is_stale(other, path):
            other.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        _reach_the_disk(temporary)
        _check_settings(path)
        temporary.replace(path)
    except Exception as error:
        if not isinstance(error, ChangedMeanwhile) and _is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _is_stale(part: Path, path: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or it lies untouched on another machine."""
    host, _, process = part.name.removeprefix(f".{path.name}.").partition(".part")[0].rpartition(".")
    try:
        if host == platform.node():
            os.kill(int(process), 0)
            return int(process) == os.getpid()
        return time.time() - part.stat().st_mtime > _UNTOUCHED
    except (ProcessLookupError, ValueError):
        return True
    except OSError:
        # another user's process, or the file is gone
        return False


def _is_full(error: BaseException) -> bool:
    """Whether the disk is full. Libraries in other languages say so in their words."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


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
    """Make a folder that holds nothing: what an earlier run left there is removed."""
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
