"""The record of a model that has no weights: an empty checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.atomic import make_empty, write_json
from diffalign.io.checkpoints import RECORD_FORMAT

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def no_weights(folder: Path, record: Path) -> None:
    """Make an empty folder and write weights.json, which says so."""
    make_empty(folder)
    write_json(record, {"format": RECORD_FORMAT, "source": "none", "sha256": {}})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "no_weights"):
        no_weights(Path(snakemake.output.folder), Path(snakemake.output.record))
