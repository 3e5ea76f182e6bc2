"""Samples of a class-conditional model as one file: images, names, classes and seeds, in safetensors.

``images`` (N, H, W, 3) uint8; ``names`` (N, L) uint8, zero-padded UTF-8; ``labels`` and ``seeds`` (N,) int64. Rows are
in order of seed, then of name, and each seed has the same names. The recipe is metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.latents import decode_names, encode_names
from diffalign.io.safetensors_files import save_file

KIND = FileKind("a file of samples", 1)


@dataclass(frozen=True, eq=False)
class Samples:
    """images: (N, H, W, 3) uint8. labels, seeds: (N,) int64. names: of the rows; they stand once for each seed."""

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    seeds: NDArray[np.int64]
    recipe: Mapping[str, Any]

    def by_seed(self) -> Iterator[tuple[int, dict[str, NDArray[np.uint8]], NDArray[np.int64]]]:
        """Seed, name -> image, and the classes in the order of names, one seed after the other."""
        for seed in np.unique(self.seeds):
            rows = np.flatnonzero(self.seeds == seed)
            yield int(seed), {self.names[row]: self.images[row] for row in rows}, self.labels[rows]


def write_samples(path: Path, samples: Samples) -> None:
    """Write samples. Raises StoreError for rows that are no samples as `Samples` says, or in another order."""
    _check(samples, path)
    content = {
        "images": torch.from_numpy(np.ascontiguousarray(samples.images)),
        "names": encode_names(samples.names),
        "labels": torch.from_numpy(samples.labels),
        "seeds": torch.from_numpy(samples.seeds),
    }
    with replacing(path) as temporary:
        save_file(content, temporary, metadata=KIND.metadata(recipe=json.dumps(samples.recipe, sort_keys=True)))


def read_samples(path: Path) -> Samples:
    """Read what `write_samples` wrote. Raises StoreError for anything else, and names the file."""
    header = KIND.read_metadata(path)
    with KIND.reading(path):
        tensors = load_file(path)
        names = tuple(decode_names(tensors["names"]))
        images, labels, seeds = (tensors[key].numpy() for key in ("images", "labels", "seeds"))
        samples = Samples(images, names, labels, seeds, json.loads(header["recipe"]))
    _check(samples, path)
    return samples


def _check(samples: Samples, path: Path) -> None:
    count, shape = len(samples.names), samples.images.shape
    if samples.images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[0] != count or count == 0:
        raise StoreError(
            f"{path}: images are {samples.images.dtype} of shape {shape}; expected uint8 ({count}, H, W, 3), one a name"
        )
    for key in ("labels", "seeds"):
        if getattr(samples, key).shape != (count,):
            raise StoreError(f"{path}: {key} have shape {getattr(samples, key).shape}; expected ({count},)")
    rows = list(zip(samples.seeds.tolist(), samples.names, strict=True))
    if rows != sorted(set(rows)):
        raise StoreError(f"{path}: samples stand twice, or not in order of seed and name")
    of_seed = [list(images) for _, images, _ in samples.by_seed()]
    if any(names != of_seed[0] for names in of_seed):
        raise StoreError(f"{path}: seeds have other samples than each other")
