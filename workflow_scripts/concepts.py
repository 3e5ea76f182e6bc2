"""The manifest of a data set of concepts without images: names, words and definitions."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.conditions import CLEAN
from diffalign.dataset_specs import Dataset, SourceFile
from diffalign.io import manifest
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import Supplied
from diffalign.stimuli.kinds.things import verified

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def concepts(name: str, dataset: Dataset, source: SourceFile, manifest_path: Path, spec_path: Path) -> None:
    """Write the manifest and dataset.json. Labels are uniqueIDs, captions words, descriptions definitions.

    Raises StoreError for a file that is missing, has another sha256, or is no list of concepts.
    """
    sha256 = verified(Path(source.path), source.sha256)
    rows = [row.in_manifest() for row in kinds.rows(dataset, Supplied(concepts=source)).rows]
    spec = {"dataset": name, "condition": CLEAN, **dataset.recipe(), "concepts_sha256": sha256}
    manifest.write_manifest(manifest_path, spec_path, rows, spec)
    logs.log.info("%d concepts, no images", len(rows))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "concepts"):
        concepts(
            snakemake.wildcards.dataset,
            Dataset(**snakemake.params.dataset),
            SourceFile(**snakemake.params.concepts),
            Path(snakemake.output.manifest),
            Path(snakemake.output.spec),
        )
