"""Layer x layer heat maps of one pair of models: of every metric the scores, and below them the calibrated scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from diffalign.alignment.metrics import METRICS
from diffalign.figures import cells, grids, maps, style
from diffalign.io.matrices import CalibratedMatrix

# inches of a scale with its numbers, and of the least that a map takes
_SCALE, _LEAST = 0.42, 0.75


def draw(read: Sequence[CalibratedMatrix], outputs: Sequence[Path]) -> None:
    """Draw two panels a metric, at most four metrics beside each other: A upwards, B to the right, the largest score
    framed, and named with the p-value of the largest score of the grid. Cells that are not significant are hatched.

    Both panels of a metric have one scale, from 0 to a round share of the highest score. read: of one pair, a matrix
    (L_A, L_B) a metric.
    """
    style.styled()
    rows, columns = read[0].layers("a"), read[0].layers("b")
    beside = max(style.text_width(layer, style.SMALL) for layer in rows) + 0.1 + _SCALE
    most = int((style.PAGE - 0.2) / (beside + _LEAST))
    blocks, across = grids.grid_of_panels(len(read), max(1, min(4, most)))
    page = style.COLUMN if across == 1 else style.PAGE
    width = (page - 0.2) / across - beside
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
        end = scale_end(matrix)
        raw_map(above, matrix, end, width + 0.35)
        calibrated_map(below, matrix, end, width + 0.35)
        for axes in (above, below):
            axes.set_visible(True)
            grids.layer_ticks(axes, columns, "x", int(width / 0.1))
            grids.layer_ticks(axes, rows, "y", int(height / 0.1))
            if not column:
                axes.set_ylabel(f"layer of {matrix.bundle('a')}")
        if not matrix.missing_null:
            above.tick_params(bottom=False, labelbottom=False)
        (above if matrix.missing_null else below).set_xlabel(f"layer of {matrix.bundle('b')}")
    percent = f"{100 * read[0].calibration.settings['alpha']:g} %"
    style.heading(
        figure,
        f"{style.title_of(read[0].recipe)}. Framed: the largest score, with p of the largest score of a grid. "
        f"Hatched: not significant at {percent}, corrected over the grid; grey: undefined or not tested. "
        "Both panels of a metric have one scale.",
    )
    style.save(figure, outputs, read[0].miniature, cells.table(read))


def scale_end(matrix: CalibratedMatrix) -> float:
    """Where the scales of a metric end, as a share of its highest score: one for scores and calibrated scores."""
    values = [matrix.values / cells.highest(matrix), matrix.calibrated]
    if METRICS[matrix.metric].lowest == -1:
        values.append(-values[0])
    drawn = np.concatenate([each[np.isfinite(each)] for each in values])
    return maps.scale_end(float(drawn.max(initial=0.0)))


def raw_map(axes: Axes, matrix: CalibratedMatrix, end: float, width: float) -> None:
    """The scores of one metric. end: of the scale, as a share of the highest score. width: of the title, in inches.

    A scale has a middle where the sign of a score says something; else what lies below 0 is an arrow.
    """
    top = end * cells.highest(matrix)
    signed = METRICS[matrix.metric].lowest == -1
    limits, colors = ((-top, top), style.SIGNED) if signed else ((0.0, top), style.SCORES)
    maps.color_bar(maps.layer_map(axes, matrix.values, limits, colors, matrix.best), axes, width)
    if matrix.has_p:
        look = {"line": "0.45"} if signed else {}
        maps.hatched_cells(axes, cells.not_significant(matrix), **look)
    title = METRICS[matrix.metric].label
    if matrix.best is not None:
        row, column = matrix.best
        named = f"{matrix.layers('a')[row]}, {matrix.layers('b')[column]}"
        null = matrix.calibration.null
        p = "" if null is None else f", {style.p_text(null.maximum_p)}"
        title += f"\nlargest {matrix.values[row, column]:.3f}{p}\nat {named}"
    axes.set_title(style.wrapped(title, width))


def calibrated_map(axes: Axes, matrix: CalibratedMatrix, end: float, width: float) -> None:
    """The calibrated scores of one metric, or why there are none. end: of the scale. width: of the title, in inches."""
    null = matrix.calibration.null
    if null is None or matrix.missing_null:
        grids.in_place(axes, style.wrapped(matrix.missing_null, width))
        return
    defined, count = np.isfinite(null.calibrated), int(matrix.significant.sum())
    framed = matrix.best if count else None
    maps.color_bar(maps.layer_map(axes, matrix.calibrated, (0.0, end), style.CALIBRATED, framed), axes, width)
    maps.hatched_cells(axes, cells.not_significant(matrix), face="white", line="0.8")
    largest = f"calibrated, largest {null.maximum_calibrated:.3f}"
    axes.set_title(style.wrapped(f"{largest}\n{count} of {int(defined.sum())} cells significant", width))
    if not count:
        axes.text(
            *(0.5, 0.5, style.wrapped("no score exceeds the null of the grid", width - 0.4)),
            transform=axes.transAxes,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
