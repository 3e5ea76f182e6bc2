"""The sections through_training and atlas: what they mean, and their mistakes."""

from pathlib import Path
from typing import Any

import pytest
from config.test_study import load, mistakes
from test_training import SIT

from diffalign.models import all_families
from diffalign.plan import Plan

DATASETS: dict[str, Any] = {"seen": {"kind": "packaged", "collection": "digits", "size": 32}}
MODELS: dict[str, Any] = {
    "small.sit": {**SIT, "training": {**SIT["training"], "dataset": "seen"}},
    "small.sit.s1": {"like": "small.sit", "seed": 1},
    "small.repa": {"like": "small.sit", "noise": "t0.3"},
}
RECIPES = {"SiT": ["small.sit-label", "small.sit.s1-label"], "other": ["small.repa"]}


def planned(**sections: Any) -> Plan:
    return Plan(load({"datasets": DATASETS, "models": MODELS, **sections}), all_families())


def test_every_checkpoint_of_every_training_is_measured() -> None:
    plan = planned(through_training={"recipes": RECIPES, "reference": "dinov2_b3"}).through_training
    checkpoints = plan.checkpoints()
    assert [(each["model"], each["seed"], each["step"]) for each in checkpoints] == [
        ("small.sit", 0, 0),
        ("small.sit", 0, 40),
        ("small.sit.s1", 1, 0),
        ("small.sit.s1", 1, 40),
        ("small.repa", 0, 0),
        ("small.repa", 0, 40),
    ]
    inputs = plan.inputs()
    stem = "results/features/photographs/clean"
    assert inputs["checkpoints"][1] == f"{stem}/small.sit@40-t0.5-label.json"
    assert inputs["checkpoints"][4] == f"{stem}/small.repa@0-t0.3.json"
    assert (inputs["reference"], plan.reference_layer) == (f"{stem}/dinov2.json", "b3")
    assert "quality" not in plan.table_inputs()
    assert "results/tables/through_training_correlations.tsv" in plan.targets()


@pytest.mark.parametrize(
    "section",
    [
        {"through_training": {"recipes": RECIPES, "reference": "dinov2"}},
        {"atlas": {"models": ["small.sit"], "reference": "dinov2"}},
    ],
)
def test_a_study_may_be_of_trainings_or_atlases_alone(section: dict[str, Any]) -> None:
    plan = planned(**section, study={"pairs": [], "scores": []})
    assert plan.figures.targets() == []
    assert "results/findings.txt" in plan.everything()


def test_quality_is_the_table_of_samples() -> None:
    section: dict[str, Any] = {"recipes": RECIPES, "reference": "dinov2", "quality": ["FID"]}
    assert planned(through_training=section).through_training.table_inputs()["quality"] == (
        "results/tables/sample_quality.tsv"
    )
    assert planned(through_training=section).through_training.measure == "FID"


class Wildcards:
    dataset, condition = "photographs", "clean"

    def __init__(self, a: str) -> None:
        self.a = a


@pytest.mark.parametrize(
    ("model", "trained", "untrained"),
    [
        ("small.sit", "small.sit@40-t0.9", "small.sit@0-t0.9"),
        ("small.sit@0-label", "small.sit@0-t0.9-label", "small.sit@0-t0.9-label"),
        ("sd3-caption-draws4", "sd3-t0.9-caption-draws4", "sd3-t0.9-caption-draws4-untrained"),
    ],
)
def test_an_atlas_reads_a_model_and_its_twin_at_every_level(model: str, trained: str, untrained: str) -> None:
    plan = planned(atlas={"models": [model], "reference": "dinov2", "levels": [0, 0.9, 1.0]}).atlas
    inputs = plan.inputs(Wildcards(model))  # type: ignore[arg-type]
    stem = "results/features/photographs/clean"
    assert inputs["trained"][1] == f"{stem}/{trained}.json"
    assert inputs["untrained"][1] == f"{stem}/{untrained}.json"
    assert inputs["trained"][0] == f"{stem}/{trained.replace('-t0.9', '-t0')}.json"
    assert inputs["controls"] == [f"{stem}/pixels.json"]
    assert plan.controls() == {"labels": None, "pixels_p8": ["p8"], "untrained": None}
    assert f"results/figures/photographs/clean/atlas/cknna/{model}.png" in plan.targets()


