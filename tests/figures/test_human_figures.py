import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_figures import legible  # noqa: F401  (a fixture)

from diffalign.figures import noise_axis
from diffalign.figures.human import Results, read_results, reference_lines, variants_of
from diffalign.noise import log_snr
from noise_levels_figure import noise_levels_figure
from odd_one_out_figure import odd_one_out_figure
from probe_figure import probe_figure
from regression_figure import regression_figure

MODELS = {"sd3-t0.1": "sd3-t0.10", "sd3-t0.5": "sd3", "dinov2": "dinov2"}
# s20 of one schedule is such a t
LEVELS = {"sd3-t0.1": 0.1, "sd3-t0.5": 0.5, "dinov2": 0.38}
CEILINGS = {"leave_one_out": 0.64, "majority": 0.67}


def results(folder: Path, baselines: int, ceilings: dict[str, float] | None = CEILINGS) -> Results:
    """Tables with the columns of all three analyses, two layers a bundle; baselines are called line0, line1, …"""
    names = {f"line{i}": f"line{i}" for i in range(baselines)}
    for i, bundle in enumerate([*MODELS, *names]):
        table = pd.DataFrame({"layer": ["b0", "b0", "b1", "b1"], "dimension": [0, 1, 0, 1], "r2": [0.1, 0.2, 0.3, 0.4]})
        columns = ("accuracy", "low", "high", "before", "before_low", "before_high", "after", "after_low", "after_high")
        table[list(columns)] = 0.4 + 0.01 * i
        table[["choices", "distinct_triplets"]] = [100, 5]
        table.to_csv(folder / f"{bundle}.tsv", sep="\t", index=False)
        recipe = {
            "chance": 1 / 3,
            "distance": "cosine",
            "plan": {"folds": 3},
            "people": {"choices": {"choices": 100, "distinct_triplets": 5, "ceilings": ceilings}},
            "features": {"noise_level": {"t": LEVELS.get(bundle)}} if bundle in LEVELS else {},
            "layers": {layer: {"accuracy": 0.4, "low": 0.3, "high": 0.5} for layer in ("b0", "b1")},
            "intervals": {"over": ["objects", "people"]},
            "best": {"accuracy": 0.39 + 0.01 * i, "low": 0.38, "high": 0.5},
            "best_r2": {"layers": ["b1"], "values": [0.3, 0.4], "low": [0.2, 0.3], "high": [0.4, 0.5]},
        }
        (folder / f"{bundle}.json").write_text(json.dumps(recipe))
    paths = {suffix: [str(folder / f"{each}.{suffix}") for each in (*MODELS, *names)] for suffix in ("tsv", "json")}
    return read_results(paths["tsv"], paths["json"], MODELS, names)


def test_variants_of_a_model_are_in_one_panel(tmp_path: Path) -> None:
    found = results(tmp_path, 0)
    assert found.by_model == {"sd3": {"sd3-t0.1": "sd3-t0.10", "sd3-t0.5": "sd3"}, "dinov2": {"dinov2": "dinov2"}}


@pytest.mark.parametrize("count", [0, 3, 4, 9])
def test_every_baseline_has_a_line_of_its_own(tmp_path: Path, count: int) -> None:
    found = results(tmp_path, count)
    figure, axes = plt.subplots()
    reference_lines(axes, found)
    *baselines, chance = axes.lines
    heights = [float(np.asarray(line.get_ydata())[0]) for line in baselines]
    # by the layer that was chosen on other objects, not by the largest accuracy
    assert heights == pytest.approx([0.42 + 0.01 * i for i in range(count)])
    # the pattern of dashes has no public name
    looks = {(str(line._dash_pattern), str(line.get_color())) for line in (*baselines, chance)}  # type: ignore[attr-defined]
    assert len(looks) == count + 1
    plt.close(figure)


@pytest.mark.parametrize("draw", [odd_one_out_figure, probe_figure, regression_figure])
@pytest.mark.parametrize("ceilings", [CEILINGS, None])
def test_figures_name_all_that_they_show(
    tmp_path: Path, draw: Callable[..., None], ceilings: dict[str, float] | None
) -> None:
    draw(results(tmp_path, 4, ceilings), [tmp_path / "figure.svg"], False)
    text = (tmp_path / "figure.svg").read_text()
    for label in ("sd3-t0.10", "dinov2", *(f"line{i}" for i in range(4)), "chance"):
        assert f"<!-- {label}" in text
    assert ("<!-- people" in text) == (ceilings is not None and draw is not probe_figure)


@pytest.mark.parametrize("regressed", [True, False])
def test_noise_levels_are_a_figure_of_their_own(tmp_path: Path, regressed: bool) -> None:
    found = results(tmp_path, 1)
    # of each level the layer with the largest accuracy, b1 where b0 is lower
    found.tables["sd3-t0.5"]["accuracy"] = [0.3, 0.3, 0.6, 0.6]
    grid = {"uncond": {"t0.1": "sd3-t0.1", "t0.5": "sd3-t0.5"}, "label": {"s20": "dinov2", "t0.5": "sd3-t0.5"}}
    noise_levels_figure(found, found if regressed else None, grid, [tmp_path / "figure.svg"], False)
    text = (tmp_path / "figure.svg").read_text()
    for label in ("uncond", "label", "4.4", "1", "0.38", "s20", "b1", "the best layer", "line0", "chance", "people"):
        assert f"<!-- {label}" in text
    assert "t0.5" not in text
    assert "log-SNR, below it t" in text
    assert ("<!-- R² on objects left out" in text) == regressed


def test_levels_without_a_place_are_refused(tmp_path: Path) -> None:
    found = results(tmp_path, 1)
    with pytest.raises(ValueError, match="line0: the recipe of its features has no noise_level"):
        noise_levels_figure(found, None, {"uncond": {"t0.1": "sd3-t0.1", "t0.5": "line0"}}, [tmp_path / "f.svg"], False)


def test_noise_levels_stand_at_their_log_snr() -> None:
    at = noise_axis.positions([0.0, 0.1, 0.5, 0.9, 1.0])
    # noise is to the right, and what is infinite one mean step beyond
    assert at[1:4] == pytest.approx([-2 * np.log(9), 0, 2 * np.log(9)])
    assert np.diff(at)[[0, -1]] == pytest.approx([2 * np.log(9)] * 2)
    assert np.diff(noise_axis.positions([0.0, 1.0])).item() > 0
    assert noise_axis.edges(at) == pytest.approx((np.r_[2 * at[0] - at[1], at] + np.r_[at, 2 * at[-1] - at[-2]]) / 2)
    with pytest.raises(ValueError, match=r"t = 1\.2 is outside"):
        log_snr(1.2)


def test_a_legend_holds_no_more_than_a_dozen_variants() -> None:
    few, many = ({f"sd3-t0.{i}": f"sd3-t0.{i}0" for i in range(count)} for count in (12, 13))
    assert [label for _, _, label in variants_of(few)] == list(few.values())
    found = list(variants_of(many))
    assert [bundle for _, bundle, _ in found] == list(many)
    assert len({color for color, _, _ in found}) == 13
    labels = ["sd3-t0.00 (first of 13, dark to light)", *["_"] * 11, "sd3-t0.120"]
    assert [label for _, _, label in found] == labels
