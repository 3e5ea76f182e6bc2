"""Alignment over the steps of trainings beside the quality of their samples, and one against the other."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffalign import logs
from diffalign.alignment.metrics import UNDEFINED
from diffalign.figures import grids, series, style
from diffalign.figures.style import p_text
from diffalign.sample_quality import named

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

ALIGNMENT, QUALITY = "alignment", "quality"


def through_training_figure(
    alignment: Path, tables: Mapping[str, Path], metric: str, measure: str | None, outputs: Sequence[Path]
) -> None:
    """Draw alignment over steps, and with a measure of quality that over steps and the two against each other.

    alignment: TSV of `training_alignment`. tables: points, steps, contrasts and correlations of
    `through_training_table`. Bands are 95 % intervals over trainings; thin lines join the steps of one training.
    """
    style.styled()
    measured = series.read(alignment, metric=metric)
    points, steps, contrasts = (series.read(tables[name]) for name in ("points", "steps", "contrasts"))
    recipes = list(dict.fromkeys(points["recipe"]))
    looks: dict[str, Mapping[str, Any]] = {recipe: style.look(i) for i, recipe in enumerate(recipes)}
    of_metric = points[(points["quantity"] == ALIGNMENT) & (points["measure"] == metric)]
    # as the values of the tables are, which may be raw where scores on all images are calibrated
    label = series.value_name(metric, bool((of_metric["scale"] == "calibrated").any()))
    count = 1 if measure is None else 3
    size = (style.COLUMN if count == 1 else style.PAGE, 2.1)
    figure, grid = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    panels: list[Axes] = grid[0].tolist()
    _over_steps(panels[0], steps, points, looks, (ALIGNMENT, metric))
    panels[0].set_ylabel(label)
    panels[0].set_title("alignment of the best layer")
    found = ""
    if measure is not None:
        _over_steps(panels[1], steps, points, looks, (QUALITY, measure))
        panels[1].set_ylabel(named(measure))
        panels[1].set_title("quality of samples")
        _against(panels[2], points, looks, metric, measure)
        panels[2].set_ylabel(label)
        panels[2].set_xlabel(named(measure))
        correlations = series.read(tables["correlations"], metric=metric, measure=measure)
        found = _correlation(panels[2], correlations)
    style.heading(
        figure,
        f"{series.title_of(measured)}. Alignment with {series.reference_of(measured)}: the layer is chosen on half of "
        f"the images and measured on the other. Bands: 95 % over trainings. "
        f"{_gains(steps, of_metric, dict.fromkeys(measured['recipe']), metric)}"
        f"{_contrast(contrasts, metric)}{found}",
    )
    grids.shared_legend(figure, panels, 4)
    style.save(figure, outputs, bool(measured["miniature"].any()))


def _over_steps(
    axes: Axes,
    steps: pd.DataFrame,
    points: pd.DataFrame,
    looks: Mapping[str, Mapping[str, Any]],
    what: tuple[str, str],
) -> None:
    """Means over trainings with their bands; every training as a thin line. Why, where no value is defined."""
    drawn = points[(points["quantity"] == what[0]) & (points["measure"] == what[1])]["value"].dropna()
    if drawn.empty:
        if what[0] == ALIGNMENT:
            grids.undefined_in_place(axes, _undefined(points, what[1]), 1.8)
        else:
            grids.in_place(axes, "no value is defined")
        return
    for recipe, look in looks.items():
        rows = _of(steps, what, recipe).sort_values("step")
        axes.fill_between(rows["step"], rows["low"], rows["high"], color=look["color"], alpha=0.16, linewidth=0)
        for _, training in _of(points, what, recipe).groupby("model", sort=False):
            ordered = training.sort_values("step")
            axes.plot(ordered["step"], ordered["value"], color=look["color"], linewidth=style.THIN, alpha=0.5)
        axes.plot(rows["step"], rows["mean"], label=recipe, linewidth=style.THICK, **look)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    # bands of few trainings are wide: the means and the trainings set the axis
    room = 0.25 * float(np.ptp(drawn)) or 0.1
    axes.set_ylim(float(drawn.min()) - room, float(drawn.max()) + room)
    grids.horizontal_lines(axes)


def _of(table: pd.DataFrame, what: tuple[str, str], recipe: str) -> pd.DataFrame:
    return table[(table["quantity"] == what[0]) & (table["measure"] == what[1]) & (table["recipe"] == recipe)]


def _against(
    axes: Axes, points: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]], metric: str, measure: str
) -> None:
    """Alignment over quality, a point a checkpoint, larger for later steps, joined by training."""
    last, drawn = max(1, int(points["step"].max())), False
    for recipe, look in looks.items():
        joined = _of(points, (ALIGNMENT, metric), recipe).merge(
            _of(points, (QUALITY, measure), recipe)[["model", "step", "value"]], on=["model", "step"]
        )
        for _, training in joined.groupby("model", sort=False):
            ordered = training.sort_values("step")
            axes.plot(ordered["value_y"], ordered["value_x"], color=look["color"], linewidth=style.THIN, alpha=0.5)
        axes.scatter(
            joined["value_y"],
            joined["value_x"],
            s=4 + 14 * joined["step"] / last,
            color=look["color"],
            marker=look["marker"],
            linewidths=0,
        )
        drawn = drawn or bool(joined[["value_x", "value_y"]].notna().all(axis=1).any())
    if not drawn:
        grids.in_place(axes, "no checkpoint has both")
    axes.set_title("both; larger: later steps")
    axes.grid()


def _correlation(axes: Axes, correlations: pd.DataFrame) -> str:
    """The partial rank correlation, written into a panel and as words of the heading; '' where there is none."""
    if correlations.empty or not np.isfinite(correlations["rho"].iloc[0]):
        return ""
    each = correlations.iloc[0]
    value = series.bracketed(each["rho"], each["low"], each["high"], 2)
    # of few trainings a p would say nothing, and is not in the table
    p = "" if np.isnan(each["p"]) else f"{p_text(each['p'])}, "
    several = each["recipes"] > 1
    given = "step, recipe" if several else "step"
    axes.margins(y=0.22)
    axes.text(
        *(0.03, 0.97, f"ρ given {given} {value}\n{p}{int(each['trainings'])} trainings"),
        transform=axes.transAxes,
        va="top",
        fontsize=style.SMALL,
    )
    within = "at the same step, within recipes" if several else "at the same step"
    return f" Alignment and quality {within}: ρ = {value}{f', {p}'.removesuffix(', ')}."


def _undefined(points: pd.DataFrame, metric: str) -> str:
    """Why none of these checkpoints has a value of a metric."""
    reasons = points.loc[(points["measure"] == metric) & points["value"].isna(), "reason"].dropna()
    return grids.undefined(metric, scored=bool((reasons != UNDEFINED).any()))


def _gains(steps: pd.DataFrame, points: pd.DataFrame, recipes: Iterable[str], metric: str) -> str:
    """What each recipe gains from the first step to the last; which recipes have no value at any step. points: of the
    metric.
    """
    words = []
    for recipe in recipes:
        rows = _of(steps, (ALIGNMENT, metric), recipe).sort_values("step")
        if rows.empty:
            words.append(f"{recipe}: undefined ({_undefined(points[points['recipe'] == recipe], metric)}).")
            continue
        last = rows.iloc[-1]
        if np.isfinite(last["gain"]):
            gain = series.bracketed(last["gain"], last["gain_low"], last["gain_high"])
            of = f"{last['gain_trainings']} training{'s' if last['gain_trainings'] > 1 else ''}"
            words.append(f"{recipe} gains {gain} by step {last['step']} ({of}).")
    return " ".join(words)


def _contrast(contrasts: pd.DataFrame, metric: str) -> str:
    """What recipes add to each other at the last step."""
    rows = contrasts[(contrasts["quantity"] == ALIGNMENT) & (contrasts["measure"] == metric)]
    words = []
    for _, pair in rows.groupby(["recipe", "other"], sort=False):
        last = pair.sort_values("step").iloc[-1]
        found = series.bracketed(last["difference"], last["low"], last["high"])
        words.append(f"{last['recipe']} - {last['other']}: {found}.")
    return "".join(f" {word}" for word in words)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "through_training_figure"):
        given = dict(snakemake.input.items())
        through_training_figure(
            Path(given.pop("alignment")),
            {name: Path(path) for name, path in given.items()},
            snakemake.wildcards.metric,
            snakemake.params.measure,
            [Path(path) for path in snakemake.output],
        )
