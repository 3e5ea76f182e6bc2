"""What figures of many bundles against one reference share: tables, calibrated values with intervals, headings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffalign.alignment.metrics import METRICS
from diffalign.figures import style
from diffalign.io.tables import read_tsv

_TEXT = ("recipe", "model", "source", "bundle", "layer", "metric", "given", "quantity", "measure", "other")


def read(path: Path, **equal: Any) -> pd.DataFrame:
    """A table (TSV), of which the rows are wanted that have these values. Text that is missing is ''."""
    table = read_tsv(path)
    for column in table.columns.intersection(list(_TEXT)):
        table[column] = table[column].fillna("").astype("string")
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def is_calibrated(table: pd.DataFrame) -> bool:
    """Whether the metric of a table has a null with thresholds."""
    return bool(table["calibrated"].notna().any())


def value_name(metric: str, calibrated: bool) -> str:
    """A metric as axes and scales name it."""
    return f"calibrated {METRICS[metric].label}" if calibrated else METRICS[metric].label


def second_half(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Values (M,) on the half of the images that did not choose, with 95 % intervals over these images,
    or groups of them.

    Calibrated where the metric has a null: the bounds of the score are scaled as the score is, and end at 0 as well.
    """
    scores, *bounds = (
        table[column].to_numpy(dtype=np.float64) for column in ("second_half", "second_half_low", "second_half_high")
    )
    if not is_calibrated(table):
        return scores, bounds[0], bounds[1]
    threshold = table["second_half_threshold"].to_numpy(dtype=np.float64)
    values = table["second_half_calibrated"].to_numpy(dtype=np.float64)
    # rows that are missing have no metric
    of_rows = zip(table["metric"], table["k"], strict=True)
    scales = [np.nan if pd.isna(metric) else METRICS[metric].highest(int(k)) for metric, k in of_rows]
    highest = np.array([scale if np.isfinite(scale) else 1.0 for scale in scales])
    # where the threshold is the highest score there is no scale
    room = np.where(threshold < highest, highest - threshold, np.nan)
    low, high = (np.clip((bound - threshold) / room, 0, 1) for bound in bounds)
    return values, low, high


def reference_of(table: pd.DataFrame) -> str:
    """``digits.vit@600, final``: what a series is measured against."""
    first = table.iloc[0]
    return f"{first['reference']}, {first['reference_layer']}"


def title_of(table: pd.DataFrame) -> str:
    """Data set, condition, number of images and of neighbours, and what models were given of their reference."""
    leaks = "; ".join(dict.fromkeys(table["leak"].dropna()))
    return style.title_of({**{key: table[key].iloc[0] for key in ("dataset", "condition", "n", "k")}, "leak": leaks})


def bracketed(value: float, low: float, high: float, digits: int = 3) -> str:
    """``0.123 [0.100, 0.150]``; without brackets where there is no interval."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
