"""The container recipe: what it copies is there, is the product alone, and is enough to plan the demo."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

RECIPE = ROOT / "envs" / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of every instruction, with continued lines joined."""
    lines = [line for line in RECIPE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def copied() -> dict[str, str]:
    """Source -> destination of every COPY."""
    sources: dict[str, str] = {}
    for word, rest in instructions():
        if word == "COPY":
            *names, to = shlex.split(rest)
            sources |= {name: name if to == "./" else to for name in names}
    return sources


def tracked(source: str) -> list[str]:
    """The files below a source that are part of the project; what lies beside them is not built into a context."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", source]
    return subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_every_instruction_is_one_that_is_checked_here() -> None:
    assert [word for word, _ in instructions() if word not in ("COPY", "ENV")] == [
        "FROM",
        "WORKDIR",
        "RUN",
        "ENTRYPOINT",
    ]


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_is_part_of_the_product(source: str) -> None:
    files = tracked(source)
    assert files, f"{source} is no file of the project"
    assert copied()[source] == source
    assert not [path for path in files if path.split("/")[0] in ("tests", "benchmarks", "docs", "shared", ".ci")]


def test_packages_are_those_of_the_lock_with_hashes() -> None:
    (run,) = (rest for word, rest in instructions() if word == "RUN")
    assert f"uv{PROJECT['tool']['uv']['required-version']} " in run
    assert "--require-hashes -r requirements.lock" in run
    (image,) = (rest for word, rest in instructions() if word == "FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert f"python={version[1]}" in (ROOT / "envs" / "models.yaml").read_text()


@pytest.mark.workflow
def test_what_is_copied_is_enough_to_plan_the_demo(tmp_path: Path) -> None:
    for source in copied():
        for path in tracked(source):
            to = tmp_path / "image" / path
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, to)
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/demo", "--directory", str(tmp_path / "study")]
    planned = subprocess.run(
        [*command, "--dry-run", "--quiet", "all", "--", "all"],
        cwd=tmp_path / "image",
        capture_output=True,
        text=True,
        check=False,
    )
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^extract_sd3 +[1-9]", planned.stdout, re.MULTILINE), planned.stdout
