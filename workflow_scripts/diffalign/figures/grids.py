"""Panels beside and below each other: how many in a row, their ticks, and one legend for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffalign.alignment.metrics import METRICS, UNDEFINED
from diffalign.figures import style


def grid_of_panels(count: int, columns: int = 4) -> tuple[int, int]:
    """Rows and columns that hold so many panels, at most `columns` beside each other, rows equally full."""
    rows = max(1, -(-count // columns))
    return rows, max(1, -(-count // rows))


def panels(count: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most `columns` in a row, each row `height` inches; surplus places are empty.

    A single panel is as wide as a column of a paper, several as a page. options: of `plt.subplots`.
    """
    rows, across = grid_of_panels(count, columns)
    width = style.COLUMN if across == 1 else style.PAGE
    figure, grid = plt.subplots(
        rows, across, figsize=(width, height * rows + 0.3), squeeze=False, layout="constrained", **options
    )
    for axes in grid.ravel()[count:]:
        axes.set_visible(False)
    return figure, grid.ravel()[:count].tolist()


def in_place(axes: Axes, text: str) -> None:
    """Words in the place of a panel that cannot be drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=style.WORDS)


def undefined(metric: str, scored: bool = False) -> str:
    """Why values of a metric are undefined, in words. scored: whether there are scores, but none that is calibrated."""
    if scored:
        return "not calibrated, since the null has no threshold"
    return METRICS[metric].undefined or UNDEFINED


def undefined_in_place(axes: Axes, why: str, width: float) -> None:
    """Say in the place of a panel why it has no score to draw. width: of the panel in inches, about."""
    in_place(axes, style.wrapped(f"no score to draw:\n{why}", width))


def layer_ticks(axes: Axes, labels: Sequence[str], axis: str, most: int = 12) -> None:
    """Labels of layers on axis ``x`` or ``y``: about `most` of them, the first and the last always."""
    last = len(labels) - 1
    step = max(1, -(-len(labels) // most))
    at = [i for i in range(0, last, step) if last - i >= step] + [last]
    if axis == "x":
        axes.set_xticks(at, [labels[i] for i in at], rotation=90)
    else:
        axes.set_yticks(at, [labels[i] for i in at])


def horizontal_lines(axes: Axes) -> None:
    """Faint lines at the ticks of the vertical axis, behind what is drawn."""
    axes.grid(axis="y")


def shared_legend(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
    """One legend below all panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    style.legend_below(figure, entries, columns)
