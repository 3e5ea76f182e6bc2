"""Pickles of other projects that hold NumPy arrays in plain containers, read without running anything else.

A file is given none of NumPy's own types: with them it could make an array whose bytes are taken for addresses. What it
names is rebuilt here, from types of numbers and text alone, and every size is checked.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# numbers, truth values, text, bytes and Python objects; no records, and no types that stand for foreign memory
_CODES = re.compile(r"[|<>=]?(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d{1,9}|O[48]?)")
_ORDERS = {"<", ">", "=", "|"}
# product of the other sides of an array that has no values
_MOST_OF_NONE = 10**6


def unpickled(content: bytes) -> Any:
    """What a pickle holds. Raises pickle.UnpicklingError for other types than arrays, numbers, text and containers,
    before anything of them is executed.
    """
    return ArraysOnly(io.BytesIO(content)).load()


class Stand:
    """Stands for a function or class that a file names. Unlike these, a file can change none of its attributes."""

    __slots__ = ("_of",)

    def __init__(self, of: Callable[..., Any]) -> None:
        self._of = of

    def __call__(self, *arguments: Any) -> Any:
        """What it returns."""
        return self._of(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Type:
    """A type of values, as numpy.dtype pickles it: a code, and a state that gives the order of bytes."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _CODES.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, which are no numbers, text or objects")
        self._code = code.lstrip("|<>=")
        self._order: Any = "|"

    def __setstate__(self, state: Any) -> None:
        # version, order of bytes, subarray, names, fields, and what follows from the code
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _ORDERS or any(state[2:5]):
            raise pickle.UnpicklingError("it holds an array of records, or of a type that no NumPy writes")
        self._order = state[1]

    def real(self) -> np.dtype[Any]:
        return np.dtype(self._code).newbyteorder(self._order)


class _Array(np.ndarray[Any, Any]):
    """An array that is filled once, from a state whose size fits."""

    def __new__(cls, *_: Any) -> Self:
        """Empty, whatever a file asks for: never memory without content."""
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or self.shape != (0,) or self.base is not None:
            raise pickle.UnpicklingError("it holds an array in a form that no NumPy writes")
        _, shape, kind, is_fortran, content = state
        real = _real(kind)
        if real.hasobject:
            fits = isinstance(content, list) and len(content) == _count(shape)
        else:
            content = _bytes(content)
            fits = len(content) == _count(shape) * real.itemsize and (real.itemsize > 0 or _count(shape) == 0)
        if not fits:
            raise pickle.UnpicklingError(f"it holds an array of another size than its shape {shape}")
        checked: Any = (1, shape, real, bool(is_fortran), content)
        super().__setstate__(checked)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # as a plain array
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _real(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError("it holds an array without a type")
    return kind.real()


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"it holds an array of shape {shape!r}")
    # of no values, no other side is bounded by the size of a file
    if 0 in shape and math.prod(side for side in shape if side) > _MOST_OF_NONE:
        raise pickle.UnpicklingError(f"it holds an array of shape {shape}, which has no values")
    return math.prod(shape)


def _bytes(content: Any) -> bytes:
    """Bytes, which are text in old protocols."""
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"it holds {type(content).__name__} in the place of the bytes of an array")
    return bytes(content)


def _empty(*_: Any) -> _Array:
    """Numpy's _reconstruct: an array before its state."""
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    """Numpy's _frombuffer. axes: of the order K, the axes of the array among those of the buffer."""
    flat = _flat(content, _real(kind), _count(shape))
    if order in ("C", "F"):
        return flat.reshape(shape, order=order).view(_Array)
    if order != "K" or not isinstance(axes, tuple) or sorted(axes) != list(range(len(shape))):
        raise pickle.UnpicklingError(f"it holds an array in the order {order!r} of the axes {axes!r}")
    return flat.reshape(shape).transpose(axes).view(_Array)


def _scalar(kind: Any, content: Any = b"") -> Any:
    """Numpy's scalar."""
    real = _real(kind)
    if real.hasobject:
        return content
    if not real.itemsize and not _bytes(content):
        # the empty text
        return real.type()
    return _flat(content, real, 1)[0]


def _flat(content: Any, real: np.dtype[Any], count: int) -> NDArray[Any]:
    values = _bytes(content)
    if real.hasobject or len(values) != count * real.itemsize or (count and not real.itemsize):
        raise pickle.UnpicklingError(f"it holds {count} values of {real} in {len(values)} bytes")
    return np.frombuffer(values, real) if values else np.empty(0, real)


def _no_bytes(*arguments: Any) -> bytes:
    """Of protocol 2, bytes of which there are none."""
    if arguments:
        raise pickle.UnpicklingError("it makes bytes of a size")
    return b""


def _encoded(text: Any, encoding: Any) -> bytes:
    """Of protocol 2, bytes as text in latin1. Other codecs, one after another, would swell a small file."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes {type(text).__name__} as {encoding!r}, which no bytes are")
    return text.encode("latin-1")


def _no_array(*_: Any) -> Any:
    raise pickle.UnpicklingError("it makes an array without content")


# older NumPy wrote numpy.core
_STANDS: dict[tuple[str, str], Callable[..., Any]] = {
    (f"{core}.{module}", name): of
    for core in ("numpy.core", "numpy._core")
    for module, name, of in (
        ("multiarray", "_reconstruct", _empty),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
} | {
    ("numpy", "ndarray"): _no_array,
    ("numpy", "dtype"): _Type,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("_codecs", "encode"): _encoded,
}
# types of Python that no file can change
_PLAIN = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("builtins", "dict"),
}


def stands() -> list[Any]:
    """What stands for the names of NumPy in a file of torch: pairs for ``torch.serialization.safe_globals``."""
    named: dict[tuple[str, str], Any] = {**_STANDS, ("numpy", "ndarray"): _Array}
    return [(of, f"{module}.{name}") for (module, name), of in named.items()]


class ArraysOnly(pickle.Unpickler):
    """Builds arrays and plain containers, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function that a file names. Raises UnpicklingError for one that is not allowed."""
        if (module, name) in _STANDS:
            return Stand(_STANDS[module, name])
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array; nothing of it was executed")
        return super().find_class(module, name)
