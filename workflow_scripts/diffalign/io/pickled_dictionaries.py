"""Dictionaries by image that the published code of diffusion models reads: ``caption_dict.npy``, ``optim_sd1.npy`` …"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffalign.io.headers import StoreError
from diffalign.io.pickled_arrays import unpickled
from diffalign.reasons import reason

_MAGIC = b"\x93NUMPY"
_ENDINGS = (".jpg", ".jpeg", ".png")


def read_pickled(path: Path) -> Any:
    """What a pickle holds, or a ``.npy`` of one object, as ``numpy.save`` writes a dictionary.

    Nothing is unpickled but arrays, numbers, text and plain containers. Raises StoreError that names the file for
    anything else.
    """
    content = path.read_bytes()
    try:
        if not content.startswith(_MAGIC):
            return unpickled(content)
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if shape != () or dtype != np.dtype(object):
            raise StoreError(f"holds {dtype} of shape {shape}; expected one object")
        return unpickled(file.read()).item()
    except Exception as error:  # pickle and NumPy have many ways to refuse a file
        raise StoreError(f"{path}: cannot be read: {reason(error)}") from error


def read_by_image(path: Path) -> dict[str, Any]:
    """Image name -> value of a dictionary whose keys are names of image files, such as ``aardvark.jpg``.

    Raises StoreError that names the file for anything else, and for two keys of one name.
    """
    content = read_pickled(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise StoreError(f"{path}: holds {type(content).__name__}; expected a dictionary of names of images")
    named = {_name(str(key)): value for key, value in content.items()}
    if len(named) < len(content):
        raise StoreError(f"{path}: {len(content)} keys are the names of {len(named)} images; expected one an image")
    return named


def _name(key: str) -> str:
    ending = next((each for each in _ENDINGS if key.lower().endswith(each)), "")
    return key[: len(key) - len(ending)]
