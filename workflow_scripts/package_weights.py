"""A checkpoint that an installed Python package carries: links to its files, and their sha256."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.checkpoints import describe, link_files, package_folder
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def package_weights(model: str, weights: Weights, folder: Path, record: Path) -> None:
    """Link the files of the package's folder into `folder` and describe them in `record`, weights.json.

    Raises CheckpointError where the package is not installed, FileNotFoundError where it lacks the folder or a file.
    """
    assert weights.package is not None  # the config is checked
    source, version = package_folder(model, weights.package, weights.folder)
    link_files(source, folder, weights.files, f"models.{model}.weights.folder")
    describe(record, folder, {"source": "package", "package": weights.package, "version": version})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "package_weights"):
        spec, made = snakemake.params.model, snakemake.output
        package_weights(spec["name"], Weights(**spec["weights"]), Path(made.folder), Path(made.record))
