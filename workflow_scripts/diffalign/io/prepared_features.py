"""Features as lists and metrics take them: the preparation that a neighbour file records, done again.

Apart from `sides`, so that what makes lists does not depend on the code of metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.alignment.preparation import FeatureError, clamp_bound, unit_rows
from diffalign.alignment.settings import Preparation
from diffalign.io import feature_files, neighbor_files
from diffalign.io.headers import check_same_names


def prepared_rows(
    lists: neighbor_files.NeighborFile, features: Path | None, alias: str, preparation: Preparation | None = None
) -> NDArray[np.float32]:
    """Features of one layer, prepared as for its neighbour lists or in another way: (N, D) float32 unit rows.

    Raises StoreError for features of other images, FeatureError where the preparation does not fit them.
    """
    if features is None:
        raise ValueError(f"{lists.path}: the features of layer '{alias}' are needed, but only its lists were given")
    bounds: Mapping[str, float] = lists.settings["bounds"]
    if preparation is None:
        preparation = preparation_of(lists.settings)
    elif preparation.clamp_over == "model":
        bounds = clamp_bounds(features, lists.layers, preparation)
    else:
        bounds = {}
    path = features.with_name(f"{alias}.pt")
    unprepared = feature_files.read_features(path)
    check_same_names(lists.names, unprepared.names, lists.path, path)
    try:
        return unit_rows(unprepared.values, unprepared.names, preparation, bounds.get(alias))
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error


def clamp_bounds(layers_json: Path, aliases: Iterable[str], preparation: Preparation) -> dict[str, float]:
    """What each layer is clamped at; nothing without a clamp.

    Layers of a model are pooled only where they have one width: published scripts hold them as one tensor then, and as
    a list that is clamped layer by layer otherwise.
    """
    if preparation.clamp is None:
        return {}
    paths = {alias: layers_json.with_name(f"{alias}.pt") for alias in aliases}
    bound = partial(clamp_bound, quantile=preparation.clamp, rule=preparation.clamp_rule)
    if preparation.clamp_over == "model":
        everything = [feature_files.read_features(path).values for path in paths.values()]
        if len({values.shape[1] for values in everything}) == 1:
            return dict.fromkeys(paths, bound(everything))
        logs.log.info("layers differ in width and are clamped one by one")
    return {alias: bound([feature_files.read_features(path).values]) for alias, path in paths.items()}


def preparation_of(settings: Mapping[str, Any]) -> Preparation:
    """The preparation that the header of a neighbour file holds."""
    return Preparation(**{field.name: settings[field.name] for field in fields(Preparation)})


def preparation_settings(preparation: Preparation) -> dict[str, Any]:
    """A preparation as plain JSON, as headers and recipes hold it."""
    return {**asdict(preparation), "normalize": "l2"}
