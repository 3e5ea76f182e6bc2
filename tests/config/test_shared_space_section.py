"""The section `shared_space`: spaces, pairs and the toy study as files, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from test_study import load, mistakes

from diffalign.config.shared_space import EncodersEntry
from diffalign.models import all_families
from diffalign.plan import Plan, paths
from diffalign.shared_space import half_shared, transforms
from diffalign.specs import ALIGNMENTS

SPACE: dict[str, Any] = {"layers": ["dinov2_b3", "siglip2_b3", "dinov2_b7"], "dataset": "photographs"}


def with_space(**changes: Any) -> dict[str, Any]:
    return {"shared_space": {"spaces": {"plain": {**SPACE, **changes}}}}


def with_pairs(**changes: Any) -> dict[str, Any]:
    return {"shared_space": {"pairs": {"of": ["dinov2_vs_siglip2_b3"], **changes}}}


def plan_of(overlay: dict[str, Any]) -> Plan:
    return Plan(load(overlay), all_families())


class Words:
    """Wildcards of a target."""

    def __init__(self, **words: str) -> None:
        self.__dict__ |= words

    def items(self) -> Any:
        return self.__dict__.items()


def test_encoders_have_the_defaults_that_were_measured() -> None:
    assert half_shared.HalfShared(**EncodersEntry().plain()) == half_shared.HalfShared()


def test_a_space_reads_the_tokens_of_its_bundles_once_each() -> None:
    plan = plan_of(with_space())
    words = Words(space="plain")
    files = plan.shared_space.space_inputs(words)  # type: ignore[arg-type]
    assert files["tokens"] == [f"results/unpooled/photographs/clean/{bundle}" for bundle in ("dinov2", "siglip2")]
    assert "parts" not in files
    assert plan.shared_space.sets(words) == [  # type: ignore[arg-type]
        {"folder": 0, "layer": "b3", "model": "dinov2"},
        {"folder": 1, "layer": "b3", "model": "siglip2"},
        {"folder": 0, "layer": "b7", "model": "dinov2"},
    ]
    tokens = Words(dataset="photographs", condition="clean", bundle="dinov2")
    assert plan.features.unpooled_layers(tokens) == ["b3", "b7"]  # type: ignore[arg-type]
    assert set(plan.shared_space.targets()) <= set(plan.everything())


def test_masks_of_parts_come_with_the_images_and_change_none(tmp_path: Path) -> None:
    entry = {"kind": "folder", "path": str(tmp_path), "size": 64}
    overlay = with_space(dataset="mine")
    without = plan_of({**overlay, "datasets": {"mine": entry}})
    masked = plan_of({**overlay, "datasets": {"mine": {**entry, "parts": str(tmp_path / "parts")}}})
    words = Words(dataset="mine", space="plain")
    assert masked.shared_space.space_inputs(words)["parts"] == "results/parts/mine"  # type: ignore[arg-type]
    assert "parts" not in without.shared_space.space_inputs(words)  # type: ignore[arg-type]
    assert masked.stimuli.dataset(words) == without.stimuli.dataset(words)  # type: ignore[arg-type]


def test_a_pair_has_a_file_for_each_training_of_the_half_shared_mlp() -> None:
    plan = plan_of(with_pairs(half_shared={"seeds": [3, 5]}))
    files = plan.shared_space.transforms()
    assert set(files) == {*(set(ALIGNMENTS) - {"half_shared"}), "half_shared_3", "half_shared_5"}
    settings = transforms.Settings.of(plan.shared_space.pair_settings())
    assert [transforms.run_name(*run) for run in settings.runs] == list(files)
    assert plan.shared_space.of_all(paths.ALIGNED_PAIR, "scores.tsv") == [
        "results/shared_space/pairs/photographs/clean/dinov2_vs_siglip2_b3/scores.tsv"
    ]
    # of random weights nothing is found
    assert plan.shared_space.of_all(paths.ALIGNED_PAIR, "scores.tsv", miniatures=False) == []


def test_nothing_is_made_unasked() -> None:
    plan = plan_of({})
    assert plan.shared_space.targets() == []
    toy = plan_of({"shared_space": {"didactic": {"seeds": 2}}}).shared_space.targets()
    assert toy == [
        "results/shared_space/didactic/claims.tsv",
        "results/figures/shared_space/didactic/cases.png",
        "results/figures/shared_space/didactic/targets.png",
    ]


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (with_space(dataset="photos"), "spaces.plain.dataset: unknown dataset 'photos'; did you mean 'photographs'?"),
        (with_space(layers=["dinov2_b3", "siglip2"]), "layers[1]: 'siglip2' names no layer; write siglip2_{layer}"),
        (with_space(layers=["dinov2_b3", "dinov3_b99"]), "layers[1]: "),
        (with_space(layers=["dinov2_b3"]), "spaces.plain.layers"),
        (with_space(layers=["dinov2_b3", "dinov2_b3"]), "stands twice"),
        (with_space(layers=["dinov2_b3", "minilm_h1"]), "'minilm_h1' has no tokens of images"),
        (with_space(resample="cut"), "'cut' is not allowed"),
        ({"shared_space": {"affinity": 0.0}}, "shared_space.affinity"),
        ({"shared_space": {"choice": "grid"}}, "'grid' is not allowed"),
        (with_pairs(of=["dinov2_vs_dinov2_final"]), "pairs.of[0]: both sides are dinov2_final"),
        (with_pairs(of=["dinov2_vs_vit99"]), "unknown model 'vit99'"),
        (with_pairs(methods=["rbf"]), "methods: 'padded' is missing"),
        (with_pairs(methods=["padded", "umap"]), "'umap' is not allowed"),
        (with_pairs(permutations=10), "pairs.permutations"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(overlay: dict[str, Any], message: str) -> None:
    assert message in str(mistakes(overlay))
