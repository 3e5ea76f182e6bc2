import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, catalogue, demo_config, merge, read_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.config.study import ConfigError
from diffalign.dataset_specs import SourceFile
from diffalign.human.triplets import source_files
from diffalign.models import all_families
from diffalign.plan import Plan
from diffalign.specs import FeatureFiles, Model


def load(overlay: dict[str, Any] | None = None) -> study.Study:
    config = demo_config()
    # tests say which models they mean
    merge(config, {"study": {"against": [], "pairs": "all"}})
    merge(config, overlay or {})
    return study.load(config, catalogue(), all_families(), METRICS)


def mistakes(overlay: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overlay)
    return "\n".join(caught.value.mistakes)


def of_profile(name: str) -> list[str]:
    """The files of configuration that a profile reads, in order."""
    files: list[str] = read_yaml(ROOT / "profiles" / name / "config.yaml").get("configfile", ["config.yaml"])
    return files


@pytest.mark.parametrize(
    "files",
    [*map(of_profile, ("demo", "local", "slurm")), ["config.yaml", "profiles/digits/study.yaml"]],
    ids=("demo", "local", "slurm", "digits"),
)
def test_the_shipped_configurations_are_valid(files: list[str]) -> None:
    config: dict[str, Any] = {}
    for file in files:
        merge(config, read_yaml(ROOT / file))
    loaded = study.load(config, catalogue(), all_families(), METRICS)
    assert len(loaded.pairs) == (3 if "profiles/demo/study.yaml" in files else 45)
    assert loaded.layer("sd3") == "b8"
    assert loaded.bundle("sd3_b8") == "sd3-t0.5"


def test_the_demo_is_the_digits_study_and_miniatures_that_change_only_weights_data_sets_and_sizes() -> None:
    demo = [f"profiles/demo/{name}.yaml" for name in ("study", "dynamics", "shared_space")]
    assert of_profile("demo") == ["config.yaml", "profiles/digits/study.yaml", *demo]
    overlay = read_yaml(ROOT / "profiles" / "demo" / "study.yaml")
    assert set(overlay) == {"defaults", "models", "study", "se_cknna", "alignment", "latents", "compute"}
    assert set(read_yaml(ROOT / "profiles" / "demo" / "dynamics.yaml")) == {"dynamics"}
    spaces = read_yaml(ROOT / "profiles" / "demo" / "shared_space.yaml")
    assert set(spaces) == {"datasets", "models", "shared_space"}
    for entry in spaces["models"].values():
        assert set(entry) == {"miniature", "input"}
        assert set(entry["input"]) == {"miniature"}
    assert set(overlay["alignment"]) == {"metrics"}
    assert overlay["se_cknna"] == {"pairs": []}
    assert set(overlay["study"]) == {"datasets", "models", "pairs"}
    assert set(overlay["models"]) == {"pixels", "colors", "minilm"}
    for entry in overlay["models"].values():
        assert set(entry) <= {"weights", "input"}
        assert set(entry.get("input", {})) <= {"size"}
    # the digits study has models and images of its own, and changes none that others use
    digits = read_yaml(ROOT / "profiles" / "digits" / "study.yaml")
    sections = {"samples", "through_training", "atlas", "contrasts", "ladder", "dynamics", "shared_space"}
    assert set(digits) == {"datasets", "models"} | sections
    assert not set(digits["models"]) & set(catalogue())
    assert not set(digits["datasets"]) & set(read_yaml(ROOT / "config.yaml")["datasets"])


def test_models_of_one_side_are_paired_with_those_of_the_other_alone() -> None:
    pairs = load({"study": {"models": ["dinov2", "siglip2"], "against": ["sdvae", "sd3-t0.2"]}}).pairs
    assert pairs == (("dinov2", "sdvae"), ("dinov2", "sd3-t0.2"), ("siglip2", "sdvae"), ("siglip2", "sd3-t0.2"))


@pytest.mark.parametrize(
    ("named", "drawn"),
    [
        ("all", {"dinov2_vs_siglip2", "dinov2_vs_sd3", "siglip2_vs_sd3"}),
        ([], set()),
        # another order, another spelling of the same bundle
        ([["sd3-t0.50", "dinov2"]], {"dinov2_vs_sd3"}),
    ],
)
def test_figures_are_drawn_for_the_pairs_that_the_study_names(named: object, drawn: set[str]) -> None:
    study = load({"study": {"models": ["dinov2", "siglip2", "sd3"], "scores": [], "pair_figures": named}})
    targets = Plan(study, all_families()).figures.targets()
    for figure in ("layer_maps", "depth_curves", "null_histograms"):
        assert {Path(path).stem for path in targets if f"/{figure}/" in path} == drawn
    assert "results/tables/pairs.tsv" in targets
    assert "results/figures/photographs/clean/model_maps/cknna.png" in targets


