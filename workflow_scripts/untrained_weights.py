"""What an untrained twin is made of: the configuration of a checkpoint, or random weights of an architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoints import describe, hub_snapshot, link_configuration, package_folder
from diffalign.models import family
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Twin:
    """The architecture of an untrained twin, and the seed of its weights."""

    family: str
    architecture: Mapping[str, Any]
    seed: int


def untrained_weights(
    model: str, weights: Weights, miniature: Path | None, twin: Twin | None, folder: Path, record: Path
) -> None:
    """Link the files of the configuration into `folder`, or write the weights that its architecture begins with, and
    describe them in `record`, weights.json.

    miniature: the checkpoint of a miniature, whose untrained twin is as narrow. twin: of a model whose checkpoints hold
    no configuration. Raises CheckpointError where the hub cannot be reached, FileNotFoundError where there is no
    configuration.
    """
    origin: dict[str, Any] = {"source": weights.source, "untrained": True}
    if twin is not None:
        make_empty(folder)
        family(twin.family).make_miniature(twin.architecture, folder, twin.seed)
        describe(record, folder, {**origin, "architecture": dict(twin.architecture), "seed": twin.seed})
        return
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
    with logs.attached(snakemake.log[0], "untrained_weights"):
        spec, made = snakemake.params.model, snakemake.output
        untrained_weights(
            spec["name"],
            Weights(**spec["weights"]),
            Path(snakemake.input[0]) if snakemake.input else None,
            None if snakemake.params.twin is None else Twin(**snakemake.params.twin),
            Path(made.folder),
            Path(made.record),
        )
