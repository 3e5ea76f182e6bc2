"""The score of one pair of representations, with its recipe."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffalign import logs, neighbor_store, recipes, store
from diffalign.alignment.metrics import knn_graph, measure
from diffalign.atomic import replacing, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def align(
    metric: str,
    neighbors: tuple[Path, Path],
    layers: tuple[str, str],
    settings: Path,
    where: recipes.Where,
    score_path: Path,
    recipe_path: Path,
) -> None:
    """Measure one layer of A against one layer of B; write the score (a 0-d float64 array) and its recipe.

    Raises StoreError that names the first five images where the two sides differ.
    """
    setting = recipes.read_settings(settings)
    a, b = (neighbor_store.read_neighbors(path) for path in neighbors)
    store.check_same_names(a.names, b.names, a.path, b.path)
    graphs = [knn_graph(side.layer(layer), setting.k) for side, layer in zip((a, b), layers, strict=True)]
    score = measure(metric, graphs[0], graphs[1], setting.eps)
    if math.isnan(score.value):
        logs.log.warning("undefined: %s", score.undefined)
    with replacing(score_path) as temporary:
        np.save(temporary, np.float64(score.value), allow_pickle=False)
    write_json(recipe_path, recipes.score_recipe(metric, a, b, layers, setting, where, score))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "align"):
        align(
            snakemake.wildcards.metric,
            (Path(snakemake.input.a), Path(snakemake.input.b)),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            recipes.Where(snakemake.params.dataset, snakemake.params.condition),
            Path(snakemake.output.score),
            Path(snakemake.output.recipe),
        )
