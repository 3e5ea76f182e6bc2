"""Contrasts of a family, or of all layers: differences with intervals and simultaneous bands, a panel a metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_SIDES = [column for side in "abcd" for column in (side, f"layer_{side}")]
# the narrower bar is the interval of a contrast by itself, the thin one the band
_BAND, _INTERVAL = style.THIN, 2 * style.THICK
# a row of a contrast with its two lines of text, and what a panel needs beside rows, in inches
_ROW, _FRAME = 0.24, 0.5


def contrasts_figure(path: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw one row a contrast, at all layers from the first upwards: the difference, its 95 % interval by itself
    (thick) and its band over the family (thin); filled where the band excludes 0.

    path: a table of `contrast`.
    """
    style.styled()
    table = tables.read(path, ["family", "contrast", "metric", "difference", *_SIDES])
    metrics = list(dict.fromkeys(table["metric"]))
    varied = [column for column in _SIDES if table[column].nunique() > 1]
    first = table[table["metric"] == metrics[0]].reset_index(drop=True)
    of_layers = varied and set(varied) <= {"layer_a", "layer_c"} and first["layer_a"].equals(first["layer_c"])
    labels = first["layer_a"].tolist() if of_layers else [_label(row) for _, row in first.iterrows()]
    row = _ROW / 2 if of_layers else _ROW
    columns = 4 if of_layers else 2
    figure, panels = grids.panels(len(metrics), columns, _FRAME + row * max(2, len(labels)), sharey=True)
    for i, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        of_metric = table[table["metric"] == metric].reset_index(drop=True)
        _draw(axes, of_metric)
        axes.set_title(_title(metric, of_metric))
        axes.set_ylim(-0.6, len(labels) - 0.4)
        if of_layers:
            grids.layer_ticks(axes, labels, "y", 24)
        else:
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
        if not i % grids.grid_of_panels(len(metrics), columns)[1]:
            axes.set_ylabel("layer" if of_layers else "")
    style.heading(figure, _heading(first, bool(of_layers)))
    color = style.COLORS[0]
    style.legend_below(
        figure,
        {
            "95 % interval": Line2D([], [], color=color, linewidth=_INTERVAL, alpha=0.5),
            "band over the family": Line2D([], [], color=color, linewidth=_BAND),
            "band excludes 0": Line2D([], [], color=color, marker="o", linestyle="none"),
            "not shown to differ": Line2D([], [], color=color, marker="o", markerfacecolor="white", linestyle="none"),
        },
        4,
    )
    style.save(figure, outputs, miniature)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    """The differences of one metric, and a line at 0."""
    axes.axvline(0, color=style.QUIET, linewidth=style.THIN)
    color = style.COLORS[0]
    for i, row in rows.iterrows():
        if np.isnan(row["error"]):
            word = "undefined" if np.isnan(row["difference"]) else "no error"
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.SMALL, "color": style.WORDS}
            axes.text(0, int(str(i)), word, backgroundcolor="white", **place)
            continue
        at = [int(str(i))] * 2
        axes.plot([row["band_low"], row["band_high"]], at, color=color, linewidth=_BAND)
        axes.plot([row["low"], row["high"]], at, color=color, linewidth=_INTERVAL, alpha=0.5, solid_capstyle="butt")
        filled = color if row["differs"] else "white"
        axes.plot(row["difference"], at[0], "o", color=color, markerfacecolor=filled)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x")


def _title(metric: str, rows: pd.DataFrame) -> str:
    count = int(rows["differs"].fillna(value=False).sum())
    return f"{METRICS[metric].label}: {count} of {rows['differs'].notna().sum()} differ"


def _label(row: pd.Series) -> str:
    """``a, layer vs b, layer`` over what is subtracted from it."""
    first, second = (
        f"{row[a]} {row[f'layer_{a}']} vs {row[b]} {row[f'layer_{b}']}" for a, b in (("a", "b"), ("c", "d"))
    )
    return f"{first}\n- {second}"


def _heading(first: pd.DataFrame, of_layers: bool) -> str:
    """What is compared, over how many images and groups of them."""
    row = first.iloc[0]
    over = f"N = {row['n']}" if row["n"] == row["groups"] else f"N = {row['n']} in {row['groups']} groups"
    what = f"Contrasts '{row['family']}'"
    if of_layers:
        what = f"{row['a']} vs {row['b']} {row['layer_b']}, minus {row['c']} vs {row['d']} {row['layer_d']}"
    leaks = list(dict.fromkeys(first["leak"].dropna()))
    given = f" Not independent: {'; '.join(leaks)}." if leaks else ""
    return f"{what}, on {row['dataset']}, {row['condition']}: {over}, k = {row['k']}. Difference of scores.{given}"


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "contrasts_figure"):
        contrasts_figure(
            Path(snakemake.input.table), [Path(path) for path in snakemake.output], snakemake.params.miniature
        )
