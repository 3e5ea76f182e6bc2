"""Features of every layer of a bundle from one forward pass an image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffalign import logs, models
from diffalign.conditions import Condition, parse_condition
from diffalign.devices import choose_device, device_name
from diffalign.extraction import inputs
from diffalign.extraction.passes import SHARD_SECONDS, Kept, all_tokens, compile_layers, mean_of_passes
from diffalign.extraction.sizes import check_sides
from diffalign.io import bundles, feature_files
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import read_record, verify
from diffalign.io.headers import check_same_names
from diffalign.io.latents import Latents
from diffalign.io.manifest import read_manifest
from diffalign.io.prompt_files import read_prompts
from diffalign.io.shard_files import Shards
from diffalign.io.token_files import write_tokens
from diffalign.parts import part_rows
from diffalign.provenance import files_digest
from diffalign.specs import Compute, Model
from diffalign.stimuli.labels import check_same_classes, class_labels

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class LatentInputs:
    """What a diffusion model reads in place of images."""

    shards: Sequence[Path]
    statistics: Path
    autoencoder_record: Path
    prompts: Path | None = None
    class_tokens: Path | None = None


@dataclass(frozen=True)
class Whole:
    """The features of all images, by their manifest. layers: of these. shards: as of a `Part`."""

    manifest: Path
    layers: Sequence[str]
    shards: Path


@dataclass(frozen=True)
class Part:
    """The features of the p-th of P ranges of images, p from 0, in one file. shards: the folder of finished batches,
    from which a killed job goes on; removed at the end.
    """

    path: Path
    layers: Sequence[str]
    part: int
    parts: int
    shards: Path

    def rows(self, count: int) -> range:
        """The rows of this part among `count`, in order of name."""
        return part_rows(count, self.part, self.parts)


@dataclass(frozen=True)
class Unpooled:
    """All tokens of some layers of all images, in a folder."""

    folder: Path
    layers: Sequence[str]

    def rows(self, count: int) -> range:
        """All rows among `count`."""
        return range(count)


def extract(
    recipe: Path,
    weights: Path,
    record: Path,
    dataset_json: Path,
    manifest: Path,
    condition: Condition,
    reads: Path | LatentInputs,
    writes: Whole | Part | Unpooled,
    compute: Compute,
    shard_seconds: float = SHARD_SECONDS,
) -> None:
    """Run the model once over all images, or a part of them, and write the features of every layer.

    reads: the folder of PNG files for a model that sees images, or what a diffusion model reads. writes: where to.
    shard_seconds: between two shards of finished batches.

    Raises ValueError that names the file, the layer or the images where something is wrong, before anything is written.
    """
    content = read_settings_file(recipe)
    model = Model.from_recipe(content["model"])
    rows = read_manifest(manifest)
    on = choose_device(compute.device)
    checkpoint = verify(record, weights)
    datasets: Sequence[inputs.ImageFiles | inputs.NoisyLatents]
    # their content stands in no record
    seen = [manifest]
    autoencoder = class_tokens = None
    prompts: dict[str, Any] = {}
    if isinstance(reads, LatentInputs):
        denoiser = models.load_denoiser(model, weights, on)
        level = denoiser.level(content["noise"])
        loaded = denoiser.at(level)
        autoencoder = read_record(reads.autoencoder_record)
        encoded = Latents(reads.shards, reads.statistics, model.latent_multiplier)
        seen += [*reads.shards, reads.statistics, *filter(None, (reads.prompts, reads.class_tokens))]
        _check_channels(model, denoiser, encoded)
        names = [row.name for row in rows]
        check_same_names(names, sorted(encoded), manifest, reads.statistics.parent)
        conditioning: dict[str, torch.Tensor] = {}
        row_of = {name: row for row, name in enumerate(names)}
        if reads.prompts is not None:
            conditioning, row_of, prompts = _prompts(names, manifest, reads.prompts)
        elif denoiser.classes is not None:
            labels = class_labels(rows, content["conditioning"], denoiser.classes, model.own_classes)
            if content["conditioning"] == "label":
                check_same_classes(rows, checkpoint.get("classes"), model.name)
            conditioning = {"labels": torch.tensor(labels)}
        tokens = None
        if reads.class_tokens is not None:
            tokens, class_tokens = _class_tokens(model, denoiser, names, manifest, reads.class_tokens)
        datasets = [
            inputs.NoisyLatents(encoded, level, model.noise_key, conditioning, row_of, tokens, index)
            for index in model.noise_draws
        ]
    else:
        loaded = models.load(model, weights, on)
        assert model.input is not None  # the config is checked
        spec = model.input.under_scale() if condition.is_scaled else model.input
        files = {row.name: reads / f"{row.name}.png" for row in rows}
        datasets = [inputs.ImageFiles(files, spec, {row.name: row.scale for row in rows})]
    check_sides(model.name, loaded, datasets[0].sides)
    rows_here = range(len(rows)) if isinstance(writes, Whole) else writes.rows(len(rows))
    logs.log.info("%s on %s: %d images, %d layers", model.name, on, len(rows_here), len(writes.layers))
    layers = {alias: model.layers[alias] for alias in writes.layers}
    if compute.compile:
        compile_layers(loaded, layers)
    batches = [inputs.Batches(each, compute.batch_size, compute.workers, on, rows_here) for each in datasets]
    made = {
        **content,
        **loaded.facts,
        "weights": checkpoint,
        "autoencoder_weights": autoencoder,
        **({"class_tokens": class_tokens} if class_tokens else {}),
        **prompts,
        "images": json.loads(dataset_json.read_text(encoding="utf-8")),
        "torch": torch.__version__,
    }
    # what the last bits of features depend on beside their recipe
    key = {
        "recipe": made,
        "inputs": files_digest(seen),
        "layers": list(layers),
        "rows": [rows_here.start, rows_here.stop],
        "batch_size": compute.batch_size,
        "compile": compute.compile,
        "device": device_name(on),
        "threads": torch.get_num_threads(),
    }
    _run(model, loaded, layers, batches, [row.name for row in rows], made, writes, key, shard_seconds)


def _run(
    model: Model,
    loaded: models.Loaded,
    layers: Mapping[str, str],
    batches: Sequence[inputs.Batches],
    names: Sequence[str],
    made: dict[str, Any],
    writes: Whole | Part | Unpooled,
    key: Mapping[str, Any],
    shard_seconds: float,
) -> None:
    """Run every batch, those of each draw of noise for themselves, and write what layers give.

    key: what shards of finished batches depend on.
    """
    job = f"extract {made['bundle']}"
    if isinstance(writes, Unpooled):
        if len(batches) > 1:
            raise ValueError(f"{made['bundle']}: un-pooled features are of one draw of noise, not of {len(batches)}")
        shown = logs.progress(batches[0], len(batches[0]), f"{job}, un-pooled")
        write_tokens(writes.folder, names, all_tokens(loaded, layers, shown), made)
        return
    kept = Kept(Shards(writes.shards, key), shard_seconds)
    order, pooled = mean_of_passes(loaded, layers, batches, batches[0].images, job, kept)
    # batches come in the order of their sides
    rank = sorted(range(len(order)), key=order.__getitem__)
    order = [order[i] for i in rank]
    for alias, values in pooled.items():
        # one layer at a time, so that no more than one is held twice
        pooled[alias] = values[rank]
    if isinstance(writes, Part):
        bundles.write_part(writes.path, order, pooled, made, len(names))
    else:
        bundles.write(writes.manifest, order, pooled.__getitem__, made, layers)
    kept.shards.clear()


def _check_channels(model: Model, denoiser: models.Denoiser, encoded: Latents) -> None:
    """Raise ValueError where the autoencoder's latents are not the ones that the model reads."""
    whose = f"models.{model.name}.latents, '{model.latents}',"
    if encoded.channels != denoiser.latent_channels:
        raise ValueError(
            f"{model.name} reads latents of {denoiser.latent_channels} channels, "
            f"but those of {whose} have {encoded.channels}"
        )


