"""Files of `torch.save` read without torch: plain containers and float32 tensors, nothing else.

Importing torch takes longer than most measurements of features do.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.pickled_arrays import Stand

_FLOAT32 = np.dtype("<f4")
# what a file gets in place of a type, which it could change
_FLOATS = "float32"
# bytes that are read at a time, for no second copy of a large tensor
_CHUNK = 2**24


def read_tensors(path: Path) -> Any:
    """What ``torch.load(path, weights_only=True)`` returns, with arrays in the place of tensors.

    Raises zipfile.BadZipFile for what is no archive or damaged, pickle.UnpicklingError for any other content: other
    types than containers, strings, numbers and float32 tensors, and tensors that reach beyond their storage.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise zipfile.BadZipFile("no archive of torch.save")
        with archive.open(pickles[0]) as file:
            return _Tensors(file, archive, pickles[0].removesuffix("data.pkl")).load()


class _Tensors(pickle.Unpickler):
    """Unpickles the structure of an archive; tensors come from its other members."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): Stand(_rebuilt),
            ("torch", "FloatStorage"): _FLOATS,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it holds {module}.{name}; only float32 tensors and plain values are read")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count = pid
        if kind is not _FLOATS:
            raise pickle.UnpicklingError("it holds a tensor of other numbers than float32")
        values = np.empty(count, _FLOAT32)
        unread = memoryview(values.data).cast("B")
        with self._archive.open(f"{self._folder}data/{key}") as file:
            # one byte more would be too many, and the end of a member is where its checksum is compared
            while piece := file.read(min(len(unread), _CHUNK)):
                unread[: len(piece)] = piece
                unread = unread[len(piece) :]
            if unread or file.read(1):
                raise pickle.UnpicklingError(f"tensor {key} has not the {count} numbers that it should")
        return _Storage(values)


class _Storage:
    """The numbers of a member of the archive, which no file can make from anything else."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes the numbers of a tensor")


def _rebuilt(stored: Any, offset: int, shape: Sequence[int], strides: Sequence[int], *_: object) -> NDArray[np.float32]:
    """A tensor of this shape within its storage; offset and strides are in numbers."""
    # a tensor as storage may repeat a number, and has then fewer than its length
    if not isinstance(stored, _Storage):
        raise pickle.UnpicklingError(f"it holds a tensor of {type(stored).__name__}, which is no storage")
    storage = stored.values
    size = storage.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    is_outside = min([offset, *shape, *strides]) < 0 or (0 not in shape and last >= len(storage))
    # a step of 0 repeats a number any number of times
    if is_outside or math.prod(shape) > len(storage):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(shape)} reaches beyond its {len(storage)} numbers")
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * size for step in strides])
