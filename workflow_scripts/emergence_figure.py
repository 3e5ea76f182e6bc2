"""The order in which bands, wavelets and features appear, model by model: dots and intervals on the axis of t."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from diffalign import logs
from diffalign.dynamics.orders import order
from diffalign.figures import dynamics, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = ("model", "configuration", "reference", "domain", "kind", "measure", "statistic", "t", "low", "high", "seeds")
# inches of a row with one series, of each further one, of what stands between blocks, and of all at most
_ROW, _SERIES, _BETWEEN, _TALLEST = 0.13, 0.04, 0.22, 8.2

# a model in a configuration
Series = tuple[str, str]
# a space, a statistic and the measures that have it, downwards
Block = tuple[str, str, list[str]]


def emergence_figure(times: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw when measures appear: half-rise and emergence of bands and wavelets to the left, stabilisation of features
    to the right, these in the order of their mean time over all that are no references.

    times: the table of all models and configurations that `emergence_table` writes. A dot is the mean over seeds, its
    line the 95 % interval over seeds; references are grey and hollow.
    """
    style.styled()
    table = tables.read(times, COLUMNS)
    table["reference"] = table["reference"].fillna("")
    references = set(table["reference"])
    series: list[Series] = sorted(
        dict.fromkeys(zip(table["model"], table["configuration"], strict=True)), key=lambda each: each[0] in references
    )
    looks = _looks(series, references)
    blocks = _blocks(table[~table["model"].isin(references)])
    columns = [[each for each in blocks if (each[1] == "stabilisation") == late] for late in (False, True)]
    columns = [column for column in columns if column]
    row, most = _ROW + _SERIES * (len(series) - 1), max(sum(len(block[2]) for block in column) for column in columns)
    between = _BETWEEN * max(map(len, columns))
    size = (style.PAGE if len(columns) > 1 else style.COLUMN, min(most * row, _TALLEST) + between + 0.5)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(1, len(columns))
    for number, column in enumerate(columns):
        heights = [len(measures) + _BETWEEN / row for *_, measures in column]
        within = grid[0, number].subgridspec(len(column), 1, height_ratios=heights)
        for i, block in enumerate(column):
            axes = figure.add_subplot(within[i])
            _block(axes, table, block, looks)
            dynamics.noise_axis(
                axes, (1.0, 0.0), size[0] / len(columns) - 0.8, labelled=i == len(column) - 1, above=i == 0
            )
            axes.set_title(f"{dynamics.STATISTICS[block[1]]}, {block[0]}")
    known = table[table["low"].notna()]
    lines = f"; lines: 95 % over {' or '.join(map(str, sorted(set(known['seeds']))))} seeds" if len(known) else ""
    style.heading(
        figure,
        f"When measures of the estimate of the image appear, from noise to image. Dots: means over samples{lines}. "
        f"{_orders(table, series)}",
    )
    entries = {_name(each, series): Line2D([], [], linestyle="", **look) for each, look in looks.items()}
    style.legend_below(figure, entries, 3)
    style.save(figure, outputs, miniature)


def _looks(series: Sequence[Series], references: set[str]) -> dict[Series, dict[str, Any]]:
    """Colour and marker of each; references are grey and hollow."""
    found: dict[Series, dict[str, Any]] = {}
    for i, each in enumerate(series):
        marker = style.MARKERS[i % len(style.MARKERS)]
        is_reference = each[0] in references
        color = style.QUIET if is_reference else style.look(i)["color"]
        found[each] = {
            "color": color,
            "marker": marker,
            "markersize": 3.0,
            "markeredgewidth": style.THIN,
            "markerfacecolor": "white" if is_reference else color,
        }
    return found


def _name(each: Series, series: Sequence[Series]) -> str:
    """The model, the configuration, or both where several of both are drawn."""
    models, configurations = ({one[i] for one in series} for i in range(2))
    if len(configurations) == 1:
        return each[0]
    return each[1] if len(models) == 1 else ", ".join(each)


def _blocks(table: pd.DataFrame) -> list[Block]:
    """Blocks in their order, from the top."""
    found: list[Block] = []
    for domain in (dynamics.LATENTS, dynamics.IMAGES):
        for statistic in dynamics.STATISTICS:
            rows = table[(table["domain"] == domain) & (table["statistic"] == statistic)]
            measures = [
                each for kind in (dynamics.BAND, dynamics.WAVELET) for each in dynamics.ordered_measures(rows, kind)
            ]
            means = rows[~rows["measure"].isin(measures)].groupby("measure")["t"].mean()
            measures += list(map(str, means.sort_values(ascending=False, kind="stable").index))
            if measures:
                found.append((domain, statistic, measures))
    return found


def _block(axes: Axes, table: pd.DataFrame, block: Block, looks: Mapping[Series, Mapping[str, Any]]) -> None:
    domain, statistic, measures = block
    rows = table[(table["domain"] == domain) & (table["statistic"] == statistic)]
    offsets = np.linspace(-0.3, 0.3, len(looks)) if len(looks) > 1 else np.zeros(1)
    for (each, look), offset in zip(looks.items(), offsets, strict=True):
        of = rows[(rows["model"] == each[0]) & (rows["configuration"] == each[1])].set_index("measure")[
            ["t", "low", "high"]
        ]
        for i, measure in enumerate(measures):
            if measure not in of.index:
                continue
            t, low, high = of.loc[measure].to_numpy(np.float64)
            if np.isfinite(low) and np.isfinite(high):
                ends = np.clip((low, high), 0, 1)
                axes.plot(ends, (i + offset, i + offset), color=look["color"], linewidth=style.LINE, zorder=2)
            axes.plot(t, i + offset, linestyle="", zorder=3, clip_on=False, **look)
    levels = dynamics.wavelet_levels(measures)
    axes.set_yticks(range(len(measures)), [dynamics.label_of(each, levels or None) for each in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for between in range(1, len(measures)):
        axes.axhline(between - 0.5, color=style.GRID, linewidth=style.THIN, zorder=0)
    axes.grid(axis="x")


def _orders(table: pd.DataFrame, series: Sequence[Series]) -> str:
    """The order of half-rise of the bands in each series, in words: of latents, or of images where there are none."""
    domain = dynamics.LATENTS if dynamics.LATENTS in set(table["domain"]) else dynamics.IMAGES
    rows = table[(table["domain"] == domain) & (table["statistic"] == "half_rise") & (table["kind"] == dynamics.BAND)]
    words = []
    for each in series:
        of = rows[(rows["model"] == each[0]) & (rows["configuration"] == each[1])]
        if len(of) > 1:
            names = [dynamics.BANDS[measure] for measure in of["measure"]]
            found = order(of["t"].to_numpy(np.float64)[None], names)
            words.append(f"{_name(each, series)}: {found.replace('<', ' < ').replace('=', ' = ')}")
    return f"Order of the bands of {domain} by half-rise – {'; '.join(words)}." if words else ""


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "emergence_figure"):
        emergence_figure(
            Path(snakemake.input.times), [Path(path) for path in snakemake.output], snakemake.params.miniature
        )
