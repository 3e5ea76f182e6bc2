"""Digests of code: what changes them, and what does not."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from diffalign import alignment, code_digests

SCRIPTS = ROOT / "workflow_scripts"


def names_in(*files: str) -> set[str]:
    found = code_digests.modules_of([SCRIPTS / file for file in files])
    return {path.relative_to(SCRIPTS).as_posix() for path in found}


def test_the_digest_covers_what_a_script_imports_and_no_more() -> None:
    closure = names_in("align.py")
    assert {"align.py", "diffalign/io/recipes.py", "diffalign/io/feature_files.py"} <= closure
    assert any(name.startswith("diffalign/alignment/") for name in closure)
    assert not any(name.startswith(("diffalign/figures", "diffalign/models", "diffalign/config")) for name in closure)
    assert "diffalign/extraction/taps.py" in names_in("extract.py")


def test_no_job_depends_on_the_parser_of_the_configuration_or_on_the_plan() -> None:
    # a command of its own, which no rule runs; and what a study costs, which is reckoned from its plan
    apart = {SCRIPTS / "download_data.py", SCRIPTS / "cost.py"}
    for script in sorted({*SCRIPTS.glob("*.py")} - apart):
        parsers = [name for name in names_in(script.name) if name.startswith(("diffalign/config/", "diffalign/plan/"))]
        assert not parsers, f"{script.name} runs {parsers}"


def test_no_code_imports_what_a_package_looks_up_by_name() -> None:
    # a digest does not follow such an import
    for path in SCRIPTS.rglob("*.py"):
        imported = re.findall(r"^\s*from diffalign\.alignment import (.+)$", path.read_text(), re.MULTILINE)
        lazy = {name for line in imported for name in re.split(r", | as ", line)} & set(alignment.__all__)
        assert not lazy or path.name == "__init__.py", f"{path.name} imports {lazy} from diffalign.alignment"


# a package of its own: a script, a package with an __init__, records, and a module that registers what it holds
TREE = {
    "pkg/__init__.py": "",
    "pkg/specs.py": (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Model:\n    name: str\n    size: int = 1\n"
        "    def area(self):\n        return self.size**2\n"
    ),
    "pkg/dataset_specs.py": (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Images:\n    side: int = 8\n    kind: str = 'x'\n"
    ),
    "pkg/maths/__init__.py": '"""Sums."""\n',
    "pkg/maths/sums.py": (
        '"""Sums."""\n\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from pkg.big import Big\n\n'
        "STEP = 2\nUNUSED = 3\n\n\ndef total(values: list[int]) -> int:\n"
        '    """The sum."""\n    # in steps\n    return sum(values[::STEP])\n\n\n'
        "def product(values):\n    return values\n"
    ),
    "pkg/late.py": "def late():\n    return 1\n",
    "pkg/big.py": "class Big:\n    pass\n",
    "script.py": (
        "from pkg.maths.sums import total\nfrom pkg.specs import Model\n"
        "from pkg.dataset_specs import Images\n\n\n"
        "def run():\n    from pkg.late import late\n\n    return total([Model('a').size, Images().side, late()])\n"
    ),
}


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_digests, "_ROOT", (tmp_path / "pkg").resolve())
    monkeypatch.setattr(code_digests, "_PACKAGE", "pkg")

    def current() -> str:
        code_digests._module.cache_clear()
        code_digests._files_of.cache_clear()
        return code_digests.code_digest([tmp_path / "script.py"])

    current()
    return current


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("pkg/maths/sums.py", '"""The sum."""', '"""Of all values,\n    the sum.\n    """'),
        ("pkg/maths/sums.py", '"""Sums."""\n', '"""Other words."""\n'),
        ("pkg/maths/sums.py", "# in steps", "# two at a time"),
        ("pkg/maths/sums.py", "values: list[int]", "values: tuple[int, ...]"),
        ("pkg/maths/sums.py", "UNUSED = 3", "UNUSED = 4"),
        ("pkg/maths/sums.py", "return values\n", "return values[0]\n"),
        ("pkg/maths/sums.py", "import Big", "import Big as Other"),
        ("pkg/maths/sums.py", "return sum(values[::STEP])", "return sum(\n        values[::STEP]\n    )"),
        ("pkg/big.py", "pass", "x = 1"),
        ("pkg/specs.py", "size: int = 1\n", "size: int = 1\n    other: str | None = None\n"),
        ("pkg/specs.py", "self.size**2", "self.size**3"),
        ("pkg/dataset_specs.py", "kind: str = 'x'", "kind: str = 'y'"),
        ("pkg/dataset_specs.py", "side: int = 8\n", "side: int = 8\n    depth: int = 3\n"),
        ("pkg/maths/__init__.py", "Sums", "Sums and products"),
    ],
)
def test_what_runs_is_the_same(file: str, old: str, new: str, tmp_path: Path, digest: Callable[[], str]) -> None:
    before = digest()
    edit(tmp_path / file, old, new)
    assert digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "'a'", "'b'"),
        ("pkg/maths/sums.py", "STEP = 2", "STEP = 3"),
        ("pkg/maths/sums.py", "values[::STEP]", "values[STEP:]"),
        ("pkg/maths/sums.py", "STEP = 2\n", "STEP = 2\nprint(STEP)\n"),
        ("pkg/maths/sums.py", "def product", "@register\ndef product"),
        ("pkg/specs.py", "size: int = 1\n", "size: int = 2\n"),
        ("pkg/dataset_specs.py", "side: int = 8\n", "side: int = 9\n"),
        ("pkg/late.py", "return 1", "return 2"),
        # packages run before the modules in them
        ("pkg/__init__.py", "", "1 / 0\n"),
        ("pkg/maths/__init__.py", '"""Sums."""\n', '"""Sums."""\n\n1 / 0\n'),
    ],
)
def test_what_runs_is_another(file: str, old: str, new: str, tmp_path: Path, digest: Callable[[], str]) -> None:
    before = digest()
    edit(tmp_path / file, old, new)
    assert digest() != before


def test_records_of_jobs_are_the_modules_that_are_called_specs() -> None:
    assert set(code_digests._RECORDS) == {path.name for path in (SCRIPTS / "diffalign").glob("*specs.py")}


def test_a_digest_is_of_code_and_not_of_its_place(tmp_path: Path) -> None:
    before = code_digests.code_digest([SCRIPTS / "align.py"])
    shutil.copy(SCRIPTS / "align.py", tmp_path / "align.py")
    assert code_digests.code_digest([tmp_path / "align.py"]) == before


def test_a_digest_is_the_same_in_every_process() -> None:
    code = (
        "from pathlib import Path; from diffalign.code_digests import code_digest;"
        f"print(code_digest([Path({str(SCRIPTS / 'extract.py')!r})]))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(SCRIPTS), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {code_digests.code_digest([SCRIPTS / "extract.py"]) + "\n"}
