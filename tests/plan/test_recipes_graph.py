"""Recipes and settings as files: what they hold, and what their change reruns."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Workflow
from test_precomputed import STUDY, write_files

from diffalign.io.atomic import write_json
from diffalign.plan.stage import as_json

RECIPE = "results/recipes/left.json"
IMPORTED = "results/features/theirs/clean/left.json"
# what a shell, or Snakemake's formatting of commands, could take for something else
AWKWARD = """it's "$HOME" `id` %s \\n {output} — ü"""


def test_the_text_of_a_recipe_is_that_of_other_json_files(tmp_path: Path) -> None:
    content = {"format": 1, "model": {"name": AWKWARD, "layers": {}, "noise": None}, "levels": [0.1, 1]}
    write_json(tmp_path / "written.json", content)
    assert as_json(lambda _: content)(SimpleNamespace()) + "\n" == (tmp_path / "written.json").read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(lambda _: {"eps": float("nan")})(SimpleNamespace())


def overlay(layer: str) -> dict[str, Any]:
    """The study of two precomputed models; a layer of one is in a file of this name."""
    left = {**STUDY["models"]["left"], "layers": {"b0": "block_0", "b1": layer}}
    return {**STUDY, "models": {**STUDY["models"], "left": left}}


def test_a_recipe_reruns_what_reads_it_once_it_says_something_else(fresh: Workflow) -> None:
    write_files(fresh.directory)
    files = fresh.directory / "feats" / "theirs"
    (files / f"left_{AWKWARD}_clean.pt").write_bytes((files / "left_block_1_clean.pt").read_bytes())
    done = fresh.run(IMPORTED, overlay=overlay(AWKWARD))
    assert done.code == 0, done.output
    assert done.jobs() == {"recipe": 1, "feature_sources": 1, "import_left": 1}
    recipe = fresh.directory / RECIPE
    assert json.loads(recipe.read_text())["model"]["layers"]["b1"] == AWKWARD
    assert (fresh.directory / "logs/recipe/left.log").read_text() == f"wrote {RECIPE}\n"
    assert sorted(path.name for path in recipe.parent.iterdir()) == ["left.json", "sources"]
    # the same again, later
    text, later = recipe.read_text(), (fresh.directory / IMPORTED).stat().st_mtime + 60
    recipe.write_text(text)
    os.utime(recipe, (later, later))
    assert "Nothing to be done" in fresh.plan(IMPORTED, overlay=overlay(AWKWARD)).output
    assert fresh.plan(IMPORTED, overlay=overlay("block_1")).jobs() == {
        "recipe": 1,
        "feature_sources": 1,
        "import_left": 1,
    }
