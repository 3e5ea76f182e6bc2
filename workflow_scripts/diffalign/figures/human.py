"""What figures of models and people share: results by model, panels, chance, baselines and ceilings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffalign import names
from diffalign.figures import curves, grids, style
from diffalign.io.tables import read_tsv

# unlike the dots of chance
_DASHES = ((0, (6, 2)), (0, (6, 2, 1, 2)), (0, (2.5, 1.5)), (0, (6, 2, 1, 2, 1, 2)))
_ACROSS = 3
_MOST_LABELS = 12


@dataclass(frozen=True, eq=False)
class Results:
    """One analysis of several bundles. tables, recipes: by bundle. models, baselines: bundle -> the name as typed."""

    tables: Mapping[str, pd.DataFrame]
    recipes: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, str]
    baselines: Mapping[str, str]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What all recipes share, people and chance among it."""
        return next(iter(self.recipes.values()))

    @cached_property
    def by_model(self) -> dict[str, dict[str, str]]:
        """Model -> its bundles and the names that were typed for them, in the order given."""
        bundles: dict[str, dict[str, str]] = {}
        for bundle, name in self.models.items():
            bundles.setdefault(names.model_word(bundle), {})[bundle] = name
        return bundles


def read_results(
    tables: Iterable[str], recipes: Iterable[str], models: Mapping[str, str], baselines: Mapping[str, str]
) -> Results:
    """Read tables (TSV) and their recipes, in the same order, each file named by its bundle."""
    return Results(
        {Path(path).stem: read_tsv(Path(path)) for path in tables},
        {Path(path).stem: json.loads(Path(path).read_text(encoding="utf-8")) for path in recipes},
        models,
        baselines,
    )


def best_of_dimensions(recipe: Mapping[str, Any]) -> pd.DataFrame:
    """R² of every dimension with its bounds (r2, low, high), by the layer that is best on other objects."""
    best = recipe["best_r2"]
    return pd.DataFrame({"r2": best["values"], "low": best["low"], "high": best["high"]})


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in rows of at most three; their vertical axes are the same."""
    figure, drawn = grids.panels(count, _ACROSS, 1.7, sharey=True)
    for axes in drawn[:: grids.grid_of_panels(count, _ACROSS)[1]]:
        axes.set_ylabel("odd-one-out accuracy")
    return figure, drawn


def finish(figure: Figure, drawn: Sequence[Axes], title: str, outputs: Sequence[Path], miniature: bool) -> None:
    """Add a heading and one legend for all panels, and write the figure."""
    style.heading(figure, title)
    grids.shared_legend(figure, drawn, _ACROSS)
    style.save(figure, outputs, miniature)


def variants_of(variants: Mapping[str, str]) -> Iterator[tuple[tuple[float, float, float, float], str, str]]:
    """Colour, bundle and label of every variant of a model, dark to light in the order given.

    Of more than a legend can hold the first and the last have a label; the others lie between them.
    """
    last = len(variants) - 1
    for i, (bundle, name) in enumerate(variants.items()):
        if last < _MOST_LABELS:
            label = name
        else:
            label = f"{name} (first of {last + 1}, dark to light)" if i == 0 else name if i == last else "_"
        yield style.shades(last + 1)[i], bundle, label


def curve(
    axes: Axes, values: Sequence[float] | pd.Series, bounds: tuple[Any, Any], color: Any, label: str, dashes: str = "-"
) -> None:
    """A value a layer and the band of its interval."""
    curves.band(axes, *bounds, color)
    axes.plot(range(len(values)), values, dashes, color=color, marker="o", markersize=1.8, label=label)


def reference_lines(axes: Axes, results: Results, which: str = "its best layer") -> None:
    """Lines at chance and at every baseline, and a grid. A baseline's accuracy is that of its best layer, which is
    chosen on other objects; it has no line where none could be. which: its layer, for the legend.
    """
    per_color = len(_DASHES)
    colors = plt.get_cmap("copper")(np.linspace(0.35, 0.9, -(-len(results.baselines) // per_color)))
    for i, (bundle, name) in enumerate(results.baselines.items()):
        best = results.recipes[bundle]["best"]
        if best is None:
            continue
        axes.axhline(
            best["accuracy"],
            color=colors[i // per_color],
            linewidth=0.8,
            linestyle=_DASHES[i % per_color],
            label=f"{name}, {which}",
        )
    curves.chance_line(axes, results.recipe["chance"])
    grids.horizontal_lines(axes)


def ceiling_band(axes: Axes, results: Results) -> None:
    """A band between the two ceilings of people; nothing where no triplet was judged twice."""
    ceilings = results.recipe["people"]["choices"]["ceilings"]
    if ceilings is not None:
        label = "people, of these triplets: leave-one-out to majority"
        axes.axhspan(ceilings["leave_one_out"], ceilings["majority"], color="0.85", linewidth=0, label=label)
