"""A data set of the hub: downloaded once into the Hugging Face cache, linked, its commit and sha256 recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.checkpoints import describe, hub_snapshot, link_files

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def hub_table(dataset: str, source: Mapping[str, Any], folder: Path, record: Path) -> None:
    """Download the files of a repository, link them into `folder` and describe them in `record`.

    source: repository, revision and files of the config. Raises CheckpointError where the hub cannot be reached.
    """
    repository, files = source["repository"], source["files"]
    snapshot, commit = hub_snapshot(dataset, repository, source["revision"], files, kind="dataset")
    link_files(snapshot, folder, files, f"{repository} at {commit}")
    describe(record, folder, {"source": "hub", "hub": repository, "revision": commit})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "hub_table"):
        hub_table(
            snakemake.wildcards.dataset,
            snakemake.params.source,
            Path(snakemake.output.folder),
            Path(snakemake.output.record),
        )
