"""Configurations, command lines and checkpoints that are hostile or mistaken, through the workflow itself."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Workflow, demo_config
from hostile_objects import YAML_TAGS
from swollen import aliases
from test_study import load, mistakes

from diffalign import models
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.plan import failures
from diffalign.specs import Model, Weights


@pytest.mark.parametrize("tag", [tag for tag in YAML_TAGS if tag != "tuple"])
def test_a_tag_of_a_configuration_file_is_not_executed(tag: str, fresh: Workflow, tmp_path: Path) -> None:
    canary, hostile = tmp_path / "canary", tmp_path / "hostile.yaml"
    hostile.write_text(f"seed: {YAML_TAGS[tag].format(canary=canary)}\n")
    fresh.studies = [*fresh.studies, hostile]
    refused = fresh.run("results/cknna/dinov2_vs_sd3_b8.npy", options=["--dry-run"])
    assert refused.code != 0
    assert not canary.exists()
    assert not list(fresh.directory.rglob("*.npy"))


def test_values_that_double_and_deep_ones_are_one_mistake() -> None:
    import yaml

    doubled = yaml.safe_load(aliases())["mine"]
    assert mistakes({"models": {"mine": doubled}}) == (
        "(top level): it holds more than 1,000,000 values; are there aliases of aliases?"
    )
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    assert mistakes({"models": {"mine": {"architecture": {"depth": deep}}}}).endswith("nested more than 50 levels deep")
    assert load().models


@pytest.mark.parametrize(
    "name",
    ["a; touch canary", "$(touch canary)", "`touch canary`", "a b", "../a", "/etc", "a\nb", "a\x1b[31m", "a|b", "é"],
)
def test_names_that_a_shell_would_run_are_no_names(name: str) -> None:
    told = mistakes(
        {"models": {name: {"like": "dinov2"}}, "datasets": {name: {"kind": "folder", "path": "x", "size": 8}}}
    )
    assert told.count("is no model name") == 1
    assert told.count("may hold only a-z, 0-9") == 1


def test_text_in_the_place_of_a_number_says_where_it_may_come_from(fresh: Workflow) -> None:
    told = mistakes({"alignment": {"k": "5"}})
    assert told == (
        "alignment.k: '5' is not of type 'integer'; it is text: --config makes text of what stands inside of braces, "
        "so write it in a file for --configfile"
    )
    assert "it is text" not in mistakes({"alignment": {"k": "five"}})
    asked = demo_config()["alignment"]["k"]
    assert isinstance(asked, int)


def test_misspelt_targets_are_answered(fresh: Workflow) -> None:
    answered = fresh.run("resluts/cknna/dinov2_vs_sd3_b8.npy", options=["--dry-run"])
    assert answered.code != 0
    target = "results/cknna/dinov2_vs_sd3_b8.npy"
    assert f"no rule makes 'resluts/cknna/dinov2_vs_sd3_b8.npy'; did you mean '{target}'?" in answered.output
    assert fresh.run(target, options=["--dry-run"]).code == 0


def test_too_few_images_for_the_neighbours_are_refused_before_anything_runs(fresh: Workflow, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").touch()
    mine = {"datasets": {"mine": {"kind": "folder", "path": str(tmp_path), "size": 64}}, "alignment": {"k": 10}}
    refused = fresh.run("results/cknna/mine/clean/dinov2_vs_sd3_b8.npy", options=["--dry-run"], overlay=mine)
    assert refused.code != 0
    assert "the data set 'mine' has 3 images, and 10 neighbours (alignment.k) need at least 11" in refused.output
    mine["alignment"]["k"] = 2
    assert fresh.run("results/cknna/mine/clean/dinov2_vs_sd3_b8.npy", options=["--dry-run"], overlay=mine).code == 0


def test_after_a_killed_job_more_memory_is_advised(fresh: Workflow, tmp_path: Path) -> None:
    assert failures.advice("Error in rule align: exit code 1") == ""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_text("no picture")
    mine = {"datasets": {"mine": {"kind": "folder", "path": str(tmp_path / "mine"), "size": 64}}}
    target = "results/images/mine/clean/manifest.tsv"
    refused = fresh.run(target, options=["--quiet", "rules"], overlay=mine)
    assert refused.code != 0
    # also where rules are quiet, the path of the log is shown
    assert "images: the log is logs/images/mine/clean.log" in refused.output
    assert "A job was killed" not in refused.output
    (fresh.tree / "workflow_scripts/images.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = fresh.run(target, overlay=mine)
    assert killed.code != 0
    assert "A job was killed, most often because the machine ran out of memory" in killed.output


def test_code_beside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "modeling_mine.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Mine: pass\n")
    config = {
        "model_type": "mine",
        "architectures": ["Mine"],
        "auto_map": {"AutoConfig": "modeling_mine.Mine", "AutoModel": "modeling_mine.Mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["modeling_mine.Mine", None]}})
    )
    for family in ("transformers_language", "transformers_vision"):
        entry = Model("mine", family, Weights("folder"), {"h0": "0"}, "h0")
        load_it = models.load_language if family == "transformers_language" else models.load
        with pytest.raises(CheckpointError, match=str(tmp_path)) as caught:
            load_it(entry, tmp_path, torch.device("cpu"))
        assert "\n" not in str(caught.value)
        assert "trust_remote_code" not in str(caught.value)
    assert not (tmp_path / "canary").exists()
