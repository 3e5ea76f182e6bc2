"""Features that were made elsewhere: files in any layout of `diffalign.io.layouts`, in the place of an extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffalign.io.headers import check_same_names
from diffalign.io.layouts.feature_tables import Table, read_layers
from diffalign.io.layouts.row_names import ROWS, names_beside
from diffalign.models.registry import Family
from diffalign.specs import FeatureFiles, Model, filled


@dataclass(frozen=True)
class Source:
    """Where one layer lies. part: its index or key in a file of several layers, None for a file of its own. names: a
    names file, ``rows``, or None.
    """

    path: Path
    part: str | None
    names: str | None


@dataclass(frozen=True)
class Precomputed:
    """All layers of a model: alias -> (N, D) float32, names in order, and alias -> the table it was read from."""

    values: Mapping[str, NDArray[np.float32]]
    names: tuple[str, ...]
    tables: Mapping[str, Table]


def sources(model: Model, dataset: str, condition: str, folder: Path | None = None) -> dict[str, Source]:
    """Alias -> where that layer lies; folder: of the downloads of a model whose features have a url. Nothing is looked
    at.

    Raises ValueError where neither says where they are.
    """
    files = _files(model)
    path = files.path if folder is None or files.file is None else f"{folder}/{files.file}"
    if path is None:
        raise ValueError(f"{model.name}: {files.url} has not been downloaded")
    return {
        alias: Source(
            Path(filled(path, dataset, condition, module)).expanduser(),
            None if "{layer}" in path else module,
            None if files.names is None else filled(files.names, dataset, condition, module),
        )
        for alias, module in model.layers.items()
    }


def may_read(source: Source) -> list[Path]:
    """Every path whose change may change what is read from a source."""
    if source.names is not None:
        return [source.path] if source.names == ROWS else [source.path, Path(source.names).expanduser()]
    beside = names_beside(source.path)
    return [source.path] if beside is None else [source.path, beside]


def read(model: Model, where: Mapping[str, Source]) -> Precomputed:
    """Read all layers from their sources, each file once.

    Raises FileNotFoundError or StoreError that names the file, and the first five names where layers are of other
    images.
    """
    values: dict[str, NDArray[np.float32]] = {}
    tables: dict[str, Table] = {}
    for path, names in dict.fromkeys((source.path, source.names) for source in where.values()):
        mine = [alias for alias, source in where.items() if (source.path, source.names) == (path, names)]
        table = read_layers(path, [where[alias].part for alias in mine], _files(model).layout, names)
        values |= dict(zip(mine, table.values, strict=True))
        tables |= dict.fromkeys(mine, table)
    first = next(iter(where))
    for alias, table in tables.items():
        check_same_names(tables[first].names, table.names, where[first].path, where[alias].path)
    return Precomputed({alias: values[alias] for alias in where}, tables[first].names, tables)


def _files(model: Model) -> FeatureFiles:
    assert model.features is not None  # the config is checked
    return model.features


FAMILY = Family(reads="features")
