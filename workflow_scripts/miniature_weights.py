"""A miniature checkpoint: the architecture and depth of a model with narrow, random, seeded weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoints import describe
from diffalign.models import find_family

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def miniature_weights(family_name: str, widths: Mapping[str, Any], seed: int, folder: Path, record: Path) -> None:
    """Write the checkpoint into `folder` and what it is into `record`, weights.json."""
    make_empty(folder)
    find_family(family_name).make_miniature(widths, folder, seed)
    describe(record, folder, {"source": "miniature", "seed": seed, "widths": dict(widths)})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "miniature_weights"):
        miniature_weights(
            snakemake.params.model["family"],
            snakemake.params.model["miniature"],
            snakemake.params.seed,
            Path(snakemake.output.folder),
            Path(snakemake.output.record),
        )
