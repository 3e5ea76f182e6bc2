"""A miniature checkpoint: the architecture and depth of a model with narrow, random, seeded weights."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.checkpoints import describe
from diffalign.models import family
from diffalign.study import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def miniature_weights(model: Model, seed: int, folder: Path, record: Path) -> None:
    """Write the checkpoint into `folder` and what it is into `record`, weights.json."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    family(model.family).make_miniature(model, folder, seed)
    describe(record, folder, {"source": "miniature", "seed": seed, "widths": dict(model.miniature)})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "miniature_weights"):
        miniature_weights(
            Model.from_recipe(snakemake.params.model),
            snakemake.params.seed,
            Path(snakemake.output.folder),
            Path(snakemake.output.record),
        )
