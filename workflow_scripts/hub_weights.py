"""A published checkpoint: downloaded once into the Hugging Face cache, linked, its commit and sha256 recorded."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.checkpoints import describe, hub_snapshot, link_files
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def hub_weights(model: str, weights: Weights, folder: Path, record: Path) -> None:
    """Download the files of a repository, link them into `folder` and describe them in `record`, weights.json.

    An interrupted download goes on where it stopped: files lie in the Hugging Face cache, not here.
    Raises CheckpointError that says what to do where the hub cannot be reached or asks for a licence.
    """
    assert weights.hub is not None  # the config is checked
    snapshot, commit = hub_snapshot(model, weights.hub, weights.revision, weights.files)
    link_files(snapshot, folder, weights.files, f"{weights.hub} at {commit}")
    describe(record, folder, {"source": "hub", "hub": weights.hub, "revision": commit})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "hub_weights"):
        spec, made = snakemake.params.model, snakemake.output
        hub_weights(spec["name"], Weights(**spec["weights"]), Path(made.folder), Path(made.record))
