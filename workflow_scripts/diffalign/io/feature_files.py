"""The feature file: versioned, checked on both ways, never unpickled freely."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.manifest import check_unique
from diffalign.io.tensor_files import read_tensors
from diffalign.offenders import first_five, flagged
from diffalign.provenance import file_sha256

KIND = FileKind("a feature file", 1)
KEYS = frozenset({"format", "features", "names", "recipe"})
# x.json, beside the folder x of the feature files of a bundle
LAYERS = FileKind("a list of layers", 1)


@dataclass(frozen=True)
class Features:
    """Features of one layer: (N, D) float32, one name a row, and the recipe they came from."""

    values: NDArray[np.float32]
    names: tuple[str, ...]
    recipe: Mapping[str, Any]

    @property
    def shared(self) -> dict[str, Any]:
        """What the recipes of all layers of a bundle share."""
        return {key: value for key, value in self.recipe.items() if key not in ("layer", "module")}


@dataclass(frozen=True)
class Bundle:
    """The feature files of a bundle as their manifest lists them. digests: alias -> sha256, by depth."""

    manifest: Path
    digests: Mapping[str, str]

    def path(self, alias: str) -> Path:
        """The file of one layer."""
        return layer_path(self.manifest, alias)

    def read(self, alias: str) -> Features:
        """The features of one layer. Raises StoreError as `read_features`, and where the file is not the one listed."""
        path = self.path(alias)
        if not path.is_file():
            raise StoreError(f"{path}: is missing, but {self.manifest} lists it; delete that file, too, and rerun")
        features = read_features(path)
        if file_sha256(path) != self.digests[alias]:
            raise StoreError(f"{path}: has changed since {self.manifest} was written; delete both and rerun")
        return features


def layer_path(manifest: Path, alias: str) -> Path:
    """The feature file of a layer: ``x/{alias}.pt`` for the manifest ``x.json`` of a bundle."""
    return manifest.with_suffix("") / f"{alias}.pt"


def write_features(path: Path, features: Features) -> None:
    """Write features as a dictionary that ``torch.load(weights_only=True)`` reads: features, names, recipe, format.

    Raises StoreError for rows that are NaN or infinite, duplicate names, and rows that do not match names.
    """
    import torch

    _check_features(features.values, features.names, path)
    # through a file object: torch would write the name of a path into the archive, and that name is temporary
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(
            KIND.header(
                features=torch.from_numpy(np.ascontiguousarray(features.values, dtype=np.float32)),
                names=list(features.names),
                recipe=json.dumps(features.recipe),
            ),
            file,
        )


def read_features(path: Path) -> Features:
    """Read what `write_features` wrote. Raises StoreError for anything else, and names the file."""
    with KIND.reading(path):
        content = read_tensors(path)
    if not isinstance(content, dict) or not set(content) >= KEYS:
        raise StoreError(f"{path}: not a feature file of this workflow; it needs {', '.join(sorted(KEYS))}")
    KIND.check_version(content["format"], path)
    values, names = content["features"], content["names"]
    if not isinstance(values, np.ndarray):
        raise StoreError(f"{path}: its features are no tensor but {type(values).__name__}")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise StoreError(f"{path}: its names are no list of text")
    _check_features(values, names, path)
    with KIND.reading(path):
        recipe = json.loads(content["recipe"])
    return Features(values, tuple(names), recipe)


def read_bundle(manifest: Path) -> Bundle:
    """Read which feature files a bundle has. Raises StoreError for another format."""
    layers = LAYERS.read_json(manifest)["layers"]
    return Bundle(manifest, {alias: made["sha256"] for alias, made in layers.items()})


def _check_features(values: NDArray[np.floating], names: Sequence[str], path: Path) -> None:
    if values.ndim != 2:
        raise StoreError(f"{path}: features have shape {values.shape}; expected (N, D)")
    if len(names) != len(values):
        raise StoreError(f"{path}: {len(values)} rows for {len(names)} names")
    check_unique(names, str(path))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        offenders = flagged(names, bad)
        raise StoreError(
            f"{path}: {len(offenders)} of {len(names)} rows are NaN or infinite, first: {first_five(offenders)}"
        )
