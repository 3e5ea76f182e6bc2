"""A checkpoint that lies in a local folder: links to its files, and their sha256."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.checkpoints import describe, link_files
from diffalign.study import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def folder_weights(model: Model, folder: Path, record: Path) -> None:
    """Link the files of ``weights.folder`` into `folder` and describe them in `record`, weights.json.

    Raises FileNotFoundError where the folder is absent or has no file that matches ``weights.files``.
    """
    assert model.weights.folder is not None  # the config is checked
    source = Path(model.weights.folder).expanduser()
    if folder.exists():
        shutil.rmtree(folder)
    link_files(source, folder, model.weights.files, f"models.{model.name}.weights.folder")
    describe(record, folder, {"source": "folder"})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "folder_weights"):
        folder_weights(
            Model.from_recipe(snakemake.params.model), Path(snakemake.output.folder), Path(snakemake.output.record)
        )
