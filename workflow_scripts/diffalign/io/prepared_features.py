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
from diffalign.alignment.preparation import FeatureError, clamp_bound, kernel_rows, spread
from diffalign.alignment.search.bounds import COLLINEAR
from diffalign.alignment.settings import Preparation
from diffalign.io import feature_files, neighbor_files
from diffalign.io.headers import check_same_names


def prepared_rows(
    lists: neighbor_files.NeighborFile, features: Path | None, alias: str, preparation: Preparation | None = None
) -> NDArray[np.float32]:
    """Features of one layer, prepared as for its neighbour lists or in another way: (N, D) float32, `kernel_rows`.

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
    path = feature_files.layer_path(features, alias)
    unprepared = feature_files.read_features(path)
    check_same_names(lists.names, unprepared.names, lists.path, path)
    try:
        return kernel_rows(unprepared.values, unprepared.names, preparation, bounds.get(alias))
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error


# a smaller spread is within some per cent of what float32 features are rounded by: measured with offsets of 10^6 times
# the standard deviation, 1 to 4 % of neighbours are others than those of float64 features
_LOST = 1e-10


def noted_spread(rows: NDArray[np.float32], source: Path) -> float:
    """`preparation.spread` of prepared rows, with a warning where rows are nearly collinear. source: their file."""
    left = spread(rows)
    if left < COLLINEAR:
        lost = (
            " Float32 features are rounded by a part of that, so that neighbours are uncertain." if left < _LOST else ""
        )
        logs.log.warning(
            "%s: all images have nearly the same direction: their common mean leaves %.2g of the squares. Neighbours "
            "are ordered by distance; cosines themselves say little, unless alignment.center is true.%s",
            source,
            left,
            lost,
        )
    return left


def clamp_bounds(manifest: Path, aliases: Iterable[str], preparation: Preparation) -> dict[str, float]:
    """What each layer is clamped at; nothing without a clamp.

    Layers of a model are pooled only where they have one width: published scripts hold them as one tensor then, and as
    a list that is clamped layer by layer otherwise.
    """
    if preparation.clamp is None:
        return {}
    paths = {alias: feature_files.layer_path(manifest, alias) for alias in aliases}
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
    return asdict(preparation)
