"""Layer x layer heat maps of one pair of models, all metrics side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from diffalign import figures, logs
from diffalign.alignment.metrics import METRICS
from diffalign.matrices import read_matrix

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def layer_maps(matrices: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw one panel a metric: A upwards, B to the right, the best pair of layers framed and named."""
    figures.styled()
    found = [read_matrix(path) for path in matrices]
    rows, columns = found[0].layers("a"), found[0].layers("b")
    cell = 0.17
    width, height = max(2.6, cell * len(columns)), max(2.2, cell * len(rows))
    figure, panels = plt.subplots(
        1, len(found), figsize=((width + 1.4) * len(found), height + 1.2), squeeze=False, layout="constrained"
    )
    for axes, matrix in zip(panels[0], found, strict=True):
        finite = matrix.values[np.isfinite(matrix.values)]
        limits = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
        image = figures.layer_map(axes, matrix.values, rows, columns, limits)
        title = METRICS[matrix.metric].label
        if finite.size:
            row, column = np.unravel_index(np.nanargmax(matrix.values), matrix.values.shape)
            title += f": best {matrix.values[row, column]:.3f} at {rows[row]} and {columns[column]}"
        axes.set_title(title, loc="left")
        axes.set_xlabel(f"layer of {matrix.bundle('b')}")
        axes.set_ylabel(f"layer of {matrix.bundle('a')}")
        figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02).outline.set_visible(False)
    recipe = found[0].recipe
    figure.suptitle(
        f"{recipe['dataset']}, {recipe['condition']}: N = {recipe['n']}, k = {recipe['k']}", x=0.01, ha="left"
    )
    figures.save(figure, outputs, found[0].miniature)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_maps"):
        layer_maps([Path(path) for path in snakemake.input.matrices], [Path(path) for path in snakemake.output])
