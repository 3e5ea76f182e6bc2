"""The configuration of a checkpoint without its weights: all that an untrained twin needs."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.checkpoints import describe, hub_snapshot, link_configuration
from diffalign.study import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def untrained_weights(model: str, weights: Weights, miniature: Path | None, folder: Path, record: Path) -> None:
    """Link the files of the configuration into `folder` and describe them in `record`, weights.json.

    miniature: the checkpoint of a miniature, whose untrained twin is as narrow. Raises CheckpointError where the hub
    cannot be reached, FileNotFoundError where there is no configuration.
    """
    if folder.exists():
        shutil.rmtree(folder)
    origin = {"source": weights.source, "untrained": True}
    if weights.source == "hub":
        assert weights.hub is not None  # the config is checked
        source, commit = hub_snapshot(model, weights.hub, weights.revision, weights.files, configuration=True)
        origin |= {"hub": weights.hub, "revision": commit}
    else:
        source = miniature or Path(weights.folder or "").expanduser()
    link_configuration(source, folder, weights.files, f"the configuration of {model}")
    describe(record, folder, origin)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "untrained_weights"):
        spec, made = snakemake.params.model, snakemake.output
        untrained_weights(
            spec["name"],
            Weights(**spec["weights"]),
            Path(snakemake.input[0]) if snakemake.input else None,
            Path(made.folder),
            Path(made.record),
        )
