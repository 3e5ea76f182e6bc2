"""The factor file: singular vectors and third-order sums of every layer of a bundle, readable without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.factors import Factors
from diffalign.alignment.nulls import KernelCubes
from diffalign.io.atomic import write_arrays
from diffalign.io.headers import FileKind, StoreError, check_same_names, packed

KIND = FileKind("a factor file", 1)


def write_factors(path: Path, names: Sequence[str], layers: Iterable[tuple[str, Factors, KernelCubes]]) -> None:
    """Write the factors of all layers of a bundle: {layer}.vectors (N, r), and {layer}.cubes, two numbers."""
    arrays: dict[str, NDArray[Any]] = {**packed(KIND.header(names=list(names)))}
    for alias, factors, cubes in layers:
        arrays[f"{alias}.vectors"] = factors.vectors
        arrays[f"{alias}.cubes"] = np.array([cubes.cubes, cubes.triangles])
    write_arrays(path, arrays)


def read_factors(path: Path, layer: str, names: Sequence[str]) -> tuple[Factors, KernelCubes]:
    """The factors of one layer. Raises StoreError for another file, another layer, or other images."""
    vectors, cubes = f"{layer}.vectors", f"{layer}.cubes"
    header, arrays = KIND.read_archive(path, [vectors, cubes])
    check_same_names(names, header["names"], Path("the neighbour lists"), path)
    if len(arrays) < 2:
        raise StoreError(f"{path}: no layer '{layer}'; delete it and rerun")
    return Factors(arrays[vectors]), KernelCubes(*map(float, arrays[cubes]))