def test_all_mistakes_are_reported_at_once() -> None:
    text = mistakes(
        {
            "sed": 1,
            "alignment": {"metrics": "cknna", "kmax": 3},
            "datasets": {"photographs": {"kind": "photograps"}},
            "models": {
                "dinov2": {"default_layr": "b1", "weights": {"from": "hubb"}},
                "siglip2": {"input": {"interpolatoin": "bicubic", "size": 4}},
                "sd_3": {},
            },
            # what a schema cannot see is reported in the same breath
            "study": {"models": ["dinov22", "sd3"], "scores": ["sd3_b99_vs_sdvae"]},
        }
    )
    for line in (
        "(top level): unknown key 'sed'; did you mean 'seed'?",
        "alignment: unknown key 'kmax'; did you mean 'k_max'?",
        "datasets.photographs.kind: 'photograps' is not allowed; did you mean 'photographs'?",
        "models.dinov2: unknown key 'default_layr'; did you mean 'default_layer'?",
        "models.dinov2.weights.from: 'hubb' is not allowed",
        "models: 'sd_3' is no model name",
        "models.siglip2.input: unknown key 'interpolatoin'; did you mean 'interpolation'?",
        "models.siglip2.input.size: 4 is less than the minimum of 8",
        "study.models[0]: unknown model 'dinov22'; did you mean 'dinov2'?",
        "study.scores[0]: sd3 has no layer 'b99'",
    ):
        assert line in text


def test_cross_references_are_checked_all_at_once() -> None:
    text = mistakes(
        {
            "defaults": {"dataset": "photos"},
            "alignment": {"metrics": ["cknaa"], "k": 200},
            "study": {
                "pairs": [["dinov2", "dinov22"], ["dinov2_b1", "sd3"]],
                "scores": ["dinov2_vs_sd3_b99", "dinov2"],
            },
        }
    )
    for line in (
        "defaults.dataset: unknown dataset 'photos'",
        "alignment.metrics[0]: unknown metric 'cknaa'; did you mean 'cknna'?",
        "alignment.k: 200 is more than the lists hold (alignment.k_max = 100)",
        "study.pairs[0][1]: unknown model 'dinov22'; did you mean 'dinov2'?",
        "study.pairs[1][0]: 'dinov2_b1' names a layer",
        "study.scores[0]: sd3 has no layer 'b99'; it has embed, b0 … b23, final",
        "study.scores[1]: 'dinov2' is no pair",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"dinov2": {"default_layer": "b12"}},
            "models.dinov2.default_layer: dinov2 has no layer 'b12'; it has embed, b0",
        ),
        (
            {"dinov2": {"take": ["b3", 12]}},
            "models.dinov2.take: dinov2 has no layer '12'; it has embed, b0 … b11, final",
        ),
        (
            {"dinov2": {"take": ["b3"]}},
            "models.dinov2.default_layer: 'final' is not among the layers that 'take' names",
        ),
        ({"dinov2": {"family": "tim_vision"}}, "unknown family 'tim_vision'; did you mean 'timm_vision'?"),
        ({"sd3": {"latents": "sd3va"}}, "models.sd3.latents: unknown model 'sd3va'; did you mean 'sd3vae'?"),
        ({"sd3": {"latents": "dinov2"}}, "'dinov2' has, or takes, no layer 'latent', so it is no autoencoder"),
        ({"sd3vae": {"take": ["mid"], "default_layer": "mid"}}, "models.sd3.latents: 'sd3vae' has, or takes, no layer"),
        ({"sd3": {"noise": None}}, "models.sd3: family 'diffusers_mmdit' reads latents and needs the key 'noise'"),
        ({"sd3": {"noise": "0.5"}}, "models.sd3.noise: '0.5' is no noise level"),
        ({"siglip2": {"input": None}}, "family 'transformers_vision' reads pixels and needs the key 'input'"),
        ({"dinov2": {"noise": "t0.5"}}, "models.dinov2.noise: means nothing for this model"),
        ({"sd3": {"seeding": "published"}}, "models.sd3.seeding: 'published' draws the sample of the posterior before"),
        (
            {"sd3vae": {"seeding": "published", "seed": 7}},
            "models.sd3vae.seed: 7 is not the seed of the published rule",
        ),
        ({"sd3vae": {"input": {"interpolation": "nearest"}}}, "models.sd3vae.input.antialias: interpolation 'nearest'"),
        ({"sit": {"strength_steps": 20}}, "models.sit.strength_steps: means nothing for family 'sit'"),
        ({"dinov2": {"posterior": "sample"}}, "models.dinov2.posterior: means nothing for this model"),
        ({"dinov2": {"latents": "sd3vae"}}, "models.dinov2.latents: means nothing for this model"),
        ({"sd3": {"input": {"size": 64}}}, "models.sd3.input: means nothing for this model"),
        ({"dinov2": {"weights": {"from": "folder"}}}, "models.dinov2.weights: from 'folder' needs the key 'folder'"),
        ({"dinov2": {"layers": {"b{3..1}": "x.{}"}}}, "models.dinov2.layers: layer range 'b{3..1}' is empty"),
    ],
)
def test_contradictions_in_a_model(entry: dict[str, Any], message: str) -> None:
    assert message in mistakes({"models": entry})


