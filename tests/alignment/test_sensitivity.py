"""Scores under other preparations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_curves import COUNT, NAMES, K, related, write_settings, write_side

from diffalign.alignment import Preparation, measure
from diffalign.alignment.preparation import clamp_bound, unit_rows
from diffalign.alignment.settings import PARITY, PARITY_EPS
from diffalign.io import prepared_features
from diffalign.io.recipes import Where
from sensitivity_table import ALTERNATIVES, IN_FORCE, PUBLISHED, sensitivity_table

SHOWN = ("cknna", "cka")
CENTRED = Preparation(center=True)


def layers(seed: int, values: np.ndarray) -> dict[str, np.ndarray]:
    """A layer to be looked at, and one of larger features that a bound of the whole model depends on."""
    other = 5 * np.random.default_rng(seed).standard_normal(values.shape)
    return {"b0": values, "b1": other}


def written(tmp_path: Path, width: int, eps: float = 0.0) -> tuple[pd.DataFrame, list[dict[str, np.ndarray]]]:
    """The table of a pair whose study centres features, and the features."""
    features = [layers(seed, values) for seed, values in enumerate(related(width))]
    files = [
        write_side(tmp_path / side, side, layers_of_side, CENTRED)
        for side, layers_of_side in zip("ab", features, strict=True)
    ]
    alignment, calibration = write_settings(tmp_path, eps=eps)
    tsv, parquet = tmp_path / "s.tsv", tmp_path / "s.parquet"
    where, pair = Where("theirs", "clean"), (files[0], files[1])
    sensitivity_table(pair, ("b0", "b0"), alignment, calibration, None, where, SHOWN, tsv, parquet, 100, 1)
    frame = pd.read_parquet(parquet)
    again = pd.read_csv(tsv, sep="\t")
    assert again.columns.tolist() == frame.columns.tolist()
    assert again["score"].to_numpy() == pytest.approx(frame["score"].to_numpy(), nan_ok=True)
    return frame.set_index(["preparation", "metric"]), features


def test_every_row_is_the_score_under_its_preparation(tmp_path: Path) -> None:
    frame, features = written(tmp_path, 12)
    assert list(dict.fromkeys(frame.index.get_level_values(0))) == [IN_FORCE, *ALTERNATIVES, *PUBLISHED]
    a, b = features[0]["b0"], features[1]["b0"]
    for name, preparation in ({IN_FORCE: CENTRED} | ALTERNATIVES).items():
        for metric in SHOWN:
            expected = measure(metric, np.float32(a), np.float32(b), k=K, preparation=preparation, names=NAMES).value
            assert frame.loc[(name, metric), "score"] == pytest.approx(expected, abs=1e-7), (name, metric)
            assert frame.loc[(name, metric), "eps"] == 0
    assert frame.loc[(IN_FORCE, "cknna"), "center"]
    assert frame.loc[("centred", "cknna"), "null_mean"] == frame.loc[(IN_FORCE, "cknna"), "null_mean"]
    assert (frame["skipped"] == "").all()
    assert (frame["n"] == COUNT).all()
    assert frame[["null_mean", "null_sd", "z", "p", "calibrated"]].notna().all(axis=None)


def test_what_published_scripts_do_is_pooled_and_has_their_eps(tmp_path: Path) -> None:
    frame, features = written(tmp_path, 12)
    rows = []
    for layers_of_side in features:
        everything = [np.float32(values) for values in layers_of_side.values()]
        bound = clamp_bound(everything, 0.95, "per_image")
        rows.append(unit_rows(everything[0], NAMES, PARITY["platonic"], bound))
    for metric in SHOWN:
        expected = measure(metric, *rows, k=K, eps=PARITY_EPS).value
        assert frame.loc[("parity platonic", metric), "score"] == pytest.approx(expected, abs=1e-6)
    own = frame.loc[("clamp, per image", "cknna"), "score"]
    assert frame.loc[("parity platonic", "cknna"), "score"] != pytest.approx(own, abs=1e-4)
    a, b = (np.float32(layers_of_side["b0"]) for layers_of_side in features)
    expected = measure("cknna", a, b, k=K, eps=PARITY_EPS, preparation=PARITY["vfm-vae"]).value
    assert frame.loc[("parity vfm-vae", "cknna"), "score"] == pytest.approx(expected, abs=1e-9)
    # the same preparation under the eps of the study
    assert frame.loc[("clamp, exact", "cknna"), "score"] > frame.loc[("parity vfm-vae", "cknna"), "score"]
    assert frame.loc[("parity vfm-vae", "cknna"), "eps"] == PARITY_EPS


def test_whitening_is_skipped_with_a_reason_where_images_are_few(tmp_path: Path) -> None:
    frame, _ = written(tmp_path, COUNT - 1)
    skipped = frame.loc["whitened"]
    assert skipped["score"].isna().all()
    path = tmp_path / "a" / "bundle" / "b0.pt"
    assert set(skipped["skipped"]) == {f"{path}: whitening 63 dimensions needs more than 64 images, got 64"}
    assert frame.loc[frame["skipped"] == "", "score"].notna().all()


def test_layers_of_one_width_are_clamped_together(tmp_path: Path) -> None:
    narrow = np.random.default_rng(0).standard_normal((COUNT, 4))
    same = write_side(tmp_path / "same", "a", {"b0": narrow, "b1": 2 * narrow}, Preparation())
    mixed = write_side(tmp_path / "mixed", "b", {"b0": narrow, "b1": np.c_[narrow, narrow]}, Preparation())
    assert same.features is not None
    assert mixed.features is not None
    pooled = prepared_features.clamp_bounds(same.features, ["b0", "b1"], PARITY["platonic"])
    single = prepared_features.clamp_bounds(mixed.features, ["b0", "b1"], PARITY["platonic"])
    assert pooled["b0"] == pooled["b1"]
    assert single["b0"] != single["b1"]
    assert single["b0"] == clamp_bound([np.float32(narrow)], 0.95, "per_image")
    assert prepared_features.clamp_bounds(same.features, ["b0"], Preparation()) == {}
