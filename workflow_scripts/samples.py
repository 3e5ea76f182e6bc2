"""Class-conditional samples of one diffusion model: as many of every class as asked for, for every seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from diffalign import logs, models
from diffalign.devices import choose_device
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import verify
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.latents import Latents, read_statistics, unnormalised
from diffalign.io.manifest import read_manifest
from diffalign.io.sample_files import KIND, Samples, write_samples
from diffalign.sampling.classes import Sampler, check_classes, class_samples, images, noise_levels, sample_names
from diffalign.specs import Compute, Model
from diffalign.stimuli.labels import check_same_classes, class_labels

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Autoencoder:
    """What turns latents into images: its checkpoint, and the latents of the data set with their statistics."""

    weights: Path
    record: Path
    shards: Sequence[Path]
    statistics: Path


def samples(
    recipe: Path,
    weights: Path,
    record: Path,
    dataset_json: Path,
    manifest: Path,
    autoencoder: Autoencoder,
    output: Path,
    output_recipe: Path,
    compute: Compute,
) -> None:
    """Integrate from noise to latents, decode them and write images, and the recipe that they are made of.

    recipe: JSON with ``model``, ``autoencoder``, ``sampler``, ``per_class`` and ``seeds``. Raises ValueError where
    classes, latents or channels of the data set are not those of the model, and where latents or images become NaN or
    infinite; nothing is written then.
    """
    content = read_settings_file(recipe)
    model, decoder = Model.from_recipe(content["model"]), Model.from_recipe(content["autoencoder"])
    sampler = Sampler(**content["sampler"])
    on = choose_device(compute.device)
    checkpoint, of_decoder = verify(record, weights), verify(autoencoder.record, autoencoder.weights)
    denoiser = models.load_denoiser(model, weights, on)
    rows = read_manifest(manifest)
    if denoiser.classes is None:
        raise ValueError(f"{model.name} is not conditioned on classes, so it has no samples of them")
    check_classes(rows, denoiser.classes, model.name)
    # ImageNet's classes have an order of their own
    class_labels(rows, "label", denoiser.classes, model.own_classes)
    check_same_classes(rows, checkpoint.get("classes"), model.name)
    encoded = Latents(autoencoder.shards, autoencoder.statistics, model.latent_multiplier)
    check_same_names([row.name for row in rows], sorted(encoded), manifest, autoencoder.statistics.parent)
    side = _side(encoded, autoencoder.statistics)
    if encoded.channels != denoiser.latent_channels:
        raise ValueError(
            f"{model.name} makes latents of {denoiser.latent_channels} channels, but those of '{decoder.name}' have "
            f"{encoded.channels}"
        )
    loaded = models.load(decoder, autoencoder.weights, on, decoder=True)
    statistics = read_statistics(autoencoder.statistics)
    at = noise_levels(denoiser, side, sampler.steps, on)
    labels = sample_names(denoiser.classes, content["per_class"])
    logs.log.info("%s on %s: %d samples of each of %d seeds", model.name, on, len(labels), len(content["seeds"]))
    names = list(labels)
    batches = [
        (seed, names[start : start + compute.batch_size])
        for seed in sorted(content["seeds"])
        for start in range(0, len(names), compute.batch_size)
    ]
    made = []
    for seed, members in logs.progress(batches, len(batches), f"samples {output.stem}"):
        asked = {name: labels[name] for name in members}
        latents = class_samples(denoiser, at, asked, side, model.name, seed, sampler, on)
        made.append(images(unnormalised(latents, statistics, model.latent_multiplier), loaded.decode, members))
    written = {
        **content,
        **denoiser.facts,
        "classes": denoiser.classes,
        "noise_levels": [level.facts() for level in at],
        "weights": checkpoint,
        "autoencoder_weights": of_decoder,
        "images": json.loads(dataset_json.read_text(encoding="utf-8")),
        "torch": torch.__version__,
    }
    seeds = np.array([seed for seed, members in batches for _ in members], np.int64)
    every = [name for _, members in batches for name in members]
    of_class = np.array([labels[name] for name in every], np.int64)
    write_samples(output, Samples(np.concatenate(made), tuple(every), of_class, seeds, written))
    KIND.write_json(output_recipe, **{key: value for key, value in written.items() if key != "format"})


def _side(encoded: Latents, statistics: Path) -> int:
    """The one side of all latents of a data set. Raises StoreError where they have several."""
    sides = sorted(set(encoded.sides.values()))
    if len(sides) > 1:
        raise StoreError(f"{statistics.parent}: latents are of sides {', '.join(map(str, sides))}; samples are of one")
    return sides[0]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "samples"):
        torch.set_num_threads(snakemake.threads)
        given, made, resources = snakemake.input, snakemake.output, snakemake.resources
        autoencoder = Autoencoder(
            Path(given.autoencoder_weights),
            Path(given.autoencoder_record),
            [Path(shard) for shard in given.latents],
            Path(given.statistics),
        )
        compute = Compute(resources.device, resources.batch_size, workers=0)
        checkpoints = zip(given.recipes, given.weights, given.records, made.samples, made.recipes, strict=True)
        for recipe, weights, record, output, output_recipe in checkpoints:
            samples(
                *(Path(recipe), Path(weights), Path(record), Path(given.dataset), Path(given.manifest)),
                *(autoencoder, Path(output), Path(output_recipe), compute),
            )
