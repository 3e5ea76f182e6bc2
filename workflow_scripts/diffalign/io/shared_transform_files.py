"""A pair of transforms into a shared space as one safetensors file, with the images that it was fitted to.

Tensors are those of `shared_space.transforms.arrays`. Metadata: ``method``, ``seed``, ``kinds``, ``chosen`` and
``names``, of the fitted images, each as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.feature_files import Features, read_features
from diffalign.io.headers import FileKind, StoreError, check_same_names
from diffalign.io.manifest import check_unique, read_manifest
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.shared_space.transforms import Pair, arrays, check_method, from_arrays

KIND = FileKind("a file of transforms into a shared space", 1)
# what the transforms of a pair were fitted to, and what was chosen
RECIPE = FileKind("a recipe of transforms into a shared space", 1)


@dataclass(frozen=True, eq=False)
class SharedTransform:
    """A pair of transforms. seed: of a training, None without one. names: of the images that it was fitted to."""

    method: str
    seed: int | None
    names: tuple[str, ...]
    pair: Pair


@dataclass(frozen=True, eq=False)
class Layers:
    """Two layers on the same images. labels: of every image; None where one has none, or all are the same. groups: of
    images that are not independent of each other; its own name for an image that is. facts: the sha256 and the recipe
    of either file.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    groups: tuple[str, ...]
    values: tuple[NDArray[np.float32], NDArray[np.float32]]
    facts: tuple[dict[str, Any], dict[str, Any]]

    def part(self, rows: NDArray[np.intp]) -> Layers:
        """Both layers on some of the images."""
        names, groups = (tuple(words[i] for i in rows) for words in (self.names, self.groups))
        labels = None if self.labels is None else tuple(self.labels[i] for i in rows)
        return replace(
            self, names=names, labels=labels, groups=groups, values=(self.values[0][rows], self.values[1][rows])
        )

    @property
    def titles(self) -> tuple[str, str]:
        """Both layers as tables name them: bundle and alias."""
        first, second = (f"{each['recipe']['bundle']}_{each['recipe']['layer']}" for each in self.facts)
        return first, second


def read_layers(features: tuple[Path, Path], manifest: Path | None) -> Layers:
    """Read two feature files, and labels and groups from a manifest of the same images or more.

    Raises StoreError for features of other images or in another order, for constant features, and images
    that the manifest lacks.
    """
    a, b = (read_features(path) for path in features)
    check_same_names(a.names, b.names, *features)
    for path, each in zip(features, (a, b), strict=True):
        if not np.ptp(each.values, axis=0).any():
            raise StoreError(f"{path}: features are constant: all {len(each.names)} rows are equal")
    labels: tuple[str, ...] | None = None
    groups = a.names
    if manifest is not None:
        of = {image.name: image for image in read_manifest(manifest)}
        if absent := [name for name in a.names if name not in of]:
            raise StoreError(f"{manifest}: lacks {len(absent)} images of {features[0]}, first: {first_five(absent)}")
        labels = tuple(of[name].label for name in a.names)
        labels = labels if "" not in labels and len(set(labels)) > 1 else None
        groups = tuple(of[name].group for name in a.names)
    return Layers(a.names, labels, groups, (a.values, b.values), (_facts(features[0], a), _facts(features[1], b)))


def _facts(path: Path, features: Features) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "recipe": dict(features.recipe)}


def write_shared_transform(path: Path, method: str, seed: int | None, names: Sequence[str], pair: Pair) -> None:
    """Write a pair as a whole. Raises StoreError for numbers that are NaN or infinite, and repeated names."""
    from diffalign.io.safetensors_files import save_file

    kinds, tensors = arrays(pair)
    check_unique(names, str(path))
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise StoreError(f"{path}: {name} of the transform '{method}' is NaN or infinite")
    facts = {"method": method, "seed": seed, "kinds": kinds, "chosen": dict(pair.chosen), "names": list(names)}
    metadata = KIND.metadata(**{key: json.dumps(fact) for key, fact in facts.items()})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_shared_transform(path: Path) -> SharedTransform:
    """Read what `write_shared_transform` wrote, equal to the bit. Raises StoreError for anything else."""
    from safetensors.numpy import load_file

    header = KIND.read_metadata(path)
    with KIND.reading(path):
        facts = {key: json.loads(header[key]) for key in ("method", "seed", "kinds", "chosen", "names")}
        check_method(facts["method"])
        pair = from_arrays(facts["kinds"], load_file(path), facts["chosen"])
    return SharedTransform(facts["method"], facts["seed"], tuple(facts["names"]), pair)
