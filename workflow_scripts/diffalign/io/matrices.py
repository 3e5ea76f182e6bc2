"""Layer x layer matrices of all metrics of a pair of models in one file, each with its recipe, and with their
calibrations as figures and tables read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import claims
from diffalign.io import score_recipes
from diffalign.io.atomic import write_arrays
from diffalign.io.calibration_files import StoredCalibration, read_calibrations
from diffalign.io.headers import FileKind, StoreError, packed

KIND = FileKind("a file of layer x layer matrices", 1)


@dataclass(frozen=True)
class LayerMatrix:
    """Scores of every layer of A (rows) with every layer of B (columns)."""

    values: NDArray[np.float64]
    recipe: Mapping[str, Any]

    def layers(self, side: str) -> list[str]:
        """Aliases of side ``a`` or ``b``, in order of depth."""
        return [entry["layer"] for entry in self.recipe[side]["layers"]]

    def bundle(self, side: str) -> str:
        """The canonical bundle of side ``a`` or ``b``."""
        return str(self.recipe[side]["bundle"])

    def has_depth(self, side: str) -> bool:
        """Whether the layers of side ``a`` or ``b`` follow each other. Statistics of pixels, which have no weights, and
        of which each is a grid or a histogram of its own, do not.
        """
        weights = self.recipe[side]["weights"]
        return weights is None or bool(weights["source"] != "none")

    @property
    def miniature(self) -> bool:
        """True where either side, or the autoencoder that it reads, has random miniature weights."""
        return score_recipes.is_miniature(self.recipe)

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.recipe["metric"])

    @property
    def best(self) -> tuple[int, int] | None:
        """Row and column of the largest score; None where no score is defined."""
        if not np.isfinite(self.values).any():
            return None
        row, column = np.unravel_index(int(np.nanargmax(self.values)), self.values.shape)
        return int(row), int(column)

    def default(self, layers: Mapping[str, str]) -> tuple[int, int]:
        """Row and column of the default layers of both models. layers: bundle -> its default layer."""
        return self.layers("a").index(layers[self.bundle("a")]), self.layers("b").index(layers[self.bundle("b")])


@dataclass(frozen=True)
class CalibratedMatrix(LayerMatrix):
    """Scores of a layer x layer matrix with their calibration: null, intervals, layers chosen on half."""

    calibration: StoredCalibration

    @property
    def has_p(self) -> bool:
        """Whether the null gives p-values and thresholds: some are known by mean and standard deviation only."""
        null = self.calibration.null
        return null is not None and bool(np.isfinite(null.p).any())

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Cells (L_A, L_B) whose scores are significant after correction over the cells of this matrix; False where
        there is no p. What the study claims, corrected over all pairs and metrics, stands in `tables/alignment`.
        """
        null = self.calibration.null
        if null is None:
            return np.zeros(self.values.shape, np.bool_)
        # NaN is not at most alpha
        return np.asarray(null.p_adjusted <= self.calibration.settings["alpha"])

    @property
    def calibrated(self) -> NDArray[np.float64]:
        """Calibrated scores (L_A, L_B), 0 where they are not `significant`; NaN where there are none."""
        null = self.calibration.null
        if null is None:
            return np.full(self.values.shape, np.nan)
        return np.where(self.significant | np.isnan(null.calibrated), null.calibrated, 0.0)

    @property
    def missing_null(self) -> str:
        """Why there are no calibrated scores; empty where there are."""
        if self.has_p:
            return ""
        if not np.isfinite(self.values).any():
            return "no score is defined"
        if self.calibration.null is None:
            return "no null"
        why = self.calibration.null.reason
        return "no null: only its mean and sd are known" if why is None else f"no p: {why}"


def write_matrices(path: Path, matrices: Mapping[str, LayerMatrix]) -> None:
    """Write the matrices of a pair by metric, (L_A, L_B) float64 each, and their recipes, as one ``.npz``."""
    recipes = {metric: dict(matrix.recipe) for metric, matrix in matrices.items()}
    header = packed(KIND.header(recipes=recipes))
    write_arrays(path, {**header, **{metric: matrix.values for metric, matrix in matrices.items()}})


