"""Merge the parts of the neighbour lists of a bundle into one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.neighbor_files import merge_parts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def merge_neighbors(parts: Sequence[Path], path: Path) -> None:
    """Write the file of a job without parts. Raises StoreError where parts do not belong together."""
    merge_parts(parts, path)
    logs.log.info("%s: %d parts", path, len(parts))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "merge_neighbors"):
        merge_neighbors([Path(part) for part in snakemake.input], Path(snakemake.output[0]))
