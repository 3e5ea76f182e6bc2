"""How alike the models of a study are by one metric: a matrix ordered by clustering, and a map in the plane."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from diffalign import logs
from diffalign.alignment import model_similarity
from diffalign.alignment.metrics import METRICS, Metric
from diffalign.alignment.model_similarity import Grid
from diffalign.figures import grids, maps, style
from diffalign.io.matrices import CalibratedMatrix, claimed, level_of, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# inches of a scale with its numbers, right of a matrix
SCALE = 0.42
# width in inches of a map that stands below the matrices
MAP = 4.6


def model_maps_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw the largest scores of all pairs, raw and calibrated, with a dendrogram, and a map of the models.

    All matrices are of one metric, data set and condition. Order, dendrogram and map come from the calibrated scores;
    from the scores themselves where the metric has none. Where no model stands on both sides of pairs, one side is the
    rows and the other the columns, in the order of the study, without a map. Raises ValueError without any pair.
    """
    if not matrices:
        raise ValueError("study.pairs names no pair of models, so there is nothing to draw")
    style.styled()
    read = read_matrices(matrices, calibrations)
    models, raw = model_similarity.between((m.bundle("a"), m.bundle("b"), largest(m)) for m in read)
    passed = significant_pairs(read)
    calibrated = model_similarity.between(
        (m.bundle("a"), m.bundle("b"), largest_calibrated(m, at)) for m, at in zip(read, passed, strict=True)
    )[1]
    sides = model_similarity.two_sides((m.bundle("a"), m.bundle("b")) for m in read)
    figure, order = (
        square_maps(read, models, raw, calibrated)
        if sides is None
        else (rectangular_maps(read, models, raw, calibrated, sides), "In the order of the study.")
    )
    leaks = leaks_of([each.recipe for each in read])
    style.heading(figure, f"{style.title_of({**read[0].recipe, 'leak': leaks})}. {order}")
    style.save(figure, outputs, any(matrix.miniature for matrix in read))


def square_maps(
    read: Sequence[CalibratedMatrix], models: Sequence[str], raw: Grid, calibrated: Grid
) -> tuple[Figure, str]:
    """Both matrices (M, M), the dendrogram above the one that it is of, and the map; and what their order is."""
    metric = METRICS[read[0].metric]
    by_calibrated = bool(np.isfinite(calibrated).any())
    chosen, highest = (calibrated, 1.0) if by_calibrated else (raw, metric.highest(read[0].recipe["k"]))
    why_not = reason(chosen, by_calibrated)
    apart = model_similarity.distances(chosen, highest)
    tree = None if why_not else model_similarity.clustering(apart)
    order = list(range(len(models))) if tree is None else model_similarity.leaves(tree)
    figure, panels, side = square_panels(models)
    names = [models[i] for i in order]
    for axes, grid, (title, color_map) in zip(panels, (raw, calibrated), titles(metric), strict=False):
        if np.isfinite(grid).any():
            cell = side / len(models)
            shown = maps.model_matrix(axes, grid[np.ix_(order, order)], names, names, color_map, cell)
            maps.color_bar(shown, axes, side)
            on_top = axes
            if tree is not None and (grid is chosen):
                on_top = axes.inset_axes((0, 1.02, 1, 0.22))
                dendrogram(on_top, tree)
            on_top.set_title(style.wrapped(title, side + 0.3))
        else:
            grids.in_place(axes, style.wrapped(f"{title}:\n{read[0].missing_null}", side))
    model_map(panels[2], apart, models, why_not, side)
    source = "calibrated scores" if by_calibrated else "scores, for there are no calibrated ones"
    return figure, "In the order of the study." if why_not else f"Order and map come from the {source}."


def square_panels(models: Sequence[str]) -> tuple[Figure, list[Axes], float]:
    """Places for two matrices and a map of the models, and the side of a matrix in inches.

    All three stand beside each other where names are short and cells large enough, else the map stands below.
    """
    names = max(style.text_width(name, style.SMALL) for name in models) + 0.08
    side = (style.PAGE - 2 * (names + SCALE) - 0.1) / 3
    in_a_row = len(models) <= 6 and names <= 0.6
    if not in_a_row:
        side = style.PAGE / 2 - names - SCALE
    map_height = side if in_a_row else min(side, 2.4)
    # dendrogram and title above the matrices, the heading above all
    height = side * 1.25 + 0.5 + names + (0 if in_a_row else map_height + 0.4)
    figure = plt.figure(figsize=(style.PAGE, height))
    bottom = height - 0.5 - 1.25 * side
    unit = names + side + SCALE
    panels = [placed(figure, names + i * unit, bottom, side, side) for i in range(2)]
    if in_a_row:
        panels.append(placed(figure, 2 * unit + 0.1, bottom, side - 0.02, side))
    else:
        panels.append(placed(figure, (style.PAGE - MAP) / 2, 0.05, MAP, map_height))
    return figure, panels, side


