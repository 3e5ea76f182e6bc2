"""How much the scores of one pair of representations depend on what is done to features before."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.curves import Measured, measured
from diffalign.alignment.metrics import Layer
from diffalign.alignment.preparation import FeatureError, directions
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import ALTERNATIVES, PARITY, PARITY_EPS, Preparation
from diffalign.io import recipes, sides, tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IN_FORCE = "in force"
# what published scripts do, with what they add to denominators
PUBLISHED = {f"parity {name}": preparation for name, preparation in PARITY.items()}


def sensitivity_table(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    manifest: Path | None,
    where: recipes.Where,
    metrics: Sequence[str],
    tsv: Path,
    parquet: Path,
    memory_mb: int,
    threads: int,
) -> None:
    """Write one row a preparation and metric, as TSV and Parquet with the same rows.

    Columns: preparation (its name), metric, dataset, condition, a, b (bundles), layer_a, layer_b, clamp, clamp_rule,
    clamp_over, center, whiten, normalize, eps, n, groups, k, score, null_mean, null_sd, z, p, calibrated, skipped (why
    there is no score: whitening needs more images than dimensions). Raises StoreError where the two sides have other
    images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    pair = sides.read_sides(*files, drawing.seed, manifest)
    names, groups = pair[0].names, pair[0].groups
    of = [groups.members[code] for code in groups.codes]

    def layer(side: sides.Side, alias: str, preparation: Preparation | None) -> Layer:
        """One side under a preparation; None: as it is in force, with the lists that exist."""
        rows = side.rows(alias, preparation)
        if preparation is None:
            return rows_layer(rows, of, lambda: side.lists.layer(alias), drawing.seed)
        search = partial(
            nearest_neighbors, directions(rows, preparation), setting.k, memory_mb=memory_mb, threads=threads
        )
        return rows_layer(rows, of, search, drawing.seed)

    def rows() -> Iterator[dict[str, Any]]:
        plans: dict[str, Preparation | None] = {IN_FORCE: None, **ALTERNATIVES, **PUBLISHED}
        for name, preparation in logs.progress(plans.items(), len(plans), "preparations"):
            how = preparation or pair[0].preparation
            used = replace(setting, eps=PARITY_EPS) if name in PUBLISHED else setting
            skipped = ""
            scores = dict.fromkeys(metrics, Measured(float("nan")))
            try:
                both = [layer(side, alias, preparation) for side, alias in zip(pair, layers, strict=True)]
                scores = measured(
                    metrics,
                    both[0],
                    both[1],
                    used,
                    drawing.permutations,
                    drawing.alpha,
                    drawing.seed,
                    memory_mb * 2**20,
                    groups,
                )
            except FeatureError as error:
                if preparation is None:
                    raise
                skipped = str(error)
                logs.log.warning("%s: skipped, %s", name, skipped)
            for metric, values in scores.items():
                yield {
                    "preparation": name,
                    "metric": metric,
                    **asdict(where),
                    **sides.identity(pair, layers),
                    **asdict(how),
                    "eps": used.eps,
                    "n": len(names),
                    "groups": groups.count,
                    "k": setting.k,
                    **asdict(values),
                    "skipped": skipped,
                }

    # a column without any clamp is still one of numbers
    tables.write(pd.DataFrame(list(rows())).astype({"clamp": float}), tsv, parquet)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "sensitivity_table"), threadpool_limits(snakemake.threads):
        sensitivity_table(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            sides.manifest_of(snakemake.input),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.metrics,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
            snakemake.resources.memory_mb,
            snakemake.threads,
        )
