"""What all kinds of files share: a header with the version of their format, the error for what cannot be trusted, and
the check that two files are of the same images.

A kind of file is declared once, with a `FileKind` in its module. Its header is a mapping with the key ``format``: the
whole of a JSON file, a member ``header`` of an .npz archive, or metadata of a safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import write_json
from diffalign.offenders import first_five
from diffalign.reasons import reason

# the member of an archive that holds its header
_MEMBER = "header"


class StoreError(ValueError):
    """A file that cannot be trusted; the message names it and says what to do."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Raise StoreError that names the file and the reason for every error of a library that reads it as `what`; an
    absent file is still a FileNotFoundError.
    """
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except Exception as error:
        # torch, numpy, zipfile, json and safetensors have an error of their own for each way to be broken
        raise StoreError(f"{path}: cannot be read as {what} ({reason(error)})") from error


@dataclass(frozen=True)
class FileKind:
    """A kind of file of this workflow. name: as messages say it, with its article. format: the newest version that
    this code reads and the one that it writes.
    """

    name: str
    format: int

    def header(self, /, **fields: Any) -> dict[str, Any]:
        """A header with the version first, then the fields in their order."""
        return {"format": self.format, **fields}

    def check_version(self, version: object, path: Path) -> None:
        """Raise StoreError for a version that is newer than this code, or none."""
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= self.format:
            raise StoreError(
                f"{path}: format {version!r} is not known here ({self.name}: 1 to {self.format}); "
                "delete the file and rerun"
            )

    def reading(self, path: Path) -> AbstractContextManager[None]:
        """`reading` for this kind of file."""
        return reading(path, self.name)

    def write_json(self, path: Path, /, **fields: Any) -> None:
        """Write a JSON file that is its own header."""
        write_json(path, self.header(**fields))

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read a JSON file that is its own header. Raises StoreError where it is no mapping or of another version."""
        with self.reading(path):
            content = json.loads(path.read_text(encoding="utf-8"))
        return self._checked(content, path)

    def read_archive(
        self, path: Path, members: Sequence[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The header of an .npz archive, and its arrays by name: all of them, or those of `members` that it has.

        Nothing is unpickled. Raises StoreError for a broken file, one without a header, or another version.
        """
        with self.reading(path), np.load(path, allow_pickle=False) as archive:
            header = _unpacked(archive[_MEMBER])
            named = [name for name in archive.files if name != _MEMBER]
            arrays = members_of(archive, [name for name in named if members is None or name in members])
        return self._checked(header, path), arrays

    def metadata(self, /, **fields: str) -> dict[str, str]:
        """A header as metadata of a safetensors file, which holds text alone."""
        return {key: str(value) for key, value in self.header(**fields).items()}

    def read_metadata(self, path: Path) -> dict[str, str]:
        """The metadata of a safetensors file. Raises StoreError for a broken file, or another version."""
        from safetensors import safe_open

        with self.reading(path), safe_open(path, "np") as file:
            header: dict[str, str] = file.metadata() or {}
        version = header.get("format")
        self.check_version(int(version) if version is not None and version.isdecimal() else version, path)
        return header

    def _checked(self, content: Any, path: Path) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise StoreError(f"{path}: holds a {type(content).__name__}, so it is not {self.name}")
        self.check_version(content.get("format"), path)
        return content


def packed(header: Mapping[str, Any]) -> dict[str, NDArray[np.uint8]]:
    """A header as the member of an archive that `FileKind.read_archive` reads: JSON, UTF-8, one byte a number."""
    return {_MEMBER: np.frombuffer(json.dumps(header).encode(), np.uint8)}


def packed_as_text(header: Mapping[str, Any]) -> dict[str, NDArray[np.str_]]:
    """The same as a text of NumPy, which files of people have always held."""
    return {_MEMBER: np.array(json.dumps(header))}


def _unpacked(member: NDArray[Any]) -> Any:
    return json.loads(str(member) if member.dtype.kind == "U" else member.tobytes())


def members_of(archive: Any, named: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an open .npz by name, all or those of `named`. Raises ValueError for a member that is none."""
    members = {name: archive[name] for name in (archive.files if named is None else named)}
    other = [name for name, member in members.items() if not isinstance(member, np.ndarray)]
    if other:
        raise ValueError(f"{other[0]} is no array")
    return members


def check_same_names(a: Sequence[str], b: Sequence[str], path_a: Path, path_b: Path) -> None:
    """Raise StoreError that names the first five images that only one of two files has.

    Files are sorted by name, so equal sets are equal sequences; another order is an error of its own.
    """
    if tuple(a) == tuple(b):
        return
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if not only_a and not only_b:
        raise StoreError(f"{path_a} and {path_b} hold the same images in another order; rerun one of them")
    parts = [
        f"{len(only)} only in {path}: {first_five(only)}" for only, path in ((only_a, path_a), (only_b, path_b)) if only
    ]
    raise StoreError(f"images differ: {'; '.join(parts)}")
