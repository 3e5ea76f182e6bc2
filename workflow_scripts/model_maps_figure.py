"""How alike the models of a study are by one metric: a matrix ordered by clustering, and a map in the plane."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from diffalign import logs
from diffalign.alignment import model_similarity
from diffalign.alignment.metrics import METRICS
from diffalign.alignment.model_similarity import Grid
from diffalign.figures import cells, grids, maps, style
from diffalign.io import tables
from diffalign.io.matrices import CalibratedMatrix, claimed, level_of, read_matrices, untested

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# inches of a scale with its numbers, right of a matrix
SCALE = 0.42
# width in inches of a map that stands below the matrices
MAP = 4.6


@dataclass(frozen=True, eq=False)
class Shown:
    """A matrix of models as it is drawn, (M, M) each: values, the words of cells, and what is tested and not
    significant. title, colors: of the panel.
    """

    title: str
    colors: str
    values: Grid
    words: NDArray[np.object_]
    hatched: NDArray[np.bool_]

    def part(self, rows: Sequence[int], columns: Sequence[int]) -> tuple[Grid, NDArray[np.object_], NDArray[np.bool_]]:
        """Values, words and hatched cells of some rows and columns."""
        places = np.ix_(rows, columns)
        return self.values[places], self.words[places], self.hatched[places]


def model_maps_figure(
    matrices: Sequence[Path],
    calibrations: Sequence[Path],
    defaults: Mapping[str, str],
    outputs: Mapping[str, Sequence[Path]],
) -> None:
    """Draw `model_maps` of every metric of `outputs`, of the pairs of one data set and condition. defaults: bundle ->
    its default layer. Raises ValueError without any pair.
    """
    if not matrices:
        raise ValueError("study.pairs names no pair of models, so there is nothing to draw")
    # metric by metric: those of a large study together do not fit into the memory of a small job
    for metric, paths in outputs.items():
        model_maps(read_matrices(matrices, calibrations, [metric]), defaults, paths)


def model_maps(read: Sequence[CalibratedMatrix], defaults: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Draw the scores of the default layers of all pairs, and their largest scores against the null of the largest
    score of each grid, with a dendrogram; and a map of the models.

    Largest scores themselves are not drawn: those of grids with more layers are larger by chance. All matrices are of
    one metric, data set and condition. Order, dendrogram and map come from the calibrated scores; from the scores of
    default layers where the metric has none. Where no model stands on both sides of pairs, one side is the rows and the
    other the columns, in the order of the study, without a map. defaults: bundle -> its default layer.
    """
    style.styled()
    pairs = table(read, defaults)
    models = model_similarity.between((a, b, 0.0) for a, b in zip(pairs["a"], pairs["b"], strict=True))[0]
    both = tuple(shown(pairs, read[0], level_of(read)) for shown in (of_defaults, of_largest))
    sides = model_similarity.two_sides((m.bundle("a"), m.bundle("b")) for m in read)
    figure, order = (
        square_maps(read, models, *both)
        if sides is None
        else (rectangular_maps(read, models, both, sides), "In the order of the study.")
    )
    left_out = untested(read)
    style.heading(
        figure,
        f"{style.title_of({**read[0].recipe, 'leak': leaks_of([each.recipe for each in read])})}. {order} Hatched, "
        f"n.s.: not significant at {100 * level_of(read):g} % after correction over these pairs. "
        "±: half the width of a 95 % interval over images, whose ends are in the table."
        f"{f' {left_out}.' if left_out else ''}",
        above=True,
    )
    style.save(figure, outputs, any(matrix.miniature for matrix in read), pairs)


