"""How the scores of one pair of representations depend on k and on the number of images."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.curves import Measured, measured, neighbor_counts, nested_subset, subset_sizes
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Layer
from diffalign.alignment.preparation import directions
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.io import recipes, sides, tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def curves_table(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    manifest: Path | None,
    where: recipes.Where,
    metrics: Sequence[str],
    outputs: tuple[Path, Path],
    memory_mb: int,
    threads: int,
) -> None:
    """Write scores over k (metrics on lists, from the lists as they are) and over N (all metrics), with their nulls.

    Columns: curve (``k`` or ``n``), metric, dataset, condition, a, b (bundles), layer_a, layer_b, n, groups, k, score,
    null_mean, null_sd, z, p, calibrated. outputs: TSV and Parquet with the same rows. Subsets of images are nested, of
    whole groups and keyed by (seed, group); their lists are searched among them, from features as they were prepared
    for all images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    pair = sides.read_sides(*files, drawing.seed, manifest)
    groups = pair[0].groups
    count, of = len(groups.codes), [groups.members[code] for code in groups.codes]
    rows = [side.rows(alias) for side, alias in zip(pair, layers, strict=True)]
    lists = [side.lists.layer(alias) for side, alias in zip(pair, layers, strict=True)]
    drawn = (drawing.permutations, drawing.alpha, drawing.seed, memory_mb * 2**20)
    every = [
        rows_layer(r, of, lambda own=own: own, drawing.seed)  # type: ignore[misc]
        for r, own in zip(rows, lists, strict=True)
    ]

    def part(all_rows: NDArray[np.float32], keep: NDArray[np.intp]) -> Layer:
        rows = all_rows[keep]
        search = partial(
            nearest_neighbors, directions(rows, pair[0].preparation), setting.k, memory_mb=memory_mb, threads=threads
        )
        return rows_layer(rows, [of[i] for i in keep], search, drawing.seed)

    def points() -> Iterator[tuple[str, Groups, int, dict[str, Measured]]]:
        of_lists = [metric for metric in metrics if METRICS[metric].uses_k]
        ks = neighbor_counts(setting.k, lists[0].k_max) if of_lists else []
        for k in logs.progress(ks, len(ks), "values of k"):
            yield "k", groups, k, measured(of_lists, every[0], every[1], replace(setting, k=k), *drawn, groups)
        sizes = subset_sizes(count, setting.k)
        for size in logs.progress(sizes, len(sizes), "numbers of images"):
            keep = nested_subset(groups, size, drawing.seed)
            some, their = (every, groups) if size == count else ([part(r, keep) for r in rows], groups.at(keep))
            yield "n", their, setting.k, measured(metrics, some[0], some[1], setting, *drawn, their)

    identity = sides.identity(pair, layers)
    lines: list[dict[str, Any]] = [
        {
            "curve": curve,
            "metric": metric,
            **asdict(where),
            **identity,
            "n": len(their.codes),
            "groups": their.count,
            "k": k,
            **asdict(values),
        }
        for curve, their, k, scores in points()
        for metric, values in scores.items()
    ]
    tables.write(pd.DataFrame(lines), *outputs)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "curves_table"), threadpool_limits(snakemake.threads):
        curves_table(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            sides.manifest_of(snakemake.input),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.metrics,
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
            snakemake.resources.memory_mb,
            snakemake.threads,
        )
