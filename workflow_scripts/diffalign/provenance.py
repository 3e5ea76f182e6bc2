"""Digests of files that results depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(url: str) -> str:
    """The name of the file that an address names; '' for none."""
    return PurePosixPath(urlsplit(url).path).name


def folder_digest(folder: Path) -> str | None:
    """A digest of the name, size and modification time of every file below a folder; None without a folder.

    Files are not read. As a parameter of a rule, it reruns the rule after a change of a user's files.
    """
    if not folder.is_dir():
        return None
    lines = []
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    status = entry.stat()
                    name = os.path.relpath(entry.path, folder)
                    lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def files_digest(paths: Iterable[Path]) -> str:
    """A digest of the path, size and modification time of files and folders. They may be absent, and are not read."""
    lines = []
    for path in sorted(set(paths)):
        if path.is_file():
            status = path.stat()
            lines.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        else:
            lines.append(f"{path} {folder_digest(path)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
