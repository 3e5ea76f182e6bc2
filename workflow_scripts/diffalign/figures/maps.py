"""Maps in colour, layer x layer and model x model, and models as points in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, StrMethodFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from diffalign.figures import style

# a logarithmic scale below this ratio has numbers within decades
_DECADES = 100.0
# where scales of scores end, as shares of the highest score
_ENDS = (0.1, 0.2, 0.5, 1.0)
_HATCH = "/" * 8


def color_map_of(
    axes: Axes, values: NDArray[np.float64], limits: tuple[float, float], color_map: str, **options: Any
) -> AxesImage:
    """Draw a matrix in colour without a frame, cells without a value grey. options: of `Axes.imshow`."""
    colors = plt.get_cmap(color_map).with_extremes(bad=style.MISSING)
    low, high = limits
    image = axes.imshow(np.ma.masked_invalid(values), vmin=low, vmax=high, cmap=colors, **options)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def scale_end(largest: float) -> float:
    """Where a colour scale from 0 ends: at the first of .1, .2, .5 and 1 that holds the largest value, and never
    before .1, so that scales of different figures are mostly the same and none makes a contrast of nothing. Beyond 1:
    at the value itself.
    """
    return next((end for end in _ENDS if largest <= end), largest)


def layer_map(
    axes: Axes,
    matrix: NDArray[np.float64],
    limits: tuple[float, float],
    color_map: str,
    framed: tuple[int, int] | None,
) -> AxesImage:
    """Draw a layer x layer matrix (L_A, L_B): rows upwards by depth, one pair framed, undefined cells grey."""
    image = color_map_of(axes, matrix, limits, color_map, origin="lower", aspect="auto")
    if framed is not None:
        framed_cell(axes, *framed)
    return image


def hatched_cells(axes: Axes, cells: NDArray[np.bool_], face: str = "none", line: Any = (1, 1, 1, 0.6)) -> None:
    """Hatch the cells of a map (L_A, L_B) that are True, in one shape, so that lines run on from cell to cell."""
    if not cells.any():
        return
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    squares = [Path(corners + np.array((column, row)), closed=True) for row, column in np.argwhere(cells).tolist()]
    axes.add_patch(
        PathPatch(
            Path.make_compound_path(*squares), facecolor=face, edgecolor=line, linewidth=0, hatch=_HATCH, zorder=1.5
        )
    )


def framed_cell(axes: Axes, row: int, column: int) -> None:
    """Draw a frame around a cell of a map."""
    for color, width in (("white", 1.8), ("black", 0.8)):
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=color, linewidth=width, zorder=3)
        frame.set_clip_on(False)
        axes.add_patch(frame)


def color_bar(image: AxesImage | QuadMesh, axes: Axes, width: float = 1.3) -> Axes:
    """A slim scale beside a panel, with an arrow where values lie below it. width: of the panel in inches, about.
    Gives the axes of the scale.
    """
    values: NDArray[np.float64] = np.ma.compressed(np.ma.asarray(image.get_array()))
    below = values.size > 0 and float(values.min()) < image.get_clim()[0]
    beside = axes.inset_axes((1 + 0.04 / width, 0, 0.065 / width, 1))
    bar = axes.figure.figure.colorbar(image, cax=beside, extend="min" if below else "neither")
    bar.outline.set_visible(False)
    low, high = image.get_clim()
    if not isinstance(image.norm, LogNorm):
        bar.ax.locator_params(axis="y", nbins=6)
    elif high < _DECADES * low:
        bar.set_ticks(LogLocator(subs=(1, 2, 5)), format=StrMethodFormatter("{x:g}"))
        bar.ax.minorticks_off()
    else:
        bar.set_ticks(LogLocator(numticks=6))
        bar.ax.minorticks_off()
    return beside


def model_matrix(
    axes: Axes,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    color_map: str,
    cell: float,
    end: float,
    words: NDArray[np.object_],
    hatched: NDArray[np.bool_],
) -> AxesImage:
    """Draw a model x model matrix (A, B): missing pairs grey, those of a model with itself left white.

    cell: the side of a cell in inches. end: of the scale, which begins at 0. words (A, B): what is written into cells
    that hold all of them. hatched (A, B): cells that are tested and not significant.
    """
    image = color_map_of(axes, values, (0.0, end), color_map)
    own = np.array([[name == other for other in columns] for name in rows])
    for i, j in np.argwhere(own).tolist():
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white"))
    hatched_cells(axes, hatched & ~own, face="white", line="0.8")
    written = [(i, j) for i, j in np.argwhere(np.isfinite(values) & ~own).tolist()]
    if all(fits(words[i, j], cell) for i, j in written):
        for i, j in written:
            red, green, blue, _ = image.cmap(image.norm(values[i, j]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            look: dict[str, Any] = {"color": "white" if dark else "black"}
            if hatched[i, j]:
                look = {"color": "black", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6}}
            axes.text(j, i, words[i, j], ha="center", va="center", fontsize=style.SMALL, linespacing=1.0, **look)
    # names as small as can be read; of cells that are smaller, some are named
    every = max(1, math.ceil(style.SMALL * 1.15 / 72 / cell))
    axes.set_xticks(range(0, len(columns), every), columns[::every], rotation=90)
    axes.set_yticks(range(0, len(rows), every), rows[::every])
    axes.tick_params(length=0)
    return image


def fits(words: str, cell: float) -> bool:
    """Whether words stand in a cell with a side in inches, with a margin."""
    lines = words.split("\n")
    tall = 1.25 * style.SMALL / 72 * len(lines)
    return max(tall, *(style.text_width(line, style.SMALL) for line in lines)) <= 0.94 * cell


def labelled_points(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Draw points (M, 2) with their labels: each beside its point where all fit, else all in columns at both sides."""
    axes.scatter(points[:, 0], points[:, 1], s=10, color=style.DEFAULT, zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.25)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(style.MISSING)
    if not _labels_beside(axes, points, labels):
        place = axes.get_position()
        # columns of labels take their room from the frame
        room = 1.3 * max(style.text_width(label, style.SMALL) for label in labels) / axes.figure.figure.get_figwidth()
        if place.width > 3 * room:
            axes.set_position((place.x0 + room, place.y0, place.width - 2 * room, place.height))
        _labels_in_columns(axes, points, labels)


