"""Names and texts of a data set without images: its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.conditions import CLEAN
from diffalign.dataset_specs import Dataset
from diffalign.io import manifest
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import Supplied

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def named_texts(
    name: str,
    dataset: Dataset,
    seed: int,
    manifest_path: Path,
    spec_path: Path,
    download: tuple[Path, Path] | None = None,
) -> None:
    """Write the manifest, in which no row has a PNG, and dataset.json, which describes the texts.

    download: of a data set of the hub, its folder and the record of it. Raises TableError.
    """
    supplied = Supplied(seed, download[0] if download else None)
    rows = [row.in_manifest() for row in kinds.rows(dataset, supplied).rows]
    made_of = manifest.made_of(name, CLEAN, dataset.recipe(), seed, download[1] if download else None)
    manifest.write_manifest(manifest_path, spec_path, rows, made_of)
    logs.log.info("%d rows", len(rows))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "named_texts"):
        named_texts(
            snakemake.wildcards.dataset,
            Dataset(**snakemake.params.dataset),
            snakemake.params.seed,
            Path(snakemake.output.manifest),
            Path(snakemake.output.spec),
            (Path(snakemake.input.download), Path(snakemake.input.record)) if snakemake.input else None,
        )