def test_choices_may_lie_in_several_files() -> None:
    def given(**entry: Any) -> dict[str, Any]:
        return {"datasets": {"things": {"triplets": {"mine": {"first": 0, "odd": "last", **entry}}}}}

    place = "datasets.things.triplets.mine"
    assert f"{place}.path: [] is not of type 'string' or 'array'" in mistakes(given(path=[]))
    assert f"{place}.sha256: gives 1 for 2 files of path" in mistakes(given(path=["a.npy", "b.npy"], sha256="0" * 64))
    assert f"{place}.sha256: gives 2 for 1 files of path" in mistakes(given(path="a.npy", sha256=["0" * 64] * 2))
    triplets = load(given(path=["a.npy", "b.npy"], sha256=["0" * 64, "1" * 64])).things["things"].triplets
    assert source_files(triplets["mine"]) == (SourceFile("a.npy", "0" * 64), SourceFile("b.npy", "1" * 64))
    assert [file.path for file in source_files(triplets["all"])] == [
        "data/things/train_90.npy",
        "data/things/test_10.npy",
    ]
    assert source_files(triplets["train"]) == (SourceFile("data/things/train_90.npy"),)


def test_a_word_is_no_caption_of_a_diffusion_model() -> None:
    def asked(**human: Any) -> dict[str, Any]:
        return {"human": {"datasets": ["things"], **human}}

    grid = [{"models": ["sd1", "sd2"], "noise": ["s5"], "conditionings": ["uncond", "caption"]}]
    text = mistakes(asked(models=["minilm", "sd1-textlast-caption", "sd3-caption"], grid=grid))
    assert "human.models: 'sd1-textlast-caption': the caption of an object of 'things' is its word alone" in text
    assert "human.grid[0]: 'sd1-s5-caption': the caption of an object" in text
    assert text.count("is no caption") == 2
    # a language model reads words; and captions of one's own are captions
    load(asked(models=["minilm", "sd1-textlast-label", "sd1-s5-description"]))
    load({**asked(grid=grid), "datasets": {"things": {"texts": {"caption": "caption_dict.npy"}}}})


def precomputed(**changes: Any) -> dict[str, Any]:
    entry = {
        "family": "precomputed",
        "features": {"path": "feats/{dataset}/mine_{layer}_{condition}.pt"},
        "layers": {"b{0..1}": "block_{}"},
        "default_layer": "b1",
    }
    return {"mine": entry | changes}


