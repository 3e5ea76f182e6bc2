"""The target verify over a real study, and the table of what every file was made from."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from conftest import Workflow

from diffalign.io.matrices import read_layer_matrices, write_matrices
from diffalign.job_records import FOLDER, digest_of, state_of

MATRICES = "results/alignment/photographs/clean/dinov2_vs_sdvae.npz"
TABLE = "results/tables/alignment.tsv"
ALL = {"compute": {"verified": 1000}}
NONE = {"compute": {"verified": 0}}


def record_of(folder: Path, path: str) -> Path:
    """The record of the job that wrote a file."""
    return next(each for each in (folder / FOLDER).rglob("*.json") if path in json.loads(each.read_text())["written"])


def test_all_numbers_of_a_study_are_computed_again(copied: Workflow) -> None:
    done = copied.run("verify", overlay=ALL)
    assert done.code == 0, done.output
    log = (copied.directory / "logs" / "verify.log").read_text()
    assert f"computing again: {MATRICES}" in log
    assert f"computing again: {TABLE}" in log


def test_a_replaced_matrix_is_named_though_its_record_is_replaced_too(copied: Workflow) -> None:
    path, record = copied.directory / MATRICES, record_of(copied.directory, MATRICES)
    (matrix,) = read_layer_matrices(path, ["cknna"])
    matrix.values[0, 0] += 1e-3
    write_matrices(path, {"cknna": matrix})
    content = json.loads(record.read_text())
    content["written"][MATRICES] = {**state_of(path), "sha256": digest_of(path)}
    record.write_text(json.dumps(content))
    refused = copied.run("verify", overlay=ALL)
    assert refused.code != 0
    assert f"{MATRICES}: holds other numbers than its job gives when it runs again" in refused.output
    # the table was made from the other matrix
    assert f"was made from {MATRICES} as it is no longer" in refused.output


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("edited", "was changed after its job wrote it"),
        ("cut off", "is cut off or edited"),
        ("older", "is an older file than the one that its job wrote"),
    ],
)
def test_a_damaged_matrix_is_named(damage: str, said: str, copied: Workflow) -> None:
    path = copied.directory / MATRICES
    content = path.read_bytes()
    path.write_bytes(content[:-100] if damage == "cut off" else content[:-1] + bytes([content[-1] ^ 1]))
    if damage == "older":
        os.utime(path, (0, 0))
    refused = copied.run("verify", overlay=NONE)
    assert refused.code != 0
    assert "1 findings in the files of" in refused.output
    assert f"{MATRICES}: {said}" in refused.output


def test_results_of_another_version_of_the_code_are_named(copied: Workflow) -> None:
    script = copied.tree / "workflow_scripts" / "align_layers.py"
    script.write_text(script.read_text().replace("memory_mb * 2**20", "memory_mb * 2**19"))
    family = copied.tree / "workflow_scripts/diffalign/models/families/timm_vision.py"
    family.write_text(family.read_text() + "\n\nADDED = 1\n")
    refused = copied.run("verify", overlay=NONE)
    assert refused.code != 0
    assert f"{MATRICES}: was made by another version of align_layers.py; rerun it" in refused.output
    assert "results/features/photographs/clean/dinov2: was made by another version" in refused.output
    assert "results/features/photographs/clean/sd3-t0.5: was made" not in refused.output


def test_the_table_of_provenance_has_every_number(copied: Workflow) -> None:
    done = copied.run("results/provenance.parquet")
    assert done.code == 0, done.output
    assert done.jobs() == {"provenance": 1}
    table = pd.read_parquet(copied.directory / "results/provenance.parquet").set_index("path")
    matrix = table.loc[MATRICES]
    assert matrix.rule == "align_layers"
    assert matrix.sha256 == digest_of(copied.directory / MATRICES)
    made_from = dict(zip(matrix.inputs, matrix.input_sha256, strict=True))
    lists = "results/neighbors/photographs/clean/dinov2.npz"
    assert made_from[lists] == digest_of(copied.directory / lists)
    assert all(made_from.values())
    assert matrix.seconds > 0
    assert matrix.memory_mb > 10
    assert matrix.seed == 0
    assert "numpy" in json.loads(matrix.packages)
    found = {path.relative_to(copied.directory).as_posix() for path in (copied.directory / "results").rglob("*.np[yz]")}
    assert found <= set(table.index)
    assert (table.device == "cpu").all()
    features = table.loc["results/features/photographs/clean/sd3-t0.5"]
    assert features.rule == "extract_sd3"
    assert features.seed == 0
