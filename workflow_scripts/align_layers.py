"""Layer x layer matrices of all metrics for one pair of models, in one job."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.metrics import measure_grid
from diffalign.io import recipes, sides
from diffalign.io.matrices import LayerMatrix, write_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def align_layers(
    files: tuple[sides.Files, sides.Files],
    settings: Path,
    manifest: Path | None,
    where: recipes.Where,
    metrics: Sequence[str],
    output: Path,
    seed: int,
    memory_mb: int,
) -> None:
    """Measure every layer of A (rows) against every layer of B (columns); write a matrix and a recipe of every metric.

    Raises StoreError, which names the first five images, where the two sides have different images.
    """
    setting = recipes.read_settings(settings)
    a, b = sides.read_sides(*files, seed, manifest)
    grids = measure_grid(
        metrics,
        [a.layer(alias) for alias in a.layers],
        [b.layer(alias) for alias in b.layers],
        setting,
        memory_mb * 2**20,
        lambda rows, count: logs.progress(rows, count, "align_layers"),
    )
    matrices = {
        metric: LayerMatrix(
            grids[metric], recipes.matrix_recipe(metric, a.lists, b.lists, setting, where, a.groups, grids[metric])
        )
        for metric in metrics
    }
    write_matrices(output, matrices)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "align_layers"), threadpool_limits(snakemake.threads):
        align_layers(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            Path(snakemake.input.settings),
            sides.manifest_of(snakemake.input),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.metrics,
            Path(snakemake.output[0]),
            snakemake.params.seed,
            snakemake.resources.memory_mb,
        )
