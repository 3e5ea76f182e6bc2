"""A checkpoint that is one local file: a link to it, and its sha256."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.checkpoints import describe, link_file
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def file_weights(model: str, weights: Weights, folder: Path, record: Path) -> None:
    """Link ``weights.path`` into `folder` and describe it in `record`, weights.json.

    Raises FileNotFoundError where the file is absent.
    """
    assert weights.path is not None  # the config is checked
    link_file(Path(weights.path).expanduser(), folder, f"models.{model}.weights.path")
    describe(record, folder, {"source": "file"})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "file_weights"):
        spec, made = snakemake.params.model, snakemake.output
        file_weights(spec["name"], Weights(**spec["weights"]), Path(made.folder), Path(made.record))
