"""A model and people over noise levels: its best layer, all layers, and human dimensions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import grids, maps, style
from diffalign.figures.human import (
    Results,
    best_of_dimensions,
    ceiling_band,
    curve,
    finish,
    read_results,
    reference_lines,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def noise_levels_figure(
    choices: Results,
    dimensions: Results | None,
    grid: Mapping[str, Mapping[str, str]],
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw a column a conditioning, noise levels to the right.

    Above, odd-one-out accuracy of the best layer of each level; below, of all layers; at the foot, where dimensions
    were predicted, R² of each by the layer of each level that is best on other objects. grid: conditioning -> noise
    level -> bundle, levels ascending.
    """
    style.styled()
    rows = 2 if dimensions is None else 3
    size = (style.COLUMN if len(grid) == 1 else style.PAGE, 1.6 * rows + 0.3)
    figure, axes = plt.subplots(rows, len(grid), figsize=size, squeeze=False, sharey="row", layout="constrained")
    for column, (conditioning, levels) in zip(axes.T, grid.items(), strict=True):
        tables = [choices.tables[bundle] for bundle in levels.values()]
        _best(column[0], choices, list(levels.values()))
        column[0].set_title(conditioning)
        layers = tables[0]["layer"].tolist()
        grids.layer_ticks(column[1], layers, "y")
        best = [int(table["accuracy"].argmax()) for table in tables]
        column[1].plot(best, "o", color="white", markeredgecolor="black", markeredgewidth=style.THIN, markersize=3)
        for panel in column:
            panel.set_xticks(range(len(levels)), levels, rotation=90)
            panel.set_xlim(-0.5, len(levels) - 0.5)
        column[-1].set_xlabel("noise level")
    accuracies = [
        np.stack([choices.tables[bundle]["accuracy"] for bundle in levels.values()], axis=1) for levels in grid.values()
    ]
    lowest = min(choices.recipe["chance"], *(float(each.min()) for each in accuracies))
    _maps(figure, axes[1], accuracies, lowest, style.SCORES, "accuracy")
    for label, first in zip(("odd-one-out\naccuracy", "layer; dot: the best"), axes[:2, 0], strict=True):
        first.set_ylabel(label)
    if dimensions is not None:
        explained = [_explained(dimensions.recipes, levels.values()) for levels in grid.values()]
        # the same order of dimensions everywhere, the best upwards
        order = np.argsort(np.mean([each.mean(axis=1) for each in explained], axis=0))
        _maps(figure, axes[2], [each[order] for each in explained], 0.0, style.CALIBRATED, "R² on objects left out")
        axes[2, 0].set_yticks([])
        axes[2, 0].set_ylabel("human dimension,\nby mean R²")
    title = (
        "Above, the best layer of each level, chosen on other objects. Bands: 95 % intervals over objects and people."
    )
    finish(figure, axes[0].tolist(), title, outputs, miniature)


def _best(axes: Axes, results: Results, bundles: Sequence[str]) -> None:
    nothing = dict.fromkeys(("accuracy", "low", "high"), float("nan"))
    best = pd.DataFrame([results.recipes[bundle]["best"] or nothing for bundle in bundles])
    curve(axes, best["accuracy"].tolist(), (best["low"], best["high"]), style.DEFAULT, "the best layer")
    reference_lines(axes, results)
    ceiling_band(axes, results)


def _explained(recipes: Mapping[str, Mapping[str, Any]], bundles: Iterable[str]) -> NDArray[np.float64]:
    """(dimensions, levels): R² by the best layer of each level, chosen on other objects."""
    return np.stack([best_of_dimensions(recipes[bundle])["r2"].to_numpy() for bundle in bundles], axis=1)


def _maps(
    figure: Figure, row: Sequence[Axes], values: Sequence[NDArray[np.float64]], low: float, colors: str, label: str
) -> None:
    """Heat maps with one scale; an arrow where values lie below it."""
    high = max(float(each.max()) for each in values)
    for axes, each in zip(row, values, strict=True):
        image = maps.color_map_of(axes, each, (low, max(high, low + 0.01)), colors, origin="lower", aspect="auto")
    below = any(float(each.min()) < low for each in values)
    bar = figure.colorbar(image, ax=list(row), label=label, aspect=16, pad=0.02, extend="min" if below else "neither")
    bar.outline.set_visible(False)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "noise_levels_figure"):
        given, params = snakemake.input, snakemake.params
        named = (params.models, params.baselines)
        predicted = dict(given.items()).get("dimensions")
        noise_levels_figure(
            read_results(given.tables, given.recipes, *named),
            None if predicted is None else read_results(predicted, given.dimension_recipes, *named),
            params.grid,
            [Path(path) for path in snakemake.output],
            params.miniature,
        )
