"""Step x layer maps of alignment through training: one a recipe on one scale, and what other recipes add."""

import math
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

    alignment: TSV of `training_alignment`. Steps to the right, layers upwards, of each recipe its own; a dot marks the
    layer of each step with the largest mean, where one is defined. To the right, the difference of each further recipe
    and the first, where layers have the same names and steps are the same. Maps without any score say why.
    """
    style.styled()
    table = series.read(alignment, metric=metric)
    value = "calibrated" if series.is_calibrated(table) else "score"
    means = {str(recipe): _means(rows, value) for recipe, rows in table.groupby("recipe", sort=False)}
    first, *others = means
    gains = {
        f"{name} - {first}": means[name] - means[first]
        for name in others
        if means[name].index.equals(means[first].index)
        and means[name].columns.equals(means[first].columns)
        and (means[name] - means[first]).notna().to_numpy().any()
    }
    layers = max(len(each) for each in means.values())
    count = len(means) + len(gains)
    width = style.COLUMN if count == 1 else style.PAGE
    # scales stand beside the maps of their kind
    ratios = [1.0] * len(means) + [0.12] + ([1.0] * len(gains) + [0.12] if gains else [])
    figure = plt.figure(figsize=(width, 0.6 + max(1.2, 0.14 * layers)), layout="constrained")
    grid = figure.add_gridspec(1, len(ratios), width_ratios=ratios)
    panels = [figure.add_subplot(grid[0, i]) for i in range(len(means))]
    scored = table.groupby("recipe", sort=False)["score"].count() > 0
    why = {recipe: grids.undefined(metric, bool(scored[recipe])) for recipe in means}
    _maps(panels, means, why, style.CALIBRATED, _limits(means), series.value_name(metric, value == "calibrated"))
    _name_layers(panels, means)
    for axes, each in zip(panels, means.values(), strict=True):
        _dots(axes, each)
    if gains:
        beside = [figure.add_subplot(grid[0, len(means) + 1 + i]) for i in range(len(gains))]
        largest = max(float(np.nanmax(np.abs(each.to_numpy()))) for each in gains.values()) or 1.0
        _maps(beside, gains, why, style.SIGNED, (-largest, largest), "difference")
    trainings = table.groupby("recipe")["model"].nunique()
    of = f"{trainings.min()} to {trainings.max()}" if trainings.min() < trainings.max() else f"{trainings.max()}"
    style.heading(
        figure,
        f"{series.title_of(table)}. Alignment with {series.reference_of(table)}; mean over {of} training"
        f"{'s' if trainings.max() > 1 else ''} a recipe. Dots: the best layer of a step. "
        + " ".join(_finding(recipe, each) for recipe, each in means.items()),
    )
    style.save(figure, outputs, bool(table["miniature"].any()))


def _means(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Means over trainings (layers, steps) of a recipe, NaN where undefined; the index holds names of layers."""
    order = rows.sort_values("depth")["layer"].drop_duplicates()
    return rows.pivot_table(index="layer", columns="step", values=value, aggfunc="mean", dropna=False).loc[order]


def _limits(means: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    values = np.concatenate([each.to_numpy().ravel() for each in means.values()])
    defined = values[np.isfinite(values)]
    low, high = float(defined.min(initial=0)), max(defined.tolist(), default=0.0)
    return low, high if high > low else low + 1


def _maps(
    panels: Sequence[Axes],
    values: Mapping[str, pd.DataFrame],
    why: Mapping[str, str],
    colors: str,
    limits: tuple[float, float],
    label: str,
) -> None:
    """Maps with one scale beside the last that can be drawn. why: what stands in place of one without a value."""
    scaled = None
    for axes, (title, each) in zip(panels, values.items(), strict=True):
        axes.set_title(style.wrapped(title, 1.9))
        if each.isna().to_numpy().all():
            grids.undefined_in_place(axes, why[title], 1.4)
            continue
        image = maps.color_map_of(axes, each.to_numpy(), limits, colors, origin="lower", aspect="auto")
        scaled = image, axes
        grids.layer_ticks(axes, [str(step) for step in each.columns], "x")
        axes.set_xlabel("training step")
        axes.set_yticks([])
    if scaled is not None:
        bar = maps.color_bar(*scaled, 1.6)
        bar.set_title(style.wrapped(label, 0.6, style.SMALL), fontsize=style.SMALL, loc="left")


def _name_layers(panels: Sequence[Axes], means: Mapping[str, pd.DataFrame]) -> None:
    """Names of layers beside each map, unless all maps have the same, which stand beside the first."""
    drawn = [(axes, list(each.index)) for axes, each in zip(panels, means.values(), strict=True) if axes.images]
    alike = all(labels == drawn[0][1] for _, labels in drawn)
    for axes, labels in drawn[:1] if alike else drawn:
        grids.layer_ticks(axes, labels, "y", 16)
    if drawn:
        drawn[0][0].set_ylabel("layer")


def _best(values: pd.Series) -> float:
    """The place of the largest value, NaN where none is defined."""
    return float(np.nanargmax(values)) if values.notna().any() else math.nan


def _dots(axes: Axes, means: pd.DataFrame) -> None:
    best = [_best(means[step]) for step in means]
    if np.isnan(best).all():
        return
    axes.plot(best, "o", color="white", markeredgecolor="black", markeredgewidth=style.THIN, markersize=3)


def _finding(recipe: str, means: pd.DataFrame) -> str:
    """What a map shows, in words: the largest value of the first and of the last step."""
    if means.isna().to_numpy().all():
        return f"{recipe}: undefined at all steps."
    after = means.iloc[:, -1]
    layer = f" ({after.idxmax()})" if after.notna().any() else ""
    return f"{recipe}: {_largest(means, 0)}, {_largest(means, -1)}{layer}."


def _largest(means: pd.DataFrame, place: int) -> str:
    """``0.400 at step 9``; undefined where no layer has a score."""
    value = means.iloc[:, place].max()
    return f"{f'{value:.3f}' if np.isfinite(value) else 'undefined'} at step {means.columns[place]}"


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "training_maps_figure"):
        training_maps_figure(
            Path(snakemake.input.alignment),
            snakemake.wildcards.metric,
            [Path(path) for path in snakemake.output],
        )
