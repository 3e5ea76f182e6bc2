"""Where the spread of the scores of one pair comes from, drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_COLUMNS = ("metric", "images", "source", "side", "score", "n", "sd", "low", "high", "minimum", "maximum", "part_of")
_LOOKS = {"images": 0, "noise": 1, "training": 2, "preparation": 3}
# inches a row of a panel
_ROW = 0.16


def variance_figure(table: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw, for every metric, the standard deviation by source with its 95 % interval, hollow where it is no part of
    the sum. table: of `variance_table`.
    """
    style.styled()
    rows = tables.read(table, _COLUMNS)
    known = rows[rows["sd"].notna()]
    metrics = list(dict.fromkeys(rows["metric"]))
    # the first metric says how many there are of a source
    labels: dict[str, str] = {}
    for row in known.to_dict("records"):
        labels.setdefault(_source(row), f"{_source(row)} ({row['n']})")
    figure, panels = grids.panels(len(metrics), 4, 0.45 + _ROW * max(2, len(labels)), sharey=True)
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, known[known["metric"] == metric], labels)
        axes.set_title(METRICS[metric].label)
    for axes in panels:
        axes.set_xlabel("standard deviation")
    first = rows.iloc[0]
    style.heading(
        figure,
        f"{first['dataset']}, {first['condition']}: {first['a']}, {first['layer_a']} vs {first['b']}, "
        f"{first['layer_b']}; N = {first['images']}, k = {first['k']}. Lines: 95 % intervals",
    )
    style.save(figure, outputs, miniature)


def _source(row: Mapping[Any, Any]) -> str:
    """The source and its side; groups where images have some."""
    if row["source"] == "images" and row["n"] != row["images"]:
        return "groups of images"
    return str(row["source"]) if row["side"] == "both" else f"{row['source']} of {row['side']}"


def _panel(axes: Axes, rows: pd.DataFrame, labels: Mapping[str, str]) -> None:
    sources = list(labels)
    for row in rows.to_dict("records"):
        at = sources.index(_source(row))
        look: dict[str, Any] = style.look(_LOOKS[row["source"]])
        # hollow where it is no part of the sum
        hollow = row["source"] == "preparation" or isinstance(row["part_of"], str)
        axes.plot(row["sd"], at, **look, markersize=4, markerfacecolor="white" if hollow else look["color"])
        if pd.notna(row["low"]):
            axes.hlines(at, row["low"], row["high"], color=look["color"], linewidth=style.LINE, zorder=1.5)
    axes.set_yticks(range(len(labels)), list(labels.values()))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x")


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "variance_figure"):
        variance_figure(
            Path(snakemake.input.table), [Path(path) for path in snakemake.output], snakemake.params.miniature
        )
