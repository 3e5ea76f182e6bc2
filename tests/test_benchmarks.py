"""Benchmarks run by hand; that they still fit the library is checked here."""

import runpy
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_everything_that_it_imports(path: Path) -> None:
    names = runpy.run_path(str(path), run_name="benchmark")
    assert callable(names["main"])
