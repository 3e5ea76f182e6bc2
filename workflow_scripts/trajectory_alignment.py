"""Alignment along a trajectory: a model's layers at every step against a vision model's features of the final image."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs, names
from diffalign.alignment import series
from diffalign.alignment.preparation import FeatureError, clamp_bound, kernel_rows
from diffalign.alignment.settings import Preparation
from diffalign.extraction.readers import OpenReader, Reader
from diffalign.io import recipes, tables
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.pooled_files import Pooled, read_pooled
from diffalign.io.series_tables import IDENTITY, MEASURED, choose, rows, write_recipe
from diffalign.io.trajectory_files import Trajectories, read_trajectories
from diffalign.io.unlisted_sides import Search, UnlistedSide
from diffalign.specs import Compute

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("model", "configuration"), "string"),
    "step": "int64",
    **dict.fromkeys(("t", "log_snr"), "float64"),
    **IDENTITY,
    **MEASURED,
}
_WITHIN = (
    "relabelled within groups: what is significant is shared beyond the class, prompt or photograph of a sample; it "
    "holds for other noise with this trained network and these groups"
)
_NOTHING_TO_MOVE = "none: every sample is a group of its own, so none can be relabelled within its group"
_OVER_GROUPS = "over groups of samples, left out one part at a time: other classes, prompts or photographs like these"
_OVER_SAMPLES = "over samples, left out one part at a time: all are of one group"


def trajectory_alignment(
    pooled: Path,
    folders: Sequence[Path],
    reader: Reader,
    metrics: Sequence[str],
    settings: tuple[Path, Path],
    search: Search,
    outputs: Mapping[str, Path],
    compute: Compute,
) -> None:
    """Measure every layer at every step of `pooled` against the reader's features of the results, and write a table.

    pooled: features of states, samples of all seeds. folders: the trajectories that they are of, one a seed. settings:
    of scores and of nulls. outputs: ``alignment_tsv``, ``alignment_parquet`` and ``recipe``.

    Samples of one class, prompt or photograph, of all seeds, are a group; nulls, errors and halves are those of
    `diffalign.alignment.grouped`, and MEASURED of `series_tables` says what the columns are. bundle is the checkpoint,
    dataset the configuration, and condition how it starts: the images are its results. chosen: the layer and step with
    the largest score on the first half.

    Raises StoreError for trajectories of other samples or of another checkpoint or configuration than the features,
    FeatureError that names step, layer and samples for features that cannot be prepared.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    drawn = series.Drawn(drawing.permutations, drawing.alpha, drawing.seed)
    states = read_pooled(pooled)
    finals = final_images([read_trajectories(folder) for folder in folders], states)
    reference = read_reference(reader, finals, states, search, compute)
    configuration = states.recipe["configuration"]
    model = names.checkpoint_name(states.recipe["model"]["name"], states.recipe["model"].get("step"))
    where = recipes.Where(configuration["name"], configuration["start"])
    shared = {
        "bundle": model,
        **{key: states.recipe[key] for key in ("model", "configuration", "weights", "autoencoder_weights")},
    }
    table: list[dict[str, Any]] = []
    for step in logs.progress(states.steps, len(states.steps), "steps"):
        level, side = states.levels[step], state_side(states, step, shared, search)
        place = {"model": model, "configuration": configuration["name"], "step": step}
        place |= {"t": level.t, "log_snr": level.log_snr}
        measured = rows(metrics, side, reference, where, setting, drawn, states.groups)
        table.extend({**place, **row} for row in measured)
    choose(table, ["metric"])
    made = tables.frame(table, COLUMNS)
    tables.write(made, outputs["alignment_tsv"], outputs["alignment_parquet"])
    sizes = {group: states.groups.count(group) for group in sorted(set(states.groups))}
    write_recipe(
        outputs["recipe"],
        metrics,
        where,
        setting,
        drawing,
        reference,
        {model: {**shared, "layers": list(states.layers)}},
        None,
        levels=[states.levels[step].facts() for step in states.steps],
        steps=list(states.steps),
        groups=sizes,
        null=_WITHIN if len(sizes) < len(states.names) else _NOTHING_TO_MOVE,
        error=_OVER_GROUPS if len(sizes) > 1 else _OVER_SAMPLES,
    )


