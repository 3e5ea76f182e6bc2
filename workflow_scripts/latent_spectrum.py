"""The weights of a Gaussian denoiser: mean and power spectrum of the latents of a data set."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoints import describe, read_record
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.latents import Latents, check_finite
from diffalign.io.manifest import read_manifest
from diffalign.io.safetensors_files import save_file
from diffalign.models.networks.gaussian import fitted, state_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# latents that are held at once
_BATCH = 256


def latent_spectrum(
    spec: Mapping[str, Any],
    shards: Sequence[Path],
    statistics: Path,
    autoencoder_record: Path,
    manifest: Path,
    dataset_json: Path,
    folder: Path,
    record: Path,
) -> None:
    """Write mean and power into `folder`, as a model of family ``gaussian`` reads them, and where they are from.

    spec: ``name``, ``latents`` and ``latent_multiplier`` of the model; the spectrum is of latents as it reads them,
    normalised and multiplied. Raises StoreError where latents are of other images than the manifest, of several sides,
    or NaN or infinite.
    """
    rows = [row.name for row in read_manifest(manifest)]
    latents = Latents(shards, statistics, spec["latent_multiplier"])
    check_same_names(rows, sorted(latents), manifest, statistics.parent)
    sides = sorted(set(latents.sides.values()))
    if len(sides) != 1:
        raise StoreError(
            f"{statistics.parent}: latents are of sides {', '.join(map(str, sides))}; a spectrum is of one"
        )
    starts = range(0, len(rows), _BATCH)

    def batch(start: int) -> torch.Tensor:
        names = rows[start : start + _BATCH]
        read = torch.stack([latents[name] for name in names])
        check_finite(read, names)
        return read

    mean, power = fitted(batch(start) for start in logs.progress(starts, len(starts), f"spectrum {spec['name']}"))
    make_empty(folder)
    save_file(state_of(mean, power), folder / "model.safetensors")
    origin = {
        "source": "latents",
        "latents": spec["latents"],
        "latent_multiplier": spec["latent_multiplier"],
        "count": len(rows),
        "autoencoder_weights": read_record(autoencoder_record),
        "images": json.loads(dataset_json.read_text(encoding="utf-8")),
        "torch": torch.__version__,
    }
    describe(record, folder, origin)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "latent_spectrum"):
        torch.set_num_threads(snakemake.threads)
        given, made = snakemake.input, snakemake.output
        latent_spectrum(
            snakemake.params.model,
            [Path(shard) for shard in given.latents],
            Path(given.statistics),
            Path(given.autoencoder_record),
            Path(given.manifest),
            Path(given.dataset),
            Path(made.folder),
            Path(made.record),
        )
