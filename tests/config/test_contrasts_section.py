"""The section contrasts: what it means, its mistakes, and the files that contrasts read and write."""

from types import SimpleNamespace
from typing import Any

import pytest
from test_study import load, mistakes

from diffalign.models import all_families
from diffalign.names import UnknownName, split_contrast
from diffalign.plan import Plan

LEVELS = "sd3-t0.20_b8_vs_dinov2_minus_sd3_b8_vs_dinov2"
LAYERS = "dinov2_vs_sd3_minus_dinov2-untrained_vs_sd3"


def planned(**contrasts: Any) -> Plan:
    return Plan(load({"contrasts": contrasts}), all_families())


def wildcards(text: str, **more: str) -> Any:
    sides = dict(zip("abcd", split_contrast(text), strict=True))
    return SimpleNamespace(dataset="photographs", condition="clean", **sides, **more)


def test_a_study_has_the_table_and_the_figures_of_what_it_names() -> None:
    plan = planned(families={"levels": [LEVELS]}, layers=[LAYERS])
    figures = "results/figures/photographs/clean/contrasts"
    assert plan.contrasts.targets() == [
        "results/tables/contrasts.tsv",
        f"{figures}/families/levels.png",
        f"{figures}/layers/{LAYERS}.png",
    ]
    folder = "results/contrasts/photographs/clean"
    assert plan.contrasts.tables() == [f"{folder}/families/levels.parquet", f"{folder}/layers/{LAYERS}.parquet"]
    # miniatures of the demo show nothing
    assert plan.contrasts.tables("tsv", miniatures=False) == []
    assert set(plan.contrasts.targets()) <= set(plan.everything())
    assert planned().contrasts.targets() == []


def test_a_job_reads_each_bundle_once() -> None:
    plan = planned(families={"levels": [LEVELS]})
    contrasts, of_family = plan.contrasts, SimpleNamespace(dataset="photographs", condition="clean", family="levels")
    assert contrasts.bundles(contrasts.of_family)(of_family) == ["sd3-t0.2", "dinov2", "sd3-t0.5"]
    read = contrasts.inputs(contrasts.of_family)(of_family)
    assert read["neighbors"] == [
        f"results/neighbors/photographs/clean/{bundle}.npz" for bundle in ("sd3-t0.2", "dinov2", "sd3-t0.5")
    ]
    (compared,) = contrasts.compared(contrasts.of_family)(of_family)
    assert compared["contrast"] == LEVELS
    assert compared["sides"][::2] == [["sd3-t0.2", "b8"], ["sd3-t0.5", "b8"]]
    assert contrasts.miniature(contrasts.of_family)(of_family)
    by_layer = contrasts.compared(contrasts.of_layers)(wildcards(LAYERS))
    layers = list(plan.study.models["dinov2"].layers)
    assert [each["sides"][0] for each in by_layer] == [["dinov2", layer] for layer in layers]
    assert {tuple(each["sides"][1]) for each in by_layer} == {("sd3-t0.5", "b8")}


@pytest.mark.parametrize(
    ("text", "found", "message"),
    [
        ("sd3_vs_dinov2_minus_sd3-t0.5_b8_vs_dinov2", "of_target", "both pairs are the same"),
        ("sd3_b8_vs_dinov2_minus_sd3-t0.2_vs_dinov2", "of_layers", "names a layer; here all layers are meant"),
        ("sd3_vs_dinov2_minus_dinov2_vs_sd3", "of_layers", "both left sides need the same layers; sd3 has embed, b0"),
    ],
)
def test_a_target_that_compares_nothing_is_refused(text: str, found: str, message: str) -> None:
    contrasts = planned().contrasts
    with pytest.raises(UnknownName, match=message):
        contrasts.inputs(getattr(contrasts, found))(wildcards(text))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"families": {"x": ["sd3_vs_dinov2"]}}, "contrasts.families.x[0]: 'sd3_vs_dinov2' is no contrast: write a_vs"),
        ({"families": {"x": [LEVELS.replace("b8", "b99")]}}, "contrasts.families.x[0]: sd3 has no layer 'b99'; it has"),
        ({"families": {"x": [LEVELS.replace("dinov2", "dinov22")]}}, "unknown model 'dinov22'; did you mean 'dinov2'?"),
        (
            {"families": {"x": [LEVELS, LEVELS.replace("0.20", "0.2")]}},
            "contrasts.families.x[1]: the same contrast as contrasts.families.x[0]",
        ),
        ({"families": {"x": ["sd3_vs_dinov2_minus_sd3-t0.5_vs_dinov2"]}}, "both pairs are sd3-t0.5_b8_vs_dinov2_"),
        ({"layers": [LEVELS]}, "contrasts.layers[0]: "),
        ({"layers": ["sd3_vs_dinov2_minus_dinov2_vs_sd3"]}, "both left sides need the same layers"),
        ({"families": {"x": []}}, "contrasts.families.x: "),
        ({"families": {"x": [LEVELS]}, "dataset": "photograph"}, "contrasts.dataset: unknown dataset 'photograph'"),
    ],
)
def test_mistakes_are_named_with_their_place(section: dict[str, Any], message: str) -> None:
    assert message in mistakes({"contrasts": section})
