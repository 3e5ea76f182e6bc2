"""One table of all files that jobs of the study wrote: what from, by which code, where, how long and in what memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io import audits, tables
from diffalign.job_records import place_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def provenance(folder: Path, parquet: Path) -> None:
    """Write one row a file, from the records of jobs in a folder. Columns: `audits.COLUMNS`."""
    records = audits.read_records(folder)
    table = tables.frame(audits.rows(records), audits.COLUMNS)
    logs.log.info("%d files of %d jobs", len(table), len(records))
    tables.write_parquet(table, parquet)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "provenance"):
        provenance(place_of(Path(snakemake.log[0])).parent, Path(snakemake.output[0]))
