"""The largest score of every layer x layer matrix of one pair of models, beside what it would be by chance."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from diffalign import figures, logs
from diffalign.alignment.calibration import Calibration
from diffalign.alignment.metrics import METRICS
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def null_histograms_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw one panel for every metric whose null is known; the others are named below them.

    By permutations: the largest score of the grid under each. In closed form: the density of the null of the best pair
    of layers, for its maximum over the grid is bounded (Bonferroni) and not known.
    """
    figures.styled()
    found = read_matrices(matrices, calibrations)
    shown = [matrix for matrix in found if drawable(matrix)]
    rows, columns = figures.grid_of_panels(len(shown))
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(max(4.5, 3.0 * columns), 2.35 * rows + 1.0),
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.ravel()[len(shown) :]:
        axes.set_axis_off()
    for axes, matrix in zip(panels.ravel(), shown, strict=False):
        null_panel(axes, matrix)
    if shown:
        figures.shared_legend(figure, panels.ravel()[: len(shown)], 2)
    else:
        figures.say(panels[0, 0], "no metric of this study has a null that can be drawn")
    pair = f"{found[0].bundle('a')} and {found[0].bundle('b')}"
    left_out = [matrix for matrix in found if not drawable(matrix)]
    lines = [f"{pair}. {figures.title_of(found[0].recipe)}", *not_drawn(left_out, 36 * columns)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5)
    figures.save(figure, outputs, found[0].miniature)


def drawable(matrix: CalibratedMatrix) -> bool:
    """Whether the null is drawn, or has the three moments that a density takes."""
    null = matrix.calibration.null
    if null is None or matrix.best is None or not matrix.has_p:
        return False
    return null.method == "permutations" or null.skewness is not None


def null_panel(axes: Axes, matrix: CalibratedMatrix) -> None:
    """One metric that `drawable` accepts."""
    null, best = matrix.calibration.null, matrix.best
    assert isinstance(null, Calibration)
    assert best is not None
    observed = float(matrix.values[best])
    title = METRICS[matrix.metric].label
    level = f"what the null of the largest score exceeds in {100 * matrix.calibration.settings['alpha']:g} %"
    p = figures.p_text(null.maximum_p)
    if null.method == "permutations":
        figures.null_histogram(axes, null.maxima, observed, null.maximum_threshold, level)
        axes.set_xlabel("largest score of the grid")
        title += f": {p}"
    else:
        assert null.skewness is not None
        moments = float(null.mean[best]), float(null.sd[best]), float(null.skewness[best])
        figures.null_density(axes, moments, observed, null.maximum_threshold, level)
        axes.set_xlabel(f"score of {matrix.layers('a')[best[0]]} and {matrix.layers('b')[best[1]]}")
        title += f": {p} (Bonferroni)"
    axes.set_title(title, loc="left", fontsize=9)


def not_drawn(matrices: Sequence[CalibratedMatrix], width: int) -> list[str]:
    """Lines of at most so many characters that say which metrics are not drawn, and why."""
    labels: dict[str, list[str]] = {}
    for matrix in matrices:
        labels.setdefault(matrix.missing_null, []).append(METRICS[matrix.metric].label)
    return [
        line
        for why, metrics in labels.items()
        for line in textwrap.wrap(f"Not drawn ({why}): {', '.join(metrics)}", max(width, 60))
    ]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "null_histograms_figure"):
        null_histograms_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
