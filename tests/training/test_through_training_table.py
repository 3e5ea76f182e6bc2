"""The four tables over trainings, of values that are made up: what is left out, and what is not mixed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffalign.io import tables
from through_training_table import summaries, through_training_table

NAN = math.nan
RECIPES = ("SiT", "SiT + REPA")


def checkpoints(
    values: Mapping[tuple[str, int, int], tuple[float, float]], metric: str = "unbiased_cka"
) -> list[dict[str, Any]]:
    """Rows of the table of alignment. values: (recipe, seed, step) -> score and calibrated score on the other half."""
    return [
        {
            "recipe": recipe,
            "model": f"{recipe}.s{seed}",
            "seed": seed,
            "step": step,
            "layer": "b3",
            "metric": metric,
            "chosen": True,
            "second_half": score,
            "second_half_calibrated": calibrated,
        }
        for (recipe, seed, step), (score, calibrated) in values.items()
    ]


def quality_of(rows: Sequence[Mapping[str, Any]], values: Sequence[float]) -> pd.DataFrame:
    keys = pd.DataFrame(rows)[["model", "step"]].drop_duplicates()
    return keys.assign(measure="FID", value=list(values))


def test_raw_and_calibrated_scores_of_a_metric_are_never_mixed() -> None:
    """Of three trainings the first has no null before it began: its score is no calibrated one."""
    sit = RECIPES[0]
    values = {
        (sit, 0, 0): (0.30, NAN),
        (sit, 1, 0): (0.20, 0.0),
        (sit, 2, 0): (0.20, 0.0),
        **{(sit, seed, 100): (0.4, calibrated) for seed, calibrated in enumerate((0.1, 0.11, 0.12))},
    }
    found = summaries(pd.DataFrame(checkpoints(values)), None, [], 0)
    points = found.points.set_index(["seed", "step"])
    assert set(points["scale"]) == {"calibrated"}
    assert math.isnan(points.loc[(0, 0), "value"])
    assert points.loc[(0, 0), "reason"] == (
        "the score has no threshold, so no calibrated score, which other checkpoints have"
    )
    assert points["value"].drop((0, 0)).tolist() == [0.0, 0.0, 0.1, 0.11, 0.12]
    steps = found.steps.set_index("step")
    assert (steps.loc[0, "mean"], steps.loc[0, "trainings"]) == (0.0, 2)
    assert (steps.loc[100, "mean"], steps.loc[100, "trainings"]) == (pytest.approx(0.11), 3)
    # over the two trainings that have both, and so are the means that it lies between
    ends = steps.loc[100, ["gain", "gain_from", "gain_to"]].tolist()
    assert ends == pytest.approx([0.115, 0.0, 0.115])
    assert steps.loc[100, "gain_trainings"] == 2
    assert steps.loc[100, "gain_low"] == pytest.approx(0.115 - 12.7062 * 0.005, abs=1e-4)


def test_a_metric_without_calibrated_scores_is_raw_everywhere() -> None:
    values = {(recipe, seed, step): (0.3 + step, NAN) for recipe in RECIPES for seed in (0, 1) for step in (0, 1)}
    rows = checkpoints(values, "rsa_pearson")
    rows += checkpoints(dict.fromkeys(values, (0.5, 0.2)), "cknna")
    found = summaries(pd.DataFrame(rows), quality_of(rows, np.arange(8.0).tolist()), [], 0)
    for table in (found.points, found.steps, found.contrasts):
        of_measure = table.groupby("measure")["scale"].unique()
        assert {key: list(scales) for key, scales in of_measure.items()} == {
            "rsa_pearson": ["raw"],
            "cknna": ["calibrated"],
            "FID": [""],
        }
    assert found.correlations.set_index("metric")["scale"].to_dict() == {"rsa_pearson": "raw", "cknna": "calibrated"}
    assert set(found.points.loc[found.points["measure"] == "rsa_pearson", "value"]) == {0.3, 1.3}


def test_a_score_that_is_undefined_says_so() -> None:
    rows = checkpoints({("SiT", 0, 0): (NAN, NAN), ("SiT", 0, 100): (0.4, 0.1)})
    found = summaries(pd.DataFrame(rows), None, [], 0)
    assert found.points["reason"].tolist() == ["the score is undefined", ""]
    (last,) = found.steps.to_dict("records")
    assert (last["step"], last["gain_trainings"], math.isnan(last["gain"])) == (100, 0, True)


def test_recipes_that_differ_in_both_are_no_correlation() -> None:
    """Recipes lie far apart in alignment and in quality; within each, quality falls as alignment rises."""
    rows = checkpoints(
        {
            (recipe, seed, step): (0.0, 0.5 * at + 0.01 * seed)
            for at, recipe in enumerate(RECIPES)
            for seed in range(4)
            for step in (0, 100)
        }
    )
    quality = quality_of(rows, [10.0 * (row["recipe"] == "SiT + REPA") - row["seed"] for row in rows])
    (found,) = summaries(pd.DataFrame(rows), quality, [], 0).correlations.to_dict("records")
    assert found["rho"] == pytest.approx(-1)
    # both recipes have the seeds 0 to 3
    assert math.isnan(found["p"])
    assert (found["trainings"], found["recipes"], found["steps"]) == (8, 2, 1)
    assert found["reason"] == "no p, since of 24 orders of seeds a perfect correlation has p = 0.083"


def test_a_correlation_without_a_whole_step_says_so() -> None:
    rows = checkpoints({("SiT", seed, 100): (0.2, 0.1 * seed) for seed in range(4)})
    (found,) = summaries(pd.DataFrame(rows), quality_of(rows[1:], [1.0, 2.0, 3.0]), [], 0).correlations.to_dict(
        "records"
    )
    assert (math.isnan(found["rho"]), found["trainings"], found["steps"]) == (True, 4, 0)
    assert found["reason"] == "every step after 0 lacks one of them in some training"
    # of the quality of one training nothing can be asked
    alone = summaries(pd.DataFrame(rows), quality_of(rows[:1], [1.0]), [], 0)
    assert alone.correlations.empty


def test_a_recipe_may_be_called_none(tmp_path: Path) -> None:
    rows = checkpoints({(recipe, 0, step): (0.2, 0.1) for recipe in ("None", "NA") for step in (0, 100)})
    path = tmp_path / "alignment.tsv"
    tables.write_tsv(pd.DataFrame(rows), path)
    outputs = {
        f"{name}_{kind}": tmp_path / f"{name}.{kind}"
        for name in ("points", "steps", "contrasts", "correlations")
        for kind in ("tsv", "parquet")
    }
    through_training_table(path, None, [], 0, outputs)
    assert tables.read_tsv(outputs["steps_tsv"])["recipe"].unique().tolist() == ["None", "NA"]
