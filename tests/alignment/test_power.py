"""What a study of this size can show, and the limits of scores as N grows."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import t
from test_unlisted_sides import COUNT, NAMES, K, search, write_bundle, write_settings

from diffalign.alignment.groups import Groups
from diffalign.alignment.moments import CONCENTRATED
from diffalign.alignment.power import (
    N_ALONE,
    RATIO,
    fewest,
    images_needed,
    limits,
    parts_of,
    smallest_difference,
    smallest_score,
)
from diffalign.alignment.settings import Preparation
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.recipes import Where
from power_table import power_table

Array = NDArray[np.float64]


def test_the_smallest_score_is_found_with_its_power() -> None:
    # the spread of the null and of the score are the same: threshold + 0.8416 sd
    assert smallest_score(0.5, 0.01, (0.1, 0.01, 0.12), 0.8) == pytest.approx(0.12 + 0.8416 * 0.01, abs=1e-6)
    # a spread between both, at the score itself
    found = smallest_score(0.5, 0.05, (0.1, 0.01, 0.12), 0.8)
    variance = 0.01**2 + (0.05**2 - 0.01**2) * (found - 0.1) / 0.4
    assert found == pytest.approx(0.12 + 0.8416212 * math.sqrt(variance), abs=1e-6)
    # a power below one half lies below the threshold
    assert smallest_score(0.5, 0.05, (0.1, 0.01, 0.12), 0.3) < 0.12
    # of a score below its threshold nothing but the null is known
    assert smallest_score(0.11, 9.0, (0.1, 0.01, 0.12), 0.8) == pytest.approx(0.12 + 0.8416 * 0.01, abs=1e-6)
    # with few groups more is needed
    assert smallest_score(0.5, 0.05, (0.1, 0.01, 0.12), 0.8, 4) > found
    assert math.isnan(smallest_score(0.5, 0.05, (0.1, 0.01, math.nan), 0.8))


def test_the_smallest_difference_and_the_images_of_another() -> None:
    assert smallest_difference(0.01, 0.05, 0.8) == pytest.approx((1.959964 + 0.841621) * 0.01 * math.sqrt(2), abs=1e-7)
    half = smallest_difference(0.01, 0.05, 0.8, correlation=0.5)
    assert half == pytest.approx(smallest_difference(0.01, 0.05, 0.8) / math.sqrt(2))
    assert smallest_difference(0.03, 0.05, 0.8, other=0.04) == pytest.approx(2.801585 * 0.05, abs=1e-6)
    assert math.isnan(smallest_difference(math.nan, 0.05, 0.8))
    assert math.isnan(smallest_difference(0.01, 0.05, 0.8, other=math.nan))
    # half the difference, four times the images
    assert images_needed(100, 0.04, 0.02) == 400
    assert math.isnan(images_needed(100, math.nan, 0.02))


def test_k_is_divided_as_images_are() -> None:
    assert parts_of(10, of_lists=True) == (1, 2, 5)
    assert parts_of(12, of_lists=True) == (1, 2, 3)
    assert parts_of(7, of_lists=True) is None
    # one neighbour is too few
    assert parts_of(4, of_lists=True) is None
    assert parts_of(7, of_lists=False) == (1, 2, 4)


def alone(count: int) -> Groups:
    return Groups.of([str(i) for i in range(count)])


def test_a_limit_is_the_end_of_the_law_and_no_other() -> None:
    values = np.random.default_rng(0).standard_normal(400)

    def curve(names: Sequence[str], keep: NDArray[np.intp], k: int) -> dict[str, float]:
        mean = 0.3 + 0.05 * values[keep].mean()
        return {"cka": mean + 20 / len(keep), "mutual_knn": mean - 10 / len(keep), "cknna": mean + 200 / len(keep) ** 2}

    found = limits(["cka", "mutual_knn", "cknna", "ridge"], curve, alone(400), 10, 0)
    expected = 0.3 + 0.05 * values.mean()
    for metric, of in (("cka", N_ALONE), ("mutual_knn", RATIO)):
        limit = found[metric]
        assert (limit.of, limit.reason) == (of, "")
        assert limit.value == pytest.approx(expected, abs=0.003)
        assert limit.high - limit.low == pytest.approx(2 * 2.26 * 0.05 / 20, rel=0.6)
        assert limit.low < expected < limit.high
    assert "three points are on no line" in found["cknna"].reason
    assert math.isnan(found["cknna"].value)
    assert found["ridge"].reason == "no law of its bias in N is known"


@pytest.mark.parametrize(
    ("count", "k", "reason"), [(40, 10, "are too few for 5 parts of 10 each"), (400, 7, "k = 7 has no two divisors")]
)
def test_a_limit_is_refused_where_it_is_not_identified(count: int, k: int, reason: str) -> None:
    found = limits(["mutual_knn"], lambda names, keep, at: {"mutual_knn": 0.1}, alone(count), k, 0)
    assert reason in found["mutual_knn"].reason


@pytest.mark.parametrize("of_lists", [True, False])
def test_a_limit_is_refused_where_a_large_group_leaves_a_small_part(of_lists: bool) -> None:
    """Whole groups are dealt: one of 900 images and 100 of one image make parts of 950 and 50."""
    k, metric = (100, "mutual_knn") if of_lists else (10, "cka")

    def curve(names: Sequence[str], keep: NDArray[np.intp], at: int) -> dict[str, float]:
        assert len(keep) >= 5 * at, f"k = {at} but {len(keep)} images"
        return dict.fromkeys(names, 0.5)

    groups = Groups.of(["large"] * 900 + [str(i) for i in range(100)])
    limit = limits([metric], curve, groups, k, 0)[metric]
    assert math.isnan(limit.value)
    assert "a part of whole groups has" in limit.reason
    assert "too few for k = " in limit.reason


def tabled(
    folder: Path, sides: Sequence[Array], shown: Sequence[str], preparation: Preparation, manifest: Path | None = None
) -> pd.DataFrame:
    """The table of a pair of layers."""
    files = [write_bundle(folder / side, side, {"b0": rows}) for side, rows in zip("ab", sides, strict=True)]
    outputs = folder / "p.tsv", folder / "p.parquet"
    alignment, calibration = write_settings(folder)
    power_table(
        (files[0], files[1]),
        ("b0", "b0"),
        alignment,
        calibration,
        Where("digits", "clean"),
        shown,
        (0.8, 0.05, 0.5),
        search(preparation=preparation, manifest=manifest),
        outputs,
    )
    assert len(pd.read_csv(outputs[0], sep="\t")) == len(shown)
    return pd.read_parquet(outputs[1]).set_index("metric")


def noisy(spread: float = 0.5) -> list[Array]:
    """Two layers of the same six dimensions, each with noise of its own."""
    random = np.random.default_rng(0)
    target = random.standard_normal((COUNT, 6))
    return [target + spread * random.standard_normal(target.shape) for _ in range(2)]


def test_a_score_without_an_error_says_why(tmp_path: Path) -> None:
    """Two images that are 30 times as long make most of both kernels."""
    sides = noisy()
    for rows in sides:
        rows[:2] *= 30
    table = tabled(tmp_path, sides, ["cka", "unbiased_cka", "mutual_knn"], Preparation(normalize=None))
    missing = ["error", "smallest_score", "smallest_difference", "images_needed"]
    for metric in ("cka", "unbiased_cka"):
        assert math.isfinite(table.loc[metric, "threshold"])
        assert table.loc[metric, missing].isna().all()
        for column in ("smallest_score_reason", "smallest_difference_reason"):
            assert table.loc[metric, column] == CONCENTRATED
    row = table.loc["mutual_knn"]
    assert row[missing].notna().all()
    assert (row["smallest_score_reason"], row["smallest_difference_reason"]) == ("", "")


def test_parts_are_counted_less_what_the_jackknife_leaves_out() -> None:
    # parts of 4 and 2 images; 3 of the first and 1 of the second are left out at once
    assert fewest(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])) == 1
    assert fewest(np.zeros(10, np.int64), np.arange(10) % 5) == 8


def test_images_of_one_group_have_no_error(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.tsv"
    images = [Image(name, "", -1, "", "", "", "", group="film") for name in NAMES]
    write_manifest(manifest, manifest.with_suffix(".json"), images, {})
    table = tabled(tmp_path, noisy(), ["mutual_knn"], Preparation(center=True), manifest)
    row = table.loc["mutual_knn"]
    assert math.isnan(row["smallest_difference"])
    assert row["smallest_difference_reason"] == "images of one group have no error over groups"
    assert "have 1 arrangements" in row["smallest_score_reason"]


def test_the_table_of_a_pair(tmp_path: Path) -> None:
    table = tabled(tmp_path, noisy(), ["mutual_knn", "unbiased_cka", "ridge"], Preparation(center=True))
    row = table.loc["mutual_knn"]
    assert row["threshold"] < row["smallest_score"] < row["score"]
    assert row["smallest_difference"] == pytest.approx(
        (t.ppf(0.975, COUNT - 1) + t.ppf(0.8, COUNT - 1)) * row["error"], rel=1e-6
    )
    assert row["images_needed"] == math.ceil(COUNT * (row["smallest_difference"] / 0.05) ** 2)
    assert (table.loc["ridge", "smallest_score_reason"], row["k"]) == ("the metric has no null", K)
    assert "has no two divisors" in row["limit_reason"]
    unbiased = table.loc["unbiased_cka"]
    assert "are too few" in unbiased["limit_reason"] or unbiased["limit_low"] < unbiased["limit_high"]
