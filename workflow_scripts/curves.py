"""How the scores of one pair of representations depend on k and on the number of images."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from threadpoolctl import threadpool_limits

from diffalign import logs, recipes, sides
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.curves import Measured, measured, neighbor_counts, nested_subset, subset_sizes
from diffalign.alignment.metrics import METRICS
from diffalign.atomic import replacing

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def curves(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    where: recipes.Where,
    metrics: Sequence[str],
    table: Path,
    memory_mb: int,
    threads: int,
) -> None:
    """Write scores over k (metrics on lists, from the lists as they are) and over N (all metrics), with their nulls.

    Columns: curve (``k`` or ``n``), metric, dataset, condition, a, b (bundles), layer_a, layer_b, n, k, score,
    null_mean, null_sd, z, p, calibrated. Subsets of images are nested and keyed by (seed, name); their lists are
    searched among them, from features as they were prepared for all images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    a, b = sides.read_sides(*files, drawing.seed)
    rows = [side.rows(alias) for side, alias in zip((a, b), layers, strict=True)]
    lists = [side.lists.layer(alias) for side, alias in zip((a, b), layers, strict=True)]
    drawn = (drawing.permutations, drawing.alpha, drawing.seed, memory_mb * 2**20)
    every = [rows_layer(r, a.names, 0, drawing.seed, lists=found) for r, found in zip(rows, lists, strict=True)]

    def points() -> Iterator[tuple[str, int, int, dict[str, Measured]]]:
        of_lists = [metric for metric in metrics if METRICS[metric].uses_k]
        ks = neighbor_counts(setting.k, lists[0].k_max) if of_lists else []
        for k in logs.progress(ks, len(ks), "values of k"):
            yield "k", len(a.names), k, measured(of_lists, every[0], every[1], replace(setting, k=k), *drawn)
        sizes = subset_sizes(len(a.names), setting.k)
        for size in logs.progress(sizes, len(sizes), "numbers of images"):
            keep = nested_subset(a.names, size, drawing.seed)
            some = [
                rows_layer(
                    r[keep], [a.names[i] for i in keep], setting.k, drawing.seed, memory_mb=memory_mb, threads=threads
                )
                for r in rows
            ]
            pair = every if size == len(a.names) else some
            yield "n", size, setting.k, measured(metrics, pair[0], pair[1], setting, *drawn)

    names = {"a": a.lists.recipe["bundle"], "b": b.lists.recipe["bundle"], "layer_a": layers[0], "layer_b": layers[1]}
    found: list[dict[str, Any]] = [
        {"curve": curve, "metric": metric, **asdict(where), **names, "n": n, "k": k, **asdict(values)}
        for curve, n, k, scores in points()
        for metric, values in scores.items()
    ]
    with replacing(table) as temporary:
        pd.DataFrame(found).to_csv(temporary, sep="\t", index=False, float_format="%.9g")


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "curves"), threadpool_limits(snakemake.threads):
        curves(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.metrics,
            Path(snakemake.output[0]),
            snakemake.resources.memory_mb,
            snakemake.threads,
        )
