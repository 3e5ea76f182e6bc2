"""Layer x layer heat maps of one pair of models: of every metric the scores, and below them the calibrated scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, maps, style
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def layer_maps_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw two panels a metric, at most four metrics beside each other: A upwards, B to the right, the best pair of
    layers framed, and named with its score and the p-value of the largest score of the grid.
    """
    style.styled()
    read = read_matrices(matrices, calibrations)
    rows, columns = read[0].layers("a"), read[0].layers("b")
    blocks, across = grids.grid_of_panels(len(read))
    page = style.COLUMN if across == 1 else style.PAGE
    # labels of layers, scales and what stands between panels
    width = (page - 0.5) / across - 0.45
    height = min(1.35, max(0.8, 0.1 * len(rows)))
    # a row without any calibrated score needs room for words only
    empty = [all(matrix.missing_null for matrix in read[i * across : (i + 1) * across]) for i in range(blocks)]
    heights = [part for is_empty in empty for part in (height, 0.15 if is_empty else height)]
    figure, panels = plt.subplots(
        2 * blocks,
        across,
        figsize=(page, sum(heights) + 1.2 * blocks + 0.2),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.ravel():
        axes.set_visible(False)
    for number, matrix in enumerate(read):
        block, column = divmod(number, across)
        above, below = panels[2 * block, column], panels[2 * block + 1, column]
        raw_map(above, matrix, width + 0.3)
        calibrated_map(below, matrix, width + 0.3)
        for axes in (above, below):
            axes.set_visible(True)
            grids.layer_ticks(axes, columns, "x", int(width / 0.1))
            grids.layer_ticks(axes, rows, "y", int(height / 0.1))
            if column:
                # ticks without labels would seem to have those of the scale to their left
                axes.tick_params(left=False, labelleft=False)
            else:
                axes.set_ylabel(f"layer of {matrix.bundle('a')}")
        if not matrix.missing_null:
            above.tick_params(bottom=False, labelbottom=False)
        (above if matrix.missing_null else below).set_xlabel(f"layer of {matrix.bundle('b')}")
    style.heading(
        figure,
        f"{style.title_of(read[0].recipe)}. Framed: the best pair of layers, p corrected over the grid. "
        "Calibrated scores are 0 where they are not significant after this correction.",
    )
    style.save(figure, outputs, read[0].miniature)


def raw_map(axes: Axes, matrix: CalibratedMatrix, width: float) -> None:
    """The scores of one metric. width: of the title, in inches."""
    maps.color_bar(maps.layer_map(axes, matrix.values, matrix.best, style.SCORES), axes, width)
    title = METRICS[matrix.metric].label
    if matrix.best is not None:
        row, column = matrix.best
        named = f"{matrix.layers('a')[row]}, {matrix.layers('b')[column]}"
        null = matrix.calibration.null
        p = "" if null is None else f", {style.p_text(null.maximum_p)}"
        title += f"\nbest {matrix.values[row, column]:.3f}{p}\nat {named}"
    axes.set_title(style.wrapped(title, width))


def calibrated_map(axes: Axes, matrix: CalibratedMatrix, width: float) -> None:
    """The calibrated scores of one metric, or why there are none. width: of the title, in inches."""
    null = matrix.calibration.null
    if null is None or matrix.missing_null:
        grids.in_place(axes, style.wrapped(matrix.missing_null, width))
        return
    maps.color_bar(maps.layer_map(axes, matrix.calibrated, matrix.best, style.CALIBRATED), axes, width)
    axes.set_title(style.wrapped(f"calibrated\nlargest of the grid {null.maximum_calibrated:.3f}", width))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_maps_figure"):
        layer_maps_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
