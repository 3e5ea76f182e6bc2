import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, read_yaml
from graphs import outputs
from snakemake.exceptions import MissingRuleException
from test_study import load

from diffalign.alignment.metrics import METRICS
from diffalign.plan import paths as plan_paths
from diffalign.plan import targets

# a study in which every rule has a file
MORE = ROOT / "tests" / "plan" / "every_rule.yaml"
EVERY_RULE = (ROOT / "config.yaml", ROOT / "profiles" / "demo" / "study.yaml", MORE)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/cknaa/dinov2_vs_sd3.npy", "unknown metric or stage 'cknaa'; did you mean 'cknna'?"),
        ("results/cknna/dinov22_vs_sd3.npy", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("results/cknna/dinov2_vs_sd3_b99.npy", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        (
            "results/cknna/photograph/clean/dinov2_vs_sd3.npy",
            "unknown dataset 'photograph'; did you mean",
        ),
        ("results/cknna/photographs/claen/dinov2_vs_sd3.npy", "unknown condition 'claen'; did you mean 'clean'?"),
        ("results/cknna/photographs/clean/layrs/dinov2_vs_sd3.npy", "unknown folder 'layrs'; did you mean 'layers'?"),
        ("results/cknna/photographs/clean/layers/dinov2_vs_sd3_b8.npy", "names a layer; here all layers are meant"),
        ("results/features/photographs/clean/sd3/b8.pt", "write 'sd3-t0.5' for 'sd3'"),
        ("results/features/photographs/clean/sd3-t0.5/b99.pt", "sd3 has no layer 'b99'"),
        (
            "results/features/photographs/clean/sd3-t0.5/b8.pt",
            "is made with all layers of 'sd3-t0.5': ask for 'results/features/photographs/clean/sd3-t0.5.json'",
        ),
        ("results/neighbors/photographs/clean/sd4-t0.5.npz", "unknown model 'sd4'; did you mean 'sd3'?"),
        (
            "results/figures/photographs/clean/layer_map/dinov2_vs_sd3.png",
            "unknown figure 'layer_map'; did you mean 'layer_maps'?",
        ),
        ("results/figures/photographs/clean/layer_maps/dinov22_vs_sd3.png", "unknown model 'dinov22'"),
        ("results/figures/photographs/clean/null_histogram/dinov2_vs_sd3.png", "did you mean 'null_histograms'?"),
        ("results/figures/photographs/clean/null_histograms/dinov2_vs_sd4.png", "unknown model 'sd4'"),
        ("results/figures/photographs/clean/model_maps/cknaa.png", "unknown metric 'cknaa'; did you mean 'cknna'?"),
        (
            "results/figures/photographs/clean/noise_levels/dinov2.png",
            "unknown diffusion model 'dinov2'; allowed: ",
        ),
        ("results/tables/pair.tsv", "unknown table 'pair'; did you mean 'pairs'?"),
        (
            "results/latents/photographs/clean/sd3va/latents_stats.pt",
            "unknown autoencoder 'sd3va'; did you mean",
        ),
        ("results/prompts/photographs/sd3-labl.safetensors", "sd3 has no variant 'labl'"),
        (
            "results/latents/photographs/clean/dinov2/latents_stats.pt",
            "unknown autoencoder 'dinov2'; allowed: sdvae",
        ),
        ("results/prompts/photographs/dinov2.safetensors", "dinov2 takes no prompts"),
        (
            "results/other/dinov2_vs_sd3.npy",
            "the metric 'other' exists but is not among alignment.metrics (cknna,",
        ),
        ("results/tables/alignmnt.tsv", "unknown table 'alignmnt'; did you mean 'alignment'?"),
        ("results/tables/curvs/photographs/clean/dinov2_vs_sd3.tsv", "unknown table 'curvs'; did you mean 'curves'?"),
        ("results/tables/curves/photographs/clean/dinov2_vs_sd3_b99.tsv", "sd3 has no layer 'b99'"),
        ("results/tables/lader/photographs/clean/dinov2_vs_sd3.tsv", "unknown table 'lader'; did you mean 'ladder'?"),
        ("results/tables/sensitivity/photographs/claen/dinov2_vs_sd3.tsv", "unknown condition 'claen'"),
        (
            "results/per_imag/photographs/clean/dinov2_vs_sd3.parquet",
            "unknown metric or stage 'per_imag'; did you mean",
        ),
        ("results/per_image/photographs/clean/dinov22_vs_sd3_b8.parquet", "unknown model 'dinov22'; did you mean"),
        (
            "results/per_image/dinov2_vs_sd3.parquet",
            "files of this stage are results/per_image/{dataset}/{condition}/{a}_vs_{b}.parquet",
        ),
        (
            "results/figures/photographs/clean/galery/dinov2_vs_sd3_b8.png",
            "unknown figure 'galery'; did you mean 'gallery'?",
        ),
        ("results/figures/photographs/clean/gallery/dinov2_vs_sd4_b8.png", "unknown model 'sd4'"),
        # these are of two layers, so naming one is no mistake; the suffix is
        ("results/figures/photographs/clean/curves/dinov2_vs_sd3_b8.jpg", "is no file of this workflow"),
        ("results/tables/sensitivity/photographs/clean/dinov2_vs_sd3_b8.csv", "is no file of this workflow"),
        ("resources/weights/dinov22/weights.json", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("results/recipes/sd4.json", "unknown model 'sd4'"),
        ("results/export/platonik/photographs/clean/sd3.pt", "unknown layout 'platonik'; did you mean 'platonic'?"),
        ("results/export/vfmvae/photographs/clean/sd3_b99.pt", "sd3 has no layer 'b99'"),
        ("results/export/vfmvae/photographs/claen/sd3-t0.5_b9.pt", "unknown condition 'claen'"),
        ("results/export/vfmvae/photographs/clean/sd3_b8/recipe.json", "'sd3_b8' names a layer; here all layers are"),
        ("results/export/thingsvision/photographs/clean/dinov22/features.npy", "unknown model 'dinov22'"),
        ("results/export/platonic/photographs/clean/sd3_b8.pt", "'sd3_b8' names a layer; here all layers are meant"),
        ("results/export/platonic/photographs/clean/dinov2_vs_sd4/cknna_k10.npy", "unknown model 'sd4'"),
        (
            "results/export/platonic/photographs/clean/dinov2_vs_sd3/cknaa_k10.npy",
            "unknown file of scores 'cknaa_k10'; did you mean 'cknna_k10'?",
        ),
        (
            "results/export/platonic/photographs/clean/dinov2_vs_sd3/cknna_k7.npy",
            "unknown file of scores 'cknna_k7'; did you mean 'cknna_k10'?",
        ),
        (
            "results/export/vfmvae/sd3.pt",
            "are results/export/vfmvae/{dataset}/{condition}/{a}.pt or",
        ),
        (
            "results/samples/photographs/sd3.safetensors",
            "unknown checkpoint of a model of classes 'sd3'; allowed: sit, repa, reg, reg.vfmvae, lightningdit, light",
        ),
        ("results/samples/photographs/sit@300.safetensors", "sit has one checkpoint and no steps"),
        ("results/figures/photographs/clean/samples/dinov2.png", "unknown model of classes 'dinov2'; allowed: sit"),
        ("results/sample_quality/photographs/sitt.tsv", "did you mean 'sit'?"),
        ("results/cknna/a/b/c/d/e.npy", "unknown dataset 'a'; allowed: imagenet, photographs"),
    ],
)
def test_the_unknown_word_is_named(target: str, message: str) -> None:
    patterns = [pattern for of_rule in outputs().values() for pattern in of_rule]
    explained = targets.explain(target, patterns, load(), (*METRICS, "other"))
    assert message in explained
    assert explained.startswith(f"'{target}'")


WORDS = {
    "dataset": "photographs",
    "condition": "clean",
    "metric": "cknna",
    "scores": "cknna_k10",
    "model": "sd3",
    "bundle": "sd3-t0.5",
    "means": "minilm",
    "space": "marked",
    "a": "dinov2",
    "b": "siglip2",
    "c": "dinov2-untrained",
    "d": "siglip2",
    "family": "levels",
    "triplets": "test",
    "combined": "both",
    "conditioning": "caption",
    "word": "optim",
    "file": "features.pt",
    "part": "0",
    "parts": "2",
    "loss": "flow_matching",
}
# where another word than the usual one is a file of the rule
DYNAMICS = (
    *("dynamics_recipe", "trajectories", "image_dynamics", "activation_dynamics", "contributions"),
    *("trajectory_alignment", "trajectory_sheet_figure", "trajectory_animation", "wavelet_figure", "spectra_figure"),
    *("dynamics_curves_figure", "layer_steps_figure", "layer_statistics_figure"),
)
WORDS_OF = {
    "given_statistics": {"model": "lightningdit.vfmvae"},
    "latents": {"model": "sdvae"},
    "import_latents": {"model": "sd3vae"},
    "named_texts": {"dataset": "words"},
    "archive": {"dataset": "packed"},
    "training_recipe": {"model": "own.sit"},
    **{key: {"model": "sit"} for key in ("samples_recipe", "samples", "sample_quality", "sample_sheet_figure")},
    "odd_one_out": {"dataset": "things"},
    "human_choices": {"dataset": "things"},
    "export_people": {"dataset": "things"},
    "export_probe": {"dataset": "things"},
    "export_reduction": {"dataset": "things"},
    "concepts": {"dataset": "things"},
    "text_features": {"bundle": "sd1-textlast-caption"},
    "merge_features_gaussian": {"bundle": "gaussian-t0.5"},
    "merge_features_powerlaw": {"bundle": "powerlaw-t0.5"},
    "merge_features_own_gaussian": {"bundle": "own.gaussian-t0.3"},
    "merge_features_own_vae": {"bundle": "own.vae@20"},
    **{key: {"model": "own.sit@20", "configuration": "plain", "seed": "0", "domain": "images"} for key in DYNAMICS},
    **{key: {"dataset": "held"} for key in ("training_maps_figure", "through_training_figure")},
    **{key: {"dataset": "held", "a": "own.sit"} for key in ("atlas", "atlas_figure")},
}


def test_every_rule_has_a_file_in_the_study_that_says_so() -> None:
    # (?!) is the constraint of a wildcard that has no word
    assert [name for name, files in outputs(*EVERY_RULE).items() if any(",(?!)}" in file for file in files)] == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/training/own.sti/losses.tsv", "unknown folder 'own.sti'; did you mean 'own.sit'?"),
        ("results/training/own.sit/loses.tsv", "unknown file 'loses'; did you mean 'losses'?"),
        ("results/training/own.sit/11/weights.json", "unknown folder '11'; allowed: 0, 10, 20"),
        ("results/figures/training/flow_matchign.png", "unknown loss 'flow_matchign'; did you mean 'flow_matching'?"),
        ("resources/weights/own.sit-untrained/weights.json", "lie beside results/training/own.sit/{step}/weights.json"),
        ("resources/weights/own.vit/weights.json", "own.vit is trained here"),
        ("results/features/held/clean/own.sit-untrained/b1.pt", "is its first checkpoint; write own.sit@0"),
        (
            "results/features/held/clean/own.sit@11-t0.3-uncond/b1.pt",
            "own.sit has no checkpoint of step '11'; it has 0",
        ),
        ("results/atlas/held/clean/own.sti/scores.tsv", "unknown model 'own.sti'; did you mean 'own.sit'?"),
        ("results/figures/held/clean/atlas/cknaa/own.sit.png", "unknown metric 'cknaa'; did you mean 'cknna'?"),
        ("results/figures/held/clean/atlas/cknna/own.sit.jpg", "results/figures/{dataset}/{condition}/atlas/{metric}/"),
        ("results/dynamics/own.sit@20/plian/curves.tsv", "unknown configuration 'plian'; did you mean 'plain'?"),
        ("results/dynamics/own.vit@20/plain/curves.tsv", "unknown checkpoint of a diffusion model 'own.vit'"),
        ("results/finding.txt", "did you mean 'findings'?"),
        (
            "results/contrasts/photographs/clean/sd3-t0.2_vs_dinov2_minus_sd3_vs_dinov22.tsv",
            "unknown model 'dinov22'; did you mean 'dinov2'?",
        ),
        (
            "results/contrasts/photographs/clean/sd3-t0.2_vs_dinov2.tsv",
            "'sd3-t0.2_vs_dinov2' is no contrast: write a_vs_b_minus_c_vs_d",
        ),
        (
            "results/contrasts/photographs/clean/layers/sd3-t0.2_b8_vs_dinov2_minus_sd3_b8_vs_dinov2.tsv",
            "names a layer on the left; here all layers are meant",
        ),
        (
            "results/figures/photographs/clean/contrasts/families/levles.png",
            "unknown family of contrasts 'levles'; did you mean 'levels'?",
        ),
    ],
)
def test_the_unknown_word_of_a_trained_model_is_named(target: str, message: str) -> None:
    patterns = [pattern for files in outputs(*EVERY_RULE).values() for pattern in files]
    assert message in targets.explain(target, patterns, load(read_yaml(MORE)), METRICS)


