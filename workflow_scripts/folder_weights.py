"""A checkpoint that lies in a local folder: links to its files, and their sha256."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.checkpoints import describe, link_files
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def folder_weights(model: str, weights: Weights, folder: Path, record: Path) -> None:
    """Link the files of ``weights.folder`` into `folder` and describe them in `record`, weights.json.

    Raises FileNotFoundError where the folder is absent or has no file that matches ``weights.files``.
    """
    assert weights.folder is not None  # the config is checked
    source = Path(weights.folder).expanduser()
    link_files(source, folder, weights.files, f"models.{model}.weights.folder")
    describe(record, folder, {"source": "folder"})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "folder_weights"):
        spec, made = snakemake.params.model, snakemake.output
        folder_weights(spec["name"], Weights(**spec["weights"]), Path(made.folder), Path(made.record))
