"""Archives (.zip, .tar, .tar.gz …) as folders of plain files."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from diffalign.io.atomic import make_empty
from diffalign.offenders import breaking_lines, first_five
from diffalign.reasons import reason

# bytes that every archive may hold, and how many times its size a larger one may: images are compressed already
_SMALL, _SWELLS = 10**9, 100


class ArchiveError(ValueError):
    """An archive cannot be unpacked. The message names it and the first five offenders."""


def unpack(archive: Path, folder: Path) -> int:
    """Write all files of an archive below an empty folder, and return how many there are.

    Its names, sizes and kinds of entries are looked at before anything is written, and a folder that could not be
    filled is empty again. Raises ArchiveError for a file that is no archive, for names that leave the folder, stand
    twice or break lines, for links and devices, and for files that are larger than the disk or so much larger than the
    archive that they are no images; FileNotFoundError for a file that is absent.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such archive")
    try:
        if zipfile.is_zipfile(archive):
            return _unpack_zip(archive, folder)
        if tarfile.is_tarfile(archive):
            return _unpack_tar(archive, folder)
    except ArchiveError:
        raise
    except Exception as error:  # zipfile, tarfile, zlib and lzma have an error of their own for each way to be broken
        make_empty(folder)
        raise ArchiveError(f"{archive}: cannot be unpacked ({reason(error)})") from error
    raise ArchiveError(f"{archive}: is no .zip and no .tar")


def _unpack_zip(archive: Path, folder: Path) -> int:
    with zipfile.ZipFile(archive) as file:
        entries = [entry for entry in file.infolist() if not entry.is_dir()]
        others = [
            entry.filename for entry in entries if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG)
        ]
        _check(archive, [entry.filename for entry in entries], others)
        _check_size(archive, folder, sum(entry.file_size for entry in entries))
        for entry in entries:
            with file.open(entry) as source, _created(folder, entry.filename).open("wb") as target:
                shutil.copyfileobj(source, target)
    return len(entries)


def _unpack_tar(archive: Path, folder: Path) -> int:
    with tarfile.open(archive) as file:
        entries = [entry for entry in file.getmembers() if not entry.isdir()]
        others = [entry.name for entry in entries if not entry.isreg()]
        _check(archive, [entry.name for entry in entries], others)
        _check_size(archive, folder, sum(entry.size for entry in entries))
        for entry in entries:
            source = file.extractfile(entry)
            assert source is not None  # a regular file
            with source, _created(folder, entry.name).open("wb") as target:
                shutil.copyfileobj(source, target)
    return len(entries)


def _check(archive: Path, names: Sequence[str], others: Sequence[str]) -> None:
    """Raise ArchiveError for names that leave the folder or stand twice, and for what is no plain file."""
    leaving = [name for name in names if _leaves(name)]
    places = [PurePosixPath(name) for name in names]
    twice = sorted(str(place) for place, count in Counter(places).items() if count > 1)
    for offenders, problem in (
        (leaving, "have paths that leave its folder"),
        (others, "are no plain files but links or devices"),
        (twice, "stand twice"),
        (breaking_lines(names), "have names with line breaks or control characters"),
    ):
        if offenders:
            raise ArchiveError(f"{archive}: {len(offenders)} entries {problem}, first: {first_five(offenders)}")


def _check_size(archive: Path, folder: Path, size: int) -> None:
    """Raise ArchiveError for files that the disk does not hold, and for what only swells like this on purpose."""
    packed, free = archive.stat().st_size, shutil.disk_usage(folder).free
    if size > free:
        raise ArchiveError(f"{archive}: its files take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    if size > max(_SMALL, _SWELLS * packed):
        raise ArchiveError(
            f"{archive}: {packed / 1e6:.1f} MB become {size / 1e9:.1f} GB, more than {_SWELLS} times as much, which "
            "images do not; unpack it by hand if it is meant"
        )


def _leaves(name: str) -> bool:
    windows = PureWindowsPath(name)
    absolute = name.startswith("/") or bool(windows.drive or windows.root)
    return absolute or ".." in windows.parts or not PurePosixPath(name).parts


def _created(folder: Path, name: str) -> Path:
    """The place of a file, whose folder exists."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
