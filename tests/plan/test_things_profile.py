"""The published study of diffusion models and people: what its profile plans, and by which settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Workflow, catalogue, copy_tree, merge, read_yaml, things
from PIL import Image

from diffalign.alignment.metrics import METRICS
from diffalign.config.study import Study, load
from diffalign.human.triplets import read_triplets
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.layouts.feature_tables import read_layers
from diffalign.models import all_families
from diffalign.stimuli.kinds.things import read_concepts

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


def test_the_study_runs_on_a_miniature_and_its_exports_give_its_accuracy(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work", (PROFILE,))
    files = {
        key: str(things(name)) for key, name in (("concepts", "things_concepts.tsv"), ("test", "test_triplets.csv"))
    }
    names = [concept.name for concept in read_concepts(Path(files["concepts"]))]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.jpg")
    test = {"path": files["test"], "first": 1, "odd": "column", "sha256": None}
    overlay = {
        "defaults": {"weights": "miniature"},
        "datasets": {
            "things": {
                "path": str(tmp_path / "images"),
                "concepts": {"path": files["concepts"]},
                "dimensions": {"path": str(things("vice_embedding.npy"))},
                "triplets": {"test": test},
            }
        },
        "human": {"triplets": "test"},
        "compute": {"device": "cpu", "workers": 0},
    }
    folder = "results/export/diffusion-alignment/things/clean/sd1-textlast-label"
    done = workflow.run(f"{folder}/alignment.pkl", overlay=overlay)
    assert done.code == 0, done.output
    [(key, accuracy)] = layout.read_accuracies(workflow.directory / folder / layout.ALIGNMENT).items()
    table = read_layers(
        workflow.directory / folder / layout.ALL_FEATURES, ["/".join(key)], layout.LAYOUT, files["concepts"]
    )
    rows = dict(zip(table.names, table.values[0].astype(np.float64), strict=True))
    unit = np.stack([rows[name] / np.linalg.norm(rows[name]) for name in names])
    a, b, odd = (unit[side] for side in read_triplets(Path(files["test"]), 1854, first=1, odd="column").objects.T)
    pairs = np.stack([(a * b).sum(axis=1), (a * odd).sum(axis=1), (b * odd).sum(axis=1)])
    assert accuracy == pytest.approx((pairs.argmax(axis=0) == 0).mean(), abs=6e-5)
