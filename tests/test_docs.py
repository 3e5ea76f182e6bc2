"""What the documentation shows is what happens."""

import copy
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workflow, catalogue, demo_config, merge
from dense_metrics import related
from test_graph import SINGLE, snakemake

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.io.feature_files import read_features
from diffalign.models import Family, all_families
from diffalign.names import expand_layers

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# the family that docs/add-a-model.md adds
MY_CONVNET = Family("pixels", takes=("architecture",))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_of_a_configuration_is_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        config = copy.deepcopy(demo_config())
        # as in config.yaml, which examples are laid over
        merge(config, {"study": {"against": [], "pairs": "all"}})
        merge(config, yaml.safe_load(block))
        study.load(config, catalogue(), {**all_families(), "my_convnet": MY_CONVNET}, METRICS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_table_of_the_readme_is_the_dry_run(tmp_path: Path) -> None:
    table = re.search(r"job +count\n-+  -+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert table is not None
    shown = {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()}
    assert shown.pop("total") == sum(shown.values())
    assert shown == SINGLE | {"weights": 3}


def test_the_pages_have_the_number_of_jobs_of_the_study(tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "--profile", "profiles/slurm", "-n", "--quiet", "rules")
    assert planned.code == 0, planned.output
    counts = dict(re.findall(r"^(\w+) +(\d+)$", planned.output, re.MULTILINE))
    jobs = {rule: int(count) for rule, count in counts.items()}
    total = jobs.pop("total")
    assert total == sum(jobs.values())
    assert f"`snakemake -n` plans {total} jobs" in (ROOT / "README.md").read_text()
    # recipes, settings, downloads and the target are made where Snakemake runs
    local = sum(count for rule, count in jobs.items() if rule in {"all", "recipe", "weights"} or "settings" in rule)
    grouped = total - local - jobs["align_layers"] - jobs["calibrate_layers"]
    said = f"Of the default study that makes {grouped} submissions of {total - local}."
    assert said in (ROOT / "docs/cluster.md").read_text()


def test_the_picture_of_the_rules_is_the_graph(tmp_path: Path) -> None:
    def edges(dot: str) -> set[tuple[str, str]]:
        labels = dict(re.findall(r'(\d+)\[label = "(\w+)"', dot))
        return {(labels[a], labels[b]) for a, b in re.findall(r"(\d+) -> (\d+)", dot)}

    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "rulegraph"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (command,) = re.findall(r"^\.venv/bin/snakemake (.* --rulegraph .*) 2>", said.stdout, re.MULTILINE | re.DOTALL)
    now = edges(snakemake(tmp_path, *shlex.split(command.replace("\\\n", " "))).output)
    assert len(now) > 20
    assert now == edges((ROOT / "docs" / "rulegraph.dot").read_text()), "run `make rulegraph`"
    # graphviz writes each edge into the picture as a title
    svg = (ROOT / "docs" / "rulegraph.svg").read_text()
    assert len(re.findall(r'class="edge"', svg)) == len(now)


def check_with_ruff(tree: Path, module: Path) -> None:
    """Held to the style of the project, whose settings lie in the tree."""
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, str(module)]
        done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def copy_tests(tree: Path) -> None:
    """The tests of the project, for a tree that has more than the project has."""
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("golden", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)


def check_with_tests(tree: Path, *asked: str) -> None:
    """Held to these tests of the project."""
    command = [*(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"), *asked]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_example_of_a_new_family_runs(fresh: Workflow) -> None:
    page = ROOT / "docs" / "add-a-model.md"
    (code,) = blocks(page, "python")
    module = fresh.tree / "workflow_scripts" / "diffalign" / "models" / "families" / "my_convnet.py"
    module.write_text(code)
    copy_tests(fresh.tree)
    check_with_ruff(fresh.tree, module)
    (entry,) = (block for block in blocks(page, "yaml") if "my_convnet" in block)
    overlay = yaml.safe_load(entry)
    with (fresh.tree / "catalogue" / "vision.yaml").open("a") as catalogue_file:
        catalogue_file.write(yaml.safe_dump(overlay["models"]))
    check_with_tests(fresh.tree, "-k", "my_convnet or of_every_family", "tests/models/test_families.py")
    check_with_tests(fresh.tree, "tests/config/test_catalogue.py")
    merge(overlay, {"models": {"mine": {"weights": {"from": "miniature"}, "input": {"size": 64}}}})
    folder = "results/features/photographs/clean/mine"
    done = fresh.run(f"{folder}.json", overlay=overlay)
    assert done.code == 0, done.output
    for layer in expand_layers(overlay["models"]["mine"]["layers"]):
        assert read_features(fresh.directory / folder / f"{layer}.pt").values.shape[1] == 32


def test_a_model_of_timm_takes_three_lines() -> None:
    (entry,) = (block for block in blocks(ROOT / "docs" / "add-a-model.md", "yaml") if "hub: timm/" in block)
    # name, family, hub id
    assert entry.splitlines()[4] == "study:"
    short = yaml.safe_load(entry)
    config = copy.deepcopy(demo_config())
    merge(config, short)
    found = study.load(config, catalogue(), all_families(), METRICS).models["vits"]
    assert (found.default_layer, len(found.layers), found.input and found.input.size) == ("final", 14, 224)


def test_the_example_of_a_metric_passes_what_is_asked_of_all_metrics(fresh: Workflow) -> None:
    (code,) = blocks(ROOT / "docs" / "add-a-metric.md", "python")
    module = fresh.tree / "workflow_scripts/diffalign/alignment/metrics/on_lists.py"
    module.write_text(module.read_text() + "\n\n" + code)
    copy_tests(fresh.tree)
    check_with_ruff(fresh.tree, module)
    # a metric of the project comes with a dense definition
    tests = fresh.tree / "tests/alignment/test_metrics.py"
    at = "def test_every_metric_has_a_dense_definition"
    dense = 'DENSE["jaccard_knn"] = lambda a, b, k: (m := DENSE["mutual_knn"](a, b, k)) / (2 - m)\n\n\n'
    tests.write_text(tests.read_text().replace(at, dense + at, 1))
    asked = ("-k", "jaccard_knn", "tests/alignment/test_metrics.py", "tests/alignment/test_calibration.py")
    check_with_tests(fresh.tree, *asked)
    pair = "results/jaccard_knn/photographs/clean/layers/dinov2_vs_siglip2.npy"
    planned = fresh.plan(pair, overlay={"alignment": {"metrics": ["cknna", "jaccard_knn"]}})
    assert planned.jobs()["align_layers"] == 1


def test_the_example_of_the_readme_measures() -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    a, b = related(0)
    exec(code, {"a": a, "b": b})


def test_every_metric_is_explained() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", sorted((ROOT / "report").glob("*.rst")), ids=lambda path: path.stem)
def test_a_caption_is_valid_markup(path: Path) -> None:
    from docutils.core import publish_string

    text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "word", path.read_text())
    warnings = io.StringIO()
    publish_string(text, settings_overrides={"warning_stream": warnings, "report_level": 2})
    assert not warnings.getvalue()
