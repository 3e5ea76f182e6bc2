"""The section `dynamics`: configurations and their grids, files of a study, and what is refused."""

from typing import Any

import pytest
from config.test_training import SIT, VIT, changed
from test_study import load, mistakes

from diffalign.config.dynamics import AblationsEntry, ConfigurationEntry
from diffalign.models import all_families
from diffalign.plan import Plan

TRAINED = {
    "datasets": {"held.out": {"kind": "packaged", "collection": "digits", "size": 64}},
    "models": {
        "small.sit": changed(SIT, checkpoints=[40, 0, 10]),
        "small.vit": {**VIT, "layers": {**VIT["layers"], "logits": "head"}},
    },
}
PLAIN: dict[str, Any] = {"models": ["small.sit"], "dataset": "held.out", "reference": "small.vit_final"}


def with_dynamics(**changes: Any) -> dict[str, Any]:
    return {**TRAINED, "dynamics": {"configurations": {"plain": {**PLAIN, **changes}}}}


def plan_of(overlay: dict[str, Any]) -> Plan:
    return Plan(load(overlay), all_families())


class Words:
    """Wildcards of a target."""

    def __init__(self, model: str, configuration: str) -> None:
        self.model, self.configuration = model, configuration


def test_a_list_is_a_grid_whose_values_stand_in_the_names() -> None:
    plan = plan_of(with_dynamics(sampler=["euler", "sde"], steps=[10, 20], guidance=2))
    assert list(plan.study.dynamics.expanded()) == [
        "plain-euler-10steps",
        "plain-euler-20steps",
        "plain-sde-10steps",
        "plain-sde-20steps",
    ]
    made = plan.study.dynamics.expanded()["plain-sde-10steps"]
    assert (made.sampler, made.steps, made.guidance) == ("sde", 10, 2.0)
    assert list(plan_of(with_dynamics(guidance=[1.5, 4])).study.dynamics.expanded()) == ["plain-g1.5", "plain-g4"]


def test_a_model_without_a_step_stands_for_its_last_checkpoint() -> None:
    assert plan_of(with_dynamics()).dynamics.asked() == [("small.sit@40", "plain")]
    both = plan_of(with_dynamics(models=["small.sit@10", "small.sit"]))
    assert both.dynamics.asked() == [("small.sit@10", "plain"), ("small.sit@40", "plain")]
    targets = both.dynamics.targets()
    assert "results/figures/dynamics/small.sit@10/plain/curves.png" in targets
    assert "results/tables/emergence.tsv" in targets
    assert set(targets) <= set(both.everything())


def test_without_configurations_there_are_no_trajectories() -> None:
    assert plan_of({}).dynamics.targets() == []


def test_one_more_seed_changes_no_recipe_and_another_sampler_does() -> None:
    words = Words("small.sit@40", "plain")
    first, more, other = (
        plan_of(with_dynamics(**changes)).dynamics.recipe(words)
        for changes in ({"seeds": [0]}, {"seeds": [0, 1]}, {"sampler": "euler"})
    )
    assert first == more
    assert first != other
    assert first["model"]["step"] == 40
    assert first["model"]["layers"]


def test_a_gaussian_of_the_same_latents_is_the_reference_line() -> None:
    gaussian = {
        "family": "gaussian",
        "weights": {"from": "latents", "dataset": "held.out"},
        "latents": "sdvae",
        "noise": "t0.5",
        "path": "linear",
        "layers": {"estimate": "estimate"},
        "default_layer": "estimate",
    }
    overlay = with_dynamics(models=["small.sit", "own.gaussian"])
    overlay["models"] = {**overlay["models"], "own.gaussian": gaussian}
    plan = plan_of(overlay)
    assert plan.dynamics.references() == {"small.sit@40": "own.gaussian"}
    beside = plan.dynamics.beside("curves")(Words("small.sit@40", "plain"))
    assert beside["reference"] == "results/dynamics/own.gaussian/{configuration}/curves.parquet"
    assert "reference" not in plan.dynamics.beside("curves")(Words("own.gaussian", "plain"))
    assert not [path for path in plan.dynamics.targets() if "own.gaussian/plain/layer_steps" in path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["small.vit"]}, "'small.vit' is no diffusion model, so it has no trajectories"),
        ({"models": ["small.sti"]}, "unknown model 'small.sti'; did you mean 'small.sit'?"),
        ({"models": ["small.sit@11"]}, "small.sit has no checkpoint of step '11'"),
        ({"models": ["small.sit-t0.3"]}, "has a variant or a layer, which trajectories have not"),
        ({"models": ["sd1"]}, "'sd1' reads prompts; give some in 'prompts'"),
        ({"sampler": "pipeline"}, "family 'sit' has no scheduler of diffusers, so no sampler 'pipeline'"),
        ({"sampler": "ddim"}, "is no sampler: write euler, heun, sde, pipeline"),
        ({"steps": 1}, "dynamics.configurations.plain.steps[0]: 1"),
        ({"samples": 0}, "dynamics.configurations.plain.samples: 0"),
        ({"strength": 0.5}, "strength: means nothing for the start 'noise', but for img2img"),
        ({"start": "noising", "sampler": "heun"}, "sampler: nothing is sampled where start is 'noising'"),
        (
            {"start": "noising", "ablations": {"windows": 2}},
            "ablations: no layer contributes to an image where start is",
        ),
        ({"dataset": "helt.out"}, "unknown dataset 'helt.out'; did you mean 'held.out'?"),
        ({"reference": "small.vit"}, "reference: 'small.vit' names no layer"),
        ({"reference": "sdvae_latnt"}, "reference"),
        ({"prompts": ["a photo of a cat"], "words": ["dog"]}, "words[0]: 'dog' does not stand in 'a photo of a cat'"),
        ({"words": ["dog"]}, "words[0]: 'dog' does not stand in any prompt"),
        (
            {"prompts": [f"it's dog {number}" for number in range(7000)]},
            "prompts: 7000 prompts of 187,922 bytes; at most 100,000 bytes",
        ),
        ({"prompts": ["two dogs"], "words": ["dog"]}, "words[0]: 'dog' does not stand in 'two dogs'"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(with_dynamics(**changes))


def test_bands_that_do_not_follow_each_other() -> None:
    overlay = {**TRAINED, "dynamics": {"low": 0.3, "mid": 0.25}}
    assert "dynamics.mid: 0.25 is not between dynamics.low, 0.3, and 0.5" in mistakes(overlay)


def test_nothing_is_removed_where_nothing_is_sampled() -> None:
    sampled, noised = (
        ConfigurationEntry.model_validate({"models": ["sit"], "start": start}) for start in ("noise", "noising")
    )
    assert sampled.removed == AblationsEntry()
    assert noised.removed is None
