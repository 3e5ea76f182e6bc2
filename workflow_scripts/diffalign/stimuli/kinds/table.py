"""Tables of images and texts: Parquet, CSV, TSV and JSON lines, one row an image."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from diffalign.dataset_specs import Columns, Dataset
from diffalign.io.headers import StoreError
from diffalign.io.manifest import check_texts, check_unique
from diffalign.names import nearest
from diffalign.offenders import first_five
from diffalign.reasons import reason
from diffalign.stimuli.class_numbers import LabelError, class_numbers
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Stimulus, Supplied, square

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")


class TableError(ValueError):
    """A table that cannot be used; the message names the file and the first five rows or names."""


class _NoText(ValueError):
    """A cell that is neither text nor a number; the message says what it is."""


@dataclass(frozen=True)
class Row:
    """One row. image: encoded bytes, a file, or None; label_index: -1 without a label; group: '' without one."""

    name: str
    label: str
    label_index: int
    caption: str
    description: str
    group: str
    image: bytes | Path | None
    source: str


def read_rows(path: Path, columns: Columns, index: int = 0, prompt: str = "") -> list[Row]:
    """The rows of a table, or of all tables of a folder, in order of name.

    index: which text of a cell that holds a list. prompt: stands before every caption. Images are bytes, paths relative
    to their table, or both, as Hugging Face's data sets hold them. Raises TableError for what cannot be read, a column
    that is not there, and names that are empty or stand twice.
    """
    cells = [(file, number, row) for file in _files(path) for number, row in _read(file, columns.asked)]
    if not cells:
        raise TableError(f"{path}: holds no rows")
    names = [_name(i, file, row, columns) for i, (file, _, row) in enumerate(cells)]
    check_unique(names, str(path))
    texts = {}
    for key in ("label", "caption", "description", "group"):
        texts[key] = _texts([row for _, _, row in cells], names, key, columns, index, path)
        short = [name for name, text in zip(names, texts[key], strict=True) if text is None]
        if short:
            raise TableError(
                f"{path}: {len(short)} rows have no text number {index} in the column of the {key}, "
                f"first: {first_five(short)}"
            )
        try:
            check_texts(dict(zip(names, map(str, texts[key]), strict=True)), str(path))
        except StoreError as error:
            raise TableError(str(error)) from error
    try:
        labels = class_numbers({str(label) for label in texts["label"]} - {""})
    except LabelError as error:
        raise TableError(f"{path}: {error}") from error
    rows = [
        Row(
            names[i],
            label := str(texts["label"][i]),
            labels[label] if label else -1,
            f"{prompt}{texts['caption'][i]}" if texts["caption"][i] else "",
            str(texts["description"][i]),
            str(texts["group"][i]),
            None if columns.image is None else _image(row[columns.image], file, names[i]),
            f"{file.name}:{number}",
        )
        for i, (file, number, row) in enumerate(cells)
    ]
    return sorted(rows, key=lambda row: row.name)


def count_rows(path: Path, enough: int) -> int:
    """How many rows a table has, or all tables of a folder; counting may end beyond what is enough. Raises TableError
    for what cannot be read.
    """
    count = 0
    for file in _files(path):
        if file.suffix == ".parquet":
            count += _parquet_rows(file)
        else:
            count += sum(1 for _ in islice(_read(file, ()), enough - count))
        if count >= enough:
            break
    return count


def _parquet_rows(file: Path) -> int:
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(file).num_rows)
    except (OSError, ValueError) as error:
        raise TableError(f"{file}: cannot be read as a table ({reason(error)})") from error


def _files(path: Path) -> list[Path]:
    """The tables of a path. Raises TableError where there is none, or of several kinds."""
    if path.is_file():
        tables = [path]
    elif path.is_dir():
        tables = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    else:
        raise TableError(f"{path}: no such table; datasets.*.path in config.yaml says where it is")
    kinds = {file.suffix for file in tables}
    if len(kinds) != 1 or not kinds <= set(SUFFIXES):
        raise TableError(
            f"{path}: {', '.join(sorted(kinds)) or 'no tables'}; expected one kind of {', '.join(SUFFIXES)}"
        )
    return tables


def _read(file: Path, asked: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, the cells that are asked for) of every row, counted from 0. Raises TableError."""
    readers: Mapping[str, Callable[[Path, Sequence[str]], Iterator[dict[str, Any]]]] = {
        ".parquet": _parquet,
        ".jsonl": _json_lines,
        ".csv": _separated,
        ".tsv": _separated,
    }
    try:
        for number, row in enumerate(readers[file.suffix](file, asked)):
            _check_columns(file, row, asked)
            yield number, row
    except TableError:
        raise
    except (OSError, ValueError, csv.Error, MemoryError, RecursionError) as error:
        # of pyarrow, too: its errors are ValueError and OSError
        raise TableError(f"{file}: cannot be read as a table ({reason(error)})") from error


