"""Import of precomputed features, in place of an extraction."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs
from diffalign.io import bundles
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import RECORD
from diffalign.models.families import precomputed
from diffalign.provenance import file_sha256
from diffalign.specs import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def import_features(
    recipe: Path,
    dataset: str,
    condition: str,
    listed: Path,
    downloaded: Path | None = None,
) -> None:
    """Read the files of every layer; write one feature file per layer, rows in order of name, and their manifest.

    listed: the manifest. downloaded: folder of the files of a model with a url instead of paths. Raises
    FileNotFoundError or StoreError, which name the file and the first five offenders, before anything is written.
    """
    content = read_settings_file(recipe)
    # the recipe has sizes and times of files, to notice changes; their sha256 are recorded below
    model = Model.from_recipe(content["model"])
    where = precomputed.sources(model, dataset, condition, downloaded)
    imported = precomputed.read(model, where)
    logs.log.info("%s: %d rows, %d layers", model.name, len(imported.names), len(imported.values))
    files = {path for table in imported.tables.values() for path in table.files}
    digests = {str(path): file_sha256(path) for path in sorted(files)}
    shared = {
        **content,
        "pooling": "unknown: as it is in the files",
        "weights": RECORD.header(source="precomputed", sha256=digests),
        "autoencoder_weights": None,
        "images": {
            "dataset": dataset,
            "kind": "precomputed",
            "size": None,
            "seed": None,
            "manifest_sha256": None,
            "names_sha256": hashlib.sha256("\n".join(imported.names).encode()).hexdigest(),
        },
        "source": {
            alias: {
                "path": str(table.files[0]),
                "part": where[alias].part,
                "layout": table.layout,
                "dtype": table.dtype,
                "names": table.names_from,
            }
            for alias, table in imported.tables.items()
        },
        "torch": torch.__version__,
    }
    bundles.write(listed, imported.names, imported.values.__getitem__, shared, model.layers)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        import_features(
            Path(snakemake.input.recipe),
            snakemake.wildcards.dataset,
            snakemake.wildcards.condition,
            Path(snakemake.output.manifest),
            Path(snakemake.input.features[0]).parent if "features" in snakemake.input.keys() else None,  # noqa: SIM118
        )
