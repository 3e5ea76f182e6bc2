"""Files that are whole or absent, also where two jobs write them or the disk is full."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from diffalign.io.atomic import replacing, write_text


def test_two_jobs_that_write_one_file_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        part = tmp_path / f".x.txt.{other.pid}@{platform.node()}.part.txt"
        part.write_text("half of what the other job writes")
        write_text(path, "ours")
        assert part.exists()
        assert other.stdin is not None
        other.stdin.write(b"\n")
        other.stdin.close()
        other.wait()
    # and what a job that is gone left behind is removed
    write_text(path, "ours again")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_parts_of_other_machines_are_removed_when_nobody_has_touched_them_for_a_week(tmp_path: Path) -> None:
    fresh, old = tmp_path / ".x.txt.1@elsewhere.part.txt", tmp_path / ".x.txt.2@elsewhere.part.txt"
    for part in (fresh, old):
        part.write_text("")
    os.utime(old, (0, 0))
    write_text(tmp_path / "x.txt", "ours")
    assert fresh.exists()
    assert not old.exists()


def write_half(path: Path, error: Exception) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("io: No space left on device")])
def test_a_full_disk_is_named_with_the_file(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(OSError, match="x.npz") as caught:
        write_half(path, error)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    # what has another reason is left as it is
    with pytest.raises(RuntimeError, match="^other$"):
        write_half(path, RuntimeError("other"))
