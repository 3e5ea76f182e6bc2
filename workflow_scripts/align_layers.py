"""Layer x layer matrices of all metrics for one pair of models, in one job."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffalign import logs, neighbor_store, recipes, store
from diffalign.alignment.metrics import Score, knn_graph, measure
from diffalign.atomic import replacing, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def align_layers(
    neighbors: tuple[Path, Path],
    settings: Path,
    where: recipes.Where,
    matrices: Mapping[str, Path],
    recipe_paths: Mapping[str, Path],
) -> None:
    """Measure every layer of A (rows) against every layer of B (columns); write one matrix and recipe a metric.

    Every layer is prepared once and used for all pairs and metrics. Raises StoreError that names the first five
    images where the two sides differ.
    """
    setting = recipes.read_settings(settings)
    a, b = (neighbor_store.read_neighbors(path) for path in neighbors)
    store.check_same_names(a.names, b.names, a.path, b.path)
    columns = {alias: knn_graph(b.layer(alias), setting.k) for alias in b.layers}
    scores: dict[str, list[list[Score]]] = {metric: [] for metric in matrices}
    for alias in logs.progress(a.layers, len(a.layers), "align_layers"):
        row = knn_graph(a.layer(alias), setting.k)
        for metric, table in scores.items():
            table.append([measure(metric, row, column, setting.eps) for column in columns.values()])
    for metric, path in matrices.items():
        table = scores[metric]
        with replacing(path) as temporary:
            np.save(temporary, np.array([[score.value for score in line] for line in table]), allow_pickle=False)
        write_json(recipe_paths[metric], recipes.matrix_recipe(metric, a, b, setting, where, table))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "align_layers"):
        align_layers(
            (Path(snakemake.input.a), Path(snakemake.input.b)),
            Path(snakemake.input.settings),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            dict(zip(snakemake.params.metrics, map(Path, snakemake.output.matrices), strict=True)),
            dict(zip(snakemake.params.metrics, map(Path, snakemake.output.recipes), strict=True)),
        )
