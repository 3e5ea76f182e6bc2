"""The score of one pair of representations, with its null, its interval and its recipe."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import calibration
from diffalign.alignment.metrics import measure_grid, score
from diffalign.alignment.single import interval
from diffalign.io import recipes, sides
from diffalign.io.atomic import replacing, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# bytes of kernels that are permuted
MEMORY = 2**30


def align(
    metric: str,
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    manifest: Path | None,
    where: recipes.Where,
    score_path: Path,
    recipe_path: Path,
) -> None:
    """Measure one layer of A against one layer of B; write the score (a 0-d float64 array) and its recipe.

    Raises StoreError, which names the first five images, where the two sides have different images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    a, b = sides.read_sides(*files, drawing.seed, manifest)
    pair = a.layer(layers[0]).held(), b.layer(layers[1]).held()
    value = measure_grid([metric], [pair[0]], [pair[1]], setting)[metric]
    result = score(metric, float(value[0, 0]))
    if math.isnan(result.value):
        logs.log.warning("undefined: %s", result.undefined)
    null = calibration.calibrate(
        {metric: value},
        [pair[0]],
        [pair[1]],
        setting,
        drawing.permutations,
        drawing.alpha,
        drawing.seed,
        lambda orders, count: logs.progress(orders, count, "permutations"),
        a.groups.exchanges,
        MEMORY,
    ).get(metric)
    recipe = recipes.score_recipe(metric, a.lists, b.lists, layers, setting, where, a.groups, result)
    recipe["null"] = recipes.null_recipe(null, drawing, a.groups.exchanges)
    recipe["interval"] = None
    if not math.isnan(result.value):
        recipe["interval"] = recipes.interval_recipe(*interval(metric, pair, setting, value, a.groups, drawing.seed))
    with replacing(score_path) as temporary:
        np.save(temporary, np.float64(result.value), allow_pickle=False)
    write_json(recipe_path, recipe)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "align"), threadpool_limits(snakemake.threads):
        align(
            snakemake.wildcards.metric,
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            sides.manifest_of(snakemake.input),
            recipes.Where(snakemake.params.dataset, snakemake.params.condition),
            Path(snakemake.output.score),
            Path(snakemake.output.recipe),
        )
