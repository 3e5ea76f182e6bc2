"""The dependence of scores on k and on N, drawn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_AXES = {"k": "neighbours k", "n": "images N"}
# of the null
_HOLLOW: dict[str, Any] = {"linestyle": "--", "linewidth": style.THIN, "markersize": 2.0, "markerfacecolor": "white"}
# ridge R² of few images may fall to any depth
_LOWEST = -0.5
# a calibrated axis reaches at least so far
_CLOSEST = 0.1


def curves_figure(table: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw raw scores with their null means above, calibrated scores below; over k to the left, over N to the right."""
    style.styled()
    scores = pd.read_csv(table, sep="\t", keep_default_na=False, na_values=[""])
    # scores that run up to k are shown as shares of it
    top = pd.Series([METRICS[metric].highest(k) for metric, k in zip(scores["metric"], scores["k"], strict=True)])
    scale = top.where(top.map(math.isfinite), 1.0)
    scores["score"], scores["null_mean"] = scores["score"] / scale, scores["null_mean"] / scale
    metrics = list(dict.fromkeys(scores["metric"]))
    looks: dict[str, Any] = {metric: style.look(i) for i, metric in enumerate(sorted(metrics, key=list(METRICS).index))}
    kinds = [kind for kind in _AXES if (scores["curve"] == kind).any()]
    figure, panels = plt.subplots(
        2, len(kinds), figsize=(style.PAGE, 3.4), squeeze=False, sharex="col", sharey="row", layout="constrained"
    )
    n, k = int(scores["n"].max()), int(scores.loc[scores["curve"] == "n", "k"].iloc[0])
    for kind, (raw, calibrated) in zip(kinds, panels.T, strict=True):
        points = scores[scores["curve"] == kind]
        for metric, of_metric in points.groupby("metric", sort=False):
            line = {**looks[str(metric)], "markersize": 2.6}
            raw.plot(of_metric[kind], of_metric["score"], **line)
            raw.plot(of_metric[kind], of_metric["null_mean"], **(line | _HOLLOW))
            calibrated.plot(of_metric[kind], of_metric["calibrated"], **line)
        scale_axes(calibrated, sorted(set(points[kind])), k if kind == "k" else n)
        calibrated.set_xlabel(_AXES[kind])
        raw.set_title(f"over k, at N = {n}" if kind == "k" else f"over N (one draw of nested subsets), at k = {k}")
        for axes in (raw, calibrated):
            axes.axvline(k if kind == "k" else n, color=style.MISSING, linewidth=3, zorder=0)
            grids.horizontal_lines(axes)
    lowest = panels[0, 0].get_ylim()[0]
    panels[0, 0].set_ylim(bottom=max(lowest, _LOWEST))
    panels[0, 0].set_ylabel("score")
    # from 0, and never so close that noise looks like a result
    highest = scores["calibrated"].max()
    panels[1, 0].set_ylim(-0.03 * _CLOSEST, max(_CLOSEST, 1.05 * (0 if math.isnan(highest) else highest)))
    panels[1, 0].set_ylabel("calibrated score")
    lines = [Line2D([], [], label=label(metric), markersize=2.6, **looks[metric]) for metric in looks]
    grey: dict[str, Any] = {"color": style.QUIET, "marker": "o"}
    lines.append(Line2D([], [], label="score", markersize=2.6, **grey))
    lines.append(Line2D([], [], label="null mean", **(grey | _HOLLOW)))
    figure.legend(handles=lines, loc="outside right center")
    first = scores.iloc[0]
    style.heading(
        figure,
        f"{first['dataset']}, {first['condition']}: "
        f"{first['a']}, {first['layer_a']} vs {first['b']}, {first['layer_b']}",
    )
    style.save(figure, outputs, miniature)


def scale_axes(axes: Axes, values: Sequence[int], marked: int) -> None:
    """A logarithmic axis with ticks at values that were measured: the ends, the marked one, and others with room."""
    axes.set_xscale("log")
    ticks = sorted({values[0], marked, values[-1]})
    least = (values[-1] / values[0]) ** (1 / 8)
    for value in values:
        if all(max(value / tick, tick / value) >= least for tick in ticks):
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")


def label(metric: str) -> str:
    """Its name in the legend."""
    top = METRICS[metric].highest(2)
    return f"{METRICS[metric].label} / k" if math.isfinite(top) and top != 1 else METRICS[metric].label


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "curves_figure"):
        curves_figure(
            Path(snakemake.input.table), [Path(path) for path in snakemake.output], snakemake.params.miniature
        )
