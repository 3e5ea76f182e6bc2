"""The layers that an analysis beside people is of: all of a bundle, or one combination of several layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io import human_files
from diffalign.io.feature_files import Features, read_bundle
from diffalign.io.human_files import People
from diffalign.io.transform_files import read_transform
from diffalign.provenance import file_sha256


@dataclass(frozen=True)
class Combined:
    """A layer of concatenated features of several layers, optionally transformed.

    of: (manifest, layer) of each. transform: file of the transform, or None. keys: path of the transform in a .pkl.
    """

    name: str
    of: tuple[tuple[Path, str], ...]
    transform: Path | None
    keys: tuple[str, ...]

    def read(self, people: People) -> tuple[str, Features]:
        """Name and features. Raises StoreError for different objects, TransformError for another width."""
        parts = [human_files.layer_of(read_bundle(path), layer, people) for path, layer in self.of]
        values: NDArray[np.floating] = np.concatenate([part.values for part in parts], axis=1)
        recipe: dict[str, Any] = {"bundle": self.name, "of": [part.recipe for part in parts], "transform": None}
        if self.transform is not None:
            values = read_transform(self.transform, self.keys).apply(values)
            recipe["transform"] = {"path": str(self.transform), "sha256": file_sha256(self.transform)}
        return self.name, Features(np.asarray(values, np.float32), people.names, recipe)


def layers_asked(
    layers: str | Sequence[str], people: People, name: str | None = None, asked: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Features]]:
    """Every layer with its features, rows in the order of the objects.

    layers: the manifest of a bundle or, of a combination, those of its parts. name: of the combination. asked: its
    ``layers``, ``transform`` and ``keys``; None for a bundle. Raises as `Combined.read` and `human_files.layers_of`.
    """
    if asked is None:
        assert isinstance(layers, str)
        yield from human_files.layers_of(Path(layers), people)
        return
    of = tuple(zip(map(Path, layers), asked["layers"], strict=True))
    transform = None if asked["transform"] is None else Path(asked["transform"])
    yield Combined(str(name), of, transform, tuple(asked["keys"])).read(people)
