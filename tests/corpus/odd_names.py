"""Paths that lead elsewhere and names that break lines, in archives, tables and names of files."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, Make
from importers import FEATURES, NAMES, png

ESCAPES = ("../../../sentinel/stolen", "/etc/hostname", "a/../../../../sentinel/out", "..\\..\\sentinel\\out")


def paths() -> Iterator[Case]:
    """Names in archives and tables that lie elsewhere."""
    for i, name in enumerate(ESCAPES):
        yield Case("paths", f"escape {i}", "archive", ".zip", _zip_with({name: b"harm"}))
        yield Case("paths", f"escape {i}", "archive", ".tar", _tar_with(name))
        yield Case("paths", f"escape {i}", "table of images", ".parquet", _image_cells(name))
        if "/" in name:
            yield Case("paths", f"name {i}", "table of images", ".parquet", _named_rows(name))
            yield Case("paths", f"escape {i}", "shard index", ".json", _shards(name))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        yield Case("paths", f"entry of type {kind.decode()}", "archive", ".tar", _tar_with("images/x.png", kind))
    yield Case("paths", "link", "archive", ".zip", _linked_zip)
    yield Case("paths", "names that meet", "archive", ".zip", _zip_with({"a/b.png": b"", "a//b.png": b""}))
    yield Case("paths", "a file as a folder", "archive", ".zip", _zip_with({"a": b"", "a/b.png": b""}))


def _zip_with(files: Mapping[str, bytes]) -> Make:
    def make(path: Path, canary: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("images/first.png", png())
            for name, content in files.items():
                file.writestr(name, content)

    return make


def _tar_with(name: str, kind: bytes = tarfile.REGTYPE) -> Make:
    def make(path: Path, canary: Path) -> None:
        with tarfile.open(path, "w") as file:
            for each, content in (("images/first.png", png()), (name, b"")):
                entry = tarfile.TarInfo(each)
                entry.size = len(content)
                if each == name:
                    entry.type, entry.linkname = kind, "../../../sentinel/secret"
                file.addfile(entry, io.BytesIO(content))

    return make


def _linked_zip(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = (0o120777) << 16
        file.writestr(entry, "../../../sentinel/secret")


def _image_cells(name: str) -> Make:
    return lambda path, canary: write_parquet(path, [{"name": "a", "image": name}, {"name": "b", "image": name}])


def _named_rows(name: str) -> Make:
    return lambda path, canary: write_parquet(path, [{"name": name, "image": {"bytes": png(), "path": None}}])


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


def _shards(name: str) -> Make:
    return lambda path, canary: path.write_text(json.dumps({"weight_map": {"x": f"{name}.safetensors"}}))


ODD_NAMES = {
    "new line": "a\nb",
    "carriage return": "a\rb",
    "escape": "a\x1b[31mb",
    "separator": "a\u2028b",
    "tab": "a\tb",
    "nul in a table": "a\x00b",
}


def odd_names() -> Iterator[Case]:
    """Names with characters that break lines, logs and tables."""
    for what, name in ODD_NAMES.items():
        yield Case("names", what, "table", ".parquet", _captioned(name))
        yield Case("names", what, "table of images", ".parquet", _named_rows(name))
        if "\x00" not in name:
            yield Case("names", what, "image", ".png", lambda path, canary: path.write_bytes(png()), stem=name)
            yield Case("names", what, "archive", ".zip", _zip_with({f"images/{name}.png": png()}))
        yield Case("names", what, "features", ".npz", _named_features(name))


def _captioned(name: str) -> Make:
    return lambda path, canary: write_parquet(path, [{"name": name, "caption": "a text"}])


def _named_features(name: str) -> Make:
    return lambda path, canary: np.savez(path, feats=FEATURES, names=np.array([name, *NAMES[1:]]))