def test_features_that_were_made_elsewhere_need_no_weights() -> None:
    model = load({"models": precomputed(), "datasets": {"theirs": {"kind": "precomputed"}}}).models["mine"]
    assert model.features == FeatureFiles("feats/{dataset}/mine_{layer}_{condition}.pt", "auto", None)
    assert model.layers == {"b0": "block_0", "b1": "block_1"}
    assert model.weights.source == "precomputed"
    recipe = model.recipe()
    assert Model.from_recipe(recipe).recipe() == recipe
    other = load({"models": precomputed(features={"path": "feats/x.npz", "names": "rows"})}).models["mine"]
    assert other.recipe() != recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "models.mine: family 'precomputed' reads features and needs the key 'features'"),
        ({"features": {}}, "models.mine.features: needs one of 'path' and 'url'"),
        ({"features": {"path": ""}}, "models.mine.features.path: '' should be non-empty"),
        (
            {"features": {"path": "x", "layout": "vfmva"}},
            "features.layout: 'vfmva' is not allowed; did you mean 'vfmvae'?",
        ),
        ({"features": {"path": "x", "name": "y"}}, "models.mine.features: unknown key 'name'; did you mean 'names'?"),
        (
            {"features": {"path": "{model}/{layr}.pt"}},
            "models.mine.features.path: unknown placeholder 'layr'; did you mean 'layer'?",
        ),
        ({"features": {"path": "x", "names": "{x}.txt"}}, "models.mine.features.names: unknown placeholder 'x'"),
        (
            {"weights": {"from": "hub", "hub": "a/b"}},
            "models.mine.weights: means nothing for this model of family 'precomputed', which reads features",
        ),
        ({"input": {"size": 64}}, "models.mine.input: means nothing"),
        ({"noise": "t0.5"}, "models.mine.noise: means nothing"),
        ({"conditionings": ["uncond"]}, "models.mine.conditionings: means nothing"),
        ({"batch_size": 3}, "models.mine.batch_size: means nothing"),
        ({"seeding": "constant"}, "models.mine.seeding: means nothing"),
        ({"default_layer": "b2"}, "models.mine.default_layer: mine has no layer 'b2'"),
        ({"family": "precompted"}, "models.mine.family: unknown family 'precompted'; did you mean 'precomputed'?"),
    ],
)
def test_contradictions_in_a_precomputed_model(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes({"models": precomputed(**changes)})


def test_other_families_have_no_files_of_features_and_no_precomputed_latents() -> None:
    text = mistakes(
        {
            "models": {"dinov2": {"features": {"path": "x"}}, "sd3": {"latents": "mine"}}
            | precomputed(layers={"latent": "z"}, default_layer="latent"),
            "datasets": {"theirs": {"kind": "precomputed", "size": 64}},
        }
    )
    assert "models.dinov2.features: means nothing for this model of family 'timm_vision', which reads pixels" in text
    assert "models.sd3.latents: 'mine' has, or takes, no layer 'latent', so it is no autoencoder" in text
    assert "datasets.theirs.size: means nothing for kind 'precomputed'" in text


def test_what_only_some_kinds_and_families_need_is_said_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"datasets": {"mine": {"kind": "folder", "path": "x"}}, "models": {"mine": {"family": "timm_vision"}}})
    assert caught.value.mistakes == (
        "models.mine: missing keys 'weights', 'layers', 'default_layer'",
        "datasets.mine: missing key 'size'",
    )


def test_a_data_set_of_files_needs_a_path() -> None:
    assert "datasets.mine: kind 'folder' needs the key 'path'" in mistakes(
        {"datasets": {"mine": {"kind": "folder", "size": 64}}}
    )


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"models": ["sd3", "sd3-t0.50"]}, "study.models[1]: 'sd3-t0.50' is the same as study.models[0]"),
        ({"pairs": [["dinov2", "sd3"], ["sd3-t0.5", "dinov2"]]}, "study.pairs[1]: the same pair as study.pairs[0]"),
        ({"pairs": [["sd3", "sd3-t0.5"]]}, "study.pairs[0]: both sides are sd3-t0.5"),
        (
            {"models": ["dinov2", "sd3"], "pair_figures": [["dinov2", "sd3"], ["sd3-t0.5", "dinov2"]]},
            "study.pair_figures[1]: the same pair as study.pair_figures[0]",
        ),
        (
            {"models": ["dinov2", "sd3"], "pair_figures": [["dinov2", "flux"]]},
            "study.pair_figures[0]: 'dinov2' and 'flux' are no pair of the study; their figures are made on request",
        ),
        ({"pair_figures": [["dinov2", "sd33"]]}, "study.pair_figures[0][1]: unknown model 'sd33'"),
        ({"pair_figures": "none"}, "study.pair_figures: 'none' is neither 'all' nor a list of pairs"),
        ({"scores": ["sd3_vs_sd3-t0.5_b8"]}, "study.scores[0]: both sides are sd3-t0.5_b8"),
        ({"scores": ["dinov2_vs_sd3", "dinov2_final_vs_sd3_b8"]}, "study.scores[1]: the same score as study.scores[0]"),
        ({"pairs": [], "scores": []}, "study: nothing to measure"),
        (
            {"models": ["dinov2"], "against": ["sd3", "dinov2"]},
            "study.against[1]: 'dinov2' is the same as study.models",
        ),
        ({"against": ["sd33"]}, "study.against[0]: unknown model 'sd33'"),
        ({"models": ["dinov2"], "scores": []}, "study: nothing to measure"),
        ({"datasets": ["imagenet"]}, "study.scores: are taken on defaults.dataset, 'photographs', which is not among"),
    ],
)
def test_nothing_is_computed_twice_under_two_names(study: dict[str, Any], message: str) -> None:
    assert message in mistakes({"study": study})


