"""Damaged files through every reader: what is read is whole, or the error names the file."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import bounded_memory, changes, damaged, fuzz
from hypothesis import strategies as st
from importers import IMPORTERS, place
from own_files import OWN_FILES

GROUPS = {
    "tensors": ("features", "own features", "checkpoint", "statistics", "own statistics", "bits per byte", "latents"),
    "arrays": (
        *("posteriors", "transform", "embeddings", "triplets", "similarities", "dimensions"),
        *("pickled features", "published scores", "published accuracies", "captions"),
    ),
    "texts": (
        "class names",
        "concepts",
        "quality table",
        "table",
        "parts table",
        "names file",
        "shard index",
        "catalogue",
    ),
    "images": ("image", "mask", "table of images", "archive"),
}
READERS = {**IMPORTERS, **OWN_FILES}
# classes of errors that say nothing of a file
BARE = (MemoryError, RecursionError, IndexError, KeyError, AttributeError, TypeError, AssertionError, UnicodeError)


def finite(value: Any) -> bool:
    """Whether what was read holds what its reader promises: arrays with a row a name."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiubUS"
    if is_dataclass(value) and not isinstance(value, type):
        return all(finite(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return all(map(finite, value))
    return True


def read(reader: str, suffix: str, content: bytes, folder: Path) -> None:
    """Read a damaged file. Raises AssertionError for an error that does not name it, or for what it left."""
    path = place(folder, reader, suffix)
    path.write_bytes(content)
    out = folder / "out"
    out.mkdir()
    try:
        with redirect_stderr(io.StringIO()):
            value = READERS[reader].read(path, out)
    except BARE as error:
        raise AssertionError(f"{reader} {suffix}: a bare {type(error).__name__}: {error}") from error
    except (ValueError, OSError) as error:
        said = str(error)
        assert any(word in said for word in (path.name, str(folder))), f"{reader} {suffix}: names no file: {said!r}"
        assert "\n" not in said, f"{reader} {suffix}: several lines: {said!r}"
        assert len(said) < 3000, f"{reader} {suffix}: {len(said)} characters: {said[:500]!r}"
        left = [each for each in out.rglob("*") if not each.is_dir()]
        assert not left, f"{reader} {suffix}: left {left}"
    else:
        assert finite(value), f"{reader} {suffix}: {value!r}"


def valid(reader: str, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = place(Path(folder), reader, suffix)
        READERS[reader].valid[suffix](path)
        return path.read_bytes()


@pytest.mark.parametrize("group", [*GROUPS, "own"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(group: str) -> None:
    readers = GROUPS.get(group, tuple(OWN_FILES))
    kinds = [(reader, suffix) for reader in readers for suffix in READERS[reader].suffixes]
    whole = {kind: valid(*kind) for kind in kinds}

    def check(kind: tuple[str, str], what: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            read(*kind, damaged(whole[kind], what), Path(folder))

    with bounded_memory():
        fuzz(check, st.sampled_from(kinds), changes, examples=60 + 10 * len(kinds))


def test_every_reader_is_fuzzed() -> None:
    assert {reader for readers in GROUPS.values() for reader in readers} | {"compare"} == set(IMPORTERS)
