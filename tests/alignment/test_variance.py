"""Where the spread of a score comes from: draws, trainings, images, preparations; and the ceiling that noise sets."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, read_yaml
from matplotlib import pyplot as plt
from test_plan import plan
from test_unlisted_sides import COUNT, NAMES, K, search, write_settings

from diffalign.alignment import measure
from diffalign.alignment.settings import Preparation
from diffalign.alignment.variance import of_ceiling, over_choices, over_draws
from diffalign.io import bundles
from diffalign.io.recipes import Where
from variance_figure import variance_figure
from variance_table import Others, variance_table

SHOWN = ("cknna", "mutual_knn", "unbiased_cka", "procrustes")
CENTRED = Preparation(center=True)


def test_bounds_of_a_standard_deviation_hold_it() -> None:
    # of normal scores in 95 %: four standard errors of 300 studies of five draws
    draws = np.random.default_rng(0).standard_normal((300, 5))
    spreads = [over_draws(scores) for scores in draws]
    assert abs(np.mean([spread.low <= 1 <= spread.high for spread in spreads]) - 0.95) < 0.05
    assert spreads[0].sd == pytest.approx(draws[0].std(ddof=1))
    assert (spreads[0].low / spreads[0].sd, spreads[0].high / spreads[0].sd) == pytest.approx(
        (0.5991, 2.8736), abs=1e-4
    )
    undefined = over_draws([0.1, math.nan])
    assert (undefined.n, math.isnan(undefined.sd)) == (2, True)
    with pytest.raises(ValueError, match=r"1 score\(s\) have no spread"):
        over_draws([0.1])
    choices = over_choices([0.1, math.nan, 0.3])
    assert (choices.n, choices.minimum, choices.maximum, math.isnan(choices.low)) == (2, 0.1, 0.3, True)
    assert math.isnan(over_choices([0.1]).sd)


def test_the_share_of_a_ceiling() -> None:
    assert of_ceiling(0.3, 0.36, 1.0) == pytest.approx(0.5)
    assert math.isnan(of_ceiling(0.3, -0.01, 1.0))


class Pair:
    """A side with noise and trainings, and one without, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = np.random.default_rng(0)
        self.shared = self.random.standard_normal((COUNT, 6))
        self.rows: dict[str, np.ndarray] = {}

    def write(self, name: str, model: dict[str, Any], rows: np.ndarray | None = None) -> Path:
        values = self.shared + 0.5 * self.random.standard_normal(self.shared.shape) if rows is None else rows
        self.rows[name] = values.astype(np.float32)
        recipe = {
            "bundle": name,
            "model": {"name": name.split("-", maxsplit=1)[0]} | model,
            "weights": {"source": "training"},
            "autoencoder_weights": None,
            "images": {"dataset": "digits"},
        }
        path = self.folder / f"{name}.json"
        bundles.write(path, NAMES, lambda _: self.rows[name], recipe, {"b0": "b"})
        return path

    def table(self, features: tuple[Path, Path], others: tuple[Others, Others], shown: Sequence[str] = SHOWN) -> Any:
        sensitivity = self.folder / "sensitivity.tsv"
        preparations = [{"metric": name, "score": score} for name in shown for score in (0.1, 0.2, math.nan)]
        pd.DataFrame(preparations).to_csv(sensitivity, sep="\t", index=False)
        outputs = self.folder / "v.tsv", self.folder / "v.parquet"
        alignment, _ = write_settings(self.folder)
        where = Where("digits", "clean")
        variance_table(
            features, ("b0", "b0"), others, sensitivity, alignment, where, shown, search(preparation=CENTRED), outputs
        )
        assert len(pd.read_csv(outputs[0], sep="\t")) == len(pd.read_parquet(outputs[1]))
        return pd.read_parquet(outputs[1]).set_index(["metric", "source", "side"])

    def score(self, metric: str, a: str, b: str) -> float:
        return measure(metric, self.rows[a], self.rows[b], k=K, preparation=CENTRED, names=NAMES).value