def test_a_refused_value_or_name_is_one_mistake() -> None:
    # the default of k is more than these lists hold
    text = mistakes({"alignment": {"k": "3", "k_max": 5}})
    assert "alignment.k: '3' is not of type 'integer'" in text
    assert "more than the lists hold" not in text
    assert "alignment.k: 10 is more than the lists hold" in mistakes({"alignment": {"k": 10, "k_max": 5}})
    named = {"models": ["dinov2", "ViT-S"], "scores": ["dinov2_vs_ViT-S"]}
    text = mistakes({"models": {"ViT-S": {"like": "vit"}}, "study": named})
    assert "models: 'ViT-S' is no model name" in text
    assert "unknown model" not in text


def test_options_of_a_data_set_that_mean_nothing_are_refused() -> None:
    text = mistakes({"datasets": {"photographs": {"path": "/data", "sample": 3}}})
    assert "datasets.photographs.path: means nothing for kind 'photographs'" in text
    assert "datasets.photographs.sample: means nothing for kind 'photographs'" in text


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert yaml.safe_load("1e-6") == "1e-6"
    assert load({"alignment": {"eps": "1e-6"}}).alignment.eps == 1e-6


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"seed": 1.0}, "seed: 1.0 is not of type 'integer'"),
        ({"alignment": {"k": True}}, "alignment.k: True is not of type 'integer'"),
        ({"alignment": {"eps": float("nan")}}, "alignment.eps: nan is not of type 'number'"),
        ({"alignment": {"clamp": float("inf")}}, "alignment.clamp: inf is not of type"),
    ],
)
def test_numbers_are_what_they_say(overlay: dict[str, Any], message: str) -> None:
    assert message in mistakes(overlay)


def test_one_mistake_is_reported_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"models": {"mine": {}}})
    assert caught.value.mistakes == ("models.mine: missing keys 'family', 'weights', 'layers', 'default_layer'",)
    with pytest.raises(ConfigError) as caught:
        load({"models": None})
    assert caught.value.mistakes == ("models: is empty; expected: object",)


def test_a_key_that_is_refused_is_not_said_to_be_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"models": {"dinov2": {"input": {"size": 4}}}, "human": {"regression": {"alphas": []}}})
    assert set(caught.value.mistakes) == {
        "models.dinov2.input.size: 4 is less than the minimum of 8",
        "human.regression.alphas: [] should be non-empty",
    }


def test_miniatures_are_known_through_the_autoencoder() -> None:
    mixed = load({"models": {"sd3": {"weights": {"from": "hub"}}}})
    assert mixed.is_miniature("sd3")
    assert not load({"models": {"dinov2": {"weights": {"from": "hub"}}}}).is_miniature("dinov2")


def test_defaults_of_layers_by_number_and_path() -> None:
    assert load({"models": {"sd3": {"default_layer": -1}}}).layer("sd3") == "b23"
    assert load({"models": {"sd3": {"default_layer": "transformer_blocks.3"}}}).layer("sd3") == "b3"


def test_layers_to_take_by_alias_number_and_path() -> None:
    model = load({"models": {"sd3": {"take": ["final", 8, "transformer_blocks.3", -1]}}}).models["sd3"]
    assert list(model.layers) == ["b3", "b8", "b23", "final"]
    assert load().models["sd3"].recipe() != model.recipe()


