"""How alike the models of a study are by one metric: a matrix ordered by clustering, and a map in the plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from diffalign import figures, logs
from diffalign.alignment import model_similarity
from diffalign.alignment.metrics import METRICS, Metric
from diffalign.alignment.model_similarity import Grid
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def model_maps_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw the largest scores of all pairs, raw and calibrated, with a dendrogram, and a map of the models.

    All matrices are of one metric, data set and condition. Order, dendrogram and map come from the calibrated scores;
    from the scores themselves where the metric has none. Where no model stands on both sides of pairs, one side is the
    rows and the other the columns, in the order of the study, without a map. Raises ValueError without any pair.
    """
    if not matrices:
        raise ValueError("study.pairs names no pair of models, so there is nothing to draw")
    figures.styled()
    found = read_matrices(matrices, calibrations)
    models, raw = model_similarity.between((m.bundle("a"), m.bundle("b"), largest(m)) for m in found)
    calibrated = model_similarity.between((m.bundle("a"), m.bundle("b"), largest_calibrated(m)) for m in found)[1]
    sides = model_similarity.two_sides((m.bundle("a"), m.bundle("b")) for m in found)
    figure, order = (
        square_maps(found, models, raw, calibrated)
        if sides is None
        else (rectangular_maps(found, models, raw, calibrated, sides), "In the order of the study.")
    )
    figure.suptitle(f"{figures.title_of(found[0].recipe)}. {order}", x=0.01, ha="left", fontsize=9)
    figures.save(figure, outputs, any(matrix.miniature for matrix in found))


def square_maps(
    found: Sequence[CalibratedMatrix], models: Sequence[str], raw: Grid, calibrated: Grid
) -> tuple[Figure, str]:
    """Both matrices (M, M), the dendrogram above the one that it is of, and the map; and what their order is."""
    metric = METRICS[found[0].metric]
    by_calibrated = bool(np.isfinite(calibrated).any())
    chosen, highest = (calibrated, 1.0) if by_calibrated else (raw, metric.highest(found[0].recipe["k"]))
    why_not = reason(chosen, by_calibrated)
    apart = model_similarity.distances(chosen, highest)
    tree = None if why_not else model_similarity.clustering(apart)
    order = list(range(len(models))) if tree is None else model_similarity.leaves(tree)
    side = min(6.0, max(2.0, 0.42 * len(models)))
    figure, panels = plt.subplots(1, 3, figsize=(3 * side + 4.2, side + 2.4), layout=ConstrainedLayoutEngine(h_pad=0.1))
    names = [models[i] for i in order]
    for axes, grid, (title, color_map) in zip(panels, (raw, calibrated), titles(metric), strict=False):
        if np.isfinite(grid).any():
            shown = figures.model_matrix(axes, grid[np.ix_(order, order)], names, names, color_map)
            figures.color_bar(shown, axes)
            on_top = axes
            if tree is not None and (grid is chosen):
                on_top = axes.inset_axes((0, 1.02, 1, 0.28))
                dendrogram(on_top, tree)
            on_top.set_title(title, loc="left", fontsize=9)
        else:
            figures.say(axes, f"{title}:\n{found[0].missing_null}")
    model_map(panels[2], apart, models, why_not)
    source = "calibrated scores" if by_calibrated else "scores, for there are no calibrated ones"
    return figure, "In the order of the study." if why_not else f"Order and map come from the {source}."


def rectangular_maps(
    found: Sequence[CalibratedMatrix],
    models: Sequence[str],
    raw: Grid,
    calibrated: Grid,
    sides: tuple[Sequence[str], Sequence[str]],
) -> Figure:
    """Both matrices with the models of one side as rows and those of the other as columns."""
    rows, columns = ([models.index(name) for name in side] for side in sides)
    cell = min(0.42, 9.0 / max(len(rows), len(columns)))
    width, height = max(2.4, cell * len(columns)), cell * len(rows)
    figure, panels = plt.subplots(1, 2, figsize=(2 * width + 3.4, height + 1.5), layout=ConstrainedLayoutEngine())
    for axes, grid, (title, color_map) in zip(panels, (raw, calibrated), titles(METRICS[found[0].metric]), strict=True):
        part = grid[np.ix_(rows, columns)]
        if np.isfinite(part).any():
            figures.color_bar(figures.model_matrix(axes, part, *sides, color_map), axes)
            axes.set_title(title, loc="left", fontsize=9)
        else:
            figures.say(axes, f"{title}:\n{found[0].missing_null}")
    return figure


def titles(metric: Metric) -> tuple[tuple[str, str], tuple[str, str]]:
    """Title and colours of the raw and of the calibrated matrix."""
    return (f"largest {metric.label}", "viridis"), (f"largest {metric.label}, calibrated", "magma")


def largest(matrix: CalibratedMatrix) -> float:
    """The largest score of a matrix, or NaN."""
    return float("nan") if matrix.best is None else float(matrix.values[matrix.best])


def largest_calibrated(matrix: CalibratedMatrix) -> float:
    """The largest score of a matrix against the null of the largest score, or NaN."""
    null = matrix.calibration.null
    return float("nan") if null is None else null.maximum_calibrated


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
    hierarchy.dendrogram(tree, ax=axes, no_labels=True, color_threshold=0, above_threshold_color="0.3")
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6.5, length=2)
    axes.locator_params(axis="y", nbins=3)
    axes.spines["bottom"].set_visible(False)


def model_map(axes: Axes, apart: NDArray[np.float64], models: Sequence[str], why_not: str) -> None:
    """Points in the plane for distances (M, M), or why there are none."""
    if why_not:
        figures.say(axes, f"no clustering and no map:\n{why_not}")
        return
    points, stress = model_similarity.planar_map(apart)
    axes.set_title(f"map of the models (MDS, stress {stress:.2f})", loc="left", fontsize=9)
    figures.labelled_points(axes, points, models)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "model_maps_figure"):
        model_maps_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
