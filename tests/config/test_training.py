from pathlib import Path
from typing import Any

import pytest
from config.test_study import load, mistakes

from diffalign.config.step_files import StepError, step_files
from diffalign.specs import Model

VIT: dict[str, Any] = {
    "family": "timm_vision",
    "weights": {"from": "training"},
    "training": {"dataset": "photographs", "loss": "classification", "steps": 40, "checkpoints": [40, 0, 10]},
    "architecture": {"architecture": "vit_tiny_patch16_224", "num_classes": 20},
    "input": {"size": 32},
    "layers": {"b{0..1}": "blocks.{}", "final": "norm"},
    "default_layer": "final",
}
SIT: dict[str, Any] = {
    "like": "sit",
    "weights": {"from": "training"},
    "training": {"dataset": "photographs", "loss": "flow_matching", "steps": 40},
}


def with_models(**models: Any) -> dict[str, Any]:
    return {"models": {name.replace("_", "."): entry for name, entry in models.items()}}


def changed(entry: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {**entry, "training": {**entry["training"], **training}}


def test_a_bare_name_means_the_last_checkpoint() -> None:
    study = load(with_models(small_vit=VIT, small_sit=SIT))
    assert study.models["small.vit"].steps == (0, 10, 40)
    assert study.models["small.sit"].steps == (0, 40)
    assert study.bundle("small.vit") == "small.vit@40"
    assert study.bundle("small.sit-label_b8") == "small.sit@40-t0.5-label"
    assert study.models["small.vit"].checkpoint == "small.vit@40"
    assert study.model_of("small.vit@10").checkpoint == "small.vit@10"
    assert study.checkpoint("small.vit@0").step == 0
    assert study.checkpoint("dinov2").step is None


def test_the_untrained_twin_of_a_model_that_is_trained_here_is_its_first_checkpoint() -> None:
    study = load(with_models(small_sit=SIT))
    assert study.untrained("small.sit-t0.2-draws4") == "small.sit@0-t0.2-draws4"
    assert study.untrained("sit-t0.2-draws4_b8") == "sit-t0.2-draws4-untrained"
    assert study.untrained("dinov2") == "dinov2-untrained"


def test_a_recipe_holds_the_training_and_the_step_but_no_other_checkpoints() -> None:
    short = load(with_models(small_vit=changed(VIT, checkpoints=[0, 40])))
    long = load(with_models(small_vit=VIT))
    assert short.models["small.vit"].recipe() == long.models["small.vit"].recipe()
    assert long.model_of("small.vit@10").recipe()["step"] == 10
    other = load(with_models(small_vit={**changed(VIT, learning_rate=0.1), "seed": 3}))
    recipe = other.models["small.vit"].recipe()
    assert recipe["training"] == {"dataset": "photographs", "loss": "classification", "steps": 40, "learning_rate": 0.1}
    assert recipe["seed"] == 3
    assert Model.from_recipe(recipe).training.learning_rate == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("models", "line"),
    [
        ({"vit": changed(VIT, checkpoints=[0, 50])}, "training.checkpoints: 50 lies beyond the last step, 40"),
        ({"vit": changed(VIT, checkpoints=[0, 0])}, "training.checkpoints: 0 stands twice"),
        (
            {"vit": changed(VIT, loss="flow_matching")},
            "family 'timm_vision' has no loss 'flow_matching'; allowed: class",
        ),
        ({"vit": changed(VIT, dataset="photos")}, "training.dataset: unknown dataset 'photos'"),
        (
            {"vit": changed(VIT, kl=0.1)},
            "training.kl: means nothing for the loss 'classification', but for reconstruct",
        ),
        ({"vit": changed(VIT, warmup=41)}, "training.warmup: 41 steps are more than all 40"),
        ({"vit": changed(VIT, step=3)}, "training: unknown key 'step'; did you mean 'steps'?"),
        ({"vit": {**VIT, "training": None}}, "weights: from 'training' needs the key 'training' of the model"),
        ({"vit": {**VIT, "architecture": {}}}, "a model that is trained needs the key 'architecture'"),
        ({"dinov2": {"training": VIT["training"]}}, "training: means nothing unless weights are from training"),
        ({"repa": {"weights": {"from": "training"}, "training": SIT["training"]}}, "nothing of this family is trained"),
        ({"own": changed(SIT, teacher="dinov2_b5")}, "'teacher' and 'teacher_layer' belong together"),
        ({"own": changed(SIT, teacher="dinov2", teacher_layer="b1")}, "'dinov2' names no layer; write dinov2_{layer}"),
        ({"own": changed(SIT, teacher="dinov9_b1", teacher_layer="b1")}, "unknown model 'dinov9'"),
        ({"own": changed(SIT, teacher="dinov2_b1", teacher_layer="b99")}, "teacher_layer: unknown layer 'b99'"),
        ({"own": changed(SIT, teacher="dit_b1", teacher_layer="b1")}, "'dit' reads no pixels"),
    ],
)
def test_mistakes_of_a_training(models: dict[str, Any], line: str) -> None:
    assert line in mistakes({"models": models})


def test_checkpoints_of_a_users_own_training(tmp_path: Path) -> None:
    for step in ("0000500", "0001000"):
        (tmp_path / f"{step}.pt").touch()
    (tmp_path / "last.pt").touch()
    entry = {"like": "sit", "weights": {"from": "file", "path": f"{tmp_path}/{{step}}.pt", "steps": "all"}}
    study = load({"models": {"mine": entry}})
    assert study.models["mine"].steps == (500, 1000)
    assert study.model_of("mine@500_b3").weights.path == str(tmp_path / "0000500.pt")
    assert study.bundle("mine") == "mine@1000-t0.5"
    weights = study.models["mine"].recipe()["weights"]
    assert weights["path"] == str(tmp_path / "0001000.pt")
    assert "steps" not in weights
    # what has been added is there at the next call
    (tmp_path / "0002000.pt").touch()
    assert load({"models": {"mine": entry}}).models["mine"].steps == (500, 1000, 2000)
    listed = {**entry, "weights": {**entry["weights"], "steps": [1000, 4000]}}
    study = load({"models": {"mine": listed}})
    assert study.models["mine"].steps == (1000, 4000)
    # a plan can be made where files do not lie
    assert study.models["mine"].weights.path == str(tmp_path / "4000.pt")
    assert study.untrained("mine@1000") == "mine-t0.5-untrained"


def test_mistakes_of_a_users_own_checkpoints(tmp_path: Path) -> None:
    def of(**weights: Any) -> str:
        return mistakes({"models": {"mine": {"like": "sit", "weights": weights}}})

    pattern = str(tmp_path / "{step}.pt")
    assert f"no checkpoint lies at {pattern}" in of(**{"from": "file", "path": pattern, "steps": "all"})
    assert "must hold {step} once, in its last part" in of(**{"from": "file", "path": "/runs/last.pt", "steps": [3]})
    assert "must hold {step} once" in of(**{"from": "file", "path": "/runs/{step}/last.pt", "steps": [3]})
    assert "steps: means nothing for weights from 'hub'" in of(**{"from": "hub", "hub": "a/b", "steps": [3]})
    for name in ("5.pt", "05.pt"):
        (tmp_path / name).touch()
    with pytest.raises(StepError, match="are both of step 5; move one of them away"):
        step_files(pattern, [5])
