"""Writing safetensors files whose bytes depend on their content alone, with the permissions of other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffalign.io.atomic import make_readable


def save_file(tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of torch, or arrays of NumPy, and metadata.

    The library orders metadata at random and makes files that only their owner can read.
    """
    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        from safetensors.numpy import save_file as save
    else:
        from safetensors.torch import save_file as save
    save(dict(tensors), path, None if metadata is None else dict(metadata))
    if metadata is not None:
        _order(path)
    make_readable(path)


def _order(path: Path) -> None:
    """Write the metadata of a header in the order of its keys, which leaves its length as it is."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: its header is longer when it is ordered, {len(text)} in place of {length} bytes")
        file.seek(8)
        file.write(text.ljust(length))
