"""Alignment over depth: for every layer of one model, the best and the default layer of the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style
from diffalign.figures.curves import Curve, depth_curve
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def depth_curves_figure(
    matrices: Sequence[Path], calibrations: Sequence[Path], defaults: Mapping[str, str], outputs: Sequence[Path]
) -> None:
    """Draw two panels a metric, left over the depth of A, right over the depth of B; of more than four metrics, two
    stand in a row.

    defaults: bundle -> its default layer.
    """
    style.styled()
    read = read_matrices(matrices, calibrations)
    lines, across = grids.grid_of_panels(len(read), 1 if len(read) <= 4 else 2)
    figure, panels = plt.subplots(
        lines, 2 * across, figsize=(style.PAGE, 1.05 * lines + 0.8), squeeze=False, layout="constrained"
    )
    width = style.PAGE / (2 * across) - 0.3
    for axes in panels.ravel()[2 * len(read) :]:
        axes.set_visible(False)
    for number, matrix in enumerate(read):
        row = panels.ravel()[2 * number : 2 * number + 2]
        row[1].sharey(row[0])
        row[1].tick_params(labelleft=False)
        for axes, side, other in zip(row, "ab", "ba", strict=True):
            default = defaults[matrix.bundle(other)]
            depth_curve(axes, matrix.layers(side), curves(matrix, side, default), matrix.recipe["chance"])
            grids.layer_ticks(axes, matrix.layers(side), "x", int(width / 0.12))
            if number < across:
                against = f"against {matrix.bundle(other)} (default layer: {default})"
                axes.set_title(style.wrapped(against, width))
            if not np.isfinite(over_depth(matrix, side, default)[1]).any():
                axes.text(0.02, 0.02, "default layer: not defined", transform=axes.transAxes, color=style.WORDS)
            # layers are the same in all panels of a column
            if number + across < len(read):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(f"layer of {matrix.bundle(side)}")
        row[0].set_ylabel(style.wrapped(METRICS[matrix.metric].label, 0.95))
    figure.align_ylabels()
    style.heading(
        figure,
        f"{style.title_of(read[0].recipe)}. Bands: 95 % intervals over images, where they have a closed form.",
    )
    grids.shared_legend(figure, panels.ravel()[: 2 * len(read)], 2)
    style.save(figure, outputs, read[0].miniature)


def curves(matrix: CalibratedMatrix, side: str, default: str) -> list[Curve]:
    """The curve of the best layer of the other side, and that of one of its layers, by name."""
    other = "b" if side == "a" else "a"
    values, low, high = (
        grid if side == "a" else grid.T for grid in (matrix.values, matrix.calibration.low, matrix.calibration.high)
    )
    null = matrix.calibration.null
    thresholds, corrected = np.full_like(values, np.nan), np.full_like(values, np.nan)
    if null is not None:
        thresholds, corrected = (grid if side == "a" else grid.T for grid in (null.threshold, null.grid_threshold))
    at_best, at_default = over_depth(matrix, side, default)
    column = matrix.layers(other).index(default)
    percent = f"{100 * matrix.calibration.settings['alpha']:g} %"
    return [
        Curve(
            at_best,
            _at_best(low, values),
            _at_best(high, values),
            _at_best(corrected, values),
            "best layer of the other model (not corrected for the choice)",
            f"what the largest score of the whole grid exceeds by chance in {percent}",
            style.BEST,
            style.THICK,
        ),
        Curve(
            at_default,
            low[:, column],
            high[:, column],
            thresholds[:, column],
            "default layer of the other model",
            f"what a single score exceeds by chance in {percent}",
            style.DEFAULT,
            style.LINE,
        ),
    ]


def over_depth(matrix: CalibratedMatrix, side: str, default: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every layer of `side`: the best score over the other side's layers, and the score with one of them."""
    values = matrix.values if side == "a" else matrix.values.T
    other = "b" if side == "a" else "a"
    return _at_best(values, values), values[:, matrix.layers(other).index(default)]


def _at_best(grid: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row of a grid, the cell whose score is the largest; NaN for a row without any defined score."""
    at_best = np.full(len(values), np.nan)
    for i, line in enumerate(values):
        if np.isfinite(line).any():
            at_best[i] = grid[i, int(np.nanargmax(line))]
    return at_best


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "depth_curves_figure"):
        depth_curves_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            snakemake.params.defaults,
            [Path(path) for path in snakemake.output],
        )
