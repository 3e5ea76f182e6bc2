"""What tests share: goldens, a small study that ran once, and a way to run the workflow."""

import copy
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forked_snakemake
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SMALL = ROOT / "tests" / "small_study.yaml"
DIGITS = ROOT / "tests" / "digits_study.yaml"
TREE = ("Snakefile", "config.yaml", "catalogue", "rules", "workflow_scripts", "schemas", "envs", "profiles", "report")

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # workers share the cores, so none takes more than its part; before NumPy is imported
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    )


def golden(name: str) -> Path:
    """A golden file or folder: outputs of a published implementation for inputs that lie beside them."""
    path = ROOT / "tests" / "golden" / name
    assert path.exists(), f"{path} is missing"
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run Snakemake are marked, so that numeric tests can run without them."""
    for item in items:
        if {"finished", "fresh", "copied", "imported", "digits_study", "story"} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.workflow)


def read_yaml(path: Path) -> dict[str, Any]:
    return dict(yaml.load(path.read_text(), yaml.CSafeLoader))


def things(name: str) -> Path:
    """A file of THINGS, real choices of people, which this project ships none of: from ../shared, which CI has."""
    path = SHARED / "data" / "things" / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{name} of THINGS is missing, and in CI it must not be")
        pytest.skip(f"{name} of THINGS lies outside of this checkout")
    return path


@cache
def _demo_config() -> dict[str, Any]:
    config = read_yaml(ROOT / "config.yaml")
    merge(config, read_yaml(ROOT / "profiles" / "demo" / "study.yaml"))
    return config


@cache
def catalogue() -> dict[str, Any]:
    """The entries of the catalogue, as they are written."""
    from diffalign.config.catalogue import read_catalogue

    return read_catalogue(ROOT / "catalogue")


def demo_config() -> dict[str, Any]:
    """config.yaml under the miniatures of the demo, without its digits study, merged as Snakemake merges them."""
    return copy.deepcopy(_demo_config())


def merge(config: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = value


@dataclass
class Run:
    """The outcome of one call of snakemake."""

    code: int
    output: str

    def jobs(self) -> dict[str, int]:
        """rule -> number of jobs, from the table `Job stats`."""
        lines = self.output.splitlines()
        if "Job stats:" not in lines:
            return {}
        counts = {}
        for line in lines[lines.index("Job stats:") + 3 :]:
            words = line.split()
            if len(words) != 2 or words[0] == "total":
                break
            counts[words[0]] = int(words[1])
        return counts

    def outputs(self) -> set[str]:
        """Every file that a dry run says it would make."""
        return {
            path
            for line in self.output.splitlines()
            if line.startswith("    output: ")
            for path in line.removeprefix("    output: ").split(", ")
        }


@dataclass
class Workflow:
    """A copy of the workflow's files and a working directory, so that tests may change both.

    studies: what overrides config.yaml, in the copy or, as a full path, anywhere.
    """

    tree: Path
    directory: Path
    studies: Sequence[str | Path] = ("profiles/demo/study.yaml", SMALL)

    def command(self, *arguments: str, overlay: Mapping[str, Any] | None = None, cores: int = 2) -> list[str]:
        configs = [self.tree / "config.yaml", *(self.tree / study for study in self.studies)]
        if overlay is not None:
            path = self.directory.parent / f"overlay_{abs(hash(str(overlay)))}.yaml"
            path.write_text(yaml.safe_dump(dict(overlay)))
            configs.append(path)
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(self.tree / "Snakefile")),
            *("--directory", str(self.directory), "--cores", str(cores), "--rerun-incomplete", "--show-failed-logs"),
            *("--configfile", *map(str, configs), "--", *arguments),
        ]

    def run(self, *targets: str, options: Sequence[str] = (), overlay: Mapping[str, Any] | None = None) -> Run:
        command = self.command(*targets, overlay=overlay)
        at = command.index("--configfile")
        command[at:at] = list(options)
        # without `python -m snakemake`
        return Run(*forked_snakemake.call(command[3:], self.tree))

    def plan(self, *targets: str, overlay: Mapping[str, Any] | None = None) -> Run:
        """A dry run; it must build a graph."""
        done = self.run(*targets, options=["--dry-run"], overlay=overlay)
        assert done.code == 0, done.output
        return done


def _unfinished(folder: str, names: list[str]) -> list[str]:
    """Compiled code that another process is writing; what is compiled serves copies, too."""
    return [name for name in names if folder.endswith("__pycache__") and not name.endswith((".pyc", ".nbi", ".nbc"))]


def copy_tree(to: Path) -> Path:
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=_unfinished)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / name)
    return to


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Workflow:
    """The small study, run to its end once, by the first worker of pytest that needs it.

    Tests must leave its files as they are; dry runs do.
    """
    base = shared_folder(tmp_path_factory, worker_id) / "finished"
    return _run_once(Workflow(base / "tree", base / "work"))


@pytest.fixture(scope="session")
def digits_study(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Workflow:
    """The digits study with fewer steps, run to its end once. Tests must leave its files as they are."""
    base = shared_folder(tmp_path_factory, worker_id) / "digits_study"
    return _run_once(Workflow(base / "tree", base / "work", ("profiles/digits/study.yaml", DIGITS)))


def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of pytest share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def _run_once(workflow: Workflow) -> Workflow:
    """The workflow, run to its end by the first worker of pytest that needs it."""
    base = workflow.tree.parent
    with FileLock(f"{base}.lock"):
        if not (base / "done").exists():
            copy_tree(workflow.tree)
            done = workflow.run()
            assert done.code == 0, done.output
            (base / "done").touch()
    return workflow


@pytest.fixture
def fresh(tmp_path: Path) -> Workflow:
    """The workflow over an empty working directory."""
    return Workflow(copy_tree(tmp_path / "tree"), tmp_path / "work")


@pytest.fixture
def copied(finished: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the finished study that a test may damage."""
    shutil.copytree(finished.tree, tmp_path / "tree", symlinks=True)
    shutil.copytree(finished.directory, tmp_path / "work", symlinks=True)
    return Workflow(tmp_path / "tree", tmp_path / "work")


def write_neighbors(
    path: Path,
    names: Sequence[str],
    layers: Mapping[str, Any],
    settings: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> None:
    """Write lists that a test made as the rule neighbors writes its own."""
    from diffalign.io import neighbor_files

    with neighbor_files.writing(path) as file:
        for alias, neighbors in layers.items():
            file.add(alias, neighbors)
        file.finish(names, settings, recipe)