def test_every_source_is_the_spread_of_scores_that_it_names(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    noisy = {"latents": "vae"}
    a, b = pair.write("a", noisy), pair.write("b", {})
    redraws = [pair.write(f"a-redraw{i}", {**noisy, "redraw": i}) for i in (1, 2, 3)]
    trainings = [pair.write("a2", noisy)]
    table = pair.table((a, b), (Others(redraws, trainings), Others([], [])))
    for metric in SHOWN:
        base = pair.score(metric, "a", "b")
        drawn = [base, *(pair.score(metric, f"a-redraw{i}", "b") for i in (1, 2, 3))]
        noise = table.loc[(metric, "noise", "a")]
        assert noise[["n", "sd", "mean"]].tolist() == pytest.approx(
            [4, np.std(drawn, ddof=1), np.mean(drawn)], abs=1e-6
        )
        assert noise["part_of"] == "images"
        trained = table.loc[(metric, "training", "a")]
        assert trained["sd"] == pytest.approx(np.std([base, pair.score(metric, "a2", "b")], ddof=1), abs=1e-6)
        images = table.loc[(metric, "images", "both")]
        assert images["n"] == COUNT
        assert images["sd"] > 0
        # noise keyed by image is part of the error over images
        assert images["share"] + trained["share"] == pytest.approx(1)
        reliable = np.mean([pair.score(metric, "a", f"a-redraw{i}") for i in (1, 2, 3)])
        assert noise["reliability_a"] == pytest.approx(reliable, abs=1e-6)
        assert noise["reliability_b"] == pytest.approx(pair.score(metric, "b", "b"), abs=1e-6)
        assert noise["of_ceiling"] == pytest.approx(base / math.sqrt(reliable * noise["reliability_b"]), abs=1e-6)
        preparations = table.loc[(metric, "preparation", "both")]
        assert preparations[["n", "minimum", "maximum"]].tolist() == [2, 0.1, 0.2]
        assert math.isnan(preparations["share"])
        assert table.loc[(metric, "noise", "b"), "reason"] == "draws no noise"
        assert "names no other seed of b" in table.loc[(metric, "training", "b"), "reason"]
    pictures = [tmp_path / "v.png", tmp_path / "v.pdf"]
    variance_figure(tmp_path / "v.tsv", pictures, miniature=True)
    assert plt.imread(pictures[0]).shape[1] > 1500


def test_sides_that_share_their_noise_are_redrawn_together(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    common = {"latents": "vae", "seeding": "constant"}
    files = {name: pair.write(name, common) for name in ("a", "b")}
    again = {name: [pair.write(f"{name}-redraw{i}", {**common, "redraw": i}) for i in (1, 2)] for name in ("a", "b")}
    others = Others(again["a"], []), Others(again["b"], [])
    table = pair.table((files["a"], files["b"]), others, ["mutual_knn"])
    both = [pair.score("mutual_knn", f"a{i}", f"b{i}") for i in ("", "-redraw1", "-redraw2")]
    noise = table.loc[("mutual_knn", "noise", "both")]
    assert noise["sd"] == pytest.approx(np.std(both, ddof=1))
    # one noise for all images is no part of the error over images
    assert noise["part_of"] == ""
    assert table["share"].sum() == pytest.approx(1)
    mean = pair.write("c", {**common, "draws": 4})
    averaged = pair.table((files["a"], mean), (others[0], Others([], [])), ["mutual_knn"])
    reason = averaged.loc[("mutual_knn", "noise", "both"), "reason"]
    assert reason.startswith("both sides see one noise, and one of them is the mean of 4 draws")


class Words:
    dataset, condition = "held", "clean"

    def __init__(self, a: str, b: str) -> None:
        self.a, self.b = a, b

    def get(self, key: str, default: str) -> str:
        return str(getattr(self, key, default))


def test_a_budget_reads_redraws_and_other_seeds() -> None:
    made = plan(read_yaml(ROOT / "tests/plan/every_rule.yaml") | {"alignment": {"variance": {"redraws": 2}}})
    files = made.variance.inputs(Words("own.sit_b0", "own.vit_b1"))
    folder = "results/features/held/clean"
    assert files["redraws_a"] == [f"{folder}/own.sit@20-t0.3-redraw{i}.json" for i in (1, 2)]
    assert files["trainings_a"] == [f"{folder}/own.sit.s1@20-t0.3.json"]
    assert files["redraws_b"] == files["trainings_b"] == []
    assert files["sensitivity"] == "results/tables/sensitivity/held/clean/own.sit_b0_vs_own.vit_b1.tsv"
    # what is a side already is no other training of it
    assert made.variance.inputs(Words("own.sit", "own.sit.s1"))["trainings_a"] == []
    assert made.variance.redraws("own.sit@0-label-shared") == [f"own.sit@0-t0.3-label-shared-redraw{i}" for i in (1, 2)]
    assert made.variance.redraws("sd1-untrained") == [f"sd1-t0.5-redraw{i}-untrained" for i in (1, 2)]
    assert made.variance.redraws("own.sit-draws4") == made.variance.redraws("own.sit-redraw3") == []
    assert made.variance.redraws("sd1-textlast-caption") == made.variance.redraws("dinov2") == []
