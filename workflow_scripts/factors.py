"""Singular vectors and kernel sums of every layer of a bundle, which several metrics need."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.factors import Factors, leading_vectors
from diffalign.alignment.moments import moments
from diffalign.alignment.nulls import KernelCubes, kernel_cubes
from diffalign.io import factor_files, neighbor_files
from diffalign.io.prepared_features import prepared_rows

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def factors(neighbors: Path, layers_json: Path, path: Path) -> None:
    """Write the leading singular vectors of every layer (for SVCCA) and the third-order sums of its kernel (for the
    null of CKA). Features are prepared as for the neighbour lists.
    """
    lists = neighbor_files.read_neighbors(neighbors)

    def of_layers() -> Iterator[tuple[str, Factors, KernelCubes]]:
        for alias in logs.progress(lists.layers, len(lists.layers), "factors"):
            rows = prepared_rows(lists, layers_json, alias)
            yield alias, leading_vectors(rows), kernel_cubes(moments(rows))

    factor_files.write_factors(path, lists.names, of_layers())


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "factors"), threadpool_limits(snakemake.threads):
        factors(Path(snakemake.input.neighbors), Path(snakemake.input.layers), Path(snakemake.output[0]))
