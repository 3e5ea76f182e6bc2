"""The published study of diffusion models and people: what its profile plans, and by which settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Workflow, catalogue, copy_tree, merge, read_yaml
from PIL import Image
from test_pickled_frames import published_frame
from test_single_precision import published_choices

from diffalign.alignment.metrics import METRICS
from diffalign.config.study import Study, load
from diffalign.human.odd_one_out import odd_one_out, pair_similarities
from diffalign.human.single_precision import odd_one_out_float32
from diffalign.human.triplets import Triplets
from diffalign.io.layouts import diffusion_alignment as layout
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
    reduced = {"path": "reduced_pca/results_pca_20.npy", "of": "reduction", "pooling": "none", "pca": 20}
    jobs = workflow.plan(overlay={"exchange": {"people": {"theirs": reduced}}}).jobs()
    assert jobs["published_people_table"] == 1
    bundles = 3 * (5 + 11 * 6) + 2 * 11 * 4
    assert {key: jobs[key] for key in ("odd_one_out", "regression", "probe", "recipe")} == dict.fromkeys(
        ("odd_one_out", "regression", "probe", "recipe"), bundles
    )
    assert (jobs["extract_sd1"], jobs["extract_sd3"], jobs["text_features"]) == (66, 44, 15)
    # latents of five autoencoders, embeddings of three models, one pass of tokens
    assert (jobs["latents"], jobs["given_prompts"], jobs["unpooled"], jobs["reduction"]) == (5, 6, 1, 1)
    assert (jobs["images"], jobs["human_choices"], jobs["noise_levels_figure"]) == (1, 1, 5)


def published_accuracy(features: np.ndarray, triplets: np.ndarray) -> float:
    """The share of triplets (T, 3) whose odd one is the third, as the published code counts and rounds it."""
    return round(float((published_choices(features, triplets) == 2).mean()), 4)


# as the list of concepts has them, which is not sorted by name
OBJECTS = ("chicken_wire", "chicken1", "aardvark", "bat1", "bat2", "crab", "drum", "eel", "fan", "gate", "hat", "ink")
COUNT = len(OBJECTS)


def write_things(folder: Path) -> None:
    """THINGS with few objects, under the names of the profile: most images differ in a few pixels, so that layers near
    the input are nearly alike.
    """
    draws = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    columns = (
        "Word",
        "uniqueID",
        "Definition (from WordNet, Google, or Wikipedia)",
        "Top-down Category (manual selection)",
    )
    lines = ["\t".join(columns), *(f"{name}\t{name}\tsomething\t" for name in OBJECTS)]
    (folder / "things_concepts.tsv").write_text("\n".join(lines) + "\n")
    base = np.kron(draws.integers(0, 256, (16, 16, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    for i, name in enumerate(OBJECTS):
        pixels = base.copy()
        if i < COUNT - 2:
            pixels[32 * i : 32 * i + 8, :8] += np.uint8(40)
        else:
            pixels = np.roll(pixels, 64 * i, axis=1)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg", quality=95)
    np.save(folder / "vice_embedding.npy", draws.random((COUNT, 3), np.float32))
    for file, count in (("train_90.npy", 450), ("test_10.npy", 50)):
        np.save(folder / file, np.stack([draws.permutation(COUNT)[:3] for _ in range(count)]))
    captions = {f"{name}.jpg": f"a picture of {name}, number {i}" for i, name in enumerate(OBJECTS)}
    for file in ("caption_dict.npy", "captionsLavis.npy"):
        np.save(folder / file, np.array(captions, dtype=object), allow_pickle=True)


def test_the_study_runs_on_a_miniature_and_the_published_code_chooses_alike_by_all_layers(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work", (PROFILE,))
    write_things(workflow.directory / "data/things")
    at_20 = "diffusion_runwayml/stable-diffusion-v1-5_20"
    modules = {*UP_AND_DOWN, "mid_block"}
    # what its exports call each model, and its modules: two see images, one is a text alone
    models = {
        "sd1-s20": (at_20, modules),
        "sd1-s20-caption": (f"conditionalcapt-{at_20}", modules),
        "sd1-textlast-label": ("textlast-diffusion_runwayml/stable-diffusion-v1-5_5", {"mid_block"}),
    }
    folders = {name: f"results/export/diffusion-alignment/things/clean/{name}" for name in models}
    published, probed = (workflow.directory / "theirs" / name for name in (layout.ALIGNMENT, "probing_results.pkl"))
    overlay = {
        "defaults": {"weights": "miniature"},
        "datasets": {"things": {"concepts": {"sha256": None}, "dimensions": {"sha256": None}}},
        # of the models of the profile three, without regressions and probes
        "human": {"models": list(models), "grid": [], "analyses": ["odd_one_out"], "reduction": {"of": []}},
        "exchange": {
            "people": {"theirs": {"path": str(published)}, "probed": {"path": str(probed), "of": "probe"}},
        },
        "compute": {"device": "cpu", "workers": 0},
    }
    done = workflow.run(*(f"{folder}/{layout.ALIGNMENT}" for folder in folders.values()), overlay=overlay)
    assert done.code == 0, done.output
    choices = [np.load(workflow.directory / f"data/things/{file}.npy") for file in ("train_90", "test_10")]
    triplets, rounded = np.concatenate(choices), 0
    theirs: dict[str, dict[str, dict[str, float]]] = {"diffusion": {}}
    for name, (model, expected) in models.items():
        written = workflow.directory / folders[name]
        accuracies = layout.read_accuracies(written / layout.ALIGNMENT)
        assert set(accuracies) == {("diffusion", model, module) for module in expected}
        together = np.load(written / layout.ALL_FEATURES, allow_pickle=True)["diffusion"][model]
        for (source, _, module), accuracy in accuracies.items():
            features = np.load(written / layout.feature_file(source, model, module), allow_pickle=True)
            assert (features.dtype, len(features)) == (np.float32, COUNT)
            assert np.array_equal(features, together[module])
            assert accuracy == published_accuracy(features, triplets)
            among = Triplets(triplets.astype(np.int32), COUNT)
            exact, similarities = odd_one_out(features, among), np.sort(pair_similarities(features, among)[0], axis=1)
            differ = exact.odd != odd_one_out_float32(features, among).odd
            # float64 chooses otherwise only where the most similar pairs are as similar as float32 can tell
            assert not differ.any() or (similarities[differ, 2] - similarities[differ, 1]).max() < 1e-6
            rounded += abs(accuracy - exact.credit("published").mean()) > 1e-3
            theirs["diffusion"].setdefault(model, {})[module] = accuracy
    # in some layers rounding decides, so float64 would not do
    assert rounded > 0
    assert len({tuple(each.items()) for each in theirs["diffusion"].values()}) == 3
    # accuracies of others stand beside ours
    layout.write_pickled(published, theirs)
    published_frame().to_pickle(probed)
    done = workflow.run("results/tables/published_people.tsv", overlay=overlay)
    assert done.code == 0, done.output
    table = pd.read_csv(workflow.directory / "results/tables/published_people.tsv", sep="\t")
    choices_of_theirs, probes = table[table["file"] == "theirs"], table[table["file"] == "probed"]
    assert (len(choices_of_theirs), set(choices_of_theirs["bundle"])) == (19, set(models))
    assert choices_of_theirs["difference"].abs().max() < 5e-5 + 1e-9
    # the study has no probe
    assert (len(probes), probes["here"].notna().sum()) == (3, 0)
    theirs["diffusion"][at_20]["mid_block"] = 0.75
    layout.write_pickled(published, theirs)
    again = workflow.plan("results/tables/published_people.tsv", overlay=overlay)
    assert again.jobs() == {"published_people_table": 1}, again.output
