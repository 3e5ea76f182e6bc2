"""Alignment over relative depth: curves over depth with the first layer of each model at 0 and its last at 1."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.figures import depth_curves
from diffalign.io.matrices import read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "relative_depth_curves_figure"):
        depth_curves.draw(
            read_matrices(
                [Path(snakemake.input.matrices)],
                [Path(snakemake.input.calibrations)],
                snakemake.params.metrics,
            ),
            snakemake.params.defaults,
            [Path(path) for path in snakemake.output],
            relative=True,
        )
