"""Odd-one-out accuracy over the layers of every model before and after a probe, on objects that it never saw."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from diffalign import figures, logs
from diffalign.human_figures import by_model, chance_line, shades

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def probe_figure(
    results: Mapping[str, tuple[Path, Path]],
    models: Mapping[str, str],
    baselines: Mapping[str, str],
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw one panel a model: dashed before, solid after, one colour a variant. Baselines are drawn after, their best.

    results: bundle -> its table and recipe. models, baselines: bundle -> the name that was typed.
    """
    figures.styled()
    tables = {bundle: pd.read_csv(table, sep="\t") for bundle, (table, _) in results.items()}
    recipe = json.loads(next(iter(results.values()))[1].read_text(encoding="utf-8"))
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
            best = tables[name]["after"].max()
            label = f"{baselines[name]}, after, its best layer"
            axes.axhline(best, color="0.45", linewidth=0.9, linestyle=style, label=label)
        chance_line(axes, recipe["chance"])
        axes.set_title(model, loc="left")
    for axes in grid[:, 0]:
        axes.set_ylabel("odd-one-out accuracy")
    first = tables[next(iter(models))].iloc[0]
    figure.suptitle(
        f"{first['choices']} choices on {first['distinct_triplets']} distinct triplets of objects left out in "
        f"{recipe['plan']['folds']} folds. Bands: 95 % intervals over triplets.",
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
        for what, style in (("before", "--"), ("after", "-")):
            low, high = table[f"{what}_low"], table[f"{what}_high"]
            axes.fill_between(positions, low, high, color=color, alpha=0.14, linewidth=0)
            axes.plot(
                positions,
                table[what],
                style,
                color=color,
                marker="o",
                markersize=2.5,
                label=f"{name}, {what} the probe",
            )
    figures.layer_ticks(axes, max((tables[bundle]["layer"].tolist() for bundle in variants), key=len), "x")


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "probe_figure"):
        given = snakemake.input
        files = zip(given.tables, given.recipes, strict=True)
        probe_figure(
            {Path(table).stem: (Path(table), Path(recipe)) for table, recipe in files},
            snakemake.params.models,
            snakemake.params.baselines,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
