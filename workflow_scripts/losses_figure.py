"""Losses of trainings over their steps: each step faintly, and smoothed; one panel a part of the loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.figures import grids, style
from diffalign.io.tables import read_tsv

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# columns of the tables that are drawn, with the names of their axes; a loss with parts is drawn in its parts
_PARTS: Mapping[str, str] = {
    "accuracy": "accuracy\n(of the batch)",
    "error": "squared error\n(of pixels)",
    "divergence": "divergence\n(nats an image)",
    "velocity": "squared error\n(of the velocity)",
    "cosine": "cosine\n(with the teacher)",
}
_LOSS = "cross-entropy\n(nats)"
# the smoothed line is a moving average with exponential weights, which halve in this share of the steps
_HALF_LIFE = 0.01


def losses_figure(tables: Sequence[Path], recipes: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Draw one panel a part of a loss, as wide as a column, and in it one line a training that has it.

    tables: what the script `train` wrote. recipes: model -> the model whose recipe it shares; trainings that differ in
    their seed alone have one colour.
    """
    style.styled()
    read = [read_tsv(path) for path in tables]
    named = list(dict.fromkeys(recipes[str(table["model"][0])] for table in read))
    colors = {recipe: style.look(number)["color"] for number, recipe in enumerate(named)}
    members = [recipes[str(table["model"][0])] for table in read]
    columns = [column for column in ("loss", *_PARTS) if any(column in drawn(table) for table in read)]
    figure, panels = plt.subplots(
        len(columns), 1, figsize=(style.COLUMN, 0.95 * len(columns) + 0.3), squeeze=False, layout="constrained"
    )
    for axes, column in zip(panels[:, 0], columns, strict=True):
        for table, recipe in zip(read, members, strict=True):
            if column in drawn(table):
                seeds = members.count(recipe)
                curve(axes, table, column, colors[recipe], recipe if seeds == 1 else f"{recipe} ({seeds} seeds)")
        axes.set_ylabel(_PARTS.get(column, _LOSS))
        axes.set_xlim(left=0)
        grids.horizontal_lines(axes)
    panels[-1, 0].set_xlabel("step")
    figure.align_ylabels()
    style.heading(
        figure,
        "Losses of trainings on the batch of each step; strong: moving average whose weights halve in "
        f"{_HALF_LIFE:.0%} of the steps.",
    )
    grids.shared_legend(figure, panels[:, 0], 3)
    style.save(figure, outputs, miniature=False)


def drawn(table: pd.DataFrame) -> list[str]:
    """The columns of a training that are drawn: its loss where that is one number, with its parts where it has any."""
    parts = [part for part in _PARTS if part in table.columns]
    return ["loss", *parts] if parts in ([], ["accuracy"]) else parts


def curve(axes: Axes, table: pd.DataFrame, column: str, color: str, label: str) -> None:
    """One training: every step faintly, and its moving average."""
    smoothed = table[column].ewm(halflife=max(1.0, _HALF_LIFE * len(table))).mean()
    axes.plot(table["step"], table[column], color=color, alpha=0.2, linewidth=style.THIN)
    axes.plot(table["step"], smoothed, color=color, linewidth=style.LINE, label=label)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "losses_figure"):
        losses_figure(
            [Path(path) for path in snakemake.input.tables],
            snakemake.params.recipes,
            [Path(path) for path in snakemake.output],
        )
