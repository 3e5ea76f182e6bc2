"""SE-CKNNA: what it is the mean of, and how far that can be trusted."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, write_neighbors
from scipy import sparse
from test_figures import check_pictures
from test_intervals import lists_of
from threadpoolctl import threadpool_limits

from diffalign.alignment import intervals, measure
from diffalign.alignment import semantic_equivariance as semantic
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.dyadic import Covariances
from diffalign.alignment.metrics import METRICS, Layer, NeighborScores, Settings
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.io.headers import StoreError
from diffalign.io.prepared_features import preparation_settings
from diffalign.stimuli import transforms
from se_cknna import by_condition, noise_at_inputs, se_cknna
from se_cknna_figure import pair_label, se_cknna_figure
from se_cknna_table import kind, se_cknna_table

NAMES = [f"image{i:03d}" for i in range(60)]
NOISE = {"noise_0.050": 0.5, "noise_0.100": 1.0, "noise_0.200": 2.0}
CONDITIONS = ["clean", "equivariance", *NOISE]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


class Population:
    """Images with eight latents; two models map them linearly, and see each condition in a way of its own."""

    def __init__(self, own: float) -> None:
        self.random = np.random.default_rng(0)
        self.maps = [self.random.standard_normal((8, width)) for width in (16, 20)]
        self.own = own

    def sample(self, count: int) -> dict[str, list[np.ndarray]]:
        """Condition -> features of both models. Noise has one direction at all levels, as published."""
        latents = self.random.standard_normal((count, 8))
        turned = latents + 0.8 * self.random.standard_normal(latents.shape)
        by_condition: dict[str, list[np.ndarray]] = {condition: [] for condition in CONDITIONS}
        for linear in self.maps:
            own, direction = (self.random.standard_normal((count, linear.shape[1])) for _ in "ab")
            by_condition["clean"].append(latents @ linear + self.own * own)
            by_condition["equivariance"].append(turned @ linear + self.own * own)
            for condition, level in NOISE.items():
                by_condition[condition].append(latents @ linear + self.own * own + 2 * level * direction)
        return by_condition


def layers(features: dict[str, list[np.ndarray]], k: int = 10) -> dict[str, semantic.Pair]:
    def layer(x: np.ndarray) -> Layer:
        return array_layer(x.astype(np.float32), [str(i) for i in range(len(x))], k)

    return {condition: (layer(a), layer(b)) for condition, (a, b) in features.items()}


def measured(pairs: dict[str, semantic.Pair], draws: int = 19, k: int = 10) -> semantic.SemanticEquivariance:
    rest = {condition: pair for condition, pair in pairs.items() if condition != "clean"}
    return semantic.semantic_equivariance(pairs["clean"], rest, Settings(k), draws, 0.05, 0)


# --- what it is -----------------------------------------------------------------------------------------------------


def test_it_is_the_mean_over_transformed_images_without_clean() -> None:
    features = Population(2).sample(80)
    result = measured(layers(features))
    alone = {condition: measure("cknna", a, b, k=10).value for condition, (a, b) in features.items()}
    clean = alone.pop("clean")
    assert {name: each.value for name, each in result.transformed.conditions.items()} == pytest.approx(alone)
    mean = np.mean(list(alone.values()))
    assert result.transformed.mean.value == pytest.approx(mean)
    assert result.clean.value == pytest.approx(clean)
    assert result.change.value == pytest.approx(mean - clean)
    assert result.relative.value == pytest.approx(mean / clean - 1)
    assert result.relative.low < result.relative.value < result.relative.high


def test_its_null_relabels_images_in_all_conditions_alike() -> None:
    pairs = layers(Population(2).sample(80))
    result = measured(pairs, draws=39)
    assert result.null is not None
    assert result.null.p[0, 0] == pytest.approx(1 / 40)
    # one condition, taken four times, has the null of that condition
    one = measured({"clean": pairs["clean"], **dict.fromkeys("abcd", pairs["equivariance"])}, draws=39)
    single = measured({"clean": pairs["clean"], "a": pairs["equivariance"]}, draws=39)
    assert one.null is not None
    assert single.null is not None
    assert one.null.sd[0, 0] == pytest.approx(single.null.sd[0, 0])
    assert result.null.sd[0, 0] < single.null.sd[0, 0]


def test_a_model_is_robust_where_nothing_changes() -> None:
    pairs = layers(Population(2).sample(60))
    clean = pairs["clean"][0]
    robustness = semantic.under_conditions(
        {"same": (clean, clean), "noise": (clean, pairs["noise_0.200"][0])}, Settings(10)
    )
    assert robustness.conditions["same"].value == pytest.approx(1)
    assert robustness.conditions["same"].error == pytest.approx(0, abs=1e-6)
    assert robustness.conditions["noise"].value < 0.9
    assert robustness.mean.value == pytest.approx((1 + robustness.conditions["noise"].value) / 2)


def test_an_undefined_condition_leaves_the_mean_undefined_and_the_others_alone() -> None:
    # images that are all orthogonal have no kernel off the diagonal, so the layer has no scale
    flat = layers({"x": [np.eye(60), np.eye(60)]})["x"]
    result = measured(layers(Population(2).sample(60)) | {"noise_0.050": flat})
    assert math.isnan(result.transformed.conditions["noise_0.050"].value)
    assert math.isnan(result.transformed.mean.value)
    assert math.isnan(result.transformed.mean.low)
    assert math.isnan(result.relative.value)
    assert result.null is None
    assert math.isfinite(result.transformed.conditions["noise_0.100"].value)


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "k"), [(0, 2), (1, 4)])
@pytest.mark.parametrize("metric", ["cknna", "mutual_knn", "cycle_knn"])
def test_influences_give_the_errors_in_closed_form(metric: str, seed: int, k: int) -> None:
    a, b = (side[:1] for side in lists_of(seed, 40, k))
    scorer = NeighborScores([metric], a, b, k)
    edges = scorer.influence(metric)
    error = math.sqrt(Covariances([edges]).of(np.ones((1, 1)))[0, 0])
    if METRICS[metric].competing:
        assert error >= scorer.spreads()[metric].error[0, 0]
    else:
        assert error == pytest.approx(scorer.spreads()[metric].error[0, 0], rel=1e-9)
    # a score does not change when all edges count twice
    assert edges.sum() == pytest.approx(0, abs=1e-9)


def test_eps_shrinks_influences_as_it_shrinks_the_score() -> None:
    a, b = (side[:1] for side in lists_of(0, 40, 4))
    scorer = NeighborScores(["cknna"], a, b, 4)
    eps = 1e-4
    ratio = scorer.scores(eps)["cknna"][0, 0] / scorer.scores()["cknna"][0, 0]
    without, with_eps = (
        math.sqrt(Covariances([scorer.influence("cknna", e)]).of(np.ones((1, 1)))[0, 0]) for e in (0, eps)
    )
    assert ratio < 0.999
    assert with_eps == pytest.approx(ratio * without, rel=0.2)


def test_covariances_are_those_of_sums() -> None:
    random = np.random.default_rng(0)
    x, y = (sparse.random_array((30, 30), density=0.1, rng=random, format="csr") for _ in "ab")
    weights = np.array([[0.3, 0.7], [1.0, -1.0]])
    both = Covariances([x, y]).of(weights)
    for i, (p, q) in enumerate(weights.tolist()):
        assert both[i, i] == pytest.approx(Covariances([p * x + q * y]).of(np.ones((1, 1)))[0, 0])
    assert both[0, 1] == pytest.approx(both[1, 0])


def test_the_interval_of_a_ratio() -> None:
    low, high = intervals.of_ratio(1.0, 2.0, np.diag([0.01, 1e-12])) or (0, 0)
    assert (low, high) == pytest.approx((0.5 - 0.98 * 0.1, 0.5 + 0.98 * 0.1), rel=1e-3)
    # wider towards large ratios, since the denominator may be small
    low, high = intervals.of_ratio(1.0, 2.0, np.diag([0.01, 0.2])) or (0, 0)
    assert high - 0.5 > 0.5 - low > 0
    # what varies together cancels
    together = intervals.of_ratio(1.0, 2.0, np.array([[0.01, 0.02], [0.02, 0.04]])) or (0, 0)
    assert together == pytest.approx((0.5, 0.5))
    assert intervals.of_ratio(1.0, 0.1, np.diag([0.01, 0.01])) is None


def test_intervals_cover_the_truth_of_the_mean_and_of_the_change() -> None:
    population = Population(2)
    rows = []
    for _ in range(200):
        result = measured(layers(population.sample(150)))
        estimates = (result.clean, result.transformed.mean, result.change, result.relative)
        rows.append([(each.value, each.error, each.low, each.high) for each in estimates])
    values, errors, low, high = np.moveaxis(np.array(rows), -1, 0)
    truth = values.mean(axis=0)
    truth[3] = truth[1] / truth[0] - 1
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    # 200 studies: 0.95 give or take 0.015
    assert (covered >= 0.905).all(), covered
    assert (covered <= 0.995).all(), covered
    assert errors[:, :3].mean(axis=0) == pytest.approx(values[:, :3].std(axis=0), rel=0.25)
    # scores of the same images vary together, so the change is known better than if they did not
    apart = np.sqrt((errors[:, 0] ** 2 + errors[:, 1] ** 2).mean())
    assert errors[:, 2].mean() < 0.7 * apart


# --- files ----------------------------------------------------------------------------------------------------------


class Written:
    """Neighbour files of two models under all conditions, and what the script makes of them."""

    def __init__(self, folder: Path, names: list[str] | None = None) -> None:
        self.folder = folder
        features = Population(2).sample(len(NAMES))
        for condition, pair in features.items():
            for side, values in zip("ab", pair, strict=True):
                lists = {"final": nearest_neighbors(unit_rows(values.astype(np.float32), NAMES), 20)}
                recipe = self.recipe(side, condition)
                write_neighbors(
                    self.path(condition, side), names or NAMES, lists, preparation_settings(Preparation()), recipe
                )
        self.settings, self.drawing = folder / "settings.json", folder / "drawing.json"
        self.settings.write_text(json.dumps({"k": 5, "eps": 0, "rbf_sigma": 1}))
        self.drawing.write_text(json.dumps({"permutations": 19, "alpha": 0.05, "seed": 0, "split_selection": False}))

    def path(self, condition: str, side: str) -> Path:
        return self.folder / f"{condition}_{side}.npz"

    @staticmethod
    def recipe(side: str, condition: str) -> dict[str, Any]:
        empty = dict.fromkeys(("noise", "conditioning", "autoencoder", "autoencoder_weights"))
        images = {
            "dataset": "d",
            "condition": condition,
            "kind": "folder",
            "size": 8,
            "seed": 0,
            "manifest_sha256": "0",
        }
        model = {"name": side, "layers": {"latent": "posterior"} if side == "b" else {"final": "norm"}}
        weights = {"format": 1, "source": "miniature", "sha256": {}}
        return {
            "bundle": {"a": "encoder", "b": "vae"}[side], "model": model, **empty, "images": images, "code": "0",
            "pooling": "mean", "weights": weights, "torch": "2",
            "modules": {"final": "norm"}, "spreads": {"final": 1.0},
        }  # fmt: skip

    def run(self, reference: str = "same", score_is: str = "raw") -> tuple[float, dict[str, Any]]:
        conditions = [name for name in CONDITIONS if name != "clean"]
        b = ["clean" if reference == "clean" else name for name in conditions]
        files = by_condition(
            CONDITIONS,
            [str(self.path(name, "a")) for name in CONDITIONS],
            [str(self.path(name, "b")) for name in ["clean", *b]],
        )
        score, recipe = self.folder / "score.npy", self.folder / f"{reference}.json"
        asked = {"reference": reference, "mean_over": "conditions", "score": score_is}
        se_cknna(files, ("final", "final"), self.settings, self.drawing, None, "d", asked, score, recipe)
        return float(np.load(score)), json.loads(recipe.read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("lists"))


def test_the_recipe_holds_all_that_was_measured(written: Written) -> None:
    value, recipe = written.run()
    jsonschema.validate(recipe, yaml.safe_load((ROOT / "schemas" / "recipe.schema.yaml").read_text()))
    assert (recipe["metric"], recipe["dataset"], recipe["reference"]) == ("se_cknna", "d", "same")
    assert recipe["value"] == value == pytest.approx(np.mean([each["value"] for each in recipe["conditions"].values()]))
    assert list(recipe["conditions"]) == CONDITIONS[1:]
    assert recipe["interval"]["low"] < value < recipe["interval"]["high"]
    assert recipe["change"]["value"] == pytest.approx(value - recipe["clean"]["value"])
    assert set(recipe["robustness"]) == {"a", "b"}
    assert recipe["images"]["noise_0.050"][0]["condition"] == "noise_0.050"


def test_with_a_clean_reference_the_second_model_sees_clean_images(written: Written) -> None:
    value, recipe = written.run("clean")
    assert value != pytest.approx(written.run()[0], abs=1e-6)
    assert set(recipe["robustness"]) == {"a"}
    assert recipe["images"]["noise_0.050"][1]["condition"] == "clean"
    assert recipe["clean"] == written.run()[1]["clean"]


def test_conditions_of_other_images_are_refused(tmp_path: Path) -> None:
    both = Written(tmp_path)
    (tmp_path / "other").mkdir()
    other = Written(tmp_path / "other", [*NAMES[:-1], "zebra"])
    for side in "ab":
        other.path("noise_0.100", side).replace(both.path("noise_0.100", side))
    with pytest.raises(StoreError, match="1 only in .*clean_a.npz: image059; 1 only in .*noise_0.100_a.npz: zebra"):
        both.run()


def test_the_table_and_the_figure_show_the_recipes(written: Written, tmp_path: Path) -> None:
    value, recipe = written.run()
    paths = [written.folder / "same.json"]
    se_cknna_table(paths, tmp_path / "t.tsv", tmp_path / "t.parquet")
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["se_cknna"].tolist() == [value]
    assert table[["kind_a", "kind_b"]].iloc[0].tolist() == ["encoder", "autoencoder"]
    assert table["relative_change"].iloc[0] == recipe["relative_change"]["value"]
    assert table["noise_0.200"].iloc[0] == recipe["conditions"]["noise_0.200"]["value"]
    assert table["miniature"].all()
    assert "metric" not in table
    assert len(pd.read_csv(tmp_path / "t.tsv", sep="\t").columns) == len(table.columns)
    outputs = [tmp_path / "f.png", tmp_path / "f.pdf"]
    se_cknna_figure(paths, [*outputs, tmp_path / "f.tsv", tmp_path / "f.parquet"])
    check_pictures(outputs)
    drawn = pd.read_parquet(tmp_path / "f.parquet").set_index(["a", "b", "condition"])
    assert len(drawn) == len(pd.read_csv(tmp_path / "f.tsv", sep="\t"))
    assert drawn.loc[("encoder final", "vae final", "clean"), "value"] == recipe["clean"]["value"]
    of_a = recipe["robustness"]["a"]["conditions"]
    assert drawn.loc[("encoder final", "", "noise_0.200"), "value"] == of_a["noise_0.200"]["value"]
    assert pair_label(recipe).startswith(f"encoder final vs vae final:\nSE-CKNNA {value:.3f}, ")
    # of undefined scores
    recipe["conditions"]["noise_0.100"] = dict.fromkeys(("value", "error", "low", "high"))
    recipe |= {"value": None, "interval": None, "null": None, "mean": recipe["conditions"]["noise_0.100"]}
    recipe["above_null"] = dict.fromkeys(("mean", "clean", "change", "relative"), recipe["mean"])
    recipe["conditions"]["noise_0.100"] |= {"null_mean": None}
    recipe["relative_change"] = recipe["change"] = recipe["conditions"]["noise_0.100"]
    paths.append(tmp_path / "undefined.json")
    paths[1].write_text(json.dumps(recipe))
    se_cknna_table(paths, tmp_path / "t.tsv", tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["se_cknna"].isna().tolist() == [False, True]
    se_cknna_figure(paths, outputs)
    check_pictures(outputs)


def test_scores_above_their_null_are_named(written: Written, tmp_path: Path) -> None:
    raw, recipe = written.run()
    value, above = written.run(score_is="above_null")
    assert (recipe["score"], above["score"]) == ("raw", "above_null")
    assert above["mean"] == recipe["mean"]
    null = recipe["null"]["mean"]
    assert null == pytest.approx(np.mean([each["null_mean"] for each in recipe["conditions"].values()]))
    assert value == pytest.approx(raw - null)
    assert above["interval"]["high"] - above["interval"]["low"] == pytest.approx(
        recipe["interval"]["high"] - recipe["interval"]["low"]
    )
    clean = recipe["clean"]["value"] - recipe["clean"]["null_mean"]
    assert above["above_null"]["relative"]["value"] == pytest.approx(value / clean - 1)
    assert above["above_null"]["change"]["value"] == pytest.approx(value - clean)
    paths = [written.folder / "same.json"]
    se_cknna_table(paths, tmp_path / "t.tsv", tmp_path / "t.parquet")
    row = pd.read_parquet(tmp_path / "t.parquet").iloc[0]
    assert row["score"] == "above_null"
    assert [row["se_cknna"], row["above_null"], row["null_mean"]] == pytest.approx([raw, value, null])
    assert row["relative_change_above_null"] == pytest.approx(value / clean - 1)
    # the figure has a dotted line at the null
    se_cknna_figure(paths, [tmp_path / "f.svg"])
    assert "Dots: mean of the null" in (tmp_path / "f.svg").read_text()


@pytest.mark.parametrize(
    ("side", "size", "arrives"), [(256, 224, 0.071), (256, 256, 0.100), (256, 1024, 0.081), (512, 224, 0.036)]
)
def test_noise_that_arrives_at_a_model_depends_on_its_resizing(side: int, size: int, arrives: float) -> None:
    reads = {"size": size, "interpolation": "bicubic", "antialias": True, "mean": [0.5] * 3, "std": [0.5] * 3}
    images = {"size": side, "condition": "noise_0.100", "noise": {"sigma": 0.09, "mean_shift": 0.01, "clipped": 0.2}}
    model = {"autoencoder": None, "model": {"input": reads}, "images": images}
    latent = {"autoencoder": {"input": reads}, "model": {"name": "sit"}, "images": images}
    clean = {**model, "images": {"size": side, "condition": "clean"}}
    found = noise_at_inputs({"clean": (clean, clean), "noise_0.100": (model, latent), "rotate_90": (clean, clean)})
    assert list(found) == ["noise_0.100"]
    assert found["noise_0.100"]["files"]["clipped"] == 0.2
    for of in "ab":
        assert found["noise_0.100"][of]["sigma"] == pytest.approx(arrives, abs=0.004)
    # a side that sees clean images has no noise
    assert noise_at_inputs({"noise_0.100": (model, clean)})["noise_0.100"]["b"] == {"gain": None, "sigma": None}


def test_clipping_is_said() -> None:
    # dark grey and noise of a fifth of the range: half of it is cut, which brightens the image
    clean = np.full((128, 128, 3), 5, np.uint8)
    noisy = transforms.transformed(clean, 0, transforms.noise(clean.shape, 0.2, "name", 0, "a", 0))
    grey = np.full((128, 128, 3), 128, np.uint8)
    fine = transforms.transformed(grey, 0, transforms.noise(grey.shape, 0.05, "name", 0, "a", 0))
    dark, middle = (transforms.noise_of_files([transforms.difference(a, b)]) for a, b in ((clean, noisy), (grey, fine)))
    assert dark["sigma"] == pytest.approx(0.12, abs=0.005)
    assert dark["mean_shift"] == pytest.approx(0.07, abs=0.005)
    assert dark["clipped"] == pytest.approx(0.46, abs=0.02)
    assert middle["sigma"] == pytest.approx(0.05, abs=0.001)
    assert middle["clipped"] == 0
    # over images, all values count alike
    both = transforms.noise_of_files([transforms.difference(clean, noisy), transforms.difference(grey, fine)])
    assert both["clipped"] == pytest.approx(dark["clipped"] / 2)
    with pytest.raises(transforms.ImageError, match="a noisy image is"):
        transforms.difference(clean, noisy[:8])


def test_kinds_of_models() -> None:
    side = Written.recipe("a", "clean")
    assert kind(side) == "encoder"
    assert kind({**side, "autoencoder": {"name": "vae"}}) == "diffusion"
    assert kind({**side, "model": {**side["model"], "features": {"path": "x"}}}) == "precomputed"