def table(read: Sequence[CalibratedMatrix], defaults: Mapping[str, str]) -> pd.DataFrame:
    """One row a pair: its default layers with score, 95 % interval over images, p and q over these pairs, and its
    largest score with layers, p corrected over the grid, q over these pairs and cells, and the score calibrated against
    the null of the largest score, 0 where q is above the level. Empty where there is no p.
    """
    rows, alpha = [], level_of(read)
    for matrix, q in zip(read, claimed(read), strict=True):
        null, default, best = matrix.calibration.null, matrix.default(defaults), matrix.best
        layers = None if best is None else (matrix.layers("a")[best[0]], matrix.layers("b")[best[1]])
        rows.append(
            {
                **cells.facts(matrix),
                "default_layer_a": defaults[matrix.bundle("a")],
                "default_layer_b": defaults[matrix.bundle("b")],
                "default_score": float(matrix.values[default]),
                "default_low": float(matrix.calibration.low[default]),
                "default_high": float(matrix.calibration.high[default]),
                "default_p": float(cells.grid_of(matrix, "p")[default]),
                "layer_a": None if layers is None else layers[0],
                "layer_b": None if layers is None else layers[1],
                "maximum": math.nan if best is None else float(matrix.values[best]),
                "maximum_p": math.nan if null is None else null.maximum_p,
                "maximum_q": math.nan if best is None else float(q[best]),
                "maximum_calibrated": math.nan if null is None else null.maximum_calibrated,
                "cells": int(np.isfinite(matrix.values).sum()),
            }
        )
    pairs = pd.DataFrame(rows)
    tables.add_q(pairs, "default_p", "default_q")
    pairs.loc[pairs["maximum_q"] > alpha, "maximum_calibrated"] = 0.0
    return pairs


def between(pairs: pd.DataFrame, column: str) -> Grid:
    """A column of the table of pairs as (M, M), both directions averaged."""
    return model_similarity.between(zip(pairs["a"], pairs["b"], pairs[column], strict=True))[1]


def not_significant(pairs: pd.DataFrame, q: str, alpha: float) -> NDArray[np.bool_]:
    """Pairs of models (M, M) that were tested and are not significant in one direction or the other."""
    above = (pairs[q] > alpha).astype(np.float64).where(pairs[q].notna())
    return between(pairs.assign(above=above), "above") > 0


def of_defaults(pairs: pd.DataFrame, first: CalibratedMatrix, alpha: float) -> Shown:
    """Scores of the default layers with their intervals; layers chosen before looking are not corrected for."""
    values, low, high = (between(pairs, f"default_{name}") for name in ("score", "low", "high"))
    words = np.full(values.shape, "", object)
    for place in np.argwhere(np.isfinite(values)):
        i, j = place.tolist()
        half = (high[i, j] - low[i, j]) / 2
        words[i, j] = number(values[i, j]) + (f"\n±{half:.2f}" if np.isfinite(half) else "")
    hatched = np.isfinite(values) & not_significant(pairs, "default_q", alpha)
    return Shown(f"{METRICS[first.metric].label} of default layers", style.SCORES, values, words, hatched)


def of_largest(pairs: pd.DataFrame, first: CalibratedMatrix, alpha: float) -> Shown:
    """Largest scores against the null of the largest score of their grid, which are comparable over grids."""
    values = between(pairs, "maximum_calibrated")
    hatched = np.isfinite(values) & not_significant(pairs, "maximum_q", alpha)
    words = np.full(values.shape, "", object)
    for place in np.argwhere(np.isfinite(values)):
        i, j = place.tolist()
        # a score that is tested and null is not a small one
        words[i, j] = "n.s." if hatched[i, j] else number(values[i, j])
    title = f"largest {METRICS[first.metric].label}, calibrated for the size of its grid"
    return Shown(title, style.CALIBRATED, values, words, hatched)


def number(value: float) -> str:
    """Two digits; what is above 0 does not become it."""
    return "<0.01" if 0 < value < 0.005 else f"{value:z.2f}"


