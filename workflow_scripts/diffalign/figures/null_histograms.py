"""The largest score of every layer x layer matrix of one pair of models, beside what it would be by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from diffalign.alignment.calibration import Calibration
from diffalign.alignment.metrics import METRICS
from diffalign.figures import cells, curves, grids, style
from diffalign.io import tables
from diffalign.io.matrices import CalibratedMatrix

# standard deviations of a null within which a score is drawn beside it
_WIDTHS = 8.0
_COLUMNS = ("metric", "dataset", "condition", "a", "b", "leak", "null_of", "quantity")


def draw(read: Sequence[CalibratedMatrix], outputs: Sequence[Path]) -> None:
    """Draw one panel for every metric whose null is known; the others are named below them.

    By permutations: the largest score of the grid under each. In closed form: the density of the null of the best pair
    of layers, for its maximum over the grid is bounded (Bonferroni) and not known. Where the observed score lies far
    from its null, a panel has numbers in the place of a picture that would be empty between them. read: of one pair, a
    matrix (L_A, L_B) a metric.
    """
    style.styled()
    shown = [matrix for matrix in read if drawable(matrix)]
    pictures = any(is_near(matrix) for matrix in shown)
    figure, panels = grids.panels(max(1, len(shown)), 4, 1.35 if pictures else 0.6)
    width = figure.get_figwidth() / grids.grid_of_panels(max(1, len(shown)))[1] - 0.25
    for axes, matrix in zip(panels, shown, strict=False):
        null_panel(axes, matrix, width)
    pair = f"{read[0].bundle('a')} and {read[0].bundle('b')}"
    left_out = [matrix for matrix in read if not drawable(matrix)]
    style.heading(figure, "\n".join([f"{pair}. {style.title_of(read[0].recipe)}", *not_drawn(left_out)]))
    if pictures:
        grids.shared_legend(figure, panels, 2)
    if not shown:
        grids.in_place(panels[0], "no metric of this study has\na null that can be drawn")
    style.save(figure, outputs, read[0].miniature, table(shown))


def drawable(matrix: CalibratedMatrix) -> bool:
    """Whether the largest score has a p, and its null is drawn, or has the three moments that a density takes."""
    null = matrix.calibration.null
    if null is None or matrix.best is None or math.isnan(null.maximum_p):
        return False
    return null.method == "permutations" or null.skewness is not None


def observed_and_null(matrix: CalibratedMatrix) -> tuple[float, float, float]:
    """The largest score, and the mean and standard deviation of the null that is drawn, of a metric that `drawable`
    accepts: of the largest score by permutations, of the best pair of layers in closed form.
    """
    null, best = matrix.calibration.null, matrix.best
    assert isinstance(null, Calibration)
    assert best is not None
    observed = float(matrix.values[best])
    if null.method == "permutations":
        return observed, float(null.maxima.mean()), float(null.maxima.std(ddof=1))
    return observed, float(null.mean[best]), float(null.sd[best])


def is_near(matrix: CalibratedMatrix) -> bool:
    """Whether the largest score lies within `_WIDTHS` standard deviations of the null."""
    observed, mean, sd = observed_and_null(matrix)
    return abs(observed - mean) <= _WIDTHS * sd


def null_panel(axes: Axes, matrix: CalibratedMatrix, width: float) -> None:
    """One metric that `drawable` accepts. width: of words, in inches."""
    null, best = matrix.calibration.null, matrix.best
    assert isinstance(null, Calibration)
    assert best is not None
    observed, mean, sd = observed_and_null(matrix)
    percent = f"{100 * matrix.calibration.settings['alpha']:g} %"
    level = f"what the null of the largest score exceeds in {percent}"
    by_permutations = null.method == "permutations"
    bound = "" if by_permutations else " (Bonferroni)"
    axes.set_title(f"{METRICS[matrix.metric].label}\n{style.p_text(null.maximum_p)}{bound}")
    of_cell = f"{matrix.layers('a')[best[0]]}, {matrix.layers('b')[best[1]]}"
    if not is_near(matrix):
        away = f"{abs(observed - mean) / sd:.0f} sd {'above' if observed > mean else 'below'}" if sd > 0 else "constant"
        kind = "of the largest score" if by_permutations else f"of {of_cell}"
        lines = (
            f"largest score {observed:.3f} at {of_cell}",
            f"null {kind}: mean {mean:.3f}, sd {sd:.3f} ({away})",
            f"threshold at {percent}: {null.maximum_threshold:.3f}",
        )
        axes.set_axis_off()
        words = "\n".join(style.wrapped(line, width, style.SMALL) for line in lines)
        axes.text(0, 1, words, transform=axes.transAxes, ha="left", va="top", fontsize=style.SMALL)
        return
    if by_permutations:
        curves.null_histogram(axes, null.maxima, observed, null.maximum_threshold, level)
        axes.set(xlabel="largest score of the grid", ylabel="permutations")
    else:
        assert null.skewness is not None
        curves.null_density(axes, (mean, sd, float(null.skewness[best])), observed, null.maximum_threshold, level)
        axes.set(xlabel=f"score of {of_cell} alone", ylabel="density")


def table(matrices: Sequence[CalibratedMatrix]) -> pd.DataFrame:
    """One row a quantity of every metric, and one a permutation: ``observed``, ``null_mean``, ``null_sd``,
    ``threshold``, ``p``, and ``null`` with the number of the permutation as ``draw``.
    """
    rows = []
    for matrix in matrices:
        null, (observed, mean, sd) = matrix.calibration.null, observed_and_null(matrix)
        assert isinstance(null, Calibration)
        quantities = {
            "observed": observed,
            "null_mean": mean,
            "null_sd": sd,
            "threshold": null.maximum_threshold,
            "p": null.maximum_p,
        }
        facts = cells.facts(matrix) | {"null_of": "maximum" if null.method == "permutations" else "cell"}
        rows += [facts | {"quantity": name, "draw": None, "value": value} for name, value in quantities.items()]
        rows += [facts | {"quantity": "null", "draw": i, "value": value} for i, value in enumerate(null.maxima)]
    columns = {**dict.fromkeys(_COLUMNS, "string"), "n": "int64", "groups": "int64", "k": "int64", "miniature": "bool"}
    return tables.frame(rows, columns | {"draw": "Int64", "value": "float64"})


def not_drawn(matrices: Sequence[CalibratedMatrix]) -> list[str]:
    """Lines that say which metrics are not drawn, and why."""
    labels: dict[str, list[str]] = {}
    for matrix in matrices:
        labels.setdefault(matrix.missing_null or "no p of the largest score", []).append(METRICS[matrix.metric].label)
    return [f"Not drawn ({why}): {', '.join(metrics)}" for why, metrics in labels.items()]