def test_a_recipe_holds_what_features_depend_on_and_nothing_else() -> None:
    before = load().models["sd3"].recipe()
    same = load({"models": {"sd3": {"default_layer": "b1", "noise": "t0.2", "batch_size": 3}}}).models["sd3"].recipe()
    assert before == same
    encoder = load().models["sd3vae"]
    more = load({"models": {"sd3vae": {"layers": {"extra": "encoder.conv_out"}}}}).models["sd3vae"]
    assert more.recipe() != encoder.recipe()
    assert more.encoder() == encoder.encoder()
    assert load({"seed": 7}).models["dinov2"].recipe() == load().models["dinov2"].recipe()
    assert load({"seed": 7}).models["sd3"].recipe() != before
    for change in ({"seeding": "constant"}, {"seed": 7}, {"layers": {"extra": "norm_out.norm"}}, {"latents": "sdvae"}):
        assert load({"models": {"sd3": change}}).models["sd3"].recipe() != before
    assert Model.from_recipe(before).recipe() == before


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        found += nodes(entry, (*path, key))
    return found


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_configuration_it_is_valid_or_explained(data: st.DataObject) -> None:
    config = demo_config()
    # entries to spoil, of models that the study uses
    spoilt = ("dinov2", "dinov2.l", "sd3", "sit", "sdvae")
    config["models"] |= copy.deepcopy({name: catalogue()[name] for name in spoilt})
    plain = st.sampled_from([None, 3, -1, 1.5, True, "", "x", "b8", "all"])
    strange = plain | st.sampled_from([[], ["x"], [[]], {}, {"x": {}}, [None], {"like": "sd3"}])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(nodes(config)))
        holder = config
        for step in path[:-1]:
            holder = holder[step]
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            holder[path[-1]] = copy.deepcopy(data.draw(strange))
        elif what == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["x", "X_", 0, None, True]))] = copy.deepcopy(data.draw(strange))
    # any exception but this one fails the test
    with contextlib.suppress(ConfigError):
        study.load(config, catalogue(), all_families(), METRICS)


def test_the_config_is_left_as_it_was(tmp_path: Path) -> None:
    config = demo_config()
    before = copy.deepcopy(config)
    study.load(config, catalogue(), all_families(), METRICS)
    assert config == before


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sit": {"path": None}}, "models.sit: family 'sit' needs the key 'path'"),
        ({"sit": {"architecture": None}}, "models.sit.architecture: is empty"),
        ({"reg": {"class_tokens": None}}, "models.reg: family 'reg' needs the key 'class_tokens'"),
        ({"reg": {"class_tokens": "dinov2.clz"}}, "models.reg.class_tokens: unknown model 'dinov2.clz'; did you mean"),
        ({"reg": {"class_tokens": "sit"}}, "models.reg.class_tokens: 'sit' reads latents"),
        ({"repa": {"class_tokens": "dinov2"}}, "models.repa.class_tokens: means nothing for family 'repa'"),
        ({"sit": {"latent_multiplier": 2}}, "models.sit.latent_multiplier: means nothing for family 'sit'"),
        ({"dit": {"path": "cosine"}}, "models.dit.path: means nothing for family 'diffusers_dit'"),
        ({"siglip2": {"architecture": {"depth": 3}}}, "models.siglip2.architecture: means nothing for family"),
        ({"siglip2": {"tokens": "class"}}, "models.siglip2.tokens: means nothing for family 'transformers_vision'"),
        ({"sit": {"conditionings": ["uncond", "caption"]}}, "a class-conditional model takes no 'caption'"),
        ({"sit": {"embeddings": {"optim": "x.npz"}}}, "models.sit.embeddings: means nothing for a class-conditional"),
        ({"pixels": {"weights": {"from": "hub", "hub": "a/b"}}}, "nothing of family 'image_statistics' is learned"),
        ({"dinov2": {"weights": {"from": "none"}}}, "models.dinov2.weights: from 'none' means that nothing is learned"),
        ({"sit": {"weights": {"from": "file"}}}, "models.sit.weights: from 'file' needs the key 'path'"),
    ],
)
def test_keys_that_only_some_families_know(entry: dict[str, Any], said: str) -> None:
    assert said in mistakes({"models": entry})


