"""One side of a comparison as scripts read it: neighbour lists, features and factors of all layers of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Layer
from diffalign.alignment.regression import FOLDS
from diffalign.alignment.settings import Preparation
from diffalign.io import factor_files, neighbor_files
from diffalign.io.headers import check_same_names
from diffalign.io.manifest import groups_of
from diffalign.io.prepared_features import preparation_of, prepared_rows

# what each kind of metric reads beside the neighbour file, whose header says how features were prepared
_READS_FACTORS = ("factors", "moments")
# factors of some of the images, for intervals, come from features
_READS_FEATURES = ("moments", "patterns", "factors", "ranks", "rbf", "regressions")


def reads(metrics: Sequence[str]) -> tuple[str, ...]:
    """Which files these metrics read: ``neighbors`` always, ``features`` and ``factors`` where one needs them."""
    needs = {METRICS[name].needs for name in metrics}
    parts = ["neighbors"]
    if needs & set(_READS_FEATURES):
        parts.append("features")
    if needs & set(_READS_FACTORS):
        parts.append("factors")
    return tuple(parts)


@dataclass(frozen=True)
class Files:
    """Where one side lies. features: its manifest; factors: its factor file; None where no metric needs them."""

    neighbors: Path
    features: Path | None = None
    factors: Path | None = None


def input_name(part: str, side: str) -> str:
    """The name of the input of a rule that is a part (neighbors, features, factors) of side ``a`` or ``b``."""
    return f"{part}_{side}"


def files_of(inputs: Any, side: str) -> Files:
    """The files of side ``a`` or ``b`` among the named inputs of a rule."""
    parts = ("neighbors", "features", "factors")
    given = {part: Path(path) for part in parts if (path := inputs.get(input_name(part, side))) is not None}
    return Files(given["neighbors"], given.get("features"), given.get("factors"))


@dataclass(frozen=True)
class Side:
    """All layers of one bundle. seed: of the study, for the folds of cross-validation. groups: of images that are not
    independent of each other.
    """

    lists: neighbor_files.NeighborFile
    files: Files
    seed: int
    groups: Groups

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return self.lists.names

    @property
    def layers(self) -> tuple[str, ...]:
        """Aliases in order of depth."""
        return self.lists.layers

    @cached_property
    def preparation(self) -> Preparation:
        """What was done to the features before the neighbours were searched."""
        return preparation_of(self.lists.settings)

    @cached_property
    def _folds(self) -> NDArray[np.int64]:
        return self.groups.dealt(FOLDS, self.seed, "folds")

    def layer(self, alias: str) -> Layer:
        """One layer, whose parts are read when a metric needs them. Raises StoreError where there is none."""
        factors = self.files.factors
        return Layer(
            len(self.names),
            lists=lambda: self.lists.layer(alias),
            rows=lambda: self.rows(alias),
            folds=lambda: self._folds,
            factors=None if factors is None else lambda: factor_files.read_factors(factors, alias, self.names)[0],
            cubes=None if factors is None else lambda: factor_files.read_factors(factors, alias, self.names)[1],
        )

    def rows(self, alias: str, preparation: Preparation | None = None) -> NDArray[np.float32]:
        """Features of one layer, (N, D) float32 `kernel_rows`, prepared as for its lists or in another way."""
        return prepared_rows(self.lists, self.files.features, alias, preparation)


def manifest_of(inputs: Any) -> Path | None:
    """The manifest among the named inputs of a rule; None for a data set without groups."""
    return None if (path := inputs.get("manifest")) is None else Path(path)


def identity(pair: tuple[Side, Side], layers: tuple[str, str]) -> dict[str, str]:
    """The columns of a table that name the two layers of a row: a, b (bundles), layer_a, layer_b."""
    bundles = [side.lists.recipe["bundle"] for side in pair]
    return {"a": bundles[0], "b": bundles[1], "layer_a": layers[0], "layer_b": layers[1]}


def read_sides(a: Files, b: Files, seed: int, manifest: Path | None = None) -> tuple[Side, Side]:
    """Both sides of a pair. Raises as `read_all` does."""
    first, second = read_all([a, b], seed, manifest)
    return first, second


def read_all(files: Sequence[Files], seed: int, manifest: Path | None = None) -> list[Side]:
    """Sides of the same images. manifest: of the images, with their groups; None where each is independent of all
    others.

    Raises StoreError that names the first five images where they differ or the manifest lacks some, ValueError where
    they were prepared differently.
    """
    read = [neighbor_files.read_neighbors(each.neighbors) for each in files]
    first = read[0]
    for other in read[1:]:
        check_same_names(first.names, other.names, first.path, other.path)
    groups = Groups.of(first.names if manifest is None else groups_of(manifest, first.names))
    sides = [Side(lists, of, seed, groups) for lists, of in zip(read, files, strict=True)]
    prepared = [{key: value for key, value in side.settings.items() if key != "bounds"} for side in read]
    for other, how in zip(read, prepared, strict=True):
        if how != prepared[0]:
            raise ValueError(f"{first.path} and {other.path} were prepared differently: {prepared[0]} and {how}")
    return sides
