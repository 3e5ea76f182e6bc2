"""How figures look: one style, and the drawings that scripts compose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from diffalign.io.atomic import replacing

MINIATURE_NOTE = "Miniature models with random weights: this shows the workflow, not a result."
BEST, DEFAULT = "#c2410c", "#1d4ed8"
# Okabe and Ito's colours, told apart by all readers
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
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


def title_of(recipe: Mapping[str, Any]) -> str:
    """What a figure was measured on."""
    return f"{recipe['dataset']}, {recipe['condition']}: N = {recipe['n']}, k = {recipe['k']}"


def p_text(p: float) -> str:
    """``p = 0.005``. The far tail of a fitted distribution is not told apart, and what is not known is said so."""
    if np.isnan(p):
        return "p unknown"
    if p < 0.001:
        return "p < 10⁻⁶" if p < 1e-6 else f"p = {p:.0e}"
    return f"p = {p:.3f}"


def grid_of_panels(count: int, columns: int = 4) -> tuple[int, int]:
    """Rows and columns that hold so many panels, at most `columns` beside each other, rows equally full."""
    rows = max(1, -(-count // columns))
    return rows, max(1, -(-count // rows))


def layer_map(
    axes: Axes,
    matrix: NDArray[np.float64],
    framed: tuple[int, int] | None,
    color_map: str,
) -> AxesImage:
    """Draw a layer x layer matrix (L_A, L_B): rows upwards by depth, one pair framed, undefined cells grey.

    Colour starts at 0, or below it at the 2 % quantile, so that single very low scores do not take all of it.
    """
    finite = matrix[np.isfinite(matrix)]
    low, high = (min(0.0, float(np.quantile(finite, 0.02))), float(finite.max())) if finite.size else (0.0, 1.0)
    colors = plt.get_cmap(color_map).with_extremes(bad="0.8")
    shown = np.ma.masked_invalid(matrix)
    top = high if high > low else low + 1
    image = axes.imshow(shown, origin="lower", aspect="auto", vmin=low, vmax=top, cmap=colors, interpolation="none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if framed is not None:
        row, column = framed
        for color, width in (("white", 2.6), ("black", 1.3)):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=color, linewidth=width))
    return image


def color_bar(image: AxesImage, axes: Axes) -> None:
    """A slim scale beside a panel, with an arrow where values lie below it."""
    values: NDArray[np.float64] = np.ma.compressed(np.ma.asarray(image.get_array()))
    below = values.size > 0 and float(values.min()) < image.get_clim()[0]
    beside = axes.inset_axes((1.02, 0, 0.04, 1))
    bar = axes.figure.figure.colorbar(image, cax=beside, extend="min" if below else "neither")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6.5, length=2)


def say(axes: Axes, text: str) -> None:
    """Words in the place of a panel that cannot be drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="0.45", wrap=True)


def layer_ticks(axes: Axes, labels: Sequence[str], axis: str) -> None:
    """At most about a dozen labels on an axis; the first and the last always."""
    last = len(labels) - 1
    step = max(1, round(len(labels) / 12))
    at = [i for i in range(0, last, step) if last - i >= step] + [last]
    if axis == "x":
        axes.set_xticks(at, [labels[i] for i in at], rotation=90, fontsize=7)
    else:
        axes.set_yticks(at, [labels[i] for i in at], fontsize=7)


@dataclass(frozen=True)
class Curve:
    """One line over depth: a value a layer, its 95 % interval and its threshold, NaN where there is none."""

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: NDArray[np.float64]
    label: str
    threshold_label: str
    color: str
    width: float


