"""Alignment against how well language models predict texts: tables, rank correlations over series, figures."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from test_figures import check_pictures, legible, read_pairs, write  # noqa: F401  (a fixture)

from bits_per_byte_figure import bits_per_byte_figure
from bits_per_byte_table import Language, bits_per_byte_table
from diffalign.alignment.rank_correlation import over_series, spearman

__all__ = ["write"]  # a fixture

SERIES = ["bloomz"] * 5 + ["openllama"] * 3 + ["llama"] * 4


def of_series(seed: int, within: float, between: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of twelve models of three series, correlated within them and between."""
    rng = np.random.default_rng(seed)
    place = np.repeat([-10.0, 0, 10], [5, 3, 4])
    x = rng.standard_normal(12)
    return x + place, within * x + between * place


def test_the_rank_correlation_is_spearmans_with_ties() -> None:
    x = np.array([1.0, 2, 2, 5, 3, 3])
    y = np.array([0.0, 0, 4, 9, 1, 4])
    assert math.isclose(spearman(x, y), spearmanr(x, y).statistic)
    # without ties, 1 - 6 Σd² / n(n² - 1)
    assert math.isclose(spearman(np.array([1.0, 2, 3, 4, 5]), np.array([20.0, 10, 30, 50, 40])), 1 - 6 * 4 / 120)
    assert math.isnan(spearman(x, np.ones(6)))
    assert math.isnan(spearman(x[:2], y[1:3]))


def test_series_make_a_correlation_that_is_not_within_them() -> None:
    found = over_series(*of_series(0, -1.0, 1.0), SERIES, 0)
    assert found.rho > 0.5
    assert found.within == -1
    assert (found.models, found.series, found.pairs) == (12, 3, 10 + 3 + 6)
    # a resample of one series three times has the correlation within it
    assert found.low == pytest.approx(-1, abs=1e-12)
    same = over_series(*of_series(0, 1.0, 1.0), SERIES, 0)
    assert (same.rho, same.low, same.high, same.within) == pytest.approx((1, 1, 1, 1), abs=1e-12)


