import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, demo_config, merge

from diffalign import study
from diffalign.alignment.metrics import METRICS
from diffalign.models import families
from diffalign.study import ConfigError, Model

SCHEMA = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())


def load(overlay: dict[str, Any] | None = None) -> study.Study:
    config = copy.deepcopy(demo_config())
    merge(config, overlay or {})
    return study.load(config, SCHEMA, families(), METRICS)


def mistakes(overlay: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overlay)
    return "\n".join(caught.value.mistakes)


@pytest.mark.parametrize("profile", [None, "demo", "slurm"])
def test_the_shipped_configurations_are_valid(profile: str | None) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if profile:
        merge(config, yaml.safe_load((ROOT / "profiles" / profile / "study.yaml").read_text()))
    loaded = study.load(config, SCHEMA, families(), METRICS)
    assert len(loaded.pairs) == 6
    assert loaded.layer("sd3") == "b8"
    assert loaded.bundle("sd3_b8") == "sd3-t0.5"


def test_the_demo_changes_only_weights_data_sets_and_sizes() -> None:
    overlay = yaml.safe_load((ROOT / "profiles" / "demo" / "study.yaml").read_text())
    assert set(overlay) == {"defaults", "models", "study", "latents", "compute"}
    assert set(overlay["study"]) == {"datasets"}
    for entry in overlay["models"].values():
        assert set(entry) <= {"weights", "input", "batch_size"}
        assert set(entry.get("input", {})) <= {"size"}


def test_every_key_has_a_description() -> None:
    def keys(schema: dict[str, Any], path: str) -> list[str]:
        bare = []
        for name, entry in schema.get("properties", {}).items():
            place = f"{path}.{name}"
            options = [entry, *entry.get("oneOf", [])]
            if not any("description" in option or option.get("type") == "object" for option in options):
                bare.append(place)
            for option in options:
                bare += keys(option, place)
                if isinstance(option.get("additionalProperties"), dict):
                    bare += keys(option["additionalProperties"], place)
        return bare

    obvious = {".models.input.interpolation", ".models.input.antialias", ".models.input.mean", ".models.input.std"}
    assert set(keys(SCHEMA, "")) - obvious - {".compute.batch_size"} == set()


def test_every_key_of_the_schema_is_explained_in_config_yaml_or_has_a_default() -> None:
    text = (ROOT / "config.yaml").read_text()
    for section in ("defaults", "datasets", "conditions", "models", "study", "alignment", "latents", "compute", "seed"):
        assert section in SCHEMA["properties"]
        assert f"\n{section}:" in text


def test_all_mistakes_are_reported_at_once() -> None:
    text = mistakes(
        {
            "sed": 1,
            "alignment": {"metrics": "cknna", "kmax": 3},
            "datasets": {"photographs": {"kind": "photograps"}},
            "models": {"dinov2": {"default_layr": "b1", "weights": {"from": "hubb"}}, "sd_3": {}},
        }
    )
    for line in (
        "config.yaml: (top level): unknown key 'sed'; did you mean 'seed'?",
        "config.yaml: alignment: unknown key 'kmax'; did you mean 'k_max'?",
        "config.yaml: datasets.photographs.kind: 'photograps' is not allowed; did you mean 'photographs'?",
        "config.yaml: models.dinov2: unknown key 'default_layr'; did you mean 'default_layer'?",
        "config.yaml: models.dinov2.weights.from: 'hubb' is not allowed",
        "config.yaml: models: 'sd_3' is no model name",
    ):
        assert line in text


def test_cross_references_are_checked_all_at_once() -> None:
    text = mistakes(
        {
            "defaults": {"dataset": "photos"},
            "alignment": {"metrics": ["cknaa"], "k": 200},
            "study": {"pairs": [["dinov2", "dinov3"], ["dinov2_b1", "sd3"]], "scores": ["dinov2_vs_sd3_b99", "dinov2"]},
        }
    )
    for line in (
        "defaults.dataset: unknown dataset 'photos'",
        "alignment.metrics[0]: unknown metric 'cknaa'; did you mean 'cknna'?",
        "alignment.k: 200 is more than the lists hold (alignment.k_max = 100)",
        "study.pairs[0][1]: unknown model 'dinov3'; did you mean 'dinov2'?",
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
        ({"dinov2": {"family": "tim_vision"}}, "unknown family 'tim_vision'; did you mean 'timm_vision'?"),
        ({"sd3": {"latents": "sd3va"}}, "models.sd3.latents: unknown model 'sd3va'; did you mean 'sd3vae'?"),
        ({"sd3": {"latents": "dinov2"}}, "'dinov2' has no layer 'latent', so it is no autoencoder"),
        ({"sd3": {"noise": None}}, "needs a default noise level"),
        ({"sd3": {"noise": "0.5"}}, "models.sd3.noise: '0.5' is no noise level"),
        ({"dinov2": {"input": None}}, "needs 'input'"),
        ({"dinov2": {"weights": {"from": "folder"}}}, "models.dinov2.weights: from 'folder' needs the key 'folder'"),
        ({"dinov2": {"layers": {"b{3..1}": "x.{}"}}}, "models.dinov2.layers: layer range 'b{3..1}' is empty"),
    ],
)
def test_contradictions_in_a_model(entry: dict[str, Any], message: str) -> None:
    assert message in mistakes({"models": entry})


def test_a_data_set_of_files_needs_a_path() -> None:
    assert "datasets.mine: kind 'folder' needs a path" in mistakes(
        {"datasets": {"mine": {"kind": "folder", "size": 64}}}
    )


def test_defaults_of_layers_by_number_and_path() -> None:
    assert load({"models": {"sd3": {"default_layer": -1}}}).layer("sd3") == "b23"
    assert load({"models": {"sd3": {"default_layer": "transformer_blocks.3"}}}).layer("sd3") == "b3"


def test_a_recipe_holds_what_features_depend_on_and_nothing_else() -> None:
    before = load().models["sd3"].recipe()
    same = load({"models": {"sd3": {"default_layer": "b1", "noise": "t0.2", "batch_size": 3}}}).models["sd3"].recipe()
    assert before == same
    for change in ({"seeding": "constant"}, {"seed": 7}, {"layers": {"extra": "norm_out.norm"}}, {"latents": "sdvae"}):
        assert load({"models": {"sd3": change}}).models["sd3"].recipe() != before
    assert Model.from_recipe(before).recipe() == before


def test_the_config_is_left_as_it_was(tmp_path: Path) -> None:
    config = demo_config()
    before = copy.deepcopy(config)
    study.load(config, SCHEMA, families(), METRICS)
    assert config == before
