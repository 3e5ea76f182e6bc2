"""Layer x layer heat maps of one pair of models: of every metric the scores, and below them the calibrated scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from diffalign import figures, logs
from diffalign.alignment.metrics import METRICS
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def layer_maps_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw two panels a metric, at most four metrics beside each other: A upwards, B to the right, the best pair of
    layers framed, and named with its score and the p-value of the largest score of the grid.
    """
    figures.styled()
    found = read_matrices(matrices, calibrations)
    rows, columns = found[0].layers("a"), found[0].layers("b")
    blocks, across = figures.grid_of_panels(len(found))
    width, height = min(2.9, max(2.3, 0.13 * len(columns))), min(2.9, max(1.5, 0.13 * len(rows)))
    # a row without any calibrated score needs room for words only
    empty = [all(matrix.missing_null for matrix in found[i * across : (i + 1) * across]) for i in range(blocks)]
    heights = [part for is_empty in empty for part in (height, 0.2 if is_empty else height)]
    figure, panels = plt.subplots(
        2 * blocks,
        across,
        figsize=((width + 0.65) * across + 0.6, sum(heights) + 1.15 * blocks + 0.5),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.ravel():
        axes.set_visible(False)
    for number, matrix in enumerate(found):
        block, column = divmod(number, across)
        above, below = panels[2 * block, column], panels[2 * block + 1, column]
        raw_map(above, matrix)
        calibrated_map(below, matrix)
        for axes in (above, below):
            axes.set_visible(True)
            figures.layer_ticks(axes, columns, "x")
            figures.layer_ticks(axes, rows, "y")
            if column:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel(f"layer of {matrix.bundle('a')}")
        if not matrix.missing_null:
            above.set_xticklabels([])
        (above if matrix.missing_null else below).set_xlabel(f"layer of {matrix.bundle('b')}")
    lines = [
        f"{figures.title_of(found[0].recipe)}.",
        "Framed: the best pair of layers; p is of the largest score of the grid.",
    ]
    figure.suptitle(("\n" if across == 1 else " ").join(lines), x=0.01, ha="left", fontsize=9)
    figures.save(figure, outputs, found[0].miniature)


def raw_map(axes: Axes, matrix: CalibratedMatrix) -> None:
    """The scores of one metric."""
    figures.color_bar(figures.layer_map(axes, matrix.values, matrix.best, "viridis"), axes)
    title = METRICS[matrix.metric].label
    if matrix.best is not None:
        row, column = matrix.best
        named = f"{matrix.layers('a')[row]}, {matrix.layers('b')[column]}"
        null = matrix.calibration.null
        p = "" if null is None else f"; {figures.p_text(null.maximum_p)}"
        title += f"\nbest {matrix.values[row, column]:.3f} at {named}{p}"
    axes.set_title(title, loc="left", fontsize=8.5)


def calibrated_map(axes: Axes, matrix: CalibratedMatrix) -> None:
    """The calibrated scores of one metric, or why there are none."""
    null = matrix.calibration.null
    if null is None or matrix.missing_null:
        figures.say(axes, matrix.missing_null)
        return
    figures.color_bar(figures.layer_map(axes, null.calibrated, matrix.best, "magma"), axes)
    axes.set_title(f"calibrated (largest of the grid: {null.maximum_calibrated:.3f})", loc="left", fontsize=8.5)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_maps_figure"):
        layer_maps_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
