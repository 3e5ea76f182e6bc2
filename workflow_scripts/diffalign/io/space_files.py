"""Eigenvectors and colours of tokens of several sets in one space, and the transforms into it: safetensors files.

A file of eigenvectors holds for every stage, such as ``before`` and ``after``, ``{stage}.vectors`` (S, I, T, k),
``{stage}.values`` (k,) and ``{stage}.rgb`` (S, I, T, 3), all float32: S sets, I images, T cells of a grid row by row.
A file of transforms holds for every set, by its number, ``{number}.landmarks`` (m, D) float32 and ``{number}.scale``
(2,) float64, γ and the variance. Names are metadata, as JSON.
"""

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
from diffalign.shared_space.rbf import Rbf

SPACE = FileKind("eigenvectors of tokens in a shared space", 1)
TRANSFORMS = FileKind("transforms into a shared space", 1)
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stage:
    """vectors: (S, I, T, k) eigenvectors. values: (k,) eigenvalues. rgb: (S, I, T, 3) colours in [0, 1]."""

    vectors: Float32
    values: Float32
    rgb: Float32


@dataclass(frozen=True, eq=False)
class SpaceFile:
    """sets: as tables name them. models, layers: of each set. names: of images. grid: rows and columns of cells."""

    stages: Mapping[str, Stage]
    sets: tuple[str, ...]
    models: tuple[str, ...]
    layers: tuple[str, ...]
    names: tuple[str, ...]
    grid: tuple[int, int]


def write_space(path: Path, space: SpaceFile) -> None:
    """Write eigenvectors and colours. Raises ValueError where arrays have other shapes than names and grid say."""
    lead = (len(space.sets), len(space.names), space.grid[0] * space.grid[1])
    arrays: dict[str, NDArray[Any]] = {}
    for name, stage in space.stages.items():
        if stage.vectors.shape != (*lead, len(stage.values)) or stage.rgb.shape != (*lead, 3):
            raise ValueError(f"{name}: {stage.vectors.shape} eigenvectors and {stage.rgb.shape} colours of {lead}")
        arrays |= {f"{name}.{key}": np.asarray(getattr(stage, key), np.float32) for key in ("vectors", "values", "rgb")}
    words = {key: list(getattr(space, key)) for key in ("sets", "models", "layers", "names", "grid")}
    _write(path, arrays, SPACE, {**words, "stages": list(space.stages)})


def read_space(path: Path) -> SpaceFile:
    """Read what `write_space` wrote. Raises StoreError for a broken file or another version."""
    arrays, words = _read(path, SPACE)
    stages = {
        name: Stage(*(arrays[f"{name}.{key}"] for key in ("vectors", "values", "rgb"))) for name in words["stages"]
    }
    named = {key: tuple(words[key]) for key in ("sets", "models", "layers", "names", "grid")}
    return SpaceFile(stages, **named)


def write_transforms(path: Path, transforms: Mapping[str, Rbf], keys: Sequence[str]) -> None:
    """Write one transform a set. keys: of the landmarks, image name/row/column, in the order of their rows.

    Raises ValueError where a transform has another number of landmarks.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for number, (name, transform) in enumerate(transforms.items()):
        if len(transform.landmarks) != len(keys):
            raise ValueError(f"{name}: {len(transform.landmarks)} landmarks of {len(keys)} keys")
        arrays[f"{number}.landmarks"] = transform.landmarks
        arrays[f"{number}.scale"] = np.array([transform.gamma, transform.variance])
    _write(path, arrays, TRANSFORMS, {"sets": list(transforms), "keys": list(keys)})


def read_transforms(path: Path) -> tuple[dict[str, Rbf], tuple[str, ...]]:
    """The transforms by set, and the keys of landmarks. Raises StoreError for a broken file or another version."""
    arrays, words = _read(path, TRANSFORMS)
    transforms = {
        name: Rbf(arrays[f"{number}.landmarks"], *map(float, arrays[f"{number}.scale"]))
        for number, name in enumerate(words["sets"])
    }
    return transforms, tuple(words["keys"])


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], kind: FileKind, words: Mapping[str, Any]) -> None:
    from diffalign.io.safetensors_files import save_file

    with replacing(path) as temporary:
        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(plain, temporary, kind.metadata(words=json.dumps(words)))


def _read(path: Path, kind: FileKind) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from safetensors.numpy import load_file

    header = kind.read_metadata(path)
    if "words" not in header:
        raise StoreError(f"{path}: lacks the names that belong to {kind.name}")
    with kind.reading(path):
        words: dict[str, Any] = json.loads(header["words"])
        return load_file(path), words
