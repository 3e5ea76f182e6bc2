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
from diffalign.io.manifest import check_unique
from diffalign.io.tensor_files import read_tensors
from diffalign.offenders import first_five, flagged
from diffalign.provenance import file_sha256

FEATURES_FORMAT = 1
_FEATURE_KEYS = {"format", "features", "names", "recipe"}


class StoreError(ValueError):
    """A file that cannot be trusted; the message names it and says what to do."""


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
    """The feature files of a bundle as their manifest, layers.json, lists them. digests: alias -> sha256, by depth."""

    manifest: Path
    digests: Mapping[str, str]

    def path(self, alias: str) -> Path:
        """The file of one layer."""
        return self.manifest.with_name(f"{alias}.pt")

    def read(self, alias: str) -> Features:
        """The features of one layer. Raises StoreError as `read_features`, and where the file is not the one listed."""
        path = self.path(alias)
        features = read_features(path)
        if file_sha256(path) != self.digests[alias]:
            raise StoreError(f"{path}: has changed since {self.manifest} was written; delete both and rerun")
        return features


def write_features(path: Path, features: Features) -> None:
    """Write features as a dictionary that ``torch.load(weights_only=True)`` reads: features, names, recipe, format.

    Raises StoreError for rows that are NaN or infinite, duplicate names, and rows that do not match names.
    """
    import torch

    _check_features(features.values, features.names, path)
    # through a file object: torch would write the name of a path into the archive, and that name is temporary
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(
            {
                "format": FEATURES_FORMAT,
                "features": torch.from_numpy(np.ascontiguousarray(features.values, dtype=np.float32)),
                "names": list(features.names),
                "recipe": json.dumps(features.recipe),
            },
            file,
        )


def read_features(path: Path) -> Features:
    """Read what `write_features` wrote. Raises StoreError for anything else, and names the file."""
    try:
        content = read_tensors(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as a feature file ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not set(content) >= _FEATURE_KEYS:
        raise StoreError(f"{path}: not a feature file of this workflow; it needs {', '.join(sorted(_FEATURE_KEYS))}")
    check_format(content.get("format"), FEATURES_FORMAT, path)
    values, names = content["features"], tuple(content["names"])
    if not isinstance(values, np.ndarray):
        raise StoreError(f"{path}: its features are no tensor but {type(values).__name__}")
    _check_features(values, names, path)
    return Features(values, names, json.loads(content["recipe"]))


def read_bundle(manifest: Path) -> Bundle:
    """Read which feature files there are of a bundle. manifest: its layers.json."""
    layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
    return Bundle(manifest, {alias: made["sha256"] for alias, made in layers.items()})


def check_format(found: object, known: int, path: Path) -> None:
    """Raise StoreError for a version of a file's format that is newer than this code, or none."""
    if not isinstance(found, int) or not 1 <= found <= known:
        raise StoreError(f"{path}: format {found!r} is not known here (1 to {known}); delete the file and rerun")


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


def check_same_names(a: Sequence[str], b: Sequence[str], path_a: Path, path_b: Path) -> None:
    """Raise StoreError that names the first five images that only one of two files has.

    Files are sorted by name, so equal sets are equal sequences; another order is an error of its own.
    """
    if tuple(a) == tuple(b):
        return
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if not only_a and not only_b:
        raise StoreError(f"{path_a} and {path_b} hold the same images in another order; rerun one of them")
    parts = [
        f"{len(only)} only in {path}: {first_five(only)}" for only, path in ((only_a, path_a), (only_b, path_b)) if only
    ]
    raise StoreError(f"images differ: {'; '.join(parts)}")
