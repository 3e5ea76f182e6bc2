"""Quality of the samples of all models and checkpoints, measured here or given by a table of the user's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffalign import logs
from diffalign.io import quality_files, tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def sample_quality_table(measured: Sequence[Path], outputs: Mapping[str, Path]) -> None:
    """Write one row a checkpoint and measure: the mean over seeds and its interval. measured: Parquet files."""
    of_seeds = pd.concat([pd.read_parquet(path) for path in measured], ignore_index=True)
    rows = tables.frame(quality_files.summaries(of_seeds), quality_files.SUMMARY)
    tables.write(rows, outputs["tsv"], outputs["parquet"])


def given_quality_table(
    table: Path, dataset: str, checkpoints: Mapping[str, Sequence[int]], outputs: Mapping[str, Path]
) -> None:
    """Write the same of a user's table, whose values have no interval. checkpoints: model -> steps that are known."""
    rows = tables.frame(quality_files.read_given(table, dataset, checkpoints), quality_files.SUMMARY)
    tables.write(rows.fillna({"note": ""}), outputs["tsv"], outputs["parquet"])


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "sample_quality_table"):
        made = {key: Path(path) for key, path in snakemake.output.items()}
        params = snakemake.params
        if params.table is None:
            sample_quality_table([Path(path) for path in snakemake.input.measured], made)
        else:
            given_quality_table(Path(params.table), params.dataset, params.checkpoints, made)