def placed(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches: what has a shape of its own is not left to a layout."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def rectangular_maps(
    read: Sequence[CalibratedMatrix],
    models: Sequence[str],
    raw: Grid,
    calibrated: Grid,
    sides: tuple[Sequence[str], Sequence[str]],
) -> Figure:
    """Both matrices with the models of one side as rows and those of the other as columns."""
    rows, columns = ([models.index(name) for name in side] for side in sides)
    left, below = (max(style.text_width(name, style.SMALL) for name in side) + 0.08 for side in sides)
    # beside each other where cells hold their numbers, else below each other
    across = 2 if (style.PAGE / 2 - left - SCALE) / len(columns) >= 0.2 else 1
    cell = min(0.36, (style.PAGE / across - left - SCALE) / len(columns))
    each = cell * len(rows) + below + 0.24
    height = each * (2 // across) + 0.12
    figure = plt.figure(figsize=(style.PAGE, height))
    size = cell * len(columns), cell * len(rows)
    if across == 2:
        panels = [placed(figure, left + i * style.PAGE / 2, below, *size) for i in range(2)]
    else:
        panels = [placed(figure, left, below + (1 - i) * each, *size) for i in range(2)]
    for axes, grid, (title, color_map) in zip(panels, (raw, calibrated), titles(METRICS[read[0].metric]), strict=True):
        part = grid[np.ix_(rows, columns)]
        if np.isfinite(part).any():
            maps.color_bar(maps.model_matrix(axes, part, *sides, color_map, cell), axes, size[0])
            axes.set_title(title)
        else:
            grids.in_place(axes, style.wrapped(f"{title}:\n{read[0].missing_null}", style.PAGE / across - 0.4))
    return figure


def titles(metric: Metric) -> tuple[tuple[str, str], tuple[str, str]]:
    """Title and colours of the raw and of the calibrated matrix."""
    return (f"largest {metric.label}", style.SCORES), (f"largest {metric.label}, calibrated", style.CALIBRATED)


def largest(matrix: CalibratedMatrix) -> float:
    """The largest score of a matrix, or NaN."""
    return float("nan") if matrix.best is None else float(matrix.values[matrix.best])


def significant_pairs(read: Sequence[CalibratedMatrix]) -> list[bool]:
    """Whether the largest score of each matrix is significant after correction over its cells and over all matrices."""
    alpha = level_of(read)
    return [m.best is not None and bool(q[m.best] <= alpha) for m, q in zip(read, claimed(read), strict=True)]


def largest_calibrated(matrix: CalibratedMatrix, significant: bool) -> float:
    """The largest score of a matrix against the null of the largest score, 0 where it is not significant; or NaN."""
    null = matrix.calibration.null
    if null is None or math.isnan(null.maximum_calibrated):
        return math.nan
    return null.maximum_calibrated if significant else 0.0


def reason(grid: NDArray[np.float64], by_calibrated: bool) -> str:
    """Why models cannot be ordered and mapped by a similarity (M, M); empty where they can."""
    if len(grid) < 3:
        return "two models have one distance"
    off_diagonal = grid[~np.eye(len(grid), dtype=bool)]
    if np.isnan(off_diagonal).any():
        return "pairs of models are missing or undefined"
    if by_calibrated and not off_diagonal.any():
        return "no pair of models exceeds its null"
    return ""


def dendrogram(axes: Axes, tree: NDArray[np.float64]) -> None:
    """The clustering above the columns of a matrix; heights are distances."""
    hierarchy.dendrogram(tree, ax=axes, no_labels=True, color_threshold=0, above_threshold_color=style.QUIET)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="y", nbins=3)
    axes.spines["bottom"].set_visible(False)


def model_map(axes: Axes, apart: NDArray[np.float64], models: Sequence[str], why_not: str, width: float) -> None:
    """Points in the plane for distances (M, M), or why there are none. width: of words, in inches."""
    if why_not:
        grids.in_place(axes, style.wrapped(f"no clustering and no map:\n{why_not}", width))
        return
    points, stress = model_similarity.planar_map(apart)
    axes.set_title(style.wrapped(f"map of the models (MDS, stress {stress:.2f})", width))
    maps.labelled_points(axes, points, models)


def leaks_of(recipes: Sequence[Mapping[str, Any]]) -> str:
    """What sides of the pairs were given of each other: three of them, and how many more."""
    said = list(dict.fromkeys(recipe["leak"] for recipe in recipes if recipe.get("leak")))
    more = f"; {len(said) - 3} more pairs: column leak of the tables" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "model_maps_figure"):
        model_maps_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
