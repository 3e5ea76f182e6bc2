"""The factor file: singular vectors and third-order sums of every layer of a bundle, readable without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.factors import Factors
from diffalign.alignment.nulls import KernelCubes
from diffalign.io.atomic import write_arrays
from diffalign.io.feature_files import StoreError, check_format, check_same_names

FACTORS_FORMAT = 1


def write_factors(path: Path, names: Sequence[str], layers: Iterable[tuple[str, Factors, KernelCubes]]) -> None:
    """Write the factors of all layers of a bundle: {layer}.vectors (N, r), and {layer}.cubes, two numbers."""
    header = json.dumps({"format": FACTORS_FORMAT, "names": list(names)}).encode()
    arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(header, np.uint8)}
    for alias, factors, cubes in layers:
        arrays[f"{alias}.vectors"] = factors.vectors
        arrays[f"{alias}.cubes"] = np.array([cubes.cubes, cubes.triangles])
    write_arrays(path, arrays)


def read_factors(path: Path, layer: str, names: Sequence[str]) -> tuple[Factors, KernelCubes]:
    """The factors of one layer. Raises StoreError for another file, another layer, or other images."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            found = {part: arrays[f"{layer}.{part}"] for part in ("vectors", "cubes") if f"{layer}.{part}" in arrays}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as a factor file ({error})") from error
    check_format(header.get("format"), FACTORS_FORMAT, path)
    check_same_names(names, header["names"], Path("the neighbour lists"), path)
    if len(found) < 2:
        raise StoreError(f"{path}: no layer '{layer}'; delete it and rerun")
    return Factors(found["vectors"]), KernelCubes(*map(float, found["cubes"]))
