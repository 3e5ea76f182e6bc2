"""The mean and std that normalise the latents that a diffusion model reads, of the file that its weights name."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs
from diffalign.io.atomic import replacing
from diffalign.io.checkpoints import verify
from diffalign.io.headers import StoreError
from diffalign.io.layouts.lightningdit import statistics_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def given_statistics(
    model: str, file: str, channels: int | None, weights: Path, record: Path, statistics: Path
) -> None:
    """Read the file in the folder of a checkpoint and write it in the layout of ``latents_stats.pt``.

    channels: of the latents that the model reads, where its architecture says so. Raises StoreError where the file
    holds something else, or a mean of other channels.
    """
    verify(record, weights)
    mean, std = statistics_of(weights / file)
    if channels is not None and mean.shape[1] != channels:
        raise StoreError(
            f"{weights / file}: mean and std are of {mean.shape[1]} channels, but {model} reads latents of {channels} "
            f"(models.{model}.architecture.in_channels)"
        )
    with replacing(statistics) as temporary, temporary.open("wb") as opened:
        torch.save({"mean": mean, "std": std}, opened)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "given_statistics"):
        asked = snakemake.params.asked
        given_statistics(
            asked["name"],
            asked["statistics"],
            asked["channels"],
            Path(snakemake.input.weights),
            Path(snakemake.input.record),
            Path(snakemake.output[0]),
        )
