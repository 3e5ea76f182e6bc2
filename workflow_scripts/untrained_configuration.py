"""What an untrained twin is built from, where checkpoints hold it: the files of a checkpoint without its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.checkpoints import describe, hub_snapshot, link_configuration, package_folder
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def untrained_configuration(model: str, weights: Weights, miniature: Path | None, folder: Path, record: Path) -> None:
    """Link the files of the configuration into `folder` and describe them in `record`, weights.json.

    miniature: the checkpoint of a miniature, whose untrained twin is as narrow. Raises CheckpointError where the hub
    cannot be reached, FileNotFoundError where there is no configuration.
    """
    origin: dict[str, Any] = {"source": weights.source, "untrained": True}
    if weights.source == "hub":
        assert weights.hub is not None  # the config is checked
        source, commit = hub_snapshot(model, weights.hub, weights.revision, weights.files, configuration=True)
        origin |= {"hub": weights.hub, "revision": commit}
    elif weights.source == "package":
        assert weights.package is not None  # the config is checked
        source, version = package_folder(model, weights.package, weights.folder)
        origin |= {"package": weights.package, "version": version}
    else:
        source = miniature or Path(weights.folder or "").expanduser()
    link_configuration(source, folder, weights.files, f"the configuration of {model}")
    describe(record, folder, origin)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "untrained_configuration"):
        entry, made = snakemake.params.model, snakemake.output
        untrained_configuration(
            entry["name"],
            Weights(**entry["weights"]),
            Path(snakemake.input[0]) if snakemake.input else None,
            Path(made.folder),
            Path(made.record),
        )
