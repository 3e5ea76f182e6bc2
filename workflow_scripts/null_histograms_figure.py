"""The largest score of every layer x layer matrix of one pair of models, beside what it would be by chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from diffalign import logs
from diffalign.alignment.calibration import Calibration
from diffalign.alignment.metrics import METRICS
from diffalign.figures import curves, grids, style
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def null_histograms_figure(matrices: Sequence[Path], calibrations: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw one panel for every metric whose null is known; the others are named below them.

    By permutations: the largest score of the grid under each. In closed form: the density of the null of the best pair
    of layers, for its maximum over the grid is bounded (Bonferroni) and not known.
    """
    style.styled()
    read = read_matrices(matrices, calibrations)
    shown = [matrix for matrix in read if drawable(matrix)]
    figure, panels = grids.panels(max(1, len(shown)), 4, 1.35)
    for axes, matrix in zip(panels, shown, strict=False):
        null_panel(axes, matrix)
    pair = f"{read[0].bundle('a')} and {read[0].bundle('b')}"
    left_out = [matrix for matrix in read if not drawable(matrix)]
    style.heading(figure, "\n".join([f"{pair}. {style.title_of(read[0].recipe)}", *not_drawn(left_out)]))
    if shown:
        grids.shared_legend(figure, panels, 2)
    else:
        grids.in_place(panels[0], "no metric of this study has\na null that can be drawn")
    style.save(figure, outputs, read[0].miniature)


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
    p = style.p_text(null.maximum_p)
    if null.method == "permutations":
        curves.null_histogram(axes, null.maxima, observed, null.maximum_threshold, level)
        axes.set(xlabel="largest score of the grid", ylabel="permutations", title=f"{title}\n{p}")
    else:
        assert null.skewness is not None
        moments = float(null.mean[best]), float(null.sd[best]), float(null.skewness[best])
        curves.null_density(axes, moments, observed, null.maximum_threshold, level)
        of = f"score of {matrix.layers('a')[best[0]]} and {matrix.layers('b')[best[1]]}"
        axes.set(xlabel=of, ylabel="density", title=f"{title}\n{p} (Bonferroni)")


def not_drawn(matrices: Sequence[CalibratedMatrix]) -> list[str]:
    """Lines that say which metrics are not drawn, and why."""
    labels: dict[str, list[str]] = {}
    for matrix in matrices:
        labels.setdefault(matrix.missing_null, []).append(METRICS[matrix.metric].label)
    return [f"Not drawn ({why}): {', '.join(metrics)}" for why, metrics in labels.items()]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "null_histograms_figure"):
        null_histograms_figure(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            [Path(path) for path in snakemake.output],
        )
