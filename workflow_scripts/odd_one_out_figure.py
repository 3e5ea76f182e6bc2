"""Odd-one-out accuracy over the layers of every model, between chance and what people can be predicted by."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from diffalign import figures, logs
from diffalign.human_figures import by_model, ceiling_band, chance_line, shades

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def odd_one_out_figure(
    results: Mapping[str, tuple[Path, Path]],
    models: Mapping[str, str],
    baselines: Mapping[str, str],
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw one panel a model, one curve a variant.

    results: bundle -> its table and recipe. models, baselines: bundle -> the name that was typed.
    """
    figures.styled()
    tables = {bundle: pd.read_csv(table, sep="\t") for bundle, (table, _) in results.items()}
    recipes = {bundle: json.loads(recipe.read_text(encoding="utf-8")) for bundle, (_, recipe) in results.items()}
    panels = by_model(models)
    rows, columns = figures.grid_of_panels(len(panels), 3)
    figure, grid = plt.subplots(
        rows, columns, figsize=(4.4 * columns, 2.8 * rows + 0.9), squeeze=False, sharey=True, layout="constrained"
    )
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (model, variants) in zip(grid.ravel(), panels.items(), strict=False):
        _panel(axes, tables, variants)
        for name, style in zip(baselines, ("--", "-.", ":"), strict=False):
            best = tables[name]["accuracy"].max()
            axes.axhline(best, color="0.45", linewidth=0.9, linestyle=style, label=f"{baselines[name]}, its best layer")
        _frame(axes, next(iter(recipes.values())))
        axes.set_title(model, loc="left")
    for axes in grid[:, 0]:
        axes.set_ylabel("odd-one-out accuracy")
    recipe = next(iter(recipes.values()))
    choices = recipe["people"]["choices"]
    figure.suptitle(
        f"{choices['choices']} choices on {choices['distinct_triplets']} distinct triplets, {recipe['distance']}. "
        "Bands: 95 % intervals over triplets.",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    figures.shared_legend(figure, grid.ravel()[: len(panels)], 3)
    figures.save(figure, outputs, miniature)


def _panel(axes: Axes, tables: Mapping[str, pd.DataFrame], variants: Mapping[str, str]) -> None:
    for color, (bundle, name) in zip(shades(len(variants)), variants.items(), strict=True):
        table = tables[bundle]
        positions = range(len(table))
        axes.fill_between(positions, table["low"], table["high"], color=color, alpha=0.18, linewidth=0)
        axes.plot(positions, table["accuracy"], color=color, marker="o", markersize=2.5, linewidth=1.3, label=name)
    layers = max((tables[bundle]["layer"].tolist() for bundle in variants), key=len)
    figures.layer_ticks(axes, layers, "x")


def _frame(axes: Axes, recipe: Mapping[str, Any]) -> None:
    chance_line(axes, recipe["chance"])
    ceiling_band(axes, recipe["people"]["choices"]["ceilings"])
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "odd_one_out_figure"):
        given = snakemake.input
        files = zip(given.tables, given.recipes, strict=True)
        odd_one_out_figure(
            {Path(table).stem: (Path(table), Path(recipe)) for table, recipe in files},
            snakemake.params.models,
            snakemake.params.baselines,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
