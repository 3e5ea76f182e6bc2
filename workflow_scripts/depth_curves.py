"""Alignment over depth: for every layer of one model, the best and the default layer of the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from diffalign import figures, logs
from diffalign.alignment.metrics import METRICS
from diffalign.matrices import LayerMatrix, read_matrix

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def depth_curves(matrices: Sequence[Path], defaults: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Draw one row of panels a metric: left over the depth of A, right over the depth of B.

    defaults: model -> its default layer.
    """
    figures.styled()
    found = [read_matrix(path) for path in matrices]
    figure, panels = plt.subplots(
        len(found), 2, figsize=(8.4, 2.5 * len(found) + 0.5), squeeze=False, sharey="row", layout="constrained"
    )
    for row, matrix in zip(panels, found, strict=True):
        for axes, side, other in zip(row, "ab", "ba", strict=True):
            layers = matrix.layers(side)
            name = defaults[matrix.model(other)]
            best, default = over_depth(matrix, side, name)
            figures.depth_curve(
                axes,
                layers,
                {
                    f"best layer of {matrix.bundle(other)}": (best, figures.BEST, 2.6),
                    f"{matrix.bundle(other)} at {name}": (default, figures.DEFAULT, 1.2),
                },
                matrix.recipe["chance"],
            )
            axes.set_xlabel(f"layer of {matrix.bundle(side)}")
            axes.legend(fontsize=7, frameon=False, loc="best")
        row[0].set_ylabel(METRICS[matrix.metric].label)
    recipe = found[0].recipe
    figure.suptitle(
        f"{recipe['dataset']}, {recipe['condition']}: N = {recipe['n']}, k = {recipe['k']}", x=0.01, ha="left"
    )
    figures.save(figure, outputs, found[0].miniature)


def over_depth(matrix: LayerMatrix, side: str, default: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every layer of `side`: the best score over the other side's layers, and the score with one of them."""
    values = matrix.values if side == "a" else matrix.values.T
    other = "b" if side == "a" else "a"
    # a layer without any defined score has no best one
    best = np.array([np.nanmax(line) if np.isfinite(line).any() else np.nan for line in values])
    return best, values[:, matrix.layers(other).index(default)]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "depth_curves"):
        depth_curves(
            [Path(path) for path in snakemake.input.matrices],
            snakemake.params.defaults,
            [Path(path) for path in snakemake.output],
        )
