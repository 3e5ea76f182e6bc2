"""The catalogue: entries that inherit, the user's entries over them, and miniatures."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, catalogue
from test_study import load, mistakes

from diffalign.config.catalogue import read_catalogue, resolve

SHIPPED = {
    "base": {
        "family": "f",
        "weights": {"from": "hub", "hub": "a/b", "files": ["x"]},
        "miniature": {"width": 2, "scheduler": {"class": "A", "shift": 3}},
        "input": {"size": 224, "miniature": 56, "mean": [0, 0, 0]},
        "layers": {"embed": "e", "b{0..1}": "x.{}"},
        "batch_size": 8,
    },
    "large": {
        "like": "base",
        "weights": {"hub": "a/large"},
        "miniature": {"scheduler": {"class": "B"}},
        "layers": {"b{0..3}": "x.{}"},
    },
}


def resolved(own: dict[str, Any] | None = None, weights: str | None = None) -> dict[str, Any]:
    wrong: list[str] = []
    entries = resolve(SHIPPED, own or {}, weights, wrong)
    assert not wrong
    return entries


def test_an_entry_inherits_what_it_does_not_say() -> None:
    large = resolved()["large"]
    assert large["weights"] == {"from": "hub", "hub": "a/large", "files": ["x"]}
    # layers, and mappings inside of mappings, stand in place of the inherited ones
    assert large["layers"] == {"b{0..3}": "x.{}"}
    assert large["miniature"] == {"width": 2, "scheduler": {"class": "B"}}
    assert "like" not in large


def test_a_users_entry_is_merged_over_the_catalogue() -> None:
    entries = resolved({"base": {"input": {"size": 448}, "layers": {"extra": "y"}}})
    assert entries["base"]["input"] == {"size": 448, "miniature": 56, "mean": [0, 0, 0]}
    assert entries["base"]["layers"] == {"embed": "e", "b{0..1}": "x.{}", "extra": "y"}
    # the user's change of one model is not inherited by another one of the catalogue
    assert entries["large"]["input"]["size"] == 224


def test_a_users_entry_inherits_from_the_catalogue_and_from_the_users_own() -> None:
    own = {
        "mine": {"like": "large", "weights": {"from": "folder", "folder": "/m"}, "batch_size": 2},
        "base": {"input": {"size": 448}},
        "other": {"like": "base"},
        "third": {"like": "mine", "layers": {"b0": "z"}},
    }
    entries = resolved(own)
    assert entries["mine"]["weights"] == {"from": "folder", "hub": "a/large", "files": ["x"], "folder": "/m"}
    assert entries["other"]["input"]["size"] == 448
    assert entries["third"] == {**entries["mine"], "layers": {"b0": "z"}}
    assert own["mine"]["like"] == "large"


def test_default_weights_make_miniatures_of_the_catalogue_alone() -> None:
    own = {
        "base": {"weights": {"from": "folder", "folder": "/b"}},
        "mine": {"like": "large"},
        "sized": {"like": "large", "input": {"size": 64}, "batch_size": 3},
        "theirs": {"family": "f", "weights": {"from": "hub", "hub": "c/d"}, "miniature": {"width": 1}},
    }
    entries = resolved(own, "miniature")
    for name in ("large", "mine"):
        assert entries[name]["weights"]["from"] == "miniature"
        assert entries[name]["input"]["size"] == 56
        assert "batch_size" not in entries[name]
    # what the user says stands
    assert entries["base"]["weights"]["from"] == "folder"
    assert entries["base"]["input"]["size"] == 224
    assert entries["base"]["batch_size"] == 8
    assert entries["sized"]["input"]["size"] == 64
    assert entries["sized"]["batch_size"] == 3
    assert entries["theirs"]["weights"]["from"] == "hub"


def test_a_miniature_that_a_user_asks_for_is_as_one_of_the_demo() -> None:
    entries = resolved({"base": {"weights": {"from": "miniature"}}})
    assert entries["base"] == resolved({}, "miniature")["base"]
    assert entries["large"]["weights"]["from"] == "hub"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"mine": {"like": "dinov22"}}, "models.mine.like: unknown model 'dinov22'; did you mean 'dinov2'?"),
        ({"a": {"like": "b"}, "b": {"like": "a"}}, "models.a.like: 'a' inherits from itself (a -> b -> a)"),
        ({"mine": {"like": 3}}, "models.mine.like: unknown model '3'"),
        ({"mine": {"like": "sd3"}, "sd3": [1]}, "models.mine.like: the entry of 'sd3' is no mapping"),
    ],
)
def test_what_cannot_be_inherited_is_explained(models: dict[str, Any], message: str) -> None:
    assert message in mistakes({"models": models})


def test_a_model_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("m: {family: f}\n")
    with pytest.raises(ValueError, match=r"b\.yaml: the model 'm' stands in another file"):
        read_catalogue(tmp_path)
    (tmp_path / "b.yaml").write_text("- x\n")
    with pytest.raises(ValueError, match=r"b\.yaml: expected entries of models"):
        read_catalogue(tmp_path)


def test_files_of_the_catalogue_are_small_and_all_of_it_is_a_miniature_in_the_demo() -> None:
    assert len(catalogue()) >= 90
    for path in (ROOT / "catalogue").glob("*.yaml"):
        assert all(entry.get("like", entry.get("family")) for entry in yaml.safe_load(path.read_text()).values()), path
    models = load().models
    real = {name for name, model in models.items() if model.weights.source != "miniature"}
    assert real == {"pixels", "colors", "powerlaw", "minilm"}
