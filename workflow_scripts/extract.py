"""Features of every layer of a bundle from one forward pass an image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from diffalign import logs, models, store
from diffalign.atomic import write_json
from diffalign.checkpoints import read_record, verify
from diffalign.extraction import inputs
from diffalign.extraction.passes import choose_device, pooled_features
from diffalign.latents import Latents, decode_names
from diffalign.provenance import file_sha256
from diffalign.stimuli.manifest import Image, read_manifest
from diffalign.store import check_same_names
from diffalign.study import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def extract(
    recipe: Path,
    weights: Path,
    record: Path,
    dataset_json: Path,
    manifest: Path,
    images: Path | None,
    latents: Sequence[Path],
    statistics: Path | None,
    prompts: Path | None,
    autoencoder_record: Path | None,
    features: Mapping[str, Path],
    layers_json: Path,
    device: str,
    batch_size: int,
    workers: int,
) -> None:
    """Run the model once over all images and write one feature file a layer, and their manifest.

    images: folder of PNG files, for a model that sees images. latents, statistics, prompts, autoencoder_record: for a
    diffusion model.
    Raises ValueError that names the file, the layer or the images where something is wrong, before anything is written.
    """
    content = json.loads(recipe.read_text(encoding="utf-8"))
    model = Model.from_recipe(content["model"])
    rows = read_manifest(manifest)
    on = choose_device(device)
    checkpoint = verify(record, weights)
    loaded = models.load(model, weights, content["noise"], on)
    dataset: Dataset[dict[str, Any]]
    if images is not None:
        assert model.input is not None  # the config is checked
        dataset = inputs.ImageFiles({row.name: images / f"{row.name}.png" for row in rows}, model.input)
    else:
        assert statistics is not None
        assert prompts is not None
        dataset = _noisy_latents(model, content["noise"], weights, rows, manifest, latents, statistics, prompts)
    logs.log.info("%s on %s: %d images, %d layers", model.name, on, len(rows), len(features))
    found = inputs.batches(dataset, batch_size, workers, on)
    layers = {alias: model.layers[alias] for alias in features}
    names, pooled = pooled_features(
        loaded, layers, logs.progress(found, -(-len(rows) // batch_size), f"extract {content['bundle']}")
    )
    for alias, path in features.items():
        made = {
            **content,
            "layer": alias,
            "module": model.layers[alias],
            **loaded.facts,
            "weights": checkpoint,
            "autoencoder_weights": None if autoencoder_record is None else read_record(autoencoder_record),
            "images": json.loads(dataset_json.read_text(encoding="utf-8")),
            "torch": torch.__version__,
        }
        store.write_features(path, store.Features(pooled[alias], tuple(names), made))
    # with digests: Snakemake takes a small input whose content is the same for unchanged
    made_of = {
        alias: {"width": int(pooled[alias].shape[1]), "sha256": file_sha256(features[alias])} for alias in features
    }
    write_json(layers_json, {"format": 1, "bundle": content["bundle"], "count": len(names), "layers": made_of})


def _noisy_latents(
    model: Model,
    noise: str,
    weights: Path,
    rows: Sequence[Image],
    dataset_manifest: Path,
    shards: Sequence[Path],
    statistics: Path,
    prompts: Path,
) -> inputs.NoisyLatents:
    encoded = Latents(shards, statistics)
    names = [row.name for row in rows]
    check_same_names(names, sorted(encoded), dataset_manifest, shards[0].parent)
    embedded = load_file(prompts)
    told = decode_names(embedded.pop("names"))
    check_same_names(names, told, shards[0].parent, prompts)
    text_of = dict(zip(told, embedded.pop("row").tolist(), strict=True))
    level = models.family(model.family).noise_level(model, weights, noise)
    return inputs.NoisyLatents(encoded, level, model.seeding, model.seed, embedded, text_of)


def _optional(paths: Any, key: str) -> Path | None:
    return Path(paths[key]) if key in dict(paths.items()) else None


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        given = snakemake.input
        extract(
            Path(given.recipe),
            Path(given.weights),
            Path(given.record),
            Path(given.dataset),
            Path(given.manifest),
            _optional(given, "images"),
            [Path(shard) for shard in given.get("latents", [])],
            _optional(given, "statistics"),
            _optional(given, "prompts"),
            _optional(given, "autoencoder_record"),
            dict(zip(snakemake.params.layers, map(Path, snakemake.output.features), strict=True)),
            Path(snakemake.output.manifest),
            snakemake.resources.device,
            snakemake.resources.batch_size,
            snakemake.resources.workers,
        )
