"""Scores of two layers in one space, method by method, and what each gains on none and on the best linear map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from diffalign import logs
from diffalign.figures import style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

SCORES = ("a", "b", "method", "seed", "seeds", "images", "metric", "n", "groups", "score", "low", "high", "null_mean")
CONTRASTS = ("method", "reference", "against", "metric", "difference", "low", "high")
LABELS = {
    "padded": "unaligned",
    "rbf": "RBF affinities",
    "half_shared": "half-shared MLP",
    "relative": "relative representation",
    "procrustes": "Procrustes",
    "cca": "CCA",
    "ridge": "ridge regression",
}
_LINEAR = ("procrustes", "cca", "ridge")
_PANELS = {
    "own_index": ("own image", "is nearest, share"),
    "own_label": ("own label", "is nearest, share"),
    "cka": ("CKA", "unbiased"),
    "cknna": ("CKNNA", ""),
    "predictivity": ("linear predictivity", "R²"),
}
# inches of a row
_ROW = 0.17
# a worse R² is beyond the panel: it says no more than that nothing is predicted
_LEAST_R2 = -0.25


def shared_scores_figure(scores: Path, contrasts: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw the tables of `shared_scores`: a column a metric, methods downwards.

    Above, scores: hollow on the images that a method was fitted to, filled on held-out ones, with 95 % intervals and
    chance. Below, differences on held-out images to the two sets as they are, and to the best linear method. A method
    that is trained with several seeds has its mean over them.
    """
    style.styled()
    table, gains = tables.read(scores, SCORES), tables.read(contrasts, CONTRASTS)
    # of trainings the mean alone; other methods have no seed
    table = table[table["seed"].isna()]
    there = set(table["method"])
    methods = [method for method in LABELS if method in there]
    metrics = [metric for metric in _PANELS if metric in set(table["metric"])]
    best = set(gains.loc[gains["reference"] == "best_linear", "against"])
    gained = [method for method in methods if method in set(gains["method"])]
    heights = (len(methods), len(gained))
    figure, grid = plt.subplots(
        2,
        len(metrics),
        figsize=(style.PAGE, _ROW * sum(heights) + 1.3),
        height_ratios=heights,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, metric in enumerate(metrics):
        of = table[table["metric"] == metric]
        _scores(grid[0, column], of, methods, metric)
        _gains(grid[1, column], gains[gains["metric"] == metric], gained)
        name, unit = _PANELS[metric]
        grid[0, column].set_title(f"{name}\n{unit}")
    for row, order in enumerate((methods, gained)):
        words = [f"{LABELS[method]}{' *' if method in best else ''}" for method in order]
        grid[row, 0].set_yticks(range(len(order)), words)
        grid[row, 0].set_ylim(len(order) - 0.5, -0.5)
    grid[1, 0].set_title("differences on held-out images")
    counts = {
        part: tuple(int(count) for count in table.loc[table["images"] == part, ["n", "groups"]].iloc[0])
        for part in ("fit", "held_out")
    }
    (fitted, _), (measured, groups) = counts["fit"], counts["held_out"]
    over = "held-out images" if groups == measured else f"{groups} groups of held-out images"
    first = table.iloc[0]
    trained = sorted({int(n) for n in table["seeds"].dropna()})
    seeds = f" and over {trained[0]} seeds of the trained" if trained else ""
    style.heading(
        figure,
        f"{first['a']} and {first['b']} in one space that was fitted to {fitted} images, measured on "
        f"{measured} others. Lines: 95 % over {over}{seeds}."
        + (" *: the best linear method, chosen by folds of the fitted images." if best else ""),
    )
    style.legend_below(figure, _legend(bool(best)), 3)
    style.save(figure, outputs, miniature)


def _scores(axes: Axes, table: pd.DataFrame, methods: Sequence[str], metric: str) -> None:
    at = {part: table[table["images"] == part].set_index("method") for part in ("fit", "held_out")}
    # with few arrangements of groups there is no null
    known = at["held_out"]["null_mean"].dropna()
    for chance in [0.0] if metric == "predictivity" else [float(known.median())] if len(known) else []:
        axes.axvline(chance, color=style.QUIET, linewidth=style.THIN, linestyle=":", zorder=1)
    for i, method in enumerate(methods):
        color = _color(method)
        _dot(axes, at["held_out"].loc[method], "score", i + 0.14, {"color": color, "marker": "o"})
        _dot(axes, at["fit"].loc[method], "score", i - 0.14, {"color": color, "marker": "o", **_HOLLOW})
    if metric == "predictivity":
        axes.set_xlim(left=max(axes.get_xlim()[0], _LEAST_R2))
    _finish(axes, len(methods))


def _gains(axes: Axes, table: pd.DataFrame, methods: Sequence[str]) -> None:
    axes.axvline(0, color=style.QUIET, linewidth=style.THIN, zorder=1)
    for reference, shift, look in (
        ("padded", -0.14, {"marker": "s", **_HOLLOW}),
        ("best_linear", 0.14, {"marker": "D"}),
    ):
        rows = table[table["reference"] == reference].set_index("method")
        for i, method in enumerate(methods):
            if method in rows.index:
                _dot(axes, rows.loc[method], "difference", i + shift, {"color": _color(method), **look})
    _finish(axes, len(methods))


_HOLLOW: Mapping[str, Any] = {"markerfacecolor": "white"}


def _dot(axes: Axes, row: Any, value: str, y: float, look: Mapping[str, Any]) -> None:
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        axes.plot((row["low"], row["high"]), (y, y), color=look["color"], linewidth=style.LINE, zorder=2)
    axes.plot(row[value], y, linestyle="", markersize=3.0, markeredgewidth=style.THIN, zorder=3, **look)


def _finish(axes: Axes, count: int) -> None:
    for between in range(1, count):
        axes.axhline(between - 0.5, color=style.GRID, linewidth=style.THIN, zorder=0)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)


def _color(method: str) -> str:
    return style.QUIET if method == "padded" else style.COLORS[0] if method in _LINEAR else style.COLORS[1]


def _legend(has_best: bool) -> dict[str, Any]:
    def line(marker: str, color: str = "black", **look: Any) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=color, markeredgewidth=style.THIN, **look)

    entries: dict[str, Any] = {
        "score on fitted images": line("o", **_HOLLOW),
        "score on held-out images": line("o"),
        "chance: other pairs of images (R²: their mean)": Line2D([], [], color=style.QUIET, linestyle=":"),
        "difference to unaligned": line("s", **_HOLLOW),
    }
    if has_best:
        entries["difference to the best linear method"] = line("D")
    return entries | {
        "linear map": Line2D([], [], color=style.COLORS[0]),
        "other map": Line2D([], [], color=style.COLORS[1]),
    }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_scores_figure"):
        shared_scores_figure(
            Path(snakemake.input.scores),
            Path(snakemake.input.contrasts),
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
