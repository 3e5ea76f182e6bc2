"""Bundles as sides of a comparison from their features alone: neighbours are searched in memory, not read from files.

For analyses that measure many bundles against one reference, each once: checkpoints of a training, noise levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Layer
from diffalign.alignment.preparation import FeatureError, directions, kernel_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.io import feature_files
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.manifest import groups_of
from diffalign.io.prepared_features import clamp_bounds, noted_spread
from diffalign.io.sides import manifest_of
from diffalign.names import unknown


@dataclass(frozen=True)
class Search:
    """How features are prepared and searched. k: length of lists. seed: of the study, for folds. memory_mb and threads
    change no list. manifest: of the images, with their groups; None where each is independent of all others.
    """

    preparation: Preparation
    k: int
    seed: int
    memory_mb: int
    threads: int
    manifest: Path | None = None

    def groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """The group of every image. Raises StoreError for images that the manifest lacks."""
        return tuple(names) if self.manifest is None else groups_of(self.manifest, names)

    @classmethod
    def of_job(cls, job: Any, k: int) -> Search:
        """What a job of Snakemake says of it: ``preparation`` and ``seed`` among its parameters, and its manifest."""
        preparation = Preparation(**job.params.preparation)
        manifest = manifest_of(job.input)
        return cls(preparation, k, job.params.seed, job.resources.memory_mb, job.threads, manifest)


@dataclass(frozen=True, eq=False)
class UnlistedSide:
    """Layers of a bundle, prepared as the rule neighbors prepares them.

    rows: alias -> (N, D) float32 `kernel_rows`, by depth. recipe: what the recipes of all layers share. modules: alias
    -> module path.
    """

    names: tuple[str, ...]
    rows: Mapping[str, NDArray[np.float32]]
    recipe: Mapping[str, Any]
    modules: Mapping[str, str]
    search: Search

    @cached_property
    def groups(self) -> Groups:
        """Which images are not independent of each other."""
        return Groups.of(self.search.groups(self.names))

    @property
    def layers(self) -> tuple[str, ...]:
        """Aliases in order of depth."""
        return tuple(self.rows)

    def layer(self, alias: str, keep: NDArray[np.intp] | None = None) -> Layer:
        """One layer, of all images or of those at the positions `keep` (M,): their neighbours among themselves."""
        rows = self.rows[alias] if keep is None else self.rows[alias][keep]
        groups = self.groups if keep is None else self.groups.at(keep)
        return searched(rows, [groups.members[code] for code in groups.codes], self.search)

    def of(self, keep: NDArray[np.intp] | None = None) -> list[Layer]:
        """All layers in order of depth."""
        return [self.layer(alias, keep) for alias in self.rows]


def searched(rows: NDArray[np.float32], groups: Iterable[str], search: Search) -> Layer:
    """Prepared rows (N, D) as a layer whose exact neighbours are searched on first use and kept. groups: as of
    `rows_layer`.
    """
    unit = directions(rows, search.preparation)
    lists = partial(nearest_neighbors, unit, search.k, memory_mb=search.memory_mb, threads=search.threads)
    return rows_layer(rows, list(groups), lists, search.seed)


def read_side(
    layers_json: Path,
    search: Search,
    aliases: Iterable[str] | None = None,
    like: UnlistedSide | None = None,
    where: Path | None = None,
) -> UnlistedSide:
    """Read the layers of a bundle: all, or some by alias. like, where: another side and its file, whose images must be
    the same.

    Raises StoreError for other images and for files that have changed since their manifest was written, FeatureError
    for features that are NaN, infinite or zero, UnknownName for another layer; all name the file.
    """
    bundle = feature_files.read_bundle(layers_json)
    wanted = list(bundle.digests if aliases is None else aliases)
    for alias in wanted:
        if alias not in bundle.digests:
            raise unknown(f"layer of {layers_json}", alias, bundle.digests)
    bounds = clamp_bounds(layers_json, bundle.digests, search.preparation)
    rows: dict[str, NDArray[np.float32]] = {}
    modules: dict[str, str] = {}
    names, shared = (like.names if like else ()), {}
    first = where or layers_json
    for alias in wanted:
        source, features = bundle.path(alias), bundle.read(alias)
        if names:
            check_same_names(names, features.names, first, source)
        names, shared = features.names, features.shared
        modules[alias] = features.recipe["module"]
        try:
            rows[alias] = kernel_rows(features.values, features.names, search.preparation, bounds.get(alias))
        except FeatureError as error:
            raise FeatureError(f"{source}: {error}") from error
        noted_spread(directions(rows[alias], search.preparation), source)
    if not rows:
        raise StoreError(f"{layers_json}: has no layers")
    return UnlistedSide(names, rows, shared, modules, search)
