"""Features of every layer of a bundle from one forward pass an image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from diffalign import logs, models, store
from diffalign.atomic import write_json
from diffalign.checkpoints import read_record, verify
from diffalign.devices import choose_device
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.latents import Latents, decode_names
from diffalign.noise import NoiseLevel
from diffalign.provenance import file_sha256
from diffalign.stimuli.manifest import read_manifest
from diffalign.store import check_same_names
from diffalign.study import Compute, Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class LatentInputs:
    """What a diffusion model reads in place of images."""

    shards: Sequence[Path]
    statistics: Path
    prompts: Path
    autoencoder_record: Path


def extract(
    recipe: Path,
    weights: Path,
    record: Path,
    dataset_json: Path,
    manifest: Path,
    reads: Path | LatentInputs,
    features: Mapping[str, Path],
    layers_json: Path,
    compute: Compute,
) -> None:
    """Run the model once over all images and write one feature file a layer, and their manifest.

    reads: the folder of PNG files for a model that sees images, or what a diffusion model reads.
    Raises ValueError that names the file, the layer or the images where something is wrong, before anything is written.
    """
    content = json.loads(recipe.read_text(encoding="utf-8"))
    model = Model.from_recipe(content["model"])
    rows = read_manifest(manifest)
    on = choose_device(compute.device)
    checkpoint = verify(record, weights)
    loaded = models.load(model, weights, content["noise"], on)
    dataset: Dataset[dict[str, Any]]
    autoencoder = None
    if isinstance(reads, LatentInputs):
        autoencoder = read_record(reads.autoencoder_record)
        level = models.family(model.family).noise_level(model, weights, content["noise"])
        encoded = Latents(reads.shards, reads.statistics)
        if encoded.channels != loaded.latent_channels:
            raise ValueError(
                f"{model.name} reads latents of {loaded.latent_channels} channels, but those of "
                f"models.{model.name}.latents, '{model.latents}', have {encoded.channels}"
            )
        dataset = _noisy_latents(model, level, [row.name for row in rows], manifest, encoded, reads)
    else:
        assert model.input is not None  # the config is checked
        dataset = inputs.ImageFiles({row.name: reads / f"{row.name}.png" for row in rows}, model.input)
    logs.log.info("%s on %s: %d images, %d layers", model.name, on, len(rows), len(features))
    found = inputs.batches(dataset, compute.batch_size, compute.workers, on)
    layers = {alias: model.layers[alias] for alias in features}
    names, pooled = pooled_features(
        loaded, layers, logs.progress(found, -(-len(rows) // compute.batch_size), f"extract {content['bundle']}")
    )
    images = json.loads(dataset_json.read_text(encoding="utf-8"))
    for alias, path in features.items():
        made = {
            **content,
            "layer": alias,
            "module": model.layers[alias],
            **loaded.facts,
            "weights": checkpoint,
            "autoencoder_weights": autoencoder,
            "images": images,
            "torch": torch.__version__,
        }
        store.write_features(path, store.Features(pooled[alias], tuple(names), made))
    # with digests: Snakemake takes a small input whose content is the same for unchanged
    made_of = {
        alias: {"width": int(pooled[alias].shape[1]), "sha256": file_sha256(features[alias])} for alias in features
    }
    write_json(layers_json, {"format": 1, "bundle": content["bundle"], "count": len(names), "layers": made_of})


def _noisy_latents(
    model: Model, level: NoiseLevel, names: Sequence[str], manifest: Path, encoded: Latents, reads: LatentInputs
) -> inputs.NoisyLatents:
    """Latents and prompts joined on names. Raises StoreError where they are of other images than the manifest."""
    check_same_names(names, sorted(encoded), manifest, reads.statistics.parent)
    embedded = load_file(reads.prompts)
    told = decode_names(embedded.pop("names"))
    check_same_names(names, told, manifest, reads.prompts)
    text_of = dict(zip(told, embedded.pop("row").tolist(), strict=True))
    return inputs.NoisyLatents(encoded, level, model.seeding, model.seed, embedded, text_of)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        given, resources = snakemake.input, snakemake.resources
        extract(
            Path(given.recipe),
            Path(given.weights),
            Path(given.record),
            Path(given.dataset),
            Path(given.manifest),
            Path(given.images)
            if "images" in dict(given.items())
            else LatentInputs(
                [Path(shard) for shard in given.latents],
                Path(given.statistics),
                Path(given.prompts),
                Path(given.autoencoder_record),
            ),
            dict(zip(snakemake.params.layers, map(Path, snakemake.output.features), strict=True)),
            Path(snakemake.output.manifest),
            Compute(resources.device, resources.batch_size, resources.workers),
        )