def test_every_atlas_has_pure_noise_of_its_own_as_a_negative_control() -> None:
    section = {"models": ["sd3-commonnoise"], "reference": "dinov2", "levels": [0, 0.9]}
    plan = planned(atlas=section).atlas
    assert plan.study.atlas.passes == (0, 0.9, 1)
    inputs = plan.inputs(Wildcards("sd3-commonnoise"))  # type: ignore[arg-type]
    assert [Path(path).stem for path in inputs["trained"]][1:] == ["sd3-t0.9-commonnoise", "sd3-t1"]
    assert Path(inputs["untrained"][-1]).stem == "sd3-t1-untrained"
    assert planned(atlas={**section, "negative_control": False}).atlas.study.atlas.passes == (0, 0.9)
    assert planned(atlas={**section, "levels": [1, 0.5]}).atlas.study.atlas.passes == (1, 0.5)


def test_without_trainings_and_models_nothing_is_made() -> None:
    plan = planned()
    assert plan.through_training.targets() == plan.atlas.targets() == []
    with pytest.raises(ValueError, match=r"set atlas\.reference"):
        plan.atlas.inputs(Wildcards("small.sit"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"recipes": RECIPES}, "through_training.reference: is missing"),
        ({"recipes": {"SiT": ["small.sat"]}, "reference": "dinov2"}, "unknown model 'small.sat'; did you mean"),
        ({"recipes": {"SiT": ["dinov2"]}, "reference": "dinov2"}, "'dinov2' has one checkpoint; a training needs"),
        ({"recipes": {"SiT": ["small.sit@40"]}, "reference": "dinov2"}, "names a step; here all steps are meant"),
        ({"recipes": {"SiT": ["small.sit_b1"]}, "reference": "dinov2"}, "names a layer; here all layers are meant"),
        (
            {"recipes": {"SiT": ["small.sit", "small.repa"]}, "reference": "dinov2"},
            "recipes.SiT[1]: 'small.repa' has the seed of 'small.sit', the study’s; give each model the seed",
        ),
        (
            {"recipes": {"SiT": ["small.sit"], "other": ["small.sit"]}, "reference": "dinov2"},
            "recipes.other[0]: 'small.sit' is a training of through_training.recipes.SiT[0] already",
        ),
        ({"recipes": {"SiT": []}}, "through_training.recipes.SiT"),
        ({"reference": "dinov2_b99"}, "through_training.reference: dinov2 has no layer 'b99'"),
        ({"dataset": "photos"}, "through_training.dataset: unknown dataset 'photos'; did you mean 'photographs'?"),
    ],
)
def test_mistakes_of_trainings(section: dict[str, Any], line: str) -> None:
    assert line in mistakes({"datasets": DATASETS, "models": MODELS, "through_training": section})


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"models": ["small.sit"]}, "atlas.reference: is missing"),
        ({"models": ["dinov2"], "reference": "dinov2"}, "'dinov2' has no noise levels"),
        ({"models": ["sd3-t0.2"], "reference": "dinov2"}, "names a noise level; atlas.levels says which"),
        ({"models": ["sd3_b1"], "reference": "dinov2"}, "names a layer; here all layers are meant"),
        ({"models": ["sd3-untrained"], "reference": "dinov2"}, "is an untrained twin, which every atlas has"),
        (
            {"models": ["sd3"], "reference": "dinov2", "controls": ["pixel_p8"]},
            "atlas.controls[0]: unknown model 'pixel'",
        ),
        ({"levels": [0, 1.5]}, "atlas.levels[1]"),
        ({"levels": [0.5, 0.5]}, "0.5 stands twice"),
        ({"controls": []}, "atlas.controls"),
    ],
)
def test_mistakes_of_atlases(section: dict[str, Any], line: str) -> None:
    assert line in mistakes({"datasets": DATASETS, "models": MODELS, "atlas": section})


def test_models_are_measured_on_images_that_they_were_not_trained_on() -> None:
    split = {"kind": "packaged", "collection": "digits", "size": 32}
    sets = {
        **DATASETS,
        "held": {**split, "split": {"part": "held_out", "held_out": 0.2}},
        "seen": {**split, "split": {"part": "train", "held_out": 0.1}},
    }
    sections: dict[str, Any] = {
        "through_training": {"recipes": {"SiT": ["small.sit"]}, "reference": "dinov2", "dataset": "held"},
        "atlas": {"models": ["small.sit"], "reference": "dinov2", "dataset": "seen"},
    }
    text = mistakes({"datasets": sets, "models": MODELS, **sections})
    assert (
        "through_training.dataset: 'small.sit' is trained on 'seen', which may share images with 'held'; give" in text
    )
    assert "atlas.dataset: 'small.sit' is trained on 'seen'; name held-out images" in text
    sets["seen"]["split"]["held_out"] = 0.2
    sections["atlas"]["dataset"] = "held"
    load({"datasets": sets, "models": MODELS, **sections})
