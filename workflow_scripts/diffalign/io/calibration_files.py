"""The calibration file of one layer x layer matrix: its null, its errors, and the layers chosen on half the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import Calibration
from diffalign.io.atomic import write_arrays
from diffalign.io.headers import FileKind, StoreError, packed

KIND = FileKind("a calibration file", 2)
_GRIDS = ("mean", "sd", "z", "p", "threshold", "calibrated", "p_adjusted", "grid_threshold")


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


def write_calibration(path: Path, stored: StoredCalibration) -> None:
    """Write arrays and a JSON header as one .npz."""
    arrays = {"error": stored.error, "low": stored.low, "high": stored.high}
    header = KIND.header(settings=dict(stored.settings), method=None)
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
    write_arrays(path, {**packed(header), **arrays})


def read_calibration(path: Path) -> StoredCalibration:
    """Read what `write_calibration` wrote. Raises StoreError for anything else."""
    header, arrays = KIND.read_archive(path)
    if header["format"] < KIND.format:
        raise StoreError(
            f"{path}: format {header['format']} has no p that is corrected over the matrix; delete it and rerun"
        )
    null = None
    if header["method"] is not None:
        maximum: dict[str, Any] = {f"maximum_{key}": _number(value) for key, value in header["maximum"].items()}
        grids: dict[str, Any] = {key: arrays[key] for key in (*_GRIDS, "maxima")}
        more = {"skewness": arrays.get("skewness"), "reason": header["reason"]}
        for key in ("p", "p_adjusted"):
            wrong = (grids[key] <= 0) | (grids[key] > 1)
            if wrong.any():
                raise StoreError(
                    f"{path}: {key} holds {grids[key][wrong][0]:g}, which no test gives; delete it and rerun"
                )
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
