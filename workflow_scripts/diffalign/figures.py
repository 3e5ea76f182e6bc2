"""How figures look: one style, and the drawings that scripts compose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from diffalign.atomic import replacing

MINIATURE_NOTE = "Miniature models with random weights: this shows the workflow, not a result."
BEST, DEFAULT = "#c2410c", "#1d4ed8"
_STYLE = {
    "backend": "Agg",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "image.cmap": "viridis",
}


def styled() -> None:
    """Set the style of every figure."""
    plt.rcParams.update(_STYLE)  # type: ignore[arg-type]


def layer_map(
    axes: Axes,
    matrix: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
) -> AxesImage:
    """Draw a layer x layer matrix: rows upwards by depth, the best pair framed, undefined cells grey."""
    image = axes.imshow(np.ma.masked_invalid(matrix), origin="lower", aspect="equal", vmin=limits[0], vmax=limits[1])
    image.cmap.set_bad("0.8")
    for spine in axes.spines.values():
        spine.set_visible(False)
    _ticks(axes, columns, "x")
    _ticks(axes, rows, "y")
    if np.isfinite(matrix).any():
        row, column = np.unravel_index(np.nanargmax(matrix), matrix.shape)
        axes.add_patch(
            Rectangle((float(column) - 0.5, float(row) - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.3)
        )
    return image


def _ticks(axes: Axes, labels: Sequence[str], axis: str) -> None:
    """At most about a dozen labels on an axis; the first and the last always."""
    last = len(labels) - 1
    step = max(1, round(len(labels) / 12))
    at = [i for i in range(0, last, step) if last - i >= step] + [last]
    if axis == "x":
        axes.set_xticks(at, [labels[i] for i in at], rotation=90)
    else:
        axes.set_yticks(at, [labels[i] for i in at])


def depth_curve(
    axes: Axes,
    layers: Sequence[str],
    curves: Mapping[str, tuple[NDArray[np.float64], str, float]],
    chance: float | None,
) -> None:
    """Draw scores over the depth of one model. curves: label -> (one value a layer, colour, line width)."""
    positions = np.arange(len(layers))
    for label, (values, color, width) in curves.items():
        axes.plot(positions, values, marker="o", markersize=2 * width, linewidth=width, color=color, label=label)
    if chance is not None:
        axes.axhline(chance, color="0.5", linewidth=0.8, linestyle="--", label="chance")
    _ticks(axes, layers, "x")
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, paths: Sequence[Path], miniature: bool) -> None:
    """Write a figure in the format of each path's suffix; miniatures say so in the figure itself."""
    if miniature:
        figure.text(0.5, -0.02, MINIATURE_NOTE, ha="center", va="top", fontsize=8, color="#b91c1c")
    for path in paths:
        with replacing(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", metadata=_undated(path))
    plt.close(figure)


def _undated(path: Path) -> dict[str, None] | None:
    """No date in a PDF, so that the same data gives the same file."""
    return {"CreationDate": None} if path.suffix == ".pdf" else None
