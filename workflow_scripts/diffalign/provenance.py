"""Digests of files that results depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(url: str) -> str:
    """The name of the file that an address names; '' for none."""
    return PurePosixPath(urlsplit(url).path).name


def folder_digest(folder: Path, suffixes: Sequence[str] = ()) -> str | None:
    """A digest of the name, size and modification time of every file below a folder; None without a folder.

    suffixes: of the files that count, in lower case; () for all. Files are not read, and hidden ones do not count. A
    link that leads nowhere counts as itself, and a folder that a link leads to again is looked into once. As a
    parameter of a rule, it reruns the rule after a change of a user's files.
    """
    if not folder.is_dir():
        return None
    lines = []
    waiting, entered = [str(folder)], set()
    while waiting:
        current = waiting.pop()
        status = Path(current).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _leads_to_a_folder(entry):
                    waiting.append(entry.path)
                elif not suffixes or entry.name.lower().endswith(tuple(suffixes)):
                    status = _status(entry)
                    name = os.path.relpath(entry.path, folder)
                    lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _leads_to_a_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # links that lead to each other
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Of the file that a link leads to, or of the link where it leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


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
