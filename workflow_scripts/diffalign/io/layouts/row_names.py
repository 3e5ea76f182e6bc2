"""Names of rows: those that data sets have, cleaned of folders and suffixes, and names files beside features."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from diffalign.io.atomic import write_text
from diffalign.io.headers import StoreError
from diffalign.io.layouts.content import Content
from diffalign.offenders import breaking_lines, first_five
from diffalign.reasons import reason

# in place of a names file: rows are named by their numbers
ROWS = "rows"
_CONCEPT = "uniqueID"
_IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?|gif|eps)$", re.IGNORECASE)


def image_name(text: str) -> str:
    """The name of an image as data sets have it: ``aardvark/aardvark_01b.jpg`` -> ``aardvark_01b``."""
    return _IMAGE_SUFFIX.sub("", PurePosixPath(text).name)


def names_beside(path: Path) -> Path | None:
    """The names file of a feature file ``x.npy``: ``x.txt``, ``names.txt`` or ``file_names.txt`` in its folder."""
    usual = (f"{path.stem}.txt", "names.txt", "file_names.txt")
    # thingsvision may write features as text too, into features.txt
    for name in reversed(usual) if path.stem == "features" else usual:
        if path.with_name(name).is_file():
            return path.with_name(name)
    return None


def names_of(content: Content, asked: str | None, rows: int, path: Path) -> tuple[Sequence[object], Path | None]:
    """The names of the rows, not yet checked, and the names file where they came from one.

    asked: a names file, ``rows``, or None for what is in the file or beside it. path: of the features, for messages.
    Raises StoreError where there are none, or where `rows` is asked for of a file with names.
    """
    if asked == ROWS:
        if content.names is not None:
            raise StoreError(f"{path}: has names of its own, so its rows are not named by number")
        return [f"{i:08d}" for i in range(rows)], None
    if asked is not None:
        return names_file(Path(asked).expanduser()), Path(asked).expanduser()
    if content.names is not None:
        return content.names, None
    beside = names_beside(content.source)
    if beside is None:
        raise StoreError(
            f"{path}: has no names, and rows are never joined by position; write one name a line into "
            f"{content.source.with_suffix('.txt').name} beside it, name a names file, or ask for row numbers "
            f"(names: {ROWS})"
        )
    return names_file(beside), beside


def names_file(path: Path) -> list[str]:
    """The lines of a names file; of a .tsv with a column ``uniqueID``, such as things_concepts.tsv, this column. Raises
    FileNotFoundError, or StoreError where it is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such names file") from None
    except (UnicodeDecodeError, IsADirectoryError, MemoryError) as error:
        raise StoreError(f"{path}: cannot be read as a list of names, one a line ({reason(error)})") from error
    # not splitlines: a name may hold what that takes for the end of a line
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = lines[:-1] if lines[-1] == "" else lines
    header = lines[0].split("\t") if lines and path.suffix == ".tsv" else []
    if _CONCEPT not in header:
        return lines
    return [row[_CONCEPT] or "" for row in csv.DictReader(io.StringIO(text), delimiter="\t")]


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write a names file, one a line."""
    write_text(path, "".join(f"{name}\n" for name in names))


def cleaned_names(names: Sequence[object], where: Path) -> list[str]:
    """Names without folder and image suffix. StoreError where one is no text, empty, or stands more than once."""
    strange = [f"{name!r} (row {i})" for i, name in enumerate(names) if not isinstance(name, str) or not name.strip()]
    if strange:
        raise StoreError(f"{where}: {len(strange)} names are empty or no text, first: {first_five(strange)}")
    raw = [str(name).strip() for name in names]
    twice = [name for name, count in Counter(raw).items() if count > 1]
    if twice:
        raise StoreError(f"{where}: {len(twice)} names stand more than once, first: {first_five(twice)}")
    broken = breaking_lines(raw)
    if broken:
        raise StoreError(f"{where}: {len(broken)} names hold line breaks or control characters: {first_five(broken)}")
    cleaned = [image_name(name) for name in raw]
    counts = Counter(cleaned)
    alike = [name for name, short in zip(raw, cleaned, strict=True) if counts[short] > 1]
    if alike:
        raise StoreError(
            f"{where}: {len(alike)} names are the same without folder and suffix, first: {first_five(alike)}"
        )
    return cleaned


def check_rows(rows: int, names: Sequence[str], path: Path, names_path: Path | None) -> None:
    """Raise StoreError where there is not one name a row; the message names the first five that are left over."""
    if rows == len(names):
        return
    where = f"in {names_path}" if names_path else "inside it"
    rest = (
        f"names without a row: {first_five(names[rows:])}"
        if rows < len(names)
        else f"rows without a name: {first_five([str(i) for i in range(len(names), min(rows, len(names) + 6))])}"
    )
    raise StoreError(f"{path}: {rows} rows for {len(names)} names {where}; if the first rows agree, {rest}")
