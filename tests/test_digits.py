"""The digits study with fewer steps: what the graph finds with models that it trained, by thresholds with room."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from conftest import Workflow
from PIL import Image

from diffalign.io import feature_files
from diffalign.io.manifest import read_manifest

FEATURES = "results/features/digits/clean"
FIGURES = "results/figures/digits/clean"
TABLES = "results/tables"
SEEDS = ("", ".s1")


def table(workflow: Workflow, name: str) -> pd.DataFrame:
    return pd.read_csv(workflow.directory / name, sep="\t")


def chosen(workflow: Workflow, metric: str) -> pd.DataFrame:
    """The layer of every checkpoint that one half of the images chose, measured on the other, by (model, step)."""
    rows = table(workflow, f"{TABLES}/training_alignment.tsv")
    return rows[rows["chosen"] & (rows["metric"] == metric)].set_index(["model", "step"])


def test_the_classifier_reads_held_out_digits(digits_study: Workflow) -> None:
    images = {
        part: {image.name: image for image in read_manifest(digits_study.directory / path)}
        for part, path in (
            ("held_out", "results/images/digits/clean/manifest.tsv"),
            ("train", "results/images/digitstrain/clean/manifest.tsv"),
        )
    }
    assert not images["held_out"].keys() & images["train"].keys()
    logits = feature_files.read_features(digits_study.directory / FEATURES / "digits.vit@1200" / "logits.pt")
    labels = np.array([images["held_out"][name].label_index for name in logits.names])
    assert logits.values.shape == (len(images["held_out"]), 10)
    assert (logits.values.argmax(axis=1) == labels).mean() > 0.9


def test_losses_fall(digits_study: Workflow) -> None:
    names = ["vit", "vae", *(f"{recipe}{seed}" for recipe in ("sit", "repa") for seed in SEEDS)]
    for name in names:
        losses = table(digits_study, f"results/training/digits.{name}/losses.tsv")
        loss = losses.sort_values("step")["loss"].to_numpy()
        tenth = len(loss) // 10
        assert loss[-tenth:].mean() < 0.8 * loss[:tenth].mean(), name


def test_samples_are_of_their_class_once_a_model_is_trained(digits_study: Workflow) -> None:
    quality = table(digits_study, f"{TABLES}/sample_quality.tsv")
    share = quality[quality["measure"] == "share_of_class"].set_index("step")["value"]
    assert 0.02 < share[0] < 0.2
    assert share[300] > 0.6


def test_alignment_grows_by_more_than_its_interval(digits_study: Workflow) -> None:
    # unbiased CKA grows, too, but after so few steps hardly by more than its interval
    best = chosen(digits_study, "cknna")
    for seed in SEEDS:
        trained, untrained = (best.loc[(f"digits.sit{seed}", step)] for step in (300, 0))
        error = math.hypot(trained["second_half_error"], untrained["second_half_error"])
        assert trained["second_half"] - untrained["second_half"] > 1.96 * error
        assert trained["second_half_calibrated"] > untrained["second_half_calibrated"]


@pytest.mark.parametrize("metric", ["cknna", "unbiased_cka"])
def test_a_teacher_raises_alignment_at_the_same_step(metric: str, digits_study: Workflow) -> None:
    best = chosen(digits_study, metric)["second_half_calibrated"]
    gains = [best[f"digits.repa{seed}", 300] - best[f"digits.sit{seed}", 300] for seed in SEEDS]
    assert np.mean(gains) > 0


def test_trainings_of_one_seed_begin_with_the_same_weights(digits_study: Workflow) -> None:
    records = [
        json.loads((digits_study.directory / f"results/training/digits.{recipe}{seed}/0/weights.json").read_text())
        for recipe in ("sit", "repa")
        for seed in SEEDS
    ]
    digests = [record["sha256"] for record in records]
    assert digests[: len(SEEDS)] == digests[len(SEEDS) :]
    assert len({json.dumps(each) for each in digests}) == len(SEEDS)


def test_pure_noise_is_at_chance(digits_study: Workflow) -> None:
    scores = table(digits_study, "results/atlas/digits/clean/digits.sit/scores.tsv")
    floor = scores[(scores["source"] == "trained") & (scores["level"] == 1)]
    assert len(floor) == 2 * 7
    assert (floor["maximum_p"] > 0.01).all()
    images = scores[(scores["source"] == "trained") & (scores["level"] == 0.3)]
    assert (images["maximum_p"] < 0.01).all()


def test_tokens_of_two_models_are_in_one_space(digits_study: Workflow) -> None:
    space = "results/shared_space/spaces/digits"
    scores = table(digits_study, f"{space}/consistency.tsv")
    cells = scores[(scores["measure"] == "cell_same_image") & (scores["space"] == "features")]
    cells = cells.set_index(["set_a", "set_b", "stage"])["score"]
    # layers of one model agree on cells as they are; those of two models only after an alignment, if at all
    assert cells["digits.sit_b1", "digits.sit_b5", "before"] > 0.9
    between = scores[scores["set_a"].str.startswith("digits.vit") & scores["set_b"].str.startswith("digits.sit")]
    gains = between[(between["stage"] == "after_minus_before") & (between["space"] == "features")]
    assert len(gains) == 9
    assert gains["score"].mean() > 0
    with Image.open(digits_study.directory / "results/figures/shared_space/spaces/digits.png") as image:
        assert min(image.size) > 1000


def test_held_out_images_are_paired_across_models(digits_study: Workflow) -> None:
    folder = "results/shared_space/pairs/digits/clean/digits.vit_final_vs_digits.sit_b5"
    scores = table(digits_study, f"{folder}/scores.tsv")
    own = scores[(scores["metric"] == "own_index") & (scores["images"] == "held_out") & scores["seed"].isna()]
    own = own.set_index("method")
    assert own.loc["cca", "score"] > 10 / own.loc["cca", "n"]
    assert own.loc["cca", "p"] < 0.05
    contrasts = table(digits_study, f"{folder}/contrasts.tsv")
    assert set(contrasts["reference"]) == {"padded", "best_linear"}
    saved = sorted(path.name for path in (digits_study.directory / folder / "transforms").iterdir())
    assert {"half_shared_0.safetensors", "half_shared_1.safetensors", "rbf.safetensors"} <= set(saved)


def test_findings_are_sentences_of_the_tables(digits_study: Workflow) -> None:
    found = table(digits_study, f"{TABLES}/findings.tsv")
    text = (digits_study.directory / "results/findings.txt").read_text()
    assert text.splitlines() == found["sentence"].tolist()
    assert set(found["topic"]) >= {"training", "recipes", "atlas", "floor", "controls", "dynamics", "shared space"}
    assert "contrasts" in set(found["topic"])
    for each in found.to_dict("records"):
        assert f"{each['value']:.2g}" in each["sentence"] or f"{each['value']:.3f}" in each["sentence"]
        if not math.isnan(each["low"]):
            assert f"[{each['low']:.3f}, {each['high']:.3f}]" in each["sentence"]
    steps = table(digits_study, f"{TABLES}/through_training_steps.tsv")
    (gain,) = steps[(steps["recipe"] == "SiT") & (steps["measure"] == "cknna") & (steps["step"] == 300)]["gain"]
    (said,) = found[
        (found["topic"] == "training") & (found["measure"] == "cknna") & found["sentence"].str.startswith("SiT:")
    ]["value"]
    assert said == gain


def test_what_training_changes_at_one_layer_is_a_contrast(digits_study: Workflow) -> None:
    rows = table(digits_study, f"{TABLES}/contrasts.tsv")
    assert rows["family"].tolist() == ["training", "training"]
    assert rows["metric"].tolist() == ["cknna", "unbiased_cka"]
    assert set(zip(rows["a"], rows["layer_a"], strict=True)) == {("digits.sit@300-t0.3", "b3")}
    assert set(zip(rows["c"], rows["layer_c"], strict=True)) == {("digits.sit@0-t0.3", "b3")}
    assert (rows["error"] > 0).all()
    # a family of one is corrected for nothing
    assert rows["p_adjusted"].tolist() == rows["p"].tolist()
    with Image.open(digits_study.directory / f"{FIGURES}/contrasts/families/training.png") as image:
        assert min(image.size) > 300


def test_figures_and_records_are_there(digits_study: Workflow) -> None:
    work = digits_study.directory
    figures = [
        *(
            f"{FIGURES}/{kind}/{metric}"
            for kind in ("through_training", "training_maps")
            for metric in ("cknna", "unbiased_cka")
        ),
        *(f"{FIGURES}/atlas/{metric}/digits.sit" for metric in ("cknna", "unbiased_cka")),
        *(f"results/figures/training/{loss}" for loss in ("classification", "reconstruction", "flow_matching")),
        f"{FIGURES}/samples/digits.repa",
        f"{FIGURES}/ladder/digits.vit_final_vs_digits.sit_b5",
    ]
    for stem in figures:
        with Image.open(work / f"{stem}.png") as image:
            assert min(image.size) > 400, stem
            assert np.asarray(image.convert("L")).std() > 10, stem
        assert (work / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    # nothing of it is a miniature
    recipe = json.loads((work / f"{TABLES}/training_alignment.json").read_text())
    assert recipe["bundles"]["digits.sit@300-t0.3"]["weights"]["source"] == "training"
    assert not table(digits_study, f"{TABLES}/training_alignment.tsv")["miniature"].any()


def test_a_study_that_is_done_has_nothing_to_do(digits_study: Workflow) -> None:
    assert digits_study.plan().jobs() == {}
