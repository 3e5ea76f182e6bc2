"""Alignment against how well language models predict texts, one panel a model that they are compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# raw scores are hollow, calibrated ones filled, in every panel
_SCORES = {"maximum": "white", "maximum_calibrated": None}
_LABELS = {"maximum": "largest score", "maximum_calibrated": "calibrated"}


def bits_per_byte_figure(table: Path, correlations: Path, panel: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Draw the largest score, raw and calibrated, over bits per byte, and the rank correlations of all panels.

    table, correlations: TSV of `quality_table`. panel: the metric, data set and condition to draw. No line is drawn
    through models of different series.
    """
    style.styled()
    points, correlated = (_read(path, panel) for path in (table, correlations))
    predicting = points[np.isfinite(points["bits_per_byte"])]
    # where none predicts texts, empty panels say so
    shown = points if predicting.empty else predicting
    places = list(dict.fromkeys(zip(shown["other"], shown["variant"], strict=True)))
    looks = {
        # every series has a marker of its own as well
        series: {"color": style.COLORS[i % len(style.COLORS)], "marker": style.MARKERS[i % len(style.MARKERS)]}
        for i, series in enumerate(dict.fromkeys(predicting["series"]))
    }
    rows, columns = grids.grid_of_panels(len(places), 3)
    height = max(1.5 * rows, 0.24 * len(places) + 0.6)
    figure = plt.figure(figsize=(style.PAGE, height + 0.5), layout="constrained")
    # as wide as two of three panels
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[1.0] * columns + [2 * columns / 3])
    panels: list[Axes] = []
    for i, place in enumerate(places):
        first = panels[0] if panels else None
        axes = figure.add_subplot(grid[i // columns, i % columns], sharex=first, sharey=first)
        panels.append(axes)
        _scatter(axes, _of(predicting, place), looks)
        axes.set_title(style.wrapped(_name(place), 1.4))
        axes.tick_params(labelbottom=i + columns >= len(places), labelleft=i % columns == 0)
    # better models to the right
    panels[0].invert_xaxis()
    drawn = predicting[list(_SCORES)].to_numpy().ravel()
    drawn = np.append(drawn[np.isfinite(drawn)], 0.0)
    beyond = 0.06 * float(np.ptp(drawn)) or 1.0
    panels[0].set_ylim(float(drawn.min()) - beyond, float(drawn.max()) + beyond)
    _forest(figure.add_subplot(grid[:, columns]), correlated, places)
    _axis_labels(figure, panels, columns, METRICS[panel["metric"]].label)
    style.heading(figure, style.title_of({**panel, "n": points["n"].iloc[0], "k": points["k"].iloc[0]}))
    style.legend_below(figure, _legend(looks, bool(np.isfinite(correlated["within"]).any())), 7)
    style.save(figure, outputs, bool(shown["miniature"].any()))


def _read(path: Path, panel: Mapping[str, str]) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values={key: [""] for key in _NUMBERS})
    for key, value in panel.items():
        table = table[table[key] == value]
    # a table without rows has no types
    return table.astype(dict.fromkeys(table.columns.intersection(list(_NUMBERS)), "float64"))


_NUMBERS = ("bits_per_byte", "parameters", "maximum", "maximum_calibrated", "rho", "low", "high", "within")


def _of(table: pd.DataFrame, place: tuple[str, str]) -> pd.DataFrame:
    return table[(table["other"] == place[0]) & (table["variant"] == place[1])]


def _name(place: tuple[str, str]) -> str:
    """A panel: the model, and how language models are read where it is not the default."""
    other, variant = place
    return f"{other}\nlanguage: {variant.removeprefix('-')}" if variant else other


def _scatter(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Both scores of every model, a thin line between them; larger models are larger."""
    for each in rows.to_dict("records"):
        both = [each["maximum"], each["maximum_calibrated"]]
        axes.plot([each["bits_per_byte"]] * 2, both, color=style.MISSING, linewidth=style.THIN, zorder=1)
        size = 2.6 + 1.2 * max(0.0, float(np.log10(each["parameters"]) - 8.5)) if each["parameters"] > 0 else 2.6
        look = looks[each["series"]]
        for value, face in zip(both, _SCORES.values(), strict=True):
            axes.plot(
                each["bits_per_byte"], value, linestyle="none", markersize=size,
                markerfacecolor=face or look["color"], markeredgewidth=0.7, **look,
            )  # fmt: skip
    axes.grid()
    axes.locator_params(axis="x", nbins=4)
    axes.margins(0.12)


def _forest(axes: Axes, correlated: pd.DataFrame, places: Sequence[tuple[str, str]]) -> None:
    """Rank correlations of all panels with their intervals, raw above calibrated."""
    if not np.isfinite(correlated["rho"]).any():
        grids.in_place(axes, "too few language models that\npredict texts for a rank correlation")
        return
    for i, place in enumerate(places):
        rows = _of(correlated, place)
        for score, offset in zip(_SCORES, (-0.16, 0.16), strict=True):
            for each in rows[rows["score"] == score].to_dict("records"):
                if np.isfinite(each["low"]):
                    axes.plot(
                        [each["low"], each["high"]], [i + offset] * 2, color=style.QUIET, linewidth=style.LINE, zorder=1
                    )
                if np.isfinite(each["rho"]):
                    face = _SCORES[score] or style.QUIET
                    axes.plot(each["rho"], i + offset, "o", color=style.QUIET, markerfacecolor=face, markersize=3.5)
                if np.isfinite(each["within"]):
                    axes.plot(each["within"], i + offset, "|", color=style.BEST, markersize=5, markeredgewidth=1.2)
    axes.axvline(0, color=style.QUIET, linewidth=style.THIN, linestyle=":")
    axes.set_xlim(-1.05, 1.05)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_yticks(range(len(places)), [" ".join(_name(place).split("\n")) for place in places])
    axes.set_xlabel("rank correlation with quality\n(less bits per byte)")
    series, models = int(correlated["series"].max()), int(correlated["models"].max())
    undrawn = "" if np.isfinite(correlated["low"]).any() else "; too few for intervals"
    axes.set_title(style.wrapped(f"{models} models of {series} series{undrawn}", 2.0))


def _axis_labels(figure: Figure, panels: Sequence[Axes], columns: int, metric: str) -> None:
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(metric)
        if i + columns >= len(panels):
            axes.set_xlabel("bits per byte\n(better to the right)")


def _legend(looks: Mapping[str, Mapping[str, Any]], within: bool) -> dict[str, Line2D]:
    """Series, then what hollow, filled and, where there are any, the bars of the correlations mean."""
    plain: dict[str, Any] = {"linestyle": "none", "markersize": 4}
    grey: dict[str, Any] = {"color": style.QUIET, "marker": "o", **plain}
    scores = {
        _LABELS[key]: Line2D([], [], markerfacecolor=face or style.QUIET, **grey) for key, face in _SCORES.items()
    }
    bar = Line2D([], [], color=style.BEST, marker="|", markeredgewidth=1.2, **plain)
    series = {name: Line2D([], [], **plain, **look) for name, look in looks.items()}
    return {**series, **scores, **({"within series (τ)": bar} if within else {})}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "bits_per_byte_figure"):
        where = snakemake.wildcards
        bits_per_byte_figure(
            Path(snakemake.input.table),
            Path(snakemake.input.correlations),
            {"metric": where.metric, "dataset": where.dataset, "condition": where.condition},
            [Path(path) for path in snakemake.output],
        )
