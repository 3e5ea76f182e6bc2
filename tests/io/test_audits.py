"""What was edited by hand, cut off, replaced, or made by other code or from other inputs is named."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffalign import job_records, logs
from diffalign.io import audits
from diffalign.io.headers import StoreError
from verify import Given, Mismatch, verify

NOTHING = re.compile("parts/.+")


def record(folder: Path, name: str, outputs: Mapping[str, bytes], inputs: tuple[str, ...] = (), **changes: Any) -> None:
    """Write files, and the record of the job that wrote them."""
    for path, content in outputs.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    content = {
        "format": 1,
        "rule": name,
        "script": f"{name}.py",
        "families": [],
        "code": "c0de",
        "seed": 3,
        "threads": 1,
        "device": "cpu",
        "python": "3.11.2",
        "packages": {"numpy": "2.4.6"},
        "host": "here",
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "memory_mb": 120.0,
        "resources": {},
        "inputs": {"all": list(inputs), "named": {}},
        "states": {path: job_records._seen(folder / path) for path in inputs},
        "written": {
            path: {**job_records.state_of(folder / path), "sha256": job_records.digest_of(folder / path)}
            for path in outputs
        },
        **changes,
    }
    place = folder / job_records.FOLDER / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Features, a matrix of them, and a table of that."""
    record(tmp_path, "extract", {"features.pt": b"x" * 2_000_000, "parts/0": b"part"})
    record(tmp_path, "align_layers", {"matrix.npy": b"0123456789"}, ("features.pt",))
    record(tmp_path, "alignment_table", {"table.tsv": b"a\tb\n"}, ("matrix.npy",))
    return tmp_path


def read(folder: Path) -> list[audits.Record]:
    return audits.read_records(folder / job_records.FOLDER)


def found(folder: Path, code: str = "c0de") -> list[str]:
    return [str(each) for each in audits.findings(read(folder), folder, NOTHING, lambda _: code)]


def test_a_study_as_it_was_made_has_no_findings(study: Path) -> None:
    (study / "parts/0").unlink()
    assert found(study) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("edited", "matrix.npy: was changed after its job wrote it"),
        ("cut off", "matrix.npy: is cut off or edited: 4 of the 10 bytes that its job wrote"),
        ("older", "matrix.npy: is an older file than the one that its job wrote"),
        ("missing", "matrix.npy: is missing"),
    ],
)
def test_a_file_that_is_not_as_its_job_left_it_is_named(damage: str, said: str, study: Path) -> None:
    matrix = study / "matrix.npy"
    if damage == "missing":
        matrix.unlink()
    else:
        matrix.write_bytes(b"0123" if damage == "cut off" else b"0123456788")
    if damage == "older":
        os.utime(matrix, (0, 0))
    assert found(study) == [said]


def test_other_code_and_other_inputs_are_named(study: Path) -> None:
    assert found(study, "another") == [
        "matrix.npy: was made by another version of align_layers.py; rerun it",
        "table.tsv: was made by another version of alignment_table.py; rerun it",
        "features.pt: was made by another version of extract.py; rerun it",
    ]
    # the matrix is made again, with other numbers, and what depends on it is not
    record(study, "align_layers", {"matrix.npy": b"9876543210"}, ("features.pt",))
    assert found(study) == ["table.tsv: was made from matrix.npy as it is no longer"]
    # large files are told apart by size and time
    os.utime(study / "features.pt", (1, 1))
    record(
        study,
        "extract",
        {"parts/0": b"part"},
        written={
            "features.pt": job_records.state_of(study / "features.pt")
            | {"sha256": job_records.digest_of(study / "features.pt")}
        },
    )
    assert "matrix.npy: was made from features.pt as it is no longer" in found(study)


def test_of_a_file_that_two_rules_wrote_the_last_counts(study: Path) -> None:
    record(study, "parts", {"merged.npy": b"of one job"}, finished="2026-01-01T00:00:00+00:00")
    record(study, "whole", {"merged.npy": b"of another"}, finished="2026-01-02T00:00:00+00:00")
    read = {each["rule"]: each for each in audits.read_records(study / job_records.FOLDER)}
    assert "parts" not in read
    assert list(read["whole"]["written"]) == ["merged.npy"]


