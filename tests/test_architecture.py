"""docs/architecture.md says which files an addition touches: each addition is made in these files alone, and works."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Workflow
from PIL import Image
from test_docs import blocks

LIBRARY = Path("workflow_scripts/diffalign")


def places(addition: str) -> list[str]:
    """The files and folders that the table names for an addition, relative to the repository."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    row = re.search(rf"^\| {addition} \| (.*) \|$", text, re.MULTILINE)
    assert row is not None, f"docs/architecture.md has no row '{addition}'"
    named = re.findall(r"`([\w./]+[/.]\w*)`", row[1])
    return [path if (ROOT / path).exists() else str(LIBRARY / path) for path in named]


def append(path: Path, text: str) -> None:
    path.write_text((path.read_text() if path.exists() else "") + text)


def add_model(tree: Path) -> None:
    append(tree / "catalogue/vision.yaml", "\ndinov2.crops:\n  like: dinov2\n  input: {size: 448}\n")


def add_family(tree: Path) -> None:
    page = ROOT / "docs" / "add-a-model.md"
    (code,) = blocks(page, "python")
    append(tree / LIBRARY / "models/families/my_convnet.py", code)
    (entry,) = (block for block in blocks(page, "yaml") if "my_convnet" in block)
    append(tree / "catalogue/mine.yaml", "\n".join(line.removeprefix("  ") for line in entry.splitlines()[1:]))


def add_metric(tree: Path) -> None:
    (code,) = blocks(ROOT / "docs" / "add-a-metric.md", "python")
    append(tree / LIBRARY / "alignment/metrics/on_lists.py", "\n\n" + code)


def add_dataset(tree: Path) -> None:
    config = tree / "config.yaml"
    entry = f"datasets:\n  mine: {{kind: folder, path: {tree / 'mine'}, size: 64}}\n"
    config.write_text(config.read_text().replace("datasets:\n", entry, 1))


def contents(tree: Path) -> dict[str, bytes]:
    files = (path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("addition", "add", "target", "rule"),
    [
        ("a model", add_model, "results/features/photographs/clean/dinov2.crops.json", "extract_dinov2_crops"),
        ("a family of models", add_family, "results/features/photographs/clean/mine.json", "extract_mine"),
        ("a metric", add_metric, "results/jaccard_knn/photographs/clean/layers/dinov2_vs_siglip2.npy", "align_layers"),
        ("a data set", add_dataset, "results/images/mine/clean/manifest.tsv", "images"),
    ],
)
def test_an_addition_touches_the_files_that_the_page_names(
    addition: str, add: Callable[[Path], None], target: str, rule: str, fresh: Workflow
) -> None:
    before = contents(fresh.tree)
    add(fresh.tree)
    changed = {path for path, content in contents(fresh.tree).items() if before.get(path) != content}
    allowed = places(addition)
    assert changed
    for path in changed:
        assert any(path == place or path.startswith(place.rstrip("/") + "/") for place in allowed), (path, allowed)
    metrics = ["cknna", "jaccard_knn"] if addition == "a metric" else ["cknna"]
    assert rule in fresh.plan(target, overlay={"alignment": {"metrics": metrics}}).jobs()


def test_a_new_data_set_is_made(fresh: Workflow) -> None:
    add_dataset(fresh.tree)
    (fresh.tree / "mine").mkdir()
    for number in range(3):
        Image.new("RGB", (80, 64), (number, 100, 200)).save(fresh.tree / "mine" / f"{number}.png")
    made = fresh.run("results/images/mine/clean/manifest.tsv")
    assert made.code == 0, made.output
    assert len((fresh.directory / "results/images/mine/clean/manifest.tsv").read_text().splitlines()) == 4
