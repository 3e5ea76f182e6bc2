"""A checkpoint without training, where checkpoints hold no configuration: random weights of an architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoints import describe
from diffalign.models import find_family

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Twin:
    """The architecture of an untrained twin, and the seed of its weights."""

    family: str
    architecture: Mapping[str, Any]
    seed: int


def untrained_weights(source: str, twin: Twin, folder: Path, record: Path) -> None:
    """Write the weights that an architecture begins with into `folder`, and what they are into `record`, weights.json.

    source: where the trained weights come from.
    """
    make_empty(folder)
    find_family(twin.family).make_miniature(twin.architecture, folder, twin.seed)
    drawn = {"architecture": dict(twin.architecture), "seed": twin.seed}
    describe(record, folder, {"source": source, "untrained": True, **drawn})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "untrained_weights"):
        untrained_weights(
            snakemake.params.model["weights"]["source"],
            Twin(**snakemake.params.twin),
            Path(snakemake.output.folder),
            Path(snakemake.output.record),
        )
