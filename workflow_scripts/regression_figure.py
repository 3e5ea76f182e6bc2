"""R² of every human dimension by the best layer of every model, and choices predicted from predicted dimensions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.figures import grids, style
from diffalign.figures.human import (
    Results,
    best_of_dimensions,
    ceiling_band,
    curve,
    finish,
    read_results,
    reference_lines,
    variants_of,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def regression_figure(results: Results, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw two panels a model: above, R² of every dimension; below, odd-one-out accuracy of predictions over layers."""
    style.styled()
    count = len(results.by_model)
    bests = {bundle: best_of_dimensions(recipe) for bundle, recipe in results.recipes.items()}
    # the same order of dimensions everywhere
    order = np.argsort(-np.mean([bests[bundle]["r2"].to_numpy() for bundle in results.models], axis=0))
    blocks, across = grids.grid_of_panels(count, 3)
    figure, grid = plt.subplots(
        *(2 * blocks, across),
        figsize=(style.COLUMN if count == 1 else style.PAGE, 3.4 * blocks + 0.3),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for axes in grid.ravel():
        axes.set_visible(False)
    for i, (model, variants) in enumerate(results.by_model.items()):
        block, column = divmod(i, across)
        above, below = grid[2 * block : 2 * block + 2, column]
        for axes in (above, below):
            axes.set_visible(True)
        _dimensions(above, bests, variants, order)
        above.set_title(model)
        above.set_xlabel("human dimension, by mean R²\nof all models")
        _accuracies(below, results.recipes, variants)
        reference_lines(below, results)
        ceiling_band(below, results)
    for block in range(blocks):
        grid[2 * block, 0].set_ylabel("R² on objects left out,\nbest layer on others")
        grid[2 * block + 1, 0].set_ylabel("odd-one-out accuracy\nof predictions")
    title = "Bands and bars: 95 % intervals over objects, below over objects and known people."
    finish(figure, [axes for axes in grid.ravel() if axes.get_visible()], title, outputs, miniature)


def _dimensions(
    axes: Axes, bests: Mapping[str, pd.DataFrame], variants: Mapping[str, str], order: np.ndarray[Any, Any]
) -> None:
    for shift, color, bundle in zip(
        np.linspace(-0.3, 0.3, len(variants) + 2)[1:-1], style.shades(len(variants)), variants, strict=True
    ):
        best = bests[bundle].iloc[order]
        positions = np.arange(len(best)) + shift
        axes.vlines(positions, best["low"], best["high"], color=color, alpha=0.4, linewidth=style.THIN)
        axes.plot(positions, best["r2"], color=color, marker="o", markersize=1.8, linewidth=0)
    axes.axhline(0, color=style.QUIET, linewidth=style.THIN, linestyle=":")
    axes.set_ylim(bottom=max(-0.5, axes.get_ylim()[0]))
    axes.set_xticks([])


def _accuracies(axes: Axes, recipes: Mapping[str, Any], variants: Mapping[str, str]) -> None:
    for color, bundle, name in variants_of(variants):
        values, low, high = (_of_layers(recipes[bundle], key) for key in ("accuracy", "low", "high"))
        curve(axes, values, (low, high), color, name)
    grids.layer_ticks(axes, max((list(recipes[bundle]["layers"]) for bundle in variants), key=len), "x", 14)


def _of_layers(recipe: Mapping[str, Any], key: str) -> list[float]:
    return [each[key] for each in recipe["layers"].values()]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "regression_figure"):
        given, params = snakemake.input, snakemake.params
        regression_figure(
            read_results(given.tables, given.recipes, params.models, params.baselines),
            [Path(path) for path in snakemake.output],
            params.miniature,
        )
