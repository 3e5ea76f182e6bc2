"""One table of all contrasts that the study names: every family, and every contrast at all layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffalign import logs
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def contrasts_table(parts: Sequence[Path], outputs: tuple[Path, Path]) -> None:
    """Write the rows of all tables of `contrast`, in the order of the study, as TSV and Parquet. p_adjusted and bands
    stay those of each family. Raises ValueError for no tables, StoreError where a table is none of these.
    """
    if not parts:
        raise ValueError("the study names no contrasts: set contrasts.families or contrasts.layers")
    read = [tables.read(path, ["family", "contrast", "metric", "p_adjusted"]) for path in parts]
    tables.write(pd.concat(read, ignore_index=True), *outputs)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "contrasts_table"):
        contrasts_table(
            [Path(path) for path in snakemake.input.tables],
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
        )