def read_layer_matrices(path: Path, metrics: Sequence[str]) -> list[LayerMatrix]:
    """Read the matrices of these metrics. Raises StoreError for a file that lacks one or holds impossible scores."""
    header, arrays = KIND.read_archive(path, metrics)
    read = []
    for metric in metrics:
        recipe = header.get("recipes", {}).get(metric)
        if recipe is None or metric not in arrays:
            raise StoreError(f"{path}: holds no matrix of {metric}; delete it and rerun")
        score_recipes.KIND.check_version(recipe.get("format"), path)
        values = arrays[metric]
        if list(values.shape) != recipe["shape"]:
            raise StoreError(f"{path}: {metric} has the shape {values.shape}, but its recipe says {recipe['shape']}")
        _check_range(values, recipe, path)
        read.append(LayerMatrix(values, recipe))
    return read


def _check_range(values: NDArray[np.float64], recipe: Mapping[str, Any], path: Path) -> None:
    """Raise StoreError for scores that their metric cannot have, as after a change by hand."""
    from diffalign.alignment.metrics import METRICS, check_range

    if recipe["metric"] not in METRICS:
        return
    try:
        check_range(recipe["metric"], values, int(recipe.get("k") or 1))
    except ValueError as error:
        raise StoreError(f"{path}: {error}; delete it and rerun") from error


def read_matrices(
    matrices: Sequence[Path], calibrations: Sequence[Path], metrics: Sequence[str]
) -> list[CalibratedMatrix]:
    """Read the matrices of these metrics of every pair with their calibrations: of each file in order, one a metric.

    Raises StoreError where two files do not belong together, or were made with other settings.
    """
    calibrated = []
    for path, beside in zip(matrices, calibrations, strict=True):
        both = zip(read_layer_matrices(path, metrics), read_calibrations(beside, metrics), strict=True)
        for matrix, calibration in both:
            if calibration.error.shape != matrix.values.shape:
                raise StoreError(
                    f"{beside}: {matrix.metric} has the shape {calibration.error.shape}, but {matrix.values.shape} "
                    f"in {path}; rerun"
                )
            calibrated.append(CalibratedMatrix(matrix.values, matrix.recipe, calibration))
    sources = [(path, beside) for path, beside in zip(matrices, calibrations, strict=True) for _ in metrics]
    recipes, drawn = ([m.recipe for m in calibrated], [m.calibration.settings for m in calibrated])
    _check_settings([path for path, _ in sources], recipes, ("k", "eps", "rbf_sigma", "preparation"))
    drawing = ("permutations", "alpha", "seed", "split_selection")
    _check_settings([beside for _, beside in sources], drawn, drawing)
    return calibrated


def _check_settings(paths: Sequence[Path], recipes: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Raise StoreError, which names two files, where settings of a study are not those of all its files."""
    for key in keys:
        first: tuple[Path, Any] | None = None
        for path, recipe in zip(paths, recipes, strict=True):
            value = recipe.get(key)
            if value is None:
                continue
            if first is None:
                first = path, value
            elif value != first[1]:
                raise StoreError(f"{key} is {first[1]} in {first[0]}, but {value} in {path}; remove one and rerun")


def level_of(read: Sequence[CalibratedMatrix]) -> float:
    """The level alpha of calibrations. Raises StoreError where they have several."""
    levels = {float(matrix.calibration.settings["alpha"]) for matrix in read}
    if len(levels) > 1:
        raise StoreError(f"calibrations have the levels alpha {', '.join(map(str, sorted(levels)))}; rerun them")
    return levels.pop() if levels else math.nan


def claimed(read: Sequence[CalibratedMatrix]) -> list[NDArray[np.float64]]:
    """Give every cell of all these matrices together its q (`claims.corrected`): one array (L_A, L_B) a matrix.

    A matrix without any p, since its metric has none or it was refused, is not tested: its q are NaN, and the others
    are not corrected for it.
    """
    unknown = (np.full(matrix.values.shape, np.nan) for matrix in read)
    return claims.corrected(
        [
            each if matrix.calibration.null is None else matrix.calibration.null.p_adjusted
            for matrix, each in zip(read, unknown, strict=True)
        ]
    )


def untested(read: Sequence[CalibratedMatrix]) -> str:
    """How many matrices with a null have no p in any cell, with the reasons; empty where all have."""
    nulls = [matrix.calibration.null for matrix in read]
    refused = [null for null in nulls if null is not None and np.isnan(null.p_adjusted).all()]
    reasons = "; ".join(dict.fromkeys(null.reason for null in refused if null.reason))
    if not refused:
        return ""
    return f"{len(refused)} of {len(read)} matrices have no p and are not tested{': ' if reasons else ''}{reasons}"
