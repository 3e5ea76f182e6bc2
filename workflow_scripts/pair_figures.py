"""The figures of one pair of models: heat maps of its matrices, curves over depth, and largest scores beside chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.figures import depth_curves, layer_maps, null_histograms
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def pair_figures(
    read: Sequence[CalibratedMatrix], defaults: Mapping[str, str], outputs: Mapping[str, Sequence[Path]]
) -> None:
    """Draw the figures of a pair from its matrices, one a metric.

    defaults: bundle -> its default layer. outputs: name of a figure -> its files.
    """
    layer_maps.draw(read, outputs["layer_maps"])
    depth_curves.draw(read, defaults, outputs["depth_curves"])
    null_histograms.draw(read, outputs["null_histograms"])


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "pair_figures"):
        pair_figures(
            read_matrices(
                [Path(snakemake.input.matrices)], [Path(snakemake.input.calibrations)], snakemake.params.metrics
            ),
            snakemake.params.defaults,
            {name: [Path(path) for path in paths] for name, paths in snakemake.output.items()},
        )
