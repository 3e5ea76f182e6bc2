"""Records of jobs, read: what every file was made from, and what is no longer as its job left it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffalign import job_records
from diffalign.io.headers import StoreError

Record = Mapping[str, Any]
COLUMNS = {
    **dict.fromkeys(("path", "rule", "script", "sha256"), "string"),
    "bytes": "int64",
    **dict.fromkeys(("inputs", "input_sha256"), "object"),
    **dict.fromkeys(("code", "python", "packages", "device"), "string"),
    "seed": "Int64",
    "threads": "int64",
    **dict.fromkeys(("host", "finished"), "string"),
    **dict.fromkeys(("seconds", "memory_mb"), "float64"),
}
# how far a number that is computed again may be from the first, as a share: sums are added in another order elsewhere
TOLERANCE = 1e-9
# of tables, which hold nine digits
_PRINTED = 1e-7


@dataclass(frozen=True)
class Finding:
    """A file that cannot be trusted, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def read_records(folder: Path) -> list[Record]:
    """All records below their folder, in order of path; of a file that jobs of several rules wrote, the last one says
    what it is. Raises StoreError for a broken record.
    """
    try:
        records = [job_records.read(path) for path in sorted(folder.rglob("[!.]*.json"))]
    except ValueError as error:
        raise StoreError(str(error)) from None
    last: dict[str, Record] = {}
    for record in sorted(records, key=lambda each: str(each["finished"])):
        last |= dict.fromkeys(record["written"], record)
    kept: list[Record] = []
    for record in records:
        written = {path: state for path, state in record["written"].items() if last[path] is record}
        if written or not record["written"]:
            kept.append({**record, "written": written})
    return kept


def rows(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """One row a file that a job wrote, with the columns COLUMNS. input_sha256: in the order of inputs; None of an input
    that is large and that no job wrote, or that has been written anew since it was read.
    """
    written = _written(records)
    for record in records:
        inputs = record["inputs"]["all"]
        digests = [_digest_as_read(path, record, written) for path in inputs]
        for path, state in record["written"].items():
            yield {
                "path": path,
                "sha256": state.get("sha256"),
                "bytes": state["bytes"],
                "inputs": inputs,
                "input_sha256": digests,
                "packages": json.dumps(record["packages"]),
                **{key: record[key] for key in COLUMNS if key in record and key not in ("inputs", "packages")},
            }


def findings(
    records: Sequence[Record], folder: Path, temporary: re.Pattern[str], code_of: Callable[[Record], str]
) -> list[Finding]:
    """What is wrong with the files of a study. temporary: paths that are removed once they have been read. code_of: the
    digest of the code of a job as it is now.
    """
    written, found = _written(records), []
    for record in records:
        for path, state in record["written"].items():
            why = _wrong(folder / path, state)
            if why and not (why == _MISSING and temporary.fullmatch(path)):
                found.append(Finding(path, why))
        about = ", ".join(list(record["written"])[:1])
        if record["written"] and code_of(record) != record["code"]:
            found.append(Finding(about, f"was made by another version of {record['script']}; rerun it"))
        found += [
            Finding(about, f"was made from {path} as it is no longer")
            for path in record["inputs"]["all"]
            if record["written"] and _is_another(folder, path, record, written)
        ]
    return found


_MISSING = "is missing"


def _wrong(path: Path, state: Mapping[str, Any]) -> str:
    """What is wrong with a file or folder that a job wrote; empty where it is as it was."""
    now = job_records.state_of(path)
    if not now:
        return _MISSING
    if job_records.digest_of(path) == state["sha256"]:
        return ""
    if now["changed_ns"] < state["changed_ns"]:
        return "is an older file than the one that its job wrote"
    if now["bytes"] < state["bytes"]:
        return f"is cut off or edited: {now['bytes']} of the {state['bytes']} bytes that its job wrote"
    return "was changed after its job wrote it"


def _is_another(folder: Path, path: str, record: Record, written: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an input is another one than a job read."""
    seen = record["states"][path]
    now = written.get(path)
    if now is None:
        now = job_records.state_of(folder / path)
        if "sha256" in seen and now:
            now = {**now, "sha256": job_records.digest_of(folder / path)}
    if not now or not seen:
        return False
    if "sha256" in seen and "sha256" in now:
        return bool(seen["sha256"] != now["sha256"])
    return any(seen[key] != now[key] for key in ("bytes", "changed_ns"))


def _written(records: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    """Path -> what the record of its job says of it."""
    return {path: state for record in records for path, state in record["written"].items()}


def _digest_as_read(path: str, record: Record, written: Mapping[str, Mapping[str, Any]]) -> str | None:
    seen, made = record["states"][path], written.get(path)
    if "sha256" in seen or made is None:
        digest: str | None = seen.get("sha256")
        return digest
    same = all(seen.get(key) == made[key] for key in ("bytes", "changed_ns"))
    return str(made["sha256"]) if same else None


def numbers(records: Sequence[Record], folder: Path) -> list[Record]:
    """The records of jobs that compute numbers from files of the study and draw no picture, neither asked for a GPU nor
    ran on one, and whose inputs are there.
    """
    return [
        record
        for record in records
        if record["inputs"]["all"]
        and not job_records.gpus_of(record["resources"])
        and record["device"] == "cpu"
        and _COMPARED.keys() & (kinds := {Path(path).suffix for path in record["written"]})
        and ".png" not in kinds
        and all((folder / path).exists() for path in record["inputs"]["all"])
    ]


def same_numbers(a: Path, b: Path) -> bool:
    """Whether two files hold the same numbers, within TOLERANCE; files of other kinds than arrays and tables do."""
    if a.read_bytes() == b.read_bytes():
        return True
    compare = _COMPARED.get(a.suffix)
    return compare is None or compare(a, b)


def _same_arrays(a: Path, b: Path) -> bool:
    one, other = (np.load(path, allow_pickle=False) for path in (a, b))
    if isinstance(one, np.ndarray):
        return _close(one, other, TOLERANCE)
    return bool(one.files == other.files and all(_close(one[name], other[name], TOLERANCE) for name in one.files))


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def _same_tables(a: Path, b: Path) -> bool:
    lines = [[line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()] for path in (a, b)]
    if [len(words) for words in lines[0]] != [len(words) for words in lines[1]]:
        return False
    cells = ([word for words in read for word in words] for read in lines)
    return all(one == other or _near(one, other) for one, other in zip(*cells, strict=True))


def _near(one: str, other: str) -> bool:
    try:
        return bool(np.isclose(float(one), float(other), rtol=_PRINTED, atol=_PRINTED))
    except ValueError:
        return False


_COMPARED: Mapping[str, Callable[[Path, Path], bool]] = {
    ".npy": _same_arrays,
    ".npz": _same_arrays,
    ".tsv": _same_tables,
}
