"""The right rung takes what is planted: classes, pixels, or something beyond both; the table and figure of a pair."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from test_figures import check_pictures, legible  # noqa: F401  (a fixture)
from test_unlisted_sides import search, write_bundle, write_settings

from diffalign.alignment import ladder as nulls
from diffalign.alignment import partial
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Layer, Settings
from diffalign.alignment.settings import Preparation
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.recipes import Where
from diffalign.io.unlisted_sides import Search, searched
from ladder import NOT_ABOVE, Asked, Inputs, ladder
from ladder_figure import ladder_figure

COUNT, K, DRAWS = 160, 8, 19
NAMES = [f"n{i:03d}" for i in range(COUNT)]
LABELS = [str(i % 8) for i in range(COUNT)]
METRICS = ["mutual_knn", "cknna"]
RULES = Search(Preparation(normalize=None), K, 0, 200, 1)
Rows = NDArray[np.float32]


class World:
    """Two layers that see classes, pixels and something else, each with noise of its own."""

    def __init__(self, seed: int, classes: float, pixels: float, beyond: float) -> None:
        random = np.random.default_rng(seed)
        self.pixels = random.standard_normal((COUNT, 6))
        seen = {
            "classes": classes * random.standard_normal((8, 6))[[int(label) for label in LABELS]],
            "pixels": pixels * self.pixels,
            "beyond": beyond * random.standard_normal((COUNT, 6)),
        }
        everything = np.concatenate(list(seen.values()), axis=1)
        self.a, self.b = (
            np.asarray(everything @ random.standard_normal((18, 24)) + random.standard_normal((COUNT, 24)), np.float32)
            for _ in range(2)
        )

    def controls(self, given: Sequence[str]) -> partial.Controls:
        columns = {"labels": partial.one_hot(LABELS), "pixels": self.pixels}
        return partial.controls([columns[name] for name in given], NAMES)

    def left(self, *given: str) -> dict[str, nulls.Conditional]:
        groups = Groups.of(NAMES)
        exchanges = groups.exchanges_within(LABELS) if "labels" in given else groups.exchanges
        how = (Settings(K), DRAWS, 0.05, 0)
        return nulls.conditional(METRICS, (self.a, self.b), self.controls(given), exchanges, *how, as_layer)

    def beyond(self, *given: str) -> partial.Estimate:
        return partial.beyond(self.a, self.b, self.controls(given)).share


def as_layer(rows: Rows) -> Layer:
    return searched(rows, NAMES, RULES)


CHANCE = K / (COUNT - 1)


@pytest.mark.parametrize(
    ("classes", "pixels", "rung", "other"), [(1.0, 0.0, "labels", "pixels"), (0.0, 1.0, "pixels", "labels")]
)
def test_the_right_rung_takes_all_that_is_planted(classes: float, pixels: float, rung: str, other: str) -> None:
    world = World(3, classes, pixels, 0.0)
    taken, kept = world.left(rung), world.left(other)
    for metric in METRICS:
        assert taken[metric].p > 0.05
        assert kept[metric].p == 1 / (DRAWS + 1)
    assert abs(taken["mutual_knn"].share(CHANCE)) < 0.12
    assert kept["mutual_knn"].share(CHANCE) > 0.8
    # the same of linear kernels
    assert world.beyond(rung).low <= 0 <= world.beyond(rung).high
    assert world.beyond(other).low > 0.5


def test_what_no_rung_explains_is_left_at_the_end() -> None:
    world = World(4, 0.6, 0.6, 0.8)
    shares = [world.left(*given) for given in (("labels",), ("pixels",), ("labels", "pixels"))]
    alone = [each["mutual_knn"].share(CHANCE) for each in shares]
    assert all(each[metric].p == 1 / (DRAWS + 1) for each in shares for metric in METRICS)
    # both controls explain more than each of them, and not all
    assert 0.15 < alone[2] < min(alone[:2])
    assert world.beyond("labels", "pixels").low > 0


def test_classes_alone_are_exchanges_within_classes() -> None:
    world = World(5, 1.0, 0.0, 0.0)
    order = next(iter(Groups.of(NAMES).exchanges_within(LABELS).orders(1, 0)))
    (moved,) = nulls.moved(world.b, world.controls(["labels"]), Groups.of(NAMES).exchanges_within(LABELS), 1, 0)
    np.testing.assert_allclose(moved, world.b[order], atol=1e-5)


def test_what_cannot_be_asked_is_refused() -> None:
    world = World(6, 1.0, 0.0, 0.0)
    how = (Settings(K), DRAWS, 0.05, 0, as_layer)
    exchanges, given = Groups.of(NAMES).exchanges, world.controls(["pixels"])
    with pytest.raises(ValueError, match="not on lists have no conditional null: cka"):
        nulls.conditional(["cka"], (world.a, world.b), given, exchanges, *how)
    with pytest.raises(ValueError, match="160 and 159 rows"):
        nulls.conditional(METRICS, (world.a, world.b[1:]), given, exchanges, *how)
    fewer = Groups.of([f"g{i // 80}" for i in range(COUNT)]).exchanges
    refused = nulls.conditional(METRICS[:1], (world.a, world.b), given, fewer, *how)["mutual_knn"]
    assert np.isnan(refused.p)
    assert np.isfinite(refused.mean)
    assert "have 2 arrangements" in str(refused.reason)
    assert nulls.refusal(1000, [64, 64], 99) is None
    assert "more than 2e+14" in str(nulls.refusal(100_000, [1024, 1024], 99))


def write_images(path: Path, labels: Sequence[str], size: int) -> Path:
    images = [
        Image(name, label, int(label) if label else -1, "", "", "", "", group=f"g{i // size:03d}" if size > 1 else name)
        for i, (name, label) in enumerate(zip(NAMES, labels, strict=True))
    ]
    write_manifest(path, path.with_suffix(".json"), images, {})
    return path


def written(folder: Path, world: World, size: int = 1, labels: Sequence[str] = LABELS) -> Path:
    """The table of a ladder with all rungs. size: images of a group."""
    random = np.random.default_rng(9)
    layers = {
        "a": (world.a, "b0"),
        "b": (world.b, "b0"),
        "twin": (world.a @ random.standard_normal((24, 24)) + 8 * random.standard_normal((COUNT, 24)), "b0"),
        "noise": (random.standard_normal((COUNT, 24)), "b0"),
        "pixels": (world.pixels, "p8"),
    }
    at = {
        name: write_bundle(folder / name, f"{name}-x" if name in ("twin", "noise") else name, {layer: rows}, NAMES)
        for name, (rows, layer) in layers.items()
    }
    manifest = write_images(folder / "manifest.tsv", labels, size)
    inputs = Inputs(
        (at["a"], "b0"),
        (at["b"], "b0"),
        {"labels": None, "untrained": None, "pixels_p8": (at["pixels"], "p8")},
        {"a": at["twin"]},
        {"b": at["noise"]},
        manifest,
    )
    outputs = folder / "ladder.tsv", folder / "ladder.parquet"
    asked = Asked(["mutual_knn", "unbiased_cka", "ridge"], 8, DRAWS)
    rules = replace(search(K), manifest=manifest)
    ladder(inputs, asked, write_settings(folder, K), Where("theirs", "clean"), rules, outputs)
    return outputs[0]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("ladder"), World(7, 0.0, 1.0, 0.0))


def test_every_rung_has_its_rows(table: Path) -> None:
    frame = pd.read_csv(table, sep="\t", keep_default_na=False, na_values=[""])
    rivals = frame[frame["part"] == "rival"].groupby("rung")["replaced"].agg(lambda sides: "".join(sorted(set(sides))))
    assert dict(rivals) == {"labels": "ab", "pixels_p8": "ab", "pure noise": "b", "untrained": "a"}
    left = frame[(frame["part"] == "left") & (frame["metric"] == "mutual_knn")].set_index(["rung", "cumulative"])
    assert left.loc[("chance", False), "share"] == 1
    assert list(left["given"].dropna()) == [
        *("labels", "labels", "labels+untrained", "untrained", "labels+untrained+pixels_p8", "pixels_p8")
    ]
    assert left.loc[("labels", True), "method"] == "permutations"
    assert left.loc[("labels", True), "p"] < 0.05
    assert left.loc[("pixels_p8", False), "method"] == "residuals"
    assert left.loc[("pixels_p8", False), "p"] > 0.05
    assert abs(left.loc[("pixels_p8", False), "share"]) < 0.15
    linear = frame[(frame["part"] == "left") & (frame["metric"] == "unbiased_cka")].set_index(["rung", "cumulative"])
    assert linear.loc[("pixels_p8", True), "share_low"] <= 0 <= linear.loc[("pixels_p8", True), "share_high"]
    assert linear.loc[("labels", True), "p"] < 0.05
    # a metric without a null has rivals and nothing that is left
    assert set(frame.loc[frame["metric"] == "ridge", "part"]) == {"pair", "rival"}
    noise = frame[(frame["rung"] == "pure noise") & (frame["metric"] == "mutual_knn")]
    assert noise["p"].item() > 0.05


def test_groups_are_exchanged_as_wholes_on_every_rung(tmp_path: Path) -> None:
    frame = pd.read_parquet(written(tmp_path, World(7, 0.0, 1.0, 0.0), 4).with_suffix(".parquet"))
    left = frame[(frame["part"] == "left") & (frame["metric"] == "mutual_knn")]
    assert list(dict.fromkeys(left["rung"]))[:3] == ["chance", "groups", "within groups"]
    exchanged = left.drop_duplicates("rung").set_index("rung")["exchanged"]
    assert (exchanged["chance"], exchanged["groups"], exchanged["pixels_p8"]) == (COUNT, COUNT // 4, COUNT // 4)
    assert (frame["groups"] == COUNT // 4).all()


def test_a_share_of_a_score_at_chance_says_why_it_is_missing(tmp_path: Path) -> None:
    world = World(7, 0.0, 1.0, 0.0)
    world.b = np.random.default_rng(1).standard_normal(world.b.shape).astype(np.float32)
    frame = pd.read_parquet(written(tmp_path, world).with_suffix(".parquet"))
    left = frame[frame["part"] == "left"].fillna({"reason": ""})
    chance = left[left["rung"] == "chance"].set_index("metric")
    assert (chance["p"] > 0.05).all()
    moved = left[left["method"] != "regression"]
    assert {"chance", "labels", "pixels_p8"} <= set(moved["rung"])
    assert moved["share"].isna().all()
    assert (moved["reason"] == NOT_ABOVE).all()
    # of linear kernels given controls the share is of covariance, and not above chance
    regressed = left.loc[left["method"] == "regression", "reason"]
    assert (regressed == "the layers do not share significant covariance").all()
    # nothing else misses a share
    assert (frame.loc[frame["part"] != "left", "reason"].fillna("") != NOT_ABOVE).all()


def test_a_missing_p_keeps_its_reason_beside_that_of_the_share(tmp_path: Path) -> None:
    """Two groups of images have two arrangements, so that there is no p of groups."""
    frame = pd.read_parquet(written(tmp_path, World(7, 0.0, 1.0, 0.0), 80).with_suffix(".parquet"))
    left = frame[(frame["part"] == "left") & (frame["metric"] == "mutual_knn")].fillna({"reason": ""})
    left = left.drop_duplicates("rung").set_index("rung")
    assert left.loc["chance", ["share", "reason"]].tolist() == [1, ""]
    assert np.isfinite(left.loc["groups", "share"])
    assert left.loc["groups", "reason"].startswith("2 groups (2 of 80 images) have 2 arrangements")
    assert NOT_ABOVE not in left.loc["groups", "reason"]
    world = World(7, 0.0, 1.0, 0.0)
    world.b = np.random.default_rng(1).standard_normal(world.b.shape).astype(np.float32)
    frame = pd.read_parquet(written(tmp_path, world, 80).with_suffix(".parquet"))
    (groups,) = frame[(frame["rung"] == "groups") & (frame["metric"] == "mutual_knn")]["reason"]
    assert "have 2 arrangements" in groups
    assert groups.endswith(f"; {NOT_ABOVE}")


def test_images_without_a_label_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="1 images have no label, first: n000"):
        written(tmp_path, World(7, 0.0, 1.0, 0.0), labels=["", *LABELS[1:]])


@pytest.mark.usefixtures("legible")
def test_the_ladder_is_drawn(table: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"ladder.{kind}" for kind in ("png", "pdf")]
    ladder_figure(table, outputs, 0.05)
    check_pictures(outputs)
