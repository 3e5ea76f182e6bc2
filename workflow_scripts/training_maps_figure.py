"""Step x layer maps of alignment through training: one a recipe on one scale, and what other recipes add."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.figures import grids, maps, series, style

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def training_maps_figure(alignment: Path, metric: str, outputs: Sequence[Path]) -> None:
    """Draw the mean over trainings of the calibrated score (of the score, where a metric has no null) of every layer.

    alignment: TSV of `training_alignment`. Steps to the right, layers upwards; a dot marks the layer of each step with
    the largest mean. To the right, the difference of each further recipe and the first, where they have the same
    layers and steps.
    """
    style.styled()
    table = series.read(alignment, metric=metric)
    value = "calibrated" if series.is_calibrated(table) else "score"
    means = {
        str(recipe): rows.pivot_table(index="depth", columns="step", values=value, aggfunc="mean")
        for recipe, rows in table.groupby("recipe", sort=False)
    }
    first, *others = means
    gains = {
        f"{name} - {first}": means[name] - means[first]
        for name in others
        if means[name].index.equals(means[first].index) and means[name].columns.equals(means[first].columns)
    }
    labels = table.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    count = len(means) + len(gains)
    width = style.COLUMN if count == 1 else style.PAGE
    # scales stand beside the maps of their kind
    ratios = [1.0] * len(means) + [0.12] + ([1.0] * len(gains) + [0.12] if gains else [])
    figure = plt.figure(figsize=(width, 0.6 + max(1.2, 0.14 * len(labels))), layout="constrained")
    grid = figure.add_gridspec(1, len(ratios), width_ratios=ratios)
    panels = [figure.add_subplot(grid[0, i]) for i in range(len(means))]
    _maps(
        panels, means, labels, style.CALIBRATED, _limits(means), f"{series.value_name(metric, value == 'calibrated')}"
    )
    for axes, each in zip(panels, means.values(), strict=True):
        _dots(axes, each)
    if gains:
        beside = [figure.add_subplot(grid[0, len(means) + 1 + i]) for i in range(len(gains))]
        largest = max(float(np.nanmax(np.abs(each.to_numpy()))) for each in gains.values()) or 1.0
        _maps(beside, gains, [""] * len(labels), style.SIGNED, (-largest, largest), "difference")
    trainings = table.groupby("recipe")["model"].nunique()
    of = f"{trainings.min()} to {trainings.max()}" if trainings.min() < trainings.max() else f"{trainings.max()}"
    style.heading(
        figure,
        f"{series.title_of(table)}. Alignment with {series.reference_of(table)}; mean over {of} training"
        f"{'s' if trainings.max() > 1 else ''} a recipe. Dots: the best layer of a step. "
        + " ".join(_finding(recipe, each, labels) for recipe, each in means.items()),
    )
    style.save(figure, outputs, bool(table["miniature"].any()))


def _limits(means: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    low = min(0.0, *(float(np.nanmin(each.to_numpy())) for each in means.values()))
    high = max(float(np.nanmax(each.to_numpy())) for each in means.values())
    return low, high if high > low else low + 1


def _maps(
    panels: Sequence[Axes],
    values: Mapping[str, pd.DataFrame],
    labels: Sequence[str],
    colors: str,
    limits: tuple[float, float],
    label: str,
) -> None:
    """Maps with one scale beside the last."""
    for i, (axes, (title, each)) in enumerate(zip(panels, values.items(), strict=True)):
        image = maps.color_map_of(axes, each.to_numpy(), limits, colors, origin="lower", aspect="auto")
        axes.set_title(style.wrapped(title, 1.9))
        grids.layer_ticks(axes, [str(step) for step in each.columns], "x")
        axes.set_xlabel("training step")
        if i == 0 and any(labels):
            grids.layer_ticks(axes, labels, "y", 16)
            axes.set_ylabel("layer")
        else:
            axes.set_yticks([])
    bar = maps.color_bar(image, panels[-1], 1.6)
    bar.set_title(style.wrapped(label, 0.6, style.SMALL), fontsize=style.SMALL, loc="left")


def _dots(axes: Axes, means: pd.DataFrame) -> None:
    best = means.to_numpy().argmax(axis=0)
    axes.plot(best, "o", color="white", markeredgecolor="black", markeredgewidth=style.THIN, markersize=3)


def _finding(recipe: str, means: pd.DataFrame, labels: Sequence[str]) -> str:
    """What a map shows, in words: the largest value of the first and of the last step."""
    before, after = means.iloc[:, 0], means.iloc[:, -1]
    return (
        f"{recipe}: {before.max():.3f} at step {means.columns[0]}, {after.max():.3f} at step {means.columns[-1]} "
        f"({labels[int(after.to_numpy().argmax())]})."
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "training_maps_figure"):
        training_maps_figure(
            Path(snakemake.input.alignment),
            snakemake.wildcards.metric,
            [Path(path) for path in snakemake.output],
        )
