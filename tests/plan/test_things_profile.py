"""The published study of diffusion models and people: what its profile plans, and by which settings."""

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Workflow, catalogue, copy_tree, merge, read_yaml

from diffalign.alignment.metrics import METRICS
from diffalign.config.study import Study, load
from diffalign.models import all_families

PROFILE = "profiles/things/published.yaml"
LEVELS = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90)
# prefix of the published script -> what follows the model here; the first need no image
ALONE = {
    "textlast": "textlast-label",
    "textlastcapt": "textlast-caption",
    "textlastcapt2": "textlast-caption2",
    "optim": "optim",
    "optimx1": "optimx1",
}
AT_EVERY_LEVEL = {
    "": "",
    "conditional": "-label",
    "conditionalcapt": "-caption",
    "conditionalcapt2": "-caption2",
    "conditionaloptim": "-optim",
    "conditionaloptimx1": "-optimx1",
}
UNETS, TRANSFORMERS = ("sd1", "sd2", "sd2turbo"), ("sd3", "sd3.5")
UP_AND_DOWN = [f"{way}_blocks.{i}.resnets.1" for way in ("down", "up") for i in range(4)]


@pytest.fixture(scope="module")
def study() -> Study:
    config: dict[str, Any] = {}
    for file in ("config.yaml", PROFILE):
        merge(config, read_yaml(ROOT / file))
    return load(config, catalogue(), all_families(), METRICS)


def test_every_prefix_of_the_published_script_is_compared_with_people(study: Study) -> None:
    unets = {f"{model}-{word}" for model in UNETS for word in ALONE.values()}
    unets |= {f"{model}-s{level}{word}" for model in UNETS for level in LEVELS for word in AT_EVERY_LEVEL.values()}
    texts = [word for word in AT_EVERY_LEVEL.values() if "optim" not in word]
    transformers = {f"{model}-s{level}{word}" for model in TRANSFORMERS for level in LEVELS for word in texts}
    assert {study.bundle(name) for name in study.compared} == unets | transformers
    assert len(ALONE) + len(AT_EVERY_LEVEL) == 11


def test_modules_precisions_and_seeds_are_the_published_ones(study: Study) -> None:
    precisions = {"sd2turbo": "float16", "sd3": "bfloat16", "sd3.5": "bfloat16"}
    for name in (*UNETS, *TRANSFORMERS):
        model = study.models[name]
        vae = study.models[str(model.latents)]
        assert (model.seeding, model.seed, model.strength_steps) == ("published", 42, 100)
        assert (vae.posterior, vae.seeding, vae.seed) == ("sample", "published", 42)
        assert model.precision == vae.precision == precisions.get(name, "float32")
        modules = sorted(model.layers.values())
        if name in UNETS:
            assert modules == sorted([*UP_AND_DOWN, "mid_block"])
            assert (vae.input.size, study.datasets["things"].size) == (512, 512)
        else:
            assert modules == sorted(f"transformer_blocks.{i}" for i in range(24))
            assert (vae.input.size, vae.input.interpolation, vae.input.antialias) == (1024, "nearest", False)


def test_the_published_study_is_planned(tmp_path: Path) -> None:
    workflow = Workflow(copy_tree(tmp_path / "tree"), tmp_path / "work", (PROFILE,))
    jobs = workflow.plan().jobs()
    bundles = 3 * (5 + 11 * 6) + 2 * 11 * 4
    assert {key: jobs[key] for key in ("odd_one_out", "regression", "probe", "recipe")} == dict.fromkeys(
        ("odd_one_out", "regression", "probe", "recipe"), bundles
    )
    assert (jobs["extract_sd1"], jobs["extract_sd3"], jobs["text_features"]) == (66, 44, 15)
    # latents of five autoencoders, embeddings of three models, one pass of tokens
    assert (jobs["latents"], jobs["given_prompts"], jobs["unpooled"], jobs["reduction"]) == (5, 6, 1, 1)
    assert (jobs["images"], jobs["human_choices"], jobs["noise_levels_figure"]) == (1, 1, 5)