def _prompts(
    names: Sequence[str], manifest: Path, path: Path
) -> tuple[dict[str, torch.Tensor], dict[str, int], dict[str, Any]]:
    """Prompt embeddings, name -> row, and their part of the recipe.

    Raises StoreError where they are of other images than the manifest.
    """
    embedded = read_prompts(path)
    check_same_names(names, list(embedded.row_of), manifest, path)
    return embedded.arguments, embedded.row_of, {"prompts": embedded.facts}


def _class_tokens(
    model: Model, denoiser: models.Denoiser, names: Sequence[str], manifest: Path, path: Path
) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """The class token of every image, and the recipe of their features.

    Raises StoreError where they are of other images than the manifest, ValueError for another width.
    """
    features = feature_files.read_features(path)
    check_same_names(names, features.names, manifest, path)
    width = features.values.shape[1]
    if width != denoiser.class_token_width:
        raise ValueError(
            f"{model.name} reads class tokens of {denoiser.class_token_width} numbers, but those of "
            f"models.{model.name}.class_tokens, '{model.class_tokens}', have {width}"
        )
    return dict(zip(features.names, torch.from_numpy(features.values), strict=True)), features.recipe


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        given, resources, wildcards = snakemake.input, snakemake.resources, snakemake.wildcards
        layers = snakemake.params.layers
        named = dict(given.items())
        extract(
            Path(given.recipe),
            Path(given.weights),
            Path(given.record),
            Path(given.dataset),
            Path(given.manifest),
            parse_condition(wildcards.condition),
            Path(given.images)
            if "images" in named
            else LatentInputs(
                [Path(shard) for shard in given.latents],
                Path(given.statistics),
                Path(given.autoencoder_record),
                Path(named["prompts"]) if "prompts" in named else None,
                feature_files.layer_path(Path(named["class_tokens"]), snakemake.params.class_tokens)
                if "class_tokens" in named
                else None,
            ),
            Part(
                Path(snakemake.output[0]),
                layers,
                int(wildcards.part),
                int(wildcards.parts),
                Path(snakemake.params.shards),
            )
            if "part" in dict(wildcards.items())
            else Unpooled(Path(snakemake.output.unpooled), layers)
            if "unpooled" in dict(snakemake.output.items())
            else Whole(Path(snakemake.output.manifest), layers, Path(snakemake.params.shards)),
            Compute(resources.device, resources.batch_size, resources.workers, compile=bool(resources.compile)),
        )
