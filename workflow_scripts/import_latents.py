"""Import of precomputed latents, in place of an encoding. They are joined with images on names."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs
from diffalign.io import latents as store
from diffalign.io.atomic import replacing
from diffalign.io.checkpoints import RECORD
from diffalign.io.headers import StoreError
from diffalign.io.layouts.latent_folders import check_images, open_folder
from diffalign.io.layouts.latent_records import Draw, Folder
from diffalign.io.manifest import read_manifest
from diffalign.provenance import file_sha256
from diffalign.specs import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def import_latents(
    model: Model,
    dataset: str,
    condition: str,
    manifest: Path,
    shards: Sequence[Path],
    statistics: Path,
    record: Path,
) -> None:
    """Read the latent of every image; write shards in order of name, ``latents_stats.pt`` and the record of the source.

    Raises FileNotFoundError or StoreError, which name the file and the first five offenders.
    """
    assert model.latents_from is not None  # checked with the configuration
    path, names = model.latents_from.at(dataset, condition)
    draw = Draw(model.posterior, model.noise_key)
    folder = open_folder(path, model.latents_from.layout, names, draw)
    rows = read_manifest(manifest)
    check_images(folder, rows)
    fixed = None if model.latent_statistics == "measured" else _fixed(folder, model)
    moments = store.RunningMoments()
    for shard, part in zip(shards, store.split(rows, len(shards)), strict=True):
        latents = torch.stack([folder.read(row.name) for row in logs.progress(part, len(part), shard.name)])
        store.check_finite(latents, [row.name for row in part])
        if fixed is not None and not store.normalises(fixed[0], latents.shape[1:]):
            raise StoreError(
                f"{path}: the mean and std that normalise latents are {tuple(fixed[0].shape)}, the latents "
                f"{tuple(latents.shape[1:])}; set models.{model.name}.latent_statistics: measured"
            )
        moments.add(latents)
        store.write_shard(shard, part, [latents])
    mean, std = moments.result() if fixed is None else fixed
    with replacing(statistics) as temporary, temporary.open("wb") as file:
        torch.save({"mean": mean, "std": std}, file)
    read = sorted({folder.file_of[row.name] for row in rows} | set(folder.files))
    digests = "\n".join(f"{file.name} {file_sha256(file)}" for file in logs.progress(read, len(read), "sha256"))
    RECORD.write_json(
        record,
        source="latents",
        path=str(path),
        layout=model.latents_from.layout,
        files=len(read),
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
    )


def _fixed(folder: Folder, model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    if folder.statistics is None:
        raise StoreError(
            f"{folder.path}: no latents_stats.pt, nor normalization_stats.pt; "
            f"set models.{model.name}.latent_statistics: measured"
        )
    return folder.statistics


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "import_latents"):
        import_latents(
            Model.from_recipe(snakemake.params.model),
            snakemake.wildcards.dataset,
            snakemake.wildcards.condition,
            Path(snakemake.input.manifest),
            [Path(shard) for shard in snakemake.output.shards],
            Path(snakemake.output.statistics),
            Path(snakemake.output.record),
        )