def scale_end(shown: Sequence[Shown], first: CalibratedMatrix) -> float:
    """Where the scales end, as a share of the highest score: one for both matrices."""
    parts = [each.values[np.isfinite(each.values)] for each in shown]
    largest = max(float(parts[0].max(initial=0.0)) / cells.highest(first), float(parts[1].max(initial=0.0)))
    return maps.scale_end(largest)


def square_maps(
    read: Sequence[CalibratedMatrix], models: Sequence[str], raw: Shown, calibrated: Shown
) -> tuple[Figure, str]:
    """Both matrices (M, M), the dendrogram above the one that it is of, and the map; and what their order is."""
    by_calibrated = bool(np.isfinite(calibrated.values).any())
    chosen, highest = (calibrated.values, 1.0) if by_calibrated else (raw.values, cells.highest(read[0]))
    why_not = reason(chosen, by_calibrated)
    apart = model_similarity.distances(chosen, highest)
    tree = None if why_not else model_similarity.clustering(apart)
    order = list(range(len(models))) if tree is None else model_similarity.leaves(tree)
    figure, panels, side = square_panels(models)
    names = [models[i] for i in order]
    end = scale_end((raw, calibrated), read[0])
    for axes, shown, top in zip(panels, (raw, calibrated), (cells.highest(read[0]), 1.0), strict=False):
        if np.isfinite(shown.values).any():
            grid, words, hatched = shown.part(order, order)
            cell = side / len(models)
            image = maps.model_matrix(axes, grid, names, names, shown.colors, cell, end * top, words, hatched)
            maps.color_bar(image, axes, side)
            on_top = axes
            if tree is not None and (shown.values is chosen):
                on_top = axes.inset_axes((0, 1.02, 1, 0.22))
                dendrogram(on_top, tree)
            on_top.set_title(style.wrapped(shown.title, side + 0.3), pad=6)
        else:
            grids.in_place(axes, style.wrapped(f"{shown.title}:\n{read[0].missing_null}", side))
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
    height = side * 1.25 + 0.7 + names + (0 if in_a_row else map_height + 0.4)
    figure = plt.figure(figsize=(style.PAGE, height))
    bottom = height - 0.7 - 1.25 * side
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
    both: Sequence[Shown],
    sides: tuple[Sequence[str], Sequence[str]],
) -> Figure:
    """Both matrices with the models of one side as rows and those of the other as columns."""
    rows, columns = ([models.index(name) for name in side] for side in sides)
    left, below = (max(style.text_width(name, style.SMALL) for name in side) + 0.08 for side in sides)
    # beside each other where cells hold their numbers, else below each other
    across = 2 if (style.PAGE / 2 - left - SCALE) / len(columns) >= 0.36 else 1
    cell = min(0.42, (style.PAGE / across - left - SCALE) / len(columns))
    width = style.PAGE / across - left - 0.1
    each = cell * len(rows) + below + 0.36
    height = each * (2 // across) + 0.12
    figure = plt.figure(figsize=(style.PAGE, height))
    size = cell * len(columns), cell * len(rows)
    if across == 2:
        panels = [placed(figure, left + i * style.PAGE / 2, below, *size) for i in range(2)]
    else:
        panels = [placed(figure, left, below + (1 - i) * each, *size) for i in range(2)]
    end = scale_end(both, read[0])
    for axes, shown, top in zip(panels, both, (cells.highest(read[0]), 1.0), strict=True):
        grid, words, hatched = shown.part(rows, columns)
        if np.isfinite(grid).any():
            image = maps.model_matrix(axes, grid, *sides, shown.colors, cell, end * top, words, hatched)
            maps.color_bar(image, axes, size[0])
            axes.set_title(style.wrapped(shown.title, width), pad=6)
        else:
            grids.in_place(axes, style.wrapped(f"{shown.title}:\n{read[0].missing_null}", style.PAGE / across - 0.4))
    return figure


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
            snakemake.params.defaults,
            {metric: [Path(path) for path in snakemake.output[metric]] for metric in snakemake.params.metrics},
        )