def _parquet(file: Path, asked: Sequence[str]) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        _check_columns(file, table.schema_arrow.names, asked)
        for batch in table.iter_batches(batch_size=256, columns=list(asked)):
            yield from batch.to_pylist()


def _json_lines(file: Path, asked: Sequence[str]) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TableError(f"{file}: a line holds no mapping: {line[:60]}")
                yield row


def _separated(file: Path, asked: Sequence[str]) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if file.suffix == ".tsv" else ","):
        if None in row or None in row.values():
            first = next(iter(row.values()))
            raise TableError(f"{file}: the row that begins with {first!r} has more or fewer cells than the header")
        yield row


def _check_columns(file: Path, there: Any, asked: Sequence[str]) -> None:
    for column in asked:
        if column not in there:
            raise TableError(f"{file}: has no column '{column}'{nearest(column, list(there))}")


def _name(number: int, file: Path, row: Mapping[str, Any], columns: Columns) -> str:
    """The name of a row: its cell, or its number over all tables, as feature files without names are read."""
    if columns.name is None:
        return f"{number:08d}"
    name = row[columns.name]
    if not isinstance(name, str | int) or not str(name).strip() or "/" in str(name):
        raise TableError(f"{file}: row {number} has no name that a file could have, but {name!r}")
    return str(name).strip()


def _texts(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, columns: Columns, index: int, path: Path
) -> list[str | None]:
    """`_text` of every row. Raises TableError that names the first five rows whose cell is no text."""
    found: list[str | None] = []
    odd = []
    for name, row in zip(names, rows, strict=True):
        try:
            found.append(_text(row, getattr(columns, key), index))
        except _NoText as error:
            odd.append(f"{name} ({error})")
    if odd:
        raise TableError(f"{path}: {len(odd)} of {len(rows)} rows have no text as their {key}: {first_five(odd)}")
    return found


def _text(row: Mapping[str, Any], columns: str | Sequence[str] | None, index: int) -> str | None:
    """The first text of these columns that is not empty, '' for none; None where a list is too short. Raises _NoText
    for a cell that is neither text nor a number.
    """
    for column in [columns] if isinstance(columns, str) else columns or []:
        value = row[column]
        if isinstance(value, list):
            if not -len(value) <= index < len(value):
                return None
            value = value[index]
        if isinstance(value, float) and math.isnan(value):
            raise _NoText("NaN")
        if not isinstance(value, str | int | float | None):
            raise _NoText(type(value).__name__)
        text = "" if value is None else str(value).strip()
        if text:
            return text
    return ""


def _image(value: Any, file: Path, name: str) -> bytes | Path:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        if PurePath(value).is_absolute() or ".." in PurePath(value).parts:
            raise TableError(f"{file}: the image of '{name}', {value}, does not lie in the folder of the table")
        return file.parent / value
    raise TableError(f"{file}: the image of '{name}' is neither bytes nor a path")


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every row of the tables. Raises TableError as `read_rows`."""
    root = Path(str(dataset.path)) if supplied.download is None else supplied.download
    columns = Columns(**dataset.columns)
    read = read_rows(root, columns, dataset.caption_index, dataset.prompt)
    return Listing([row.name for row in read], (_stimulus(row, root, dataset) for row in read))


def _stimulus(row: Row, root: Path, dataset: Dataset) -> Stimulus:
    texts = row.name, row.label, row.label_index, row.caption, row.description, row.source
    if row.image is None:
        return Stimulus(*texts, group=row.group)
    path, content = (row.image, None) if isinstance(row.image, Path) else (root / row.source, row.image)
    return Stimulus(*texts, partial(square, dataset, path, content), group=row.group)


def _has_images(dataset: Dataset) -> bool:
    return Columns(**dataset.columns).image is not None


def _has_groups(dataset: Dataset) -> bool:
    return Columns(**dataset.columns).group is not None


def _mistakes(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if bool(given.get("path")) == bool(given.get("hub")):
        yield "", "kind 'table' needs a path or a repository of the hub, one of the two"
    columns = given.get("columns") or {}
    if not any(columns.get(key) for key in ("image", "caption", "description", "label")):
        yield "columns", "says neither where images are nor where texts are"
    for key in () if columns.get("image") else ("size", "square"):
        if key in given:
            yield key, "means nothing without images; say columns.image"


KIND = DatasetKind(
    rows,
    frozenset({"path", "square", "sample", "split", "columns", "caption_index", "prompt", "hub"}),
    mistakes=_mistakes,
    has_images=_has_images,
    has_groups=_has_groups,
)
