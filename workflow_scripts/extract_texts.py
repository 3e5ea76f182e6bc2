"""Features of every hidden state of a language model from one pass a text: means over tokens and last tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs, models
from diffalign.devices import choose_device, device_name
from diffalign.extraction.passes import SHARD_SECONDS, Kept
from diffalign.extraction.texts import text_features
from diffalign.io import bundles, language_files
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import verify
from diffalign.io.language_files import Outputs, outputs_of
from diffalign.io.shard_files import Shards
from diffalign.parts import part_rows
from diffalign.provenance import file_sha256
from diffalign.specs import Compute, Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Part:
    """The features of the p-th of P ranges of images, p from 0, in one file."""

    path: Path
    part: int
    parts: int


def extract_texts(
    recipe: Path,
    weights: Path,
    record: Path,
    texts: Path,
    layers: Sequence[str],
    writes: Outputs | Part,
    compute: Compute,
    shards: Path,
    device_map: str | None = None,
    gpus: int = 1,
    shard_seconds: float = SHARD_SECONDS,
) -> None:
    """Run the model once over all texts, or those of a part of the images, and write what it gives.

    shards: the folder of finished texts, from which a killed job goes on; removed at the end. shard_seconds: between
    two of them. device_map: how transformers spreads the model over devices, in place of compute.device. gpus: how
    many it is spread over. Raises ValueError as `text_features`, before anything is written.
    """
    content = read_settings_file(recipe)
    model = replace(Model.from_recipe(content["model"]), device_map=device_map)
    written = language_files.read_texts(texts)
    on = choose_device(compute.device, gpus)
    checkpoint = verify(record, weights)
    loaded = models.load_language(model, weights, on)
    names = sorted(written.texts)
    if isinstance(writes, Part):
        names = [names[row] for row in part_rows(len(names), writes.part, writes.parts)]
    logs.log.info("%s on %s: %d texts, %d layers", model.name, device_map or on, len(names), len(layers))
    modules = {alias: model.layers[alias] for alias in layers}
    here = {name: written.texts[name] for name in names}
    made = {
        **content,
        **loaded.facts,
        "weights": checkpoint,
        "autoencoder_weights": None,
        "prompts": dict(written.facts),
        "images": dict(written.images),
        "torch": torch.__version__,
    }
    # what the last bits of features depend on beside their recipe
    key = {
        "recipe": made,
        "texts": file_sha256(texts),
        "layers": list(layers),
        "names": [names[0], names[-1], len(names)],
        "batch_size": compute.batch_size,
        "device": [device_map, device_name(on)],
        "threads": torch.get_num_threads(),
    }
    kept = Kept(Shards(shards, key), shard_seconds)
    features = text_features(loaded, modules, here, compute.batch_size, f"extract {content['bundle']}", kept)
    if isinstance(writes, Part):
        kinds = {"mean": features.mean, "last": features.last}
        values = {f"{pooled}:{alias}": kind[alias] for pooled, kind in kinds.items() for alias in layers}
        made["parameters"] = loaded.parameters
        bundles.write_part(writes.path, names, {**values, "measures": features.measures}, made, len(written.texts))
    else:
        language_files.write(
            writes,
            features.names,
            features.mean.__getitem__,
            features.last.__getitem__,
            features.measures,
            made,
            loaded.parameters,
            compute.batch_size,
        )
    kept.shards.clear()


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        given, made, resources, wildcards = (
            snakemake.input,
            snakemake.output,
            snakemake.resources,
            snakemake.wildcards,
        )
        extract_texts(
            Path(given.recipe),
            Path(given.weights),
            Path(given.record),
            Path(given.texts),
            snakemake.params.layers,
            Part(Path(made[0]), int(wildcards.part), int(wildcards.parts))
            if "part" in dict(wildcards.items())
            else outputs_of(made),
            Compute(resources.device, resources.batch_size, 0),
            Path(snakemake.params.shards),
            resources.device_map or None,
            resources.spread,
        )
