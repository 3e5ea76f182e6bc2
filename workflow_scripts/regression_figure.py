"""R² of every human dimension by the best layer of every model, and choices predicted from predicted dimensions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffalign import figures, logs
from diffalign.human_figures import by_model, ceiling_band, chance_line, shades

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def regression_figure(
    results: Mapping[str, tuple[Path, Path]],
    models: Mapping[str, str],
    baselines: Mapping[str, str],
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw two panels a model: above, R² of every dimension; below, odd-one-out accuracy of predictions over layers.

    results: bundle -> its table and recipe. models, baselines: bundle -> the name that was typed.
    """
    figures.styled()
    tables = {bundle: pd.read_csv(table, sep="\t") for bundle, (table, _) in results.items()}
    recipes = {bundle: json.loads(recipe.read_text(encoding="utf-8")) for bundle, (_, recipe) in results.items()}
    panels = by_model(models)
    # the same order of dimensions everywhere
    order = np.argsort(-np.mean([best_layer(tables[bundle])["r2"].to_numpy() for bundle in models], axis=0))
    figure, grid = plt.subplots(
        2,
        len(panels),
        figsize=(4.6 * len(panels), 6.2),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for (above, below), (model, variants) in zip(grid.T, panels.items(), strict=True):
        _dimensions(above, tables, variants, order)
        above.set_title(model, loc="left")
        above.set_xlabel("human dimension, by mean R² of all models")
        _accuracies(below, recipes, variants)
        for name, style in zip(baselines, ("--", "-.", ":"), strict=False):
            best = max(each["accuracy"] for each in recipes[name]["layers"].values())
            below.axhline(
                best, color="0.45", linewidth=0.9, linestyle=style, label=f"{baselines[name]}, its best layer"
            )
        chance_line(below, next(iter(recipes.values()))["chance"])
        ceiling_band(below, next(iter(recipes.values()))["people"]["choices"]["ceilings"])
    grid[0, 0].set_ylabel("R² on objects left out, best layer")
    grid[1, 0].set_ylabel("odd-one-out accuracy of predictions")
    figure.suptitle("Bands and bars: 95 % intervals, over objects above and over triplets below.", x=0.01, ha="left")
    figures.shared_legend(figure, grid.ravel(), 3)
    figures.save(figure, outputs, miniature)


def best_layer(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the layer with the largest mean R², in order of dimension."""
    means = table.groupby("layer", sort=False)["r2"].mean()
    return table[table["layer"] == means.idxmax()].sort_values("dimension")


def _dimensions(
    axes: Axes, tables: Mapping[str, pd.DataFrame], variants: Mapping[str, str], order: np.ndarray[Any, Any]
) -> None:
    for shift, color, bundle in zip(
        np.linspace(-0.3, 0.3, len(variants) + 2)[1:-1], shades(len(variants)), variants, strict=True
    ):
        best = best_layer(tables[bundle]).iloc[order]
        positions = np.arange(len(best)) + shift
        axes.vlines(positions, best["low"], best["high"], color=color, alpha=0.4, linewidth=1)
        axes.plot(positions, best["r2"], color=color, marker="o", markersize=2.5, linewidth=0)
    axes.axhline(0, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=max(-0.5, axes.get_ylim()[0]))
    axes.set_xticks([])


def _accuracies(axes: Axes, recipes: Mapping[str, Any], variants: Mapping[str, str]) -> None:
    layers: list[str] = []
    for color, (bundle, name) in zip(shades(len(variants)), variants.items(), strict=True):
        found = recipes[bundle]["layers"]
        layers = max(layers, list(found), key=len)
        values = {key: [each[key] for each in found.values()] for key in ("accuracy", "low", "high")}
        axes.fill_between(range(len(found)), values["low"], values["high"], color=color, alpha=0.18, linewidth=0)
        axes.plot(values["accuracy"], color=color, marker="o", markersize=2.5, linewidth=1.3, label=name)
    figures.layer_ticks(axes, layers, "x")


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "regression_figure"):
        given = snakemake.input
        files = zip(given.tables, given.recipes, strict=True)
        regression_figure(
            {Path(table).stem: (Path(table), Path(recipe)) for table, recipe in files},
            snakemake.params.models,
            snakemake.params.baselines,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
