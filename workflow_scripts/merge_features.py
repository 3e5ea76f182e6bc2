"""Merge the parts of the features of a bundle into one file per layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io import bundles

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def merge_features(parts: Sequence[Path], manifest: Path) -> None:
    """Write the files of a job without parts. Raises StoreError where parts do not belong together."""
    bundles.merge(parts, manifest)
    logs.log.info("%s: %d parts", manifest, len(parts))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        merge_features(
            [Path(part) for part in snakemake.input],
            Path(snakemake.output.manifest),
        )
