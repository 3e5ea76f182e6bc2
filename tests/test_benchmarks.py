"""Benchmarks run by hand; that they still fit the library is checked here."""

import argparse
import runpy
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_everything_that_it_imports(path: Path) -> None:
    names = runpy.run_path(str(path), run_name="benchmark")
    assert callable(names["main"])


def test_the_stages_of_a_grid_run_one_after_the_other(tmp_path: Path) -> None:
    alignment = runpy.run_path(str(ROOT / "benchmarks/alignment.py"), run_name="benchmark")
    alignment["write_study"](tmp_path, 60, {"a": 1, "b": 2}, {"a": 24, "b": 16})
    for stage in ("neighbors", "factors", "align_layers", "calibrate_layers"):
        given = {"folder": tmp_path, "stage": stage, "metrics": ["mutual_knn", "unbiased_cka"]}
        done = alignment["run_stage"](argparse.Namespace(**given, permutations=19, threads=1, k_max=20, memory_mb=100))
        assert done["seconds"] > 0
