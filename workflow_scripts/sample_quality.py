"""Quality of the samples of one model, beside held-out images: every measure for every seed of sampling."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffalign import logs, models
from diffalign.devices import choose_device
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.io import feature_files, quality_files, tables
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import verify
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.manifest import read_manifest
from diffalign.io.sample_files import read_samples
from diffalign.sample_quality import ImageSet, halves_apart, measured, rank_note, reference
from diffalign.specs import Compute, Model
from diffalign.stimuli.labels import check_same_classes

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Arrays = dict[str, NDArray[np.float32]]
_NO_INTERVAL = "none: an interval over seeds of sampling needs at least two"
_GENERALISES = (
    "to other noise that sampling begins with, for this trained network and these images; not to other trainings, nor "
    "to other images"
)


@dataclass(frozen=True)
class Reader:
    """A layer that reads images: recipe and checkpoint of its model, and its features of the held-out images."""

    recipe: Path
    weights: Path
    record: Path
    layer: str
    features: Path


def sample_quality(
    samples: Path,
    manifest: Path,
    classifier: Reader,
    features: Reader,
    k: int,
    seed: int,
    outputs: Mapping[str, Path],
    compute: Compute,
) -> None:
    """Run both models on the samples, as on PNG files of them, and measure these beside the held-out images.

    classifier: its layer gives a logit for each class. seed: of the halves of the held-out images. outputs: ``tsv``,
    ``parquet`` (one row a seed and measure) and ``recipe``, JSON with the summary over seeds.
    Raises StoreError where features are of other images than the manifest, or of another checkpoint, and ValueError
    where the classifier knows other classes than the samples are of.
    """
    drawn, rows = read_samples(samples), read_manifest(manifest)
    names = [row.name for row in rows]
    readers = {"classifier": classifier, "features": features}
    held = {key: _held_out(reader, names, manifest) for key, reader in readers.items()}
    _check_classifier(classifier, held["classifier"], drawn.recipe["classes"])
    trained = held["classifier"].recipe["weights"] or {}
    check_same_classes(rows, trained.get("classes"), "the classifier")
    labels = np.array([row.label_index for row in rows], np.int64)
    real = ImageSet(held["classifier"].values, held["features"].values, labels)
    of_real = reference(real, halves_apart(names, seed), k)
    width = real.features.shape[1]
    count = len(drawn.names) // len(np.unique(drawn.seeds))
    note = rank_note(min(count, len(names) // 2), width)
    if note:
        logs.log.warning("Fréchet distance: %s", note)
    found = [
        {
            "dataset": drawn.recipe["images"]["dataset"],
            "model": drawn.recipe["model"]["name"],
            "step": drawn.recipe["model"].get("step"),
            "seed": number,
            "measure": measure,
            "value": value,
            "reference": of_real[measure],
            "samples": count,
            "images": len(names),
            "note": note if measure == "frechet" else "",
        }
        for number, of_samples in _of_seeds(drawn.by_seed(), readers, compute)
        for measure, value in measured(of_samples, real, k).items()
    ]
    table = tables.frame(found, quality_files.OF_SEEDS)
    tables.write(table, outputs["tsv"], outputs["parquet"])
    quality_files.KIND.write_json(
        outputs["recipe"],
        samples=drawn.recipe,
        **{key: {**held[key].recipe, "layer": readers[key].layer} for key in readers},
        k=k,
        seed=seed,
        interval=_GENERALISES if len(np.unique(drawn.seeds)) > 1 else _NO_INTERVAL,
        measures={row["measure"]: _summary(row) for row in quality_files.summaries(table)},
    )


def _held_out(reader: Reader, names: Sequence[str], manifest: Path) -> feature_files.Features:
    """The features of the held-out images, by the checkpoint that will read the samples."""
    features = feature_files.read_features(reader.features)
    check_same_names(names, features.names, manifest, reader.features)
    if features.recipe["weights"] != verify(reader.record, reader.weights):
        raise StoreError(f"{reader.features}: its weights are not those of {reader.record}; delete the file and rerun")
    return features


def _check_classifier(classifier: Reader, held: feature_files.Features, classes: int) -> None:
    width = held.values.shape[1]
    if width != classes:
        raise ValueError(
            f"the classifier {held.recipe['bundle']}_{classifier.layer} gives {width} numbers, but samples are of "
            f"{classes} classes; samples.classifier names the layer of its logits"
        )


def _of_seeds(
    seeds: Iterator[tuple[int, dict[str, NDArray[np.uint8]], NDArray[np.int64]]],
    readers: Mapping[str, Reader],
    compute: Compute,
) -> Iterator[tuple[int, ImageSet]]:
    """What the models say of the samples of one seed after the other. A model of both layers runs once."""
    on = choose_device(compute.device)
    runs: dict[Path, tuple[Model, models.Loaded, dict[str, str]]] = {}
    for reader in readers.values():
        if reader.recipe not in runs:
            model = Model.from_recipe(read_settings_file(reader.recipe)["model"])
            runs[reader.recipe] = model, models.load(model, reader.weights, on), {}
        model, _, layers = runs[reader.recipe]
        layers[reader.layer] = model.layers[reader.layer]
    for number, images, labels in seeds:
        pooled: dict[Path, Arrays] = {}
        for recipe, (model, loaded, layers) in runs.items():
            assert model.input is not None  # the config is checked
            batches = inputs.Batches(inputs.ImageArrays(images, model.input), compute.batch_size, compute.workers, on)
            order, pooled[recipe] = pooled_features(loaded, layers, batches)
            if order != list(images):
                raise ValueError(f"{model.name}: batches hold the samples in another order")
        logits, features = (pooled[reader.recipe][reader.layer] for reader in readers.values())
        yield number, ImageSet(logits, features, labels)


def _summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the summary as JSON."""
    keys = ("value", "low", "high", "error", "reference", "seeds", "samples", "images", "note")
    return {key: None if isinstance(row[key], float) and np.isnan(row[key]) else _plain(row[key]) for key in keys}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "sample_quality"):
        torch.set_num_threads(snakemake.threads)
        given, params, resources = dict(snakemake.input.items()), snakemake.params, snakemake.resources
        readers = {
            key: Reader(
                Path(given[f"{key}_recipe"]),
                Path(given[f"{key}_weights"]),
                Path(given[f"{key}_record"]),
                params[f"{key}_layer"],
                feature_files.layer_path(Path(given[f"{key}_held_out"]), params[f"{key}_layer"]),
            )
            for key in ("classifier", "features")
        }
        compute = Compute(resources.device, resources.batch_size, resources.workers)
        made = snakemake.output
        for drawn, tsv, parquet, recipe in zip(given["samples"], made.tsv, made.parquet, made.recipes, strict=True):
            outputs = {"tsv": Path(tsv), "parquet": Path(parquet), "recipe": Path(recipe)}
            manifest, (classifier, features) = Path(given["manifest"]), readers.values()
            sample_quality(Path(drawn), manifest, classifier, features, params.k, params.seed, outputs, compute)