def misspelt(word: str) -> str:
    """A word with two neighbouring letters of its middle in the other order."""
    for at in range(len(word) // 2, 0, -1):
        if word[at] != word[at - 1] and word[at].isalpha() and word[at - 1].isalpha():
            return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]
    return word


def test_a_misspelt_word_in_an_output_of_any_rule_is_named_with_the_nearest_one() -> None:
    # parts of a job are temporary, and nobody asks for them
    rules = {
        name: [file for file in files if "-of-" not in file] for name, files in outputs(*EVERY_RULE).items() if files
    }
    patterns = [pattern for files in rules.values() for pattern in files]
    study = load(read_yaml(MORE))
    unanswered = []
    for name, files in rules.items():
        words = WORDS | WORDS_OF.get(name, {})
        if not files:
            assert name.endswith("_part")
            continue
        path = plan_paths.fill(re.sub(r"\{(\w+),[^{}]*\}", r"{\1}", files[0]), **words)
        places = path.split("/")
        for depth in range(1, len(places)):
            stem, dot, suffix = places[depth].rpartition(".")
            stem, ending = (stem, dot + suffix) if depth == len(places) - 1 and dot else (places[depth], "")
            # of a pair, its first name
            first, separator, second = stem.partition("_vs_")
            wrong = misspelt(first) + separator + second
            if wrong == stem:
                continue
            typed = "/".join([*places[:depth], wrong + ending, *places[depth + 1 :]])
            answer = targets.explain(typed, patterns, study, METRICS)
            near = re.search(r"did you mean '([^']+)'", answer)
            if not (near and near[1] in stem) and f"'{stem}'" not in answer and stem not in answer:
                unanswered.append(f"{name}: {answer}")
    assert not unanswered, "\n".join(unanswered)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("al", "'al' is neither a rule nor a file of this workflow; did you mean 'all'? Files lie below results/ and"),
        ("verfy", "did you mean 'verify'?"),
        (
            "README.md",
            "'README.md' is neither a rule nor a file of this workflow. Files lie below results/ and resources/",
        ),
        ("", "'' is neither a rule nor a file"),
        ("/study/results/x.npy", "files are named from the working directory, /study: results/x.npy"),
        ("/else/x.npy", "files are named from the working directory, /study"),
    ],
)
def test_a_target_elsewhere_is_neither_a_rule_nor_a_file(target: str, message: str) -> None:
    assert message in targets.neither(target, ["all", "all_models", "verify", "hub_table"], Path("/study"))


