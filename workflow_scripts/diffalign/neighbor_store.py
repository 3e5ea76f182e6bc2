"""The neighbour file: lists of every layer of a bundle, readable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.neighbors import Neighbors
from diffalign.atomic import replacing
from diffalign.store import StoreError, check_format

NEIGHBORS_FORMAT = 1


@dataclass(frozen=True)
class NeighborFile:
    """The header of a neighbour file; `layer` reads one layer's lists."""

    path: Path
    names: tuple[str, ...]
    layers: tuple[str, ...]
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def layer(self, alias: str) -> Neighbors:
        """The lists of one layer. Raises StoreError where the file has no such layer."""
        if alias not in self.layers:
            raise StoreError(f"{self.path}: no layer '{alias}'; it has {', '.join(self.layers)}")
        with np.load(self.path, allow_pickle=False) as arrays:
            return Neighbors(arrays[f"{alias}.indices"], arrays[f"{alias}.similarities"])


def write_neighbors(
    path: Path,
    names: Sequence[str],
    layers: Mapping[str, Neighbors],
    settings: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> None:
    """Write the neighbour lists of all layers of a bundle with the preparation and the recipe they came from."""
    header = {
        "format": NEIGHBORS_FORMAT,
        "names": list(names),
        "layers": list(layers),
        "settings": dict(settings),
        "recipe": dict(recipe),
    }
    arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
    for alias, neighbors in layers.items():
        arrays[f"{alias}.indices"] = neighbors.indices
        arrays[f"{alias}.similarities"] = neighbors.similarities
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def read_neighbors(path: Path) -> NeighborFile:
    """Read the header of a neighbour file. Raises StoreError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as a neighbour file ({error})") from error
    check_format(header.get("format"), NEIGHBORS_FORMAT, path)
    return NeighborFile(path, tuple(header["names"]), tuple(header["layers"]), header["settings"], header["recipe"])