def _labels_beside(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> bool:
    """Put every label right, left, above or below its point; False, and nothing drawn, where one finds no room."""
    figure = axes.figure.figure
    figure.draw_without_rendering()
    point = figure.dpi / 72
    at = axes.transData.transform(points)
    outwards = at - at.mean(axis=0)
    taken = [Bbox.from_extents(x - 2 * point, y - 2 * point, x + 2 * point, y + 2 * point) for x, y in at.tolist()]
    drawn = []
    for i, label in enumerate(labels):
        text = axes.annotate(
            label, points[i], (0, 0), textcoords="offset points", fontsize=style.SMALL, ha="center", va="center"
        )
        text.set_in_layout(False)
        drawn.append(text)
        extent = text.get_window_extent()
        across, up = extent.width / 2 + 4 * point, extent.height / 2 + 3.5 * point
        sides = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
        for dx, dy in (sides[np.argsort(-sides @ outwards[i], kind="stable")] * (across, up)).tolist():
            box = extent.translated(dx, dy)
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
            if inside and not any(box.overlaps(other) for j, other in enumerate(taken) if j != i):
                taken.append(box)
                text.set_position((dx / point, dy / point))
                break
        else:
            for each in drawn:
                each.remove()
            return False
    return True


def _labels_in_columns(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Put half of the labels on either side of the frame, in the order of their height, each with a line."""
    by_x = np.argsort(points[:, 0], kind="stable")
    half = len(labels) // 2
    for members, edge, aligned in ((by_x[:half], -0.03, "right"), (by_x[half:], 1.03, "left")):
        ordered = members[np.argsort(points[members, 1], kind="stable")]
        for i, height in zip(ordered.tolist(), np.linspace(0, 1, len(ordered)), strict=True):
            arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2}
            axes.annotate(
                labels[i],
                points[i],
                (edge, float(height)),
                textcoords="axes fraction",
                ha=aligned,
                va="center",
                fontsize=style.SMALL,
                arrowprops={**arrow, "relpos": (1.0 if aligned == "right" else 0.0, 0.5)},
                annotation_clip=False,
            )