def workflow(prefix: str | None = None, is_module: bool = False) -> Any:
    """What is read of Snakemake's workflow: some rules, one of them with wildcards and one of another workflow."""
    made = {"all": [], "align": ["results/{metric}/{a}_vs_{b}.npy"], "table": ["results/tables/pairs.tsv"]}
    rules = [
        SimpleNamespace(
            name=name, output=[(prefix or "") + file for file in files], has_wildcards=lambda name=name: name == "align"
        )
        for name, files in {**made, "outer": []}.items()
    ]
    rules[-1].output.append("outer.txt")
    modifier = SimpleNamespace(
        path_modifier=SimpleNamespace(prefix=prefix), parent_modifier=object() if is_module else None
    )
    return SimpleNamespace(rules=rules, modifier=modifier)


def said(target: str, *answering: targets.Answers) -> str:
    """What is logged where Snakemake finds no rule for a target."""
    heard: list[str] = []
    logger = logging.Logger("of a test")
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    for each in answering:
        each.install(logger)
    logger.error(str(MissingRuleException(target)))
    return heard[0]


def test_the_answer_takes_the_place_of_the_message_of_snakemake() -> None:
    ours = targets.Answers(workflow(), load(), METRICS)
    assert said("alll", ours).startswith("'alll' is neither a rule nor a file of this workflow; did you mean 'all'?")
    assert said("alin", ours).count("did you mean") == 0
    assert said("results/tables/pars.tsv", ours) == (
        "'results/tables/pars.tsv': unknown table 'pars'; did you mean 'pairs'?"
    )
    assert said("results/cknaa/a (b).npy", ours).startswith("'results/cknaa/a (b).npy': unknown metric")
    assert said("results/a\nb", ours).startswith("'results/a\nb'")
    assert "No rule to produce al " in said("al")


def test_a_module_answers_for_targets_below_its_prefix_alone() -> None:
    module = targets.Answers(workflow("alike/", is_module=True), load(), METRICS)
    assert said("alike/results/tables/pars.tsv", module).endswith("unknown table 'pars'; did you mean 'pairs'?")
    for other in ("al", "results/tables/pars.tsv", "alike/x"):
        assert "No rule to produce" in said(other, module)


def test_a_later_workflow_of_the_same_process_answers_alone() -> None:
    first, second = (targets.Answers(workflow(), load(), METRICS) for _ in range(2))
    second._rules = []
    assert "did you mean" not in said("alll", first, second)
    module = targets.Answers(workflow("alike/", is_module=True), load(), METRICS)
    assert "did you mean 'all'" in said("alll", first, module)