def final_images(trajectories: Sequence[Trajectories], states: Pooled) -> dict[str, NDArray[np.uint8]]:
    """``{seed}/{sample}`` -> the result (H, W, 3) as a PNG file holds it, for every row of the features.

    Raises StoreError where trajectories are of other samples, groups, checkpoints or configurations.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    groups: dict[str, str] = {}
    for each in trajectories:
        for key in ("model", "configuration", "weights"):
            if each.recipe[key] != states.recipe[key]:
                raise StoreError(f"{each.folder}: is of another {key} than {states.path}; delete one and rerun")
        own = [f"{each.recipe['seed']}/{name}" for name in each.names]
        pixels = (each.final_images() * 255).round().astype(np.uint8)
        images |= dict(zip(own, pixels, strict=True))
        groups |= dict(zip(own, each.groups, strict=True))
    folder = trajectories[0].folder.parent
    check_same_names(sorted(states.names), sorted(images), states.path, folder)
    other = [name for name, group in zip(states.names, states.groups, strict=True) if groups[name] != group]
    if other:
        raise StoreError(f"{states.path} and {folder}: {len(other)} samples are of other groups, first: {other[0]}")
    return images


def read_reference(
    reader: Reader, images: Mapping[str, NDArray[np.uint8]], states: Pooled, search: Search, compute: Compute
) -> UnlistedSide:
    """The vision model's layer as a side, rows in the order of the features of states. The model runs once."""
    opened = OpenReader(reader, compute)
    values = opened.features({name: images[name] for name in states.names})
    recipe = {**opened.facts, "autoencoder_weights": None}
    where = f"{opened.model.name}, final images"
    prepared = dict(_prepared({reader.layer: values}, states.names, search.preparation, where))
    return UnlistedSide(states.names, prepared, recipe, {reader.layer: opened.path}, search)


def state_side(states: Pooled, step: int, recipe: Mapping[str, Any], search: Search) -> UnlistedSide:
    """All layers at one step as a side."""
    values = {layer: states.values(step, layer) for layer in states.layers}
    prepared = dict(_prepared(values, states.names, search.preparation, f"{states.path}, step {step}"))
    return UnlistedSide(states.names, prepared, recipe, states.recipe["layers"], search)


def _prepared(
    values: Mapping[str, NDArray[np.float32]], members: Sequence[str], preparation: Preparation, where: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Layers as `kernel_rows`, clamped as `io.prepared_features.clamp_bounds` says."""
    together: float | None = None
    is_one_width = len({each.shape[1] for each in values.values()}) == 1
    if preparation.clamp is not None and preparation.clamp_over == "model" and is_one_width:
        together = clamp_bound(list(values.values()), preparation.clamp, preparation.clamp_rule)
    for layer, each in values.items():
        bound = together
        if preparation.clamp is not None and bound is None:
            bound = clamp_bound([each], preparation.clamp, preparation.clamp_rule)
        try:
            yield layer, kernel_rows(each, members, preparation, bound)
        except FeatureError as error:
            raise FeatureError(f"{where}, layer {layer}: {error}") from error


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "trajectory_alignment"), threadpool_limits(snakemake.threads):
        torch.set_num_threads(snakemake.threads)
        given, params, resources = snakemake.input, snakemake.params, snakemake.resources
        trajectory_alignment(
            Path(given.pooled),
            [Path(folder) for folder in given.trajectories],
            Reader(
                Path(given.reference_recipe),
                Path(given.reference_weights),
                Path(given.reference_record),
                params.reference_layer,
            ),
            params.metrics,
            (Path(given.settings), Path(given.calibration)),
            Search(Preparation(**params.preparation), params.k, params.seed, resources.memory_mb, snakemake.threads),
            {key: Path(path) for key, path in snakemake.output.items()},
            Compute(resources.device, resources.batch_size, workers=0),
        )