def test_the_table_says_what_every_file_was_made_from(study: Path) -> None:
    rows = {row["path"]: row for row in audits.rows(read(study))}
    assert set(rows) == {"features.pt", "parts/0", "matrix.npy", "table.tsv"}
    assert all(set(row) == set(audits.COLUMNS) for row in rows.values())
    matrix = rows["matrix.npy"]
    assert matrix["input_sha256"] == [rows["features.pt"]["sha256"]]
    assert (matrix["seed"], matrix["seconds"], matrix["memory_mb"]) == (3, 1.5, 120.0)


def test_a_broken_record_is_named(study: Path) -> None:
    path = study / job_records.FOLDER / "extract.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(StoreError, match="extract.json: no record of a job"):
        read(study)


def test_numbers_are_the_same_within_a_share(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    values = np.array([1.0, np.nan, 3.0])
    for change, same in ((1e-12, True), (1e-3, False)):
        for folder, array in ((a, values), (b, values * (1 + change))):
            folder.mkdir(exist_ok=True)
            np.save(folder / "x.npy", array)
            np.savez(folder / "x.npz", grid=array, words=np.array(["k"]))
            (folder / "x.tsv").write_text("name\tscore\n" + "\n".join(f"i\t{value:.9g}" for value in array) + "\n")
        assert [audits.same_numbers(a / name, b / name) for name in ("x.npy", "x.npz", "x.tsv")] == [same] * 3
    (b / "x.tsv").write_text("name\tscore\nj\t1\ni\tnan\ni\t3\n")
    assert not audits.same_numbers(a / "x.tsv", b / "x.tsv")


def test_a_job_that_is_computed_again_in_a_folder_named_logs_leaves_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else its record would take the place of that of `verify`, or of another study."""
    monkeypatch.setattr(sys.modules["__main__"], "snakemake", object(), raising=False)
    log = tmp_path / "logs" / "scratch" / "job.log"
    with logs.attached(log, "job"):
        pass
    assert log.is_file()
    assert not (tmp_path / "results").exists()


def test_an_input_that_is_edited_while_a_job_runs_is_not_what_it_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    script, captions, table = (tmp_path / name for name in ("job.py", "captions.json", "table.tsv"))
    script.write_text("")
    captions.write_text("as it was read")
    given = SimpleNamespace(
        **{name: Given([path], {}) for name, path in (("input", captions.name), ("output", table.name))},
        **{name: Given([], {}) for name in ("params", "wildcards", "resources")},
        rule="job",
        threads=1,
    )
    monkeypatch.setattr(sys.modules["__main__"], "snakemake", given, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    with logs.attached("logs/job.log", "job"):
        read_by_it = captions.read_text()
        captions.write_text("edited since")
        table.write_text(read_by_it)
    [each] = read(tmp_path)
    assert each["states"]["captions.json"]["sha256"] == hashlib.sha256(b"as it was read").hexdigest()


def test_jobs_that_ran_on_a_gpu_or_asked_for_one_are_not_computed_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    of_jobs: dict[str, tuple[dict[str, Any], str]] = {
        "cpu": ({"gpu": 0}, "cpu"),
        "gpu": ({"gpu": 1}, "cpu"),
        "gres": ({"gpu": 0, "gres": "gpu:a100:1"}, "cpu"),
        # with device: auto
        "found": ({"gpu": 0}, "NVIDIA H200"),
    }
    for name, (resources, device) in of_jobs.items():
        record(tmp_path, name, {f"{name}.npy": b"0"}, ("x",), resources=resources, device=device)
    assert [each["rule"] for each in audits.numbers(read(tmp_path), tmp_path)] == ["cpu"]


def test_a_job_whose_script_is_gone_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    record(tmp_path, "renamed", {"renamed.npy": b"0"}, ("x",))
    with pytest.raises(Mismatch, match=r"^1 findings .*\n  renamed\.npy: was made by another version of renamed\.py"):
        verify(tmp_path / job_records.FOLDER, tmp_path, 100, 0, "parts/.+")