def depth_curve(axes: Axes, layers: Sequence[str], curves: Sequence[Curve], chance: float | None) -> None:
    """Draw scores over the depth of one model, with bands of their intervals and dashed thresholds of their nulls."""
    positions = np.arange(len(layers))
    for curve in curves:
        axes.fill_between(positions, curve.low, curve.high, color=curve.color, alpha=0.18, linewidth=0)
        axes.plot(
            positions,
            curve.values,
            marker="o",
            markersize=1.6 * curve.width,
            linewidth=curve.width,
            color=curve.color,
            label=curve.label,
        )
    for curve in curves:
        if np.isfinite(curve.threshold).any():
            dashes = {"color": curve.color, "linewidth": 1.0, "linestyle": "--"}
            axes.plot(positions, curve.threshold, label=curve.threshold_label, **dashes)  # type: ignore[arg-type]
    if chance is not None:
        axes.axhline(chance, color="0.4", linewidth=0.8, linestyle=":", label="chance")
    layer_ticks(axes, layers, "x")
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def shared_legend(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
    """One legend below all panels, each label once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    legend_below(figure, found, columns)


def legend_below(figure: Figure, entries: Mapping[str, Any], columns: int) -> None:
    """A legend below everything that is drawn. entries: label -> what it stands for."""
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="upper center",
        bbox_to_anchor=(0.5, _lowest(figure)),
        bbox_transform=figure.transFigure,
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def _lowest(figure: Figure) -> float:
    """How far down a figure reaches, less a margin, as a share of its height."""
    figure.draw_without_rendering()
    return float(figure.get_tightbbox().y0 - 0.1) / figure.get_figheight()


def null_histogram(
    axes: Axes, null: NDArray[np.float64], observed: float, threshold: float, threshold_label: str
) -> None:
    """Draw drawn values of a null (K,), the observed value as a line and the threshold dashed."""
    axes.hist(null, bins=15, color="0.75")
    _observed(axes, observed, threshold, threshold_label)
    axes.set_ylabel("permutations")


def null_density(
    axes: Axes, moments: tuple[float, float, float], observed: float, threshold: float, threshold_label: str
) -> None:
    """Draw the Pearson type III density with this mean, standard deviation and skewness, as `null_histogram` does."""
    from scipy.stats import pearson3

    mean, sd, skewness = moments
    at = np.linspace(mean - 4.5 * sd, mean + 6 * sd, 300)
    density = np.asarray(pearson3.pdf(at, skewness, loc=mean, scale=sd))
    axes.fill_between(at, density, color="0.75", linewidth=0)
    axes.set_ylim(bottom=0)
    _observed(axes, observed, threshold, threshold_label)
    axes.set_ylabel("density")


def _observed(axes: Axes, observed: float, threshold: float, threshold_label: str) -> None:
    axes.axvline(observed, color=BEST, linewidth=2, label="observed")
    axes.axvline(threshold, color="black", linewidth=1, linestyle="--", label=threshold_label)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=5)


def model_matrix(
    axes: Axes, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], color_map: str
) -> AxesImage:
    """Draw a model x model matrix (A, B): values written into cells, missing pairs grey, those of a model with itself
    left white.
    """
    count = max(len(rows), len(columns))
    shown = np.ma.masked_invalid(values)
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
    colors = plt.get_cmap(color_map).with_extremes(bad="0.8")
    top = high if high > low else low + 1
    image = axes.imshow(shown, vmin=low, vmax=top, cmap=colors, interpolation="none")
    for i, name in enumerate(rows):
        if name in columns:
            axes.add_patch(Rectangle((columns.index(name) - 0.5, i - 0.5), 1, 1, facecolor="white"))
    if count <= 12:
        size = min(9.0, 54 / count + 2)
        for i, j in np.argwhere(np.isfinite(values)).tolist():
            if rows[i] != columns[j]:
                red, green, blue, _ = image.cmap(image.norm(values[i, j]))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                color = "white" if dark else "black"
                axes.text(j, i, f"{values[i, j]:z.2f}", ha="center", va="center", fontsize=size, color=color)
    for spine in axes.spines.values():
        spine.set_visible(False)
    size = 8 if count <= 20 else 6
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.tick_params(length=0)
    return image


def labelled_points(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> None:
    """Draw points (M, 2) with their labels: each beside its point where all fit, else all in columns at both sides."""
    axes.scatter(points[:, 0], points[:, 1], s=22, color=DEFAULT, zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.25)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("0.8")
    if not _labels_beside(axes, points, labels):
        _labels_in_columns(axes, points, labels)


def _labels_beside(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> bool:
    """Put every label right, left, above or below its point; False, and nothing drawn, where one finds no room."""
    figure = axes.figure.figure
    figure.draw_without_rendering()
    at = axes.transData.transform(points)
    outwards = at - at.mean(axis=0)
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in at.tolist()]
    drawn = []
    for i, label in enumerate(labels):
        text = axes.annotate(label, points[i], (0, 0), textcoords="offset points", fontsize=8, ha="center", va="center")
        text.set_in_layout(False)
        drawn.append(text)
        extent = text.get_window_extent()
        across, up = extent.width / 2 + 8, extent.height / 2 + 6
        sides = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
        for dx, dy in (sides[np.argsort(-sides @ outwards[i], kind="stable")] * (across, up)).tolist():
            box = extent.translated(dx, dy)
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0 and box.y1 < axes.bbox.y1
            if inside and not any(box.overlaps(other) for j, other in enumerate(taken) if j != i):
                taken.append(box)
                text.set_position((dx * 72 / figure.dpi, dy * 72 / figure.dpi))
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
                fontsize=8 if len(labels) <= 24 else 6,
                arrowprops={**arrow, "relpos": (1.0 if aligned == "right" else 0.0, 0.5)},
                annotation_clip=False,
            )


def save(figure: Figure, paths: Sequence[Path], miniature: bool) -> None:
    """Write a figure in the format of each path's suffix; miniatures say so in the figure itself."""
    figure.draw_without_rendering()
    # laid out once, not again for every format
    figure.set_layout_engine(None)
    box = figure.get_tightbbox()
    if miniature:
        low = (box.y0 - 0.1) / figure.get_figheight()
        note = figure.text(0.5, low, MINIATURE_NOTE, ha="center", va="top", fontsize=8, color="#b91c1c")
        box = Bbox.union([box, note.get_window_extent().transformed(figure.dpi_scale_trans.inverted())])
    box = box.padded(0.1)
    for path in paths:
        with replacing(path) as temporary:
            figure.savefig(temporary, bbox_inches=box, metadata=_undated(path))
    plt.close(figure)


def _undated(path: Path) -> dict[str, None] | None:
    """No date in a PDF, so that the same data gives the same file."""
    return {"CreationDate": None} if path.suffix == ".pdf" else None