def test_a_miniature_overrides_the_widths_of_an_architecture() -> None:
    demo = load().models["sit"]
    assert demo.built == {**demo.architecture, "input_size": 8, "hidden_size": 48, "num_heads": 4}
    published = load({"models": {"sit": {"weights": {"from": "file", "path": "x.pt"}}}}).models["sit"]
    assert published.built == published.architecture
    assert published.built["depth"] == 28
    assert Model.from_recipe(published.recipe()).built == published.built


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"human": {"datasets": ["photographs"]}}, "human.datasets[0]: 'photographs' is not of kind things"),
        ({"human": {"datasets": ["thing"]}}, "human.datasets[0]: unknown data set 'thing'; did you mean 'things'"),
        ({"human": {"datasets": ["things"], "triplets": "tset"}}, "unknown file of triplets 'tset'"),
        ({"human": {"datasets": ["things"], "models": ["dinov9"]}}, "human.models[0]: unknown model 'dinov9'"),
        ({"human": {"combined": {"x": {"of": ["dinov2_b99"]}}}}, "human.combined.x.of[0]: "),
        ({"human": {"grid": [{"models": ["sd3"], "noise": ["t2"]}]}}, "human.grid[0]: "),
        ({"human": {"grid": [{"models": ["dinov2"], "conditionings": ["label"]}]}}, "human.grid[0]: "),
        (
            {"human": {"precision": "float32", "distance": "dot"}},
            "human.precision: float32 is of the distances cosine and euclidean, not of 'dot'",
        ),
        ({"human": {"distance": "correlation", "pca": 5}}, "human.distance: 'correlation' of principal components"),
        (
            {"human": {"distance": "correlation", "reduction": {"of": ["dinov2_b9"]}}},
            "human.distance: 'correlation' of principal components",
        ),
        ({"human": {"reduction": {"of": ["dinov2_b99"]}}}, "human.reduction.of[0]: dinov2 has no layer 'b99'"),
        ({"human": {"baselines": ["dinov2_b3"]}}, "human.baselines[0]: 'dinov2_b3' names a layer"),
        ({"human": {"models": ["sd3", "sd3-t0.5"]}}, "human.models[1]: 'sd3-t0.5' is the same as human.models[0]"),
        ({"human": {"probe": {"folds": 1}}}, "human.probe.folds: 1 is less than the minimum of 2"),
        ({"datasets": {"mine": {"kind": "things"}}}, "datasets.mine: kind 'things' needs the key 'triplets'"),
    ],
)
def test_mistakes_about_people(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes(changes)


PACKAGED = {"kind": "packaged", "collection": "mnist", "size": 32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"collection": "minst"}, "datasets.mine.collection: 'minst' is not allowed; did you mean 'mnist'"),
        ({"collection": None}, "datasets.mine: kind 'packaged' needs the key 'collection'"),
        ({"path": "x"}, "datasets.mine.path: means nothing for kind 'packaged'"),
        ({"split": {"held_out": 0.2}}, "datasets.mine.split: missing key 'part'"),
        ({"split": {"part": "test"}}, "datasets.mine.split.part: 'test' is not allowed"),
        ({"split": {"part": "train", "held_out": 1}}, "datasets.mine.split.held_out: 1 "),
        ({"split": {"part": "train", "held_out": 0.0}}, "datasets.mine.split.held_out: 0"),
    ],
)
def test_mistakes_about_packaged_images_and_splits(changes: dict[str, Any], message: str) -> None:
    assert message in mistakes({"datasets": {"mine": {**PACKAGED, **changes}}})


def test_a_split_reaches_jobs_with_its_share() -> None:
    found = load({"datasets": {"mine": {**PACKAGED, "split": {"part": "train"}}}}).datasets["mine"]
    assert found.split == {"part": "train", "held_out": 0.2}
    assert load({"datasets": {"mine": PACKAGED}}).datasets["mine"].split is None


def test_people_are_compared_with_both_sides_of_the_pairs() -> None:
    asked = {"models": ["dinov2", "sd3-t0.2"], "against": ["sdvae"]}
    assert load({"study": asked}).compared == ("dinov2", "sd3-t0.2", "sdvae")
    assert load({"study": asked, "human": {"models": ["sdvae"]}}).compared == ("sdvae",)
    grid = {"models": ["sd3", "sd1"], "noise": ["s10", "t0.2"], "conditionings": ["uncond"]}
    named = load({"study": asked, "human": {"models": ["sdvae"], "grid": [grid]}}).compared
    assert named == ("sdvae", "sd3-s10-uncond", "sd3-t0.2-uncond", "sd1-s10-uncond", "sd1-t0.2-uncond")
