"""The calibrations of the layer x layer matrices of a pair, one a metric: nulls, errors, and the layers chosen on half
of the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import Calibration
from diffalign.io.atomic import write_arrays
from diffalign.io.headers import FileKind, StoreError, packed

KIND = FileKind("a file of calibrations", 3)
_GRIDS = ("mean", "sd", "z", "p", "threshold", "calibrated", "p_adjusted", "grid_threshold")
_ARRAYS = (*_GRIDS, "maxima", "skewness", "error", "low", "high")


@dataclass(frozen=True)
class Selection:
    """The best pair of layers on one half of the images, and its score on the other half.

    chosen: score of the pair on the half that chose it. reported: on the other. uncorrected: the largest score of the
    other half. count: images in the half that reports. layers: of A and of B. Scores depend on the number of images, so
    they compare with each other and not with scores of all images.
    """

    layers: tuple[str, str]
    chosen: float
    reported: float
    uncorrected: float
    count: int


@dataclass(frozen=True)
class StoredCalibration:
    """What is known of a matrix (L_A, L_B) beside its scores.

    null: None for a metric without one. error, low, high: standard errors and 95 % intervals over images, NaN where the
    metric has none in closed form. selection: None where it was not asked for, or no score is defined.
    settings: permutations, alpha, seed, level, and what permutations exchange: exchanged, groups, groups_moved.
    """

    null: Calibration | None
    error: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    selection: Selection | None
    settings: Mapping[str, Any]


def write_calibrations(path: Path, calibrations: Mapping[str, StoredCalibration]) -> None:
    """Write the calibrations of a pair by metric as one .npz: arrays ``{metric}/{what}``, and a JSON header."""
    parts = {metric: _parts(stored) for metric, stored in calibrations.items()}
    header = KIND.header(metrics={metric: facts for metric, (facts, _) in parts.items()})
    named = {f"{metric}/{what}": array for metric, (_, arrays) in parts.items() for what, array in arrays.items()}
    write_arrays(path, {**packed(header), **named})


def _parts(stored: StoredCalibration) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The facts of a calibration, for the header, and its arrays."""
    arrays: dict[str, NDArray[Any]] = {"error": stored.error, "low": stored.low, "high": stored.high}
    header: dict[str, Any] = {"settings": dict(stored.settings), "method": None}
    if stored.null is not None:
        arrays |= {key: getattr(stored.null, key) for key in (*_GRIDS, "maxima")}
        if stored.null.skewness is not None:
            arrays["skewness"] = stored.null.skewness
        header["method"] = stored.null.method
        header["reason"] = stored.null.reason
        header["maximum"] = {
            key: _plain(getattr(stored.null, f"maximum_{key}")) for key in ("p", "threshold", "calibrated")
        }
    if stored.selection is not None:
        header["selection"] = {
            "layers": list(stored.selection.layers),
            "count": stored.selection.count,
            **{key: _plain(getattr(stored.selection, key)) for key in ("chosen", "reported", "uncorrected")},
        }
    return header, arrays


def read_calibrations(path: Path, metrics: Sequence[str]) -> list[StoredCalibration]:
    """Read the calibrations of these metrics. Raises StoreError for one that is absent or has impossible values."""
    header, arrays = KIND.read_archive(path, [f"{metric}/{what}" for metric in metrics for what in _ARRAYS])
    if header["format"] < KIND.format:
        raise StoreError(f"{path}: format {header['format']} holds a single metric; delete it and rerun")
    by_metric: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        metric, _, what = name.partition("/")
        by_metric.setdefault(metric, {})[what] = array
    missing = [metric for metric in metrics if metric not in by_metric or metric not in header["metrics"]]
    if missing:
        raise StoreError(f"{path}: holds no calibration of {', '.join(missing)}; delete it and rerun")
    return [_calibration(header["metrics"][metric], by_metric[metric], metric, path) for metric in metrics]


def _calibration(
    header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], metric: str, path: Path
) -> StoredCalibration:
    """The inverse of `_parts`."""
    null = None
    if header["method"] is not None:
        maximum: dict[str, Any] = {f"maximum_{key}": _number(value) for key, value in header["maximum"].items()}
        grids: dict[str, Any] = {key: arrays[key] for key in (*_GRIDS, "maxima")}
        more = {"skewness": arrays.get("skewness"), "reason": header["reason"]}
        for key in ("p", "p_adjusted"):
            wrong = (grids[key] <= 0) | (grids[key] > 1)
            if wrong.any():
                found = f"{key} of {metric} holds {grids[key][wrong][0]:g}"
                raise StoreError(f"{path}: {found}, which no test gives; delete it and rerun")
        null = Calibration(method=header["method"], **grids, **maximum, **more)
    selection = None
    if "selection" in header:
        stored = header["selection"]
        selection = Selection(
            layers=(stored["layers"][0], stored["layers"][1]),
            chosen=_number(stored["chosen"]),
            reported=_number(stored["reported"]),
            uncorrected=_number(stored["uncorrected"]),
            count=stored["count"],
        )
    return StoredCalibration(null, arrays["error"], arrays["low"], arrays["high"], selection, header["settings"])


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
