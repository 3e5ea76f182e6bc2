"""The layer x layer matrix of one metric and its recipe, out of the file of all metrics of a pair."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffalign import logs
from diffalign.io.atomic import replacing, write_json
from diffalign.io.matrices import read_layer_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def layer_matrix(matrices: Path, metric: str, output: Path, recipe: Path) -> None:
    """Write the scores of every layer of A (rows) with every layer of B (columns), float64, and their recipe."""
    (matrix,) = read_layer_matrices(matrices, [metric])
    with replacing(output) as temporary:
        np.save(temporary, matrix.values, allow_pickle=False)
    write_json(recipe, matrix.recipe)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_matrix"):
        layer_matrix(
            Path(snakemake.input[0]),
            snakemake.wildcards.metric,
            Path(snakemake.output.matrix),
            Path(snakemake.output.recipe),
        )
