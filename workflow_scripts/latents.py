"""Latents of a data set: encoded once, in a fixed number of shards, with the statistics that normalise them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs, models
from diffalign.conditions import Condition, parse_condition
from diffalign.devices import choose_device
from diffalign.extraction import inputs
from diffalign.extraction.sizes import check_sides, scaled_side
from diffalign.extraction.taps import Taps
from diffalign.io import latents as store
from diffalign.io.atomic import replacing
from diffalign.io.checkpoints import verify
from diffalign.io.layouts.lightningdit import statistics_of
from diffalign.io.manifest import read_manifest
from diffalign.specs import Compute, Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def latents(
    model: Model,
    weights: Path,
    record: Path,
    manifest: Path,
    images: Path,
    condition: Condition,
    clean_statistics: Path | None,
    shards: Sequence[Path],
    statistics: Path,
    compute: Compute,
) -> None:
    """Encode every image and write the shards in order of name, and ``latents_stats.pt``.

    clean_statistics: of the same data set without a condition, which normalise transformed images, too; None for clean
    images. Raises ValueError that names the images where an input is of a side that the model cannot take, or a latent
    is NaN or infinite.
    """
    assert model.input is not None  # the config is checked
    rows = read_manifest(manifest)
    on = choose_device(compute.device)
    verify(record, weights)
    loaded = models.load(model, weights, on)
    layer = {"latent": model.layers["latent"]}
    spec = model.input.under_scale() if condition.is_scaled else model.input
    check_sides(model.name, loaded, {row.name: scaled_side(spec.size, row.scale) for row in rows})
    moments = store.RunningMoments()
    fixed = _fixed(weights, loaded.latent_statistics, model) if model.latent_statistics == "fixed" else None
    with torch.inference_mode(), Taps(loaded.module, layer, lambda output: output) as taps:
        for path, part in zip(shards, store.split(rows, len(shards)), strict=True):
            files = inputs.ImageFiles(
                {row.name: images / f"{row.name}.png" for row in part}, spec, {row.name: row.scale for row in part}
            )
            batches = inputs.Batches(files, compute.batch_size, compute.workers, on)
            parts, names = [], []
            for batch in logs.progress(batches, len(batches), f"latents {path.name}"):
                encoded = taps.run(lambda batch=batch: loaded.forward(batch))["latent"].float().cpu()  # type: ignore[misc]
                store.check_finite(encoded, batch["names"])
                if fixed is not None:
                    store.check_statistics(fixed[0], encoded.shape[1:], _whose(weights, model))
                moments.add(encoded)
                parts.append(encoded)
                names.extend(batch["names"])
            by_name = {row.name: row for row in part}
            store.write_shard(path, [by_name[name] for name in names], parts)
    if fixed is not None:
        mean, std = fixed
    elif clean_statistics is None:
        mean, std = moments.result()
    else:
        mean, std = store.read_statistics(clean_statistics)
    with replacing(statistics) as temporary, temporary.open("wb") as file:
        torch.save({"mean": mean, "std": std}, file)


def _whose(weights: Path, model: Model) -> str:
    """Where the fixed statistics stand, for messages."""
    given = model.weights.given_statistics
    return f"the checkpoint of models.{model.name}" if given is None else str(weights / given)


def _fixed(
    weights: Path, statistics: tuple[torch.Tensor, torch.Tensor] | None, model: Model
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std of the file that the entry names, or those that the checkpoint defines."""
    if model.weights.given_statistics is not None:
        return statistics_of(weights / model.weights.given_statistics)
    if statistics is None:
        raise ValueError(
            f"{model.name}: the checkpoint defines no mean and std of latents; "
            f"set models.{model.name}.latent_statistics: measured"
        )
    return statistics


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "latents"):
        torch.set_num_threads(snakemake.threads)
        resources, given = snakemake.resources, dict(snakemake.input.items())
        latents(
            Model.from_recipe(snakemake.params.model),
            Path(snakemake.input.weights),
            Path(snakemake.input.record),
            Path(snakemake.input.manifest),
            Path(snakemake.input.images),
            parse_condition(snakemake.wildcards.condition),
            Path(given["clean_statistics"]) if "clean_statistics" in given else None,
            [Path(shard) for shard in snakemake.output.shards],
            Path(snakemake.output.statistics),
            Compute(resources.device, resources.batch_size, resources.workers),
        )
