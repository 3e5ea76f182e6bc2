"""The section `samples`: which checkpoints it means, and what it refuses."""

from typing import Any

import pytest
from config.test_training import SIT, VIT, changed
from test_study import load, mistakes

from diffalign.models import all_families
from diffalign.plan import Plan

TRAINED = {
    "datasets": {"held.out": {"kind": "packaged", "collection": "digits", "size": 64}},
    "models": {
        "small.sit": changed(SIT, checkpoints=[40, 0, 10]),
        "small.sit.s1": {"like": "small.sit", "seed": 1},
        "small.vit": {**VIT, "layers": {**VIT["layers"], "logits": "head"}},
    },
}
SAMPLES: dict[str, Any] = {
    "dataset": "held.out",
    "models": ["small.sit", "small.sit.s1@40"],
    "classifier": "small.vit_logits",
    "features": "small.vit_final",
}


def with_samples(**changes: Any) -> dict[str, Any]:
    return {**TRAINED, "samples": {**SAMPLES, **changes}}


def test_a_model_without_a_step_stands_for_all_of_its_checkpoints() -> None:
    plan = Plan(load(with_samples()), all_families())
    assert plan.samples.asked() == ["small.sit@0", "small.sit@10", "small.sit@40", "small.sit.s1@40"]
    assert plan.samples.asked("small.sit.s1") == ["small.sit.s1@40"]
    assert Plan(load(with_samples(models=["small.sit@10", "small.sit@0"])), all_families()).samples.asked(
        "small.sit"
    ) == ["small.sit@0", "small.sit@10"]
    targets = plan.samples.targets()
    assert "results/figures/held.out/clean/samples/small.sit.png" in targets
    assert "results/tables/sample_quality.tsv" in targets
    assert set(targets) <= set(plan.everything())
    assert plan.samples.measured()[0] == "results/sample_quality/held.out/small.sit@0.parquet"


def test_without_models_there_are_no_samples() -> None:
    plan = Plan(load(), all_families())
    assert plan.samples.targets() == []
    assert not [path for path in plan.everything() if "sample" in path]


def test_a_table_stands_in_the_place_of_measuring() -> None:
    given = with_samples(models=[], classifier=None, features=None, table="fid.csv")
    samples = Plan(load(given), all_families()).samples
    assert samples.targets() == ["results/tables/sample_quality.tsv"]
    assert (samples.measured(), samples.given_table()) == ([], ["fid.csv"])
    assert samples.table()["checkpoints"]["small.sit"] == [0, 10, 40]


def test_a_recipe_changes_with_what_samples_depend_on_and_nothing_else() -> None:
    class Of:
        model = "small.sit@10"

    def recipe(**changes: Any) -> dict[str, Any]:
        return Plan(load(with_samples(**changes)), all_families()).samples.recipe(Of)  # type: ignore[arg-type]

    first = recipe()
    assert first["model"]["step"] == 10
    assert first["sampler"] == {"method": "heun", "steps": 25, "guidance": 1.0}
    assert recipe(neighbors=3, features="dinov2_b5", models=["small.sit"]) == first
    for changes in ({"guidance": 2.0}, {"seeds": [0, 1]}, {"per_class": 3}, {"sampler": "euler"}, {"steps": 5}):
        assert recipe(**changes) != first


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"models": ["small.sitt"]}, "samples.models[0]: unknown model 'small.sitt'; did you mean 'small.sit'?"),
        ({"models": ["small.sit@7"]}, "samples.models[0]: small.sit has no checkpoint of step '7'; it has 0, 10, 40"),
        ({"models": ["small.sit-t0.2"]}, "'small.sit-t0.2' has a variant or a layer, which samples have not"),
        ({"models": ["small.sit_b1"]}, "'small.sit_b1' has a variant or a layer"),
        (
            {"models": ["small.sit", "small.sit@0"]},
            "'small.sit@0' means small.sit@0, which stands in samples.models[0]",
        ),
        ({"models": ["small.sit", "small.sit"]}, "samples.models: 'small.sit' stands twice"),
        ({"models": ["dinov2"]}, "samples.models[0]: dinov2 is no diffusion model that is conditioned on classes"),
        ({"models": ["sd3"]}, "samples.models[0]: sd3 is no diffusion model that is conditioned on classes"),
        ({"dataset": "held"}, "samples.dataset: unknown dataset 'held'"),
        ({"dataset": "photographs"}, "samples.dataset: 'small.sit' is trained on 'photographs'; name held-out images"),
        ({"dataset": None}, "samples.dataset: 'small.sit' is trained on 'photographs'; name held-out images"),
        ({"classifier": None}, "samples: needs the key 'classifier', or a table of quality in its place"),
        ({"features": "small.vit"}, "samples.features: 'small.vit' names no layer; write small.vit_{layer}"),
        ({"features": "small.vit_b9"}, "samples.features: small.vit has no layer 'b9'"),
        ({"classifier": "sit_b1"}, "samples.classifier: 'sit' reads no pixels, and so no samples"),
        ({"table": "fid.xlsx"}, "samples.table: 'fid.xlsx' is no table known here; its name ends in .tsv or .csv"),
        ({"per_class": 1}, "samples.per_class: 1 is less than the minimum of 2"),
        ({"seeds": []}, "samples.seeds: [] "),
        ({"sampler": "ddpm"}, "samples.sampler: 'ddpm' is not allowed"),
        ({"guidance": -1.0}, "samples.guidance: -1"),
    ],
)
def test_mistakes_of_samples(changes: dict[str, Any], line: str) -> None:
    assert line in mistakes(with_samples(**changes))


@pytest.mark.parametrize(
    ("seen", "held_out", "refused"),
    [
        ({"split": {"part": "train", "held_out": 0.2}}, {"split": {"part": "held_out", "held_out": 0.2}}, False),
        ({"split": {"part": "train", "held_out": 0.3}}, {"split": {"part": "held_out", "held_out": 0.2}}, False),
        ({"split": {"part": "train", "held_out": 0.1}}, {"split": {"part": "held_out", "held_out": 0.2}}, True),
        ({"split": {"part": "held_out"}}, {"split": {"part": "held_out"}}, True),
        ({}, {"split": {"part": "held_out"}}, True),
        ({}, {"sample": 100}, True),
        ({}, {"collection": "mnist"}, False),
    ],
)
def test_samples_stand_beside_images_that_no_training_saw(seen: Any, held_out: Any, refused: bool) -> None:
    digits = {"kind": "packaged", "collection": "digits", "size": 64}
    study = {
        **with_samples(models=["small.sit@0"]),
        "datasets": {"seen": {**digits, **seen}, "held.out": {**digits, **held_out}},
        "models": {**TRAINED["models"], "small.sit": changed(SIT, dataset="seen")},
    }
    line = "samples.dataset: 'small.sit' is trained on 'seen', which may share images with 'held.out'; give one the"
    assert (line in (mistakes(study) if refused else "")) == refused
    if not refused:
        load(study)


def test_latents_that_cannot_be_decoded_have_no_samples() -> None:
    models = {**TRAINED["models"], "odd.sit": {"like": "sit", "latents": "vfmvae"}}
    line = "odd.sit makes latents of 'vfmvae', whose family 'vfmvae' has no decoder here"
    assert line in mistakes({**with_samples(models=["odd.sit"]), "models": models})
    of_classes = Plan(load({**TRAINED, "models": models}), all_families()).samples.of_classes
    assert "odd.sit" not in of_classes
    assert {"sit", "dit", "lightningdit", "small.sit"} <= set(of_classes)
    assert "sd3" not in of_classes
