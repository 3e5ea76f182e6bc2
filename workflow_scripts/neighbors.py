"""Neighbour lists of every layer of a bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from diffalign import logs, neighbor_store, store
from diffalign.alignment.neighbors import Neighbors, nearest_neighbors
from diffalign.alignment.preparation import FeatureError, unit_rows
from diffalign.provenance import file_sha256

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def neighbors(layers_json: Path, k_max: int, clamp: float | None, center: bool, path: Path) -> None:
    """Prepare the features of every layer and write the nearest `k_max` neighbours of each image.

    Lists are cut to N - 1. Raises StoreError or FeatureError that names the file and the first five images where
    features are NaN, infinite or zero, or where layers disagree about the images.
    """
    made_of = json.loads(layers_json.read_text(encoding="utf-8"))["layers"]
    lists: dict[str, Neighbors] = {}
    names: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = {}
    modules: dict[str, str] = {}
    first = layers_json
    for alias in logs.progress(made_of, len(made_of), "neighbors"):
        source = layers_json.with_name(f"{alias}.pt")
        features = store.read_features(source)
        if file_sha256(source) != made_of[alias]["sha256"]:
            raise store.StoreError(f"{source}: has changed since {layers_json} was written; delete both and rerun")
        if not names:
            names, first, recipe = features.names, source, features.recipe
        store.check_same_names(names, features.names, first, source)
        modules[alias] = features.recipe["module"]
        try:
            rows = unit_rows(features.values, features.names, clamp, center)
        except FeatureError as error:
            raise FeatureError(f"{source}: {error}") from error
        lists[alias] = nearest_neighbors(rows, min(k_max, len(names) - 1))
    settings = {"clamp": clamp, "center": center, "normalize": "l2", "k_max": min(k_max, len(names) - 1)}
    shared = {key: value for key, value in recipe.items() if key not in ("layer", "module")}
    neighbor_store.write_neighbors(path, names, lists, settings, {**shared, "modules": modules})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "neighbors"), threadpool_limits(snakemake.threads):
        neighbors(
            Path(snakemake.input.layers),
            snakemake.params.k_max,
            snakemake.params.clamp,
            snakemake.params.center,
            Path(snakemake.output[0]),
        )
