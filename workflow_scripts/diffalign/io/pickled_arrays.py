"""Pickles of other projects that hold NumPy arrays in plain containers, read without running anything else."""

from __future__ import annotations

import io
import pickle
from typing import Any

_ALLOWED = frozenset(
    (module, name)
    # older NumPy wrote numpy.core
    for core in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("builtins", "dict"),
        # of protocol 2, bytes are text in this encoding
        ("_codecs", "encode"),
    )
)


def unpickled(content: bytes) -> Any:
    """What a pickle holds. Raises pickle.UnpicklingError for other types than arrays, numbers, text and containers,
    before anything of them is executed.
    """
    return ArraysOnly(io.BytesIO(content)).load()


class ArraysOnly(pickle.Unpickler):
    """Builds what `_ALLOWED` names and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function that a file names. Raises UnpicklingError for one that is not allowed."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array; nothing of it was executed")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
