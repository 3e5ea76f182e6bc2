"""A published checkpoint: downloaded once into the Hugging Face cache, linked, its commit and sha256 recorded."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.checkpoints import describe, hub_snapshot, link_files
from diffalign.study import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def hub_weights(model: Model, folder: Path, record: Path) -> None:
    """Download the files of a repository, link them into `folder` and describe them in `record`, weights.json.

    An interrupted download goes on where it stopped: files lie in the Hugging Face cache, not here.
    Raises CheckpointError that says what to do where the hub cannot be reached or asks for a licence.
    """
    assert model.weights.hub is not None  # the config is checked
    snapshot, commit = hub_snapshot(model.name, model.weights.hub, model.weights.revision, model.weights.files)
    if folder.exists():
        shutil.rmtree(folder)
    link_files(snapshot, folder, model.weights.files, f"{model.weights.hub} at {commit}")
    describe(record, folder, {"source": "hub", "hub": model.weights.hub, "revision": commit})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "hub_weights"):
        hub_weights(
            Model.from_recipe(snakemake.params.model), Path(snakemake.output.folder), Path(snakemake.output.record)
        )