def test_the_interval_is_of_series_and_not_of_models() -> None:
    """Series that are one model each, many times, are as many observations as there are series."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 6))
    names = [f"s{i}" for i in range(6)]
    once = over_series(x, y, names, 0)
    repeated = over_series(np.repeat(x, 9), np.repeat(y, 9), [name for name in names for _ in range(9)], 0)
    assert (once.low, once.high) == pytest.approx((repeated.low, repeated.high))
    assert once.high - once.low > 0.5


def test_the_interval_depends_on_no_order_and_on_the_seed() -> None:
    x, y = of_series(1, 0.3, 0.1)
    order = np.random.default_rng(0).permutation(12)
    first = over_series(x, y, SERIES, 0)
    assert first == pytest.approx(over_series(x[order], y[order], [SERIES[i] for i in order], 0))
    assert over_series(x, y, SERIES, 0) == first


def test_too_few_series_have_no_interval_and_numbers_must_be_finite() -> None:
    x, y = of_series(0, 1.0, 1.0)
    found = over_series(x[:8], y[:8], SERIES[:8], 0)
    assert [math.isnan(found.low), math.isnan(found.high), found.rho] == [True, True, pytest.approx(1, abs=1e-12)]
    # a series of a single model has no correlation of its own, so many resamples have none
    alone = over_series(x[[0, 5, 8]], y[[0, 5, 8]], ["a", "b", "c"], 0)
    assert [math.isnan(alone.low), math.isnan(alone.within), alone.pairs] == [True, True, 0]
    with pytest.raises(ValueError, match="needs finite values"):
        over_series(x, np.full(12, np.nan), SERIES, 0)
    with pytest.raises(ValueError, match="12 and 12 values of models of 11 series"):
        over_series(x, y, SERIES[1:], 0)


def quality(folder: Path, bundle: str, bits: float | None) -> Path:
    """What an extraction says of a language model."""
    path = folder / f"{bundle}.json"
    facts = {"format": 1, "bundle": bundle, "class": "X", "conditioning": "caption", "parameters": 10**9}
    path.write_text(json.dumps(facts | {"loss": bits, "bits_per_byte": bits}))
    return path


MODELS: Mapping[str, tuple[str, float | None]] = {
    "bloom1": ("bloomz", 1.2),
    "bloom2": ("bloomz", 1.1),
    "llama1": ("llama", 0.9),
    "llama2": ("llama", 0.8),
    "olmo1": ("olmo", 1.0),
    "minilm": ("minilm", None),
}


@pytest.fixture
def tables(write: Callable[..., Any], tmp_path: Path) -> dict[str, Path]:
    """Tables of six language models beside two others; the language model is b with one of them, a with the other."""
    pairs, languages = [], []
    for i, (name, (series, bits)) in enumerate(MODELS.items()):
        for other, side in (("dinov2", "b"), ("sdvae", "a")):
            best = 0.3 + 0.05 * i if side == "b" else 0.8 - 0.05 * i
            a, b = (other, name) if side == "b" else (name, other)
            pairs.append(write("mutual_knn", a, b, np.array([[0.1, best, 0.0], [0.2, 0.1, 0.05]])))
            languages.append(Language(side, "", series, quality(tmp_path, name, bits)))
    outputs = {key: tmp_path / f"{key}.{key.split('_')[-1]}" for key in ("tsv", "parquet")}
    outputs |= {f"correlations_{key}": tmp_path / f"correlations.{key}" for key in ("tsv", "parquet")}
    bits_per_byte_table(read_pairs(pairs), languages, 0, outputs)
    return outputs


def test_rows_have_quality_and_the_best_layers_of_both_sides(tables: dict[str, Path]) -> None:
    found = pd.read_parquet(tables["parquet"])
    assert len(found) == 12
    first, second = found.iloc[0], found.iloc[1]
    assert first[["other", "language", "layer_other", "layer_language"]].tolist() == ["dinov2", "bloom1", "b0", "b1"]
    assert second[["other", "language", "layer_other", "layer_language"]].tolist() == ["sdvae", "bloom1", "b1", "b0"]
    assert first[["bits_per_byte", "maximum", "parameters"]].tolist() == [1.2, 0.3, 1e9]
    assert found.loc[found["language"] == "minilm", "bits_per_byte"].isna().all()
    again = pd.read_csv(tables["tsv"], sep="\t")
    assert again["maximum"].tolist() == pytest.approx(found["maximum"].tolist())


def test_correlations_are_of_quality_and_leave_out_what_predicts_nothing(tables: dict[str, Path]) -> None:
    found = pd.read_parquet(tables["correlations_parquet"]).set_index(["other", "score"])
    assert found["models"].unique().tolist() == [5]
    assert found["series"].unique().tolist() == [3]
    bits = [bits for _, bits in MODELS.values() if bits is not None]
    expected = spearmanr([-each for each in bits], range(5)).statistic
    assert math.isclose(found.loc[("dinov2", "maximum"), "rho"], expected)
    assert math.isclose(found.loc[("sdvae", "maximum"), "rho"], -expected)
    assert found.loc[("dinov2", "maximum"), "within"] == 1


def test_the_quality_of_another_model_is_refused(write: Callable[..., Any], tmp_path: Path) -> None:
    pair = write("cknna", "dinov2", "bloom1", np.array([[0.1, 0.3]]))
    language = Language("b", "", "bloomz", quality(tmp_path, "bloom2", 1.0))
    outputs = dict.fromkeys(("tsv", "parquet", "correlations_tsv", "correlations_parquet"), tmp_path / "x")
    with pytest.raises(ValueError, match="is of 'bloom2', not of 'bloom1'"):
        bits_per_byte_table(read_pairs([pair]), [language], 0, outputs)


def test_last_tokens_have_the_quality_of_their_means(write: Callable[..., Any], tmp_path: Path) -> None:
    pair = write("cknna", "dinov2", "bloom1-last", np.array([[0.1, 0.3]]))
    language = Language("b", "-last", "bloomz", quality(tmp_path, "bloom1", 1.0))
    outputs = {key: tmp_path / key for key in ("tsv", "parquet", "correlations_tsv", "correlations_parquet")}
    bits_per_byte_table(read_pairs([pair]), [language], 0, outputs)
    found = pd.read_parquet(outputs["parquet"]).iloc[0]
    assert found[["variant", "language", "bits_per_byte"]].tolist() == ["-last", "bloom1-last", 1.0]


def test_the_figure(tables: dict[str, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / "quality.png", tmp_path / "quality.pdf"]
    panel = {"metric": "mutual_knn", "dataset": "images", "condition": "clean"}
    bits_per_byte_figure(tables["tsv"], tables["correlations_tsv"], panel, outputs)
    check_pictures(outputs)


def test_a_figure_of_encoders_alone_says_that_none_predicts_texts(write: Callable[..., Any], tmp_path: Path) -> None:
    pair = write("cknna", "dinov2", "minilm", np.array([[0.1, 0.3]]))
    outputs = {key: tmp_path / key for key in ("tsv", "parquet", "correlations_tsv", "correlations_parquet")}
    bits_per_byte_table(
        read_pairs([pair]), [Language("b", "", "minilm", quality(tmp_path, "minilm", None))], 0, outputs
    )
    panel = {"metric": "cknna", "dataset": "images", "condition": "clean"}
    bits_per_byte_figure(outputs["tsv"], outputs["correlations_tsv"], panel, [tmp_path / "quality.png"])
    check_pictures([tmp_path / "quality.png"])
