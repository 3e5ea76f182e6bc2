"""Alignment over depth: for every layer of one model, the best and the default layer of the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffalign.alignment.metrics import METRICS
from diffalign.figures import cells, grids, style
from diffalign.figures.curves import Curve, depth_curve
from diffalign.io.matrices import CalibratedMatrix


def draw(
    read: Sequence[CalibratedMatrix], defaults: Mapping[str, str], outputs: Sequence[Path], relative: bool = False
) -> None:
    """Draw two panels a metric, left over the depth of A, right over the depth of B; of more than four metrics, two
    stand in a row.

    read: of one pair, a matrix (L_A, L_B) a metric. defaults: bundle -> its default layer. relative: layers stand at
    their relative depth, from 0 to 1, and not at their names, unless they have no depth.
    """
    style.styled()
    lines, across = grids.grid_of_panels(len(read), 1 if len(read) <= 4 else 2)
    figure, panels = plt.subplots(
        lines, 2 * across, figsize=(style.PAGE, 1.15 * lines + 0.8), squeeze=False, layout="constrained"
    )
    width = style.PAGE / (2 * across) - 0.3
    for axes in panels.ravel()[2 * len(read) :]:
        axes.set_visible(False)
    drawn = []
    for number, matrix in enumerate(read):
        row = panels.ravel()[2 * number : 2 * number + 2]
        row[1].sharey(row[0])
        row[1].tick_params(labelleft=False)
        for axes, side, other in zip(row, "ab", "ba", strict=True):
            default = defaults[matrix.bundle(other)]
            layers, joined = matrix.layers(side), matrix.has_depth(side)
            by_depth = relative and joined
            of_side = curves(matrix, side, default)
            drawn.append(points(matrix, side, default, of_side))
            at = cells.depths(len(layers)) if by_depth else np.arange(len(layers), dtype=np.float64)
            depth_curve(axes, at, of_side, joined)
            if not by_depth:
                grids.layer_ticks(axes, layers, "x", int(width / 0.12))
                axes.set_xlim(-0.5, len(layers) - 0.5)
            if number < across:
                against = f"against {matrix.bundle(other)} (default layer: {default})"
                axes.set_title(style.wrapped(against, width))
            if not np.isfinite(of_side[1].values).any():
                axes.text(0.02, 0.02, "default layer: not defined", transform=axes.transAxes, color=style.WORDS)
            # layers are the same in all panels of a column
            if number + across < len(read):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(f"relative depth in {matrix.bundle(side)}" if by_depth else _of_layers(matrix, side))
        row[0].set_ylabel(style.wrapped(METRICS[matrix.metric].label, 0.95))
    figure.align_ylabels()
    chosen = [f"{METRICS[matrix.metric].label} {text}" for matrix in read if (text := selected(matrix))]
    on_half = f" Layers chosen on one half of the images, scores on the other half: {'; '.join(chosen)}."
    style.heading(
        figure,
        f"{style.title_of(read[0].recipe)}. Intervals: over images or groups, each by itself, where they have a "
        "closed form." + (on_half if chosen else ""),
    )
    grids.shared_legend(figure, panels.ravel()[: 2 * len(read)], 2)
    style.save(figure, outputs, read[0].miniature, pd.concat(drawn, ignore_index=True))


def _of_layers(matrix: CalibratedMatrix, side: str) -> str:
    return f"layer of {matrix.bundle(side)}" + ("" if matrix.has_depth(side) else " (in no order)")


def selected(matrix: CalibratedMatrix) -> str:
    """The score of the layers that half of the images chose, on the other half; '' where they were not chosen so."""
    selection = matrix.calibration.selection
    if selection is None:
        return ""
    return f"{selection.reported:.3f} at {', '.join(selection.layers)} (largest there {selection.uncorrected:.3f})"


def curves(matrix: CalibratedMatrix, side: str, default: str) -> list[Curve]:
    """The curve of the best layer of the other side, and that of one of its layers, by name."""
    other = "b" if side == "a" else "a"
    grid_of = {
        "values": matrix.values,
        "low": matrix.calibration.low,
        "high": matrix.calibration.high,
        "threshold": cells.grid_of(matrix, "threshold"),
        "grid_threshold": cells.grid_of(matrix, "grid_threshold"),
        "null_mean": cells.grid_of(matrix, "mean"),
    }
    turned = {name: grid if side == "a" else grid.T for name, grid in grid_of.items()}
    null, values = matrix.calibration.null, turned["values"]
    at_best, at_default = over_depth(matrix, side, default)
    column = matrix.layers(other).index(default)
    percent = f"{100 * matrix.calibration.settings['alpha']:g} %"
    mean = float(null.maxima.mean()) if null is not None and len(null.maxima) else math.nan
    return [
        Curve(
            values=at_best,
            low=_at_best(turned["low"], values),
            high=_at_best(turned["high"], values),
            null_mean=np.full(len(values), mean),
            threshold=_at_best(turned["grid_threshold"], values),
            label="best layer of the other model",
            interval_label="its 95 % interval, without the choice of the layer",
            null_label="null of the largest score of the grid: mean",
            threshold_label=f"what the largest score of the grid exceeds by chance in {percent}",
            color=style.BEST,
            width=style.THICK,
            outlined=True,
        ),
        Curve(
            values=at_default,
            low=turned["low"][:, column],
            high=turned["high"][:, column],
            null_mean=turned["null_mean"][:, column],
            threshold=turned["threshold"][:, column],
            label="default layer of the other model",
            interval_label="its 95 % interval",
            null_label="null of a single score: mean",
            threshold_label=f"what a single score exceeds by chance in {percent}",
            color=style.DEFAULT,
            width=style.LINE,
            outlined=False,
        ),
    ]


def points(matrix: CalibratedMatrix, side: str, default: str, drawn: Sequence[Curve]) -> pd.DataFrame:
    """What both curves of a panel draw, one row a layer and curve."""
    other = "b" if side == "a" else "a"
    layers, others = matrix.layers(side), np.array(matrix.layers(other), object)
    values = matrix.values if side == "a" else matrix.values.T
    best = _at_best(np.broadcast_to(np.arange(len(others), dtype=np.float64), values.shape), values)
    named = [others[int(i)] if np.isfinite(i) else None for i in best]
    parts = []
    for curve, kind, against in zip(drawn, ("best", "default"), (named, [default] * len(layers)), strict=True):
        numbers = {"low": curve.low, "high": curve.high, "null_mean": curve.null_mean, "threshold": curve.threshold}
        part = {**cells.facts(matrix), "over": matrix.bundle(side), "layer": layers, "depth": cells.depths(len(layers))}
        parts.append(pd.DataFrame(part | {"curve": kind, "other_layer": against, "score": curve.values, **numbers}))
    return pd.concat(parts, ignore_index=True)


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
