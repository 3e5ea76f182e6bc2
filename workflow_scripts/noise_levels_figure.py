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
from diffalign.figures import grids, noise_axis, style
from diffalign.figures.human import Results, best_of_dimensions, ceiling_band, finish, read_results, reference_lines

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# a scale reaches at least so far, so that noise makes no contrast
_LEAST = 0.1


def noise_levels_figure(
    choices: Results,
    dimensions: Results | None,
    grid: Mapping[str, Mapping[str, str]],
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw a column a conditioning, noise levels to the right by log-SNR, with t and the name of the level below it.

    Above, odd-one-out accuracy of the best layer of each level; below, of all layers; at the foot, where dimensions
    were predicted, R² of each by the layer of each level that is best on other objects. grid: conditioning -> noise
    level -> bundle, levels ascending. Raises ValueError for a bundle whose recipe has no noise level.
    """
    style.styled()
    rows = 2 if dimensions is None else 3
    size = (style.COLUMN if len(grid) == 1 else style.PAGE, 1.6 * rows + 0.3)
    at = {words: _levels_of(choices, levels.values()) for words, levels in grid.items()}
    width = (size[0] - 0.9) / len(grid)
    figure, axes = plt.subplots(rows, len(grid), figsize=size, squeeze=False, sharey="row", layout="constrained")
    for column, (conditioning, levels) in zip(axes.T, grid.items(), strict=True):
        tables = [choices.tables[bundle] for bundle in levels.values()]
        t = at[conditioning]
        _best(column[0], choices, list(levels.values()), t)
        column[0].set_title(conditioning)
        layers = tables[0]["layer"].tolist()
        grids.layer_ticks(column[1], layers, "y")
        best = [int(table["accuracy"].argmax()) for table in tables]
        column[1].plot(
            noise_axis.positions(t),
            best,
            "o",
            color="white",
            markeredgecolor="black",
            markeredgewidth=style.THIN,
            markersize=3,
        )
        for panel in column:
            noise_axis.dress(panel, t, width, list(levels), labelled=panel is column[-1])
    accuracies = [
        np.stack([choices.tables[bundle]["accuracy"] for bundle in levels.values()], axis=1) for levels in grid.values()
    ]
    lowest = min(choices.recipe["chance"], *(float(each.min()) for each in accuracies))
    _maps(figure, axes[1], list(at.values()), accuracies, lowest, style.SCORES, "accuracy")
    for label, first in zip(("odd-one-out\naccuracy", "layer; dot: the best"), axes[:2, 0], strict=True):
        first.set_ylabel(label)
    if dimensions is not None:
        explained = [_explained(dimensions.recipes, levels.values()) for levels in grid.values()]
        # the same order of dimensions everywhere, the best upwards
        order = np.argsort(np.mean([each.mean(axis=1) for each in explained], axis=0))
        ordered = [each[order] for each in explained]
        _maps(figure, axes[2], list(at.values()), ordered, 0.0, style.CALIBRATED, "R² on objects left out")
        axes[2, 0].set_yticks([])
        axes[2, 0].set_ylabel("human dimension,\nby mean R²")
    title = (
        "Above, the best layer of each level, chosen on other objects. Bands: 95 % intervals over objects and people."
    )
    finish(figure, axes[0].tolist(), title, outputs, miniature)


def _levels_of(results: Results, bundles: Iterable[str]) -> list[float]:
    """The t of bundles, from the recipes of their features: a name like s20 is another t for every schedule."""
    found = []
    for bundle in bundles:
        level = results.recipes[bundle]["features"].get("noise_level")
        if level is None:
            raise ValueError(f"{bundle}: the recipe of its features has no noise_level, so it has no place on the axis")
        found.append(float(level["t"]))
    return found


def _best(axes: Axes, results: Results, bundles: Sequence[str], t: Sequence[float]) -> None:
    """The accuracy of the layer of each level that was chosen on other objects; none where none could be."""
    at = noise_axis.positions(t)
    nothing = dict.fromkeys(("accuracy", "low", "high"), float("nan"))
    best = pd.DataFrame([results.recipes[bundle]["best"] or nothing for bundle in bundles])
    axes.fill_between(at, best["low"], best["high"], color=style.DEFAULT, alpha=0.2, linewidth=0)
    axes.plot(at, best["accuracy"], color=style.DEFAULT, marker="o", markersize=1.8, label="the best layer")
    reference_lines(axes, results)
    ceiling_band(axes, results)


def _explained(recipes: Mapping[str, Mapping[str, Any]], bundles: Iterable[str]) -> NDArray[np.float64]:
    """(dimensions, levels): R² by the best layer of each level, chosen on other objects."""
    return np.stack([best_of_dimensions(recipes[bundle])["r2"].to_numpy() for bundle in bundles], axis=1)


def _maps(
    figure: Figure,
    row: Sequence[Axes],
    levels: Sequence[Sequence[float]],
    values: Sequence[NDArray[np.float64]],
    low: float,
    colors: str,
    label: str,
) -> None:
    """Heat maps with one scale; an arrow where values lie below it."""
    high = max(float(each.max()) for each in values)
    for axes, t, each in zip(row, levels, values, strict=True):
        image = noise_axis.noise_map(axes, t, each, (low, max(high, low + _LEAST)), colors)
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
