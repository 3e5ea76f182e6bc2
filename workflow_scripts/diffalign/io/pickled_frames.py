"""Tables of other projects that pandas pickled, read without pandas: nothing of it, or of pyarrow, is executed.

Every class and function that such a file names is rebuilt here, as far as tables of numbers and text need it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.headers import reading
from diffalign.io.pickled_arrays import ArraysOnly, Stand

# names of pyarrow's types of text -> type of their offsets
_OFFSETS: Mapping[Any, np.dtype[Any]] = {"string": np.dtype("<i4"), "large_string": np.dtype("<i8")}


def read_frame(path: Path) -> dict[str, list[Any]]:
    """Column -> values of a data frame that ``DataFrame.to_pickle`` of pandas 1.2, 1.5, 2.3 or 3.1 wrote, uncompressed.

    Columns hold numbers, truth values, text or objects of plain Python. Raises FileNotFoundError, and StoreError that
    names the file for anything else, before anything of it is executed.
    """
    with reading(path, "a data frame of pandas"):
        frame = _FramesOnly(io.BytesIO(path.read_bytes())).load()
        if not isinstance(frame, _Frame):
            raise pickle.UnpicklingError(f"it holds {type(frame).__name__}")
        return frame.columns()


def _expect(met: bool, what: str) -> None:
    if not met:
        raise pickle.UnpicklingError(f"its data frame has {what}")


class _Part:
    """An instance of a class that a file names, with the state that it gives."""

    state: Mapping[Any, Any]

    def __setstate__(self, state: Any) -> None:
        _expect(isinstance(state, Mapping), f"a state of type {type(state).__name__}")
        self.state = state


class _Frame(_Part):
    """A data frame: blocks, each with several columns of one type."""

    def columns(self) -> dict[str, list[Any]]:
        blocks = self.state.get("_mgr", self.state.get("_data"))
        if not isinstance(blocks, _Blocks):
            raise pickle.UnpicklingError("its data frame has no blocks")
        return blocks.columns()


class _Blocks(_Part):
    """What holds the blocks, and the labels of columns and rows. Older pandas gives it as a state."""

    def __init__(self, blocks: Sequence[_Block], axes: Sequence[Any]) -> None:
        self.blocks, self.axes = blocks, axes

    def __setstate__(self, state: Any) -> None:
        content = state[3]["0.14.1"]
        self.axes = content["axes"]
        self.blocks = [_Block(each["values"], each["mgr_locs"], 2) for each in content["blocks"]]

    def columns(self) -> dict[str, list[Any]]:
        """Column -> values. Raises UnpicklingError where labels and blocks contradict each other."""
        labels, rows = (_values(axis) for axis in self.axes)
        _expect(all(isinstance(label, str) for label in labels), "columns that are not named by text")
        _expect(len(set(labels)) == len(labels), "two columns of one name")
        found: dict[int, list[Any]] = {}
        for block in self.blocks:
            places, values = block.places(len(labels)), block.rows()
            _expect(len(places) == len(values), "a block of another number of columns than it says")
            found |= dict(zip(places, values, strict=True))
        _expect(sorted(found) == list(range(len(labels))), "columns without values")
        _expect(all(len(values) == len(rows) for values in found.values()), "columns of different lengths")
        return {str(label): found[place] for place, label in enumerate(labels)}


class _Block:
    """Columns of one type. values: (columns, rows), or text of one column. placement: their places in the table."""

    def __init__(self, values: Any, placement: Any, dimensions: int) -> None:
        _expect(dimensions == 2, f"blocks of {dimensions} dimensions")
        self._values, self._placement = values, placement

    def places(self, count: int) -> list[int]:
        placed = self._placement
        return list(range(count))[placed] if isinstance(placed, slice) else [int(each) for each in placed]

    def rows(self) -> list[list[Any]]:
        if isinstance(self._values, np.ndarray):
            _expect(self._values.ndim == 2, f"values of shape {self._values.shape}")
            return [list(row) for row in self._values.tolist()]
        return [_values(self._values)]


class _Index:
    """Labels. content: array or text, or begin, end and step of a range."""

    def __init__(self, _: Any, content: Mapping[str, Any]) -> None:
        self._content = content

    def values(self) -> Any:
        if "data" in self._content:
            return _values(self._content["data"])
        return range(*(int(self._content[key]) for key in ("start", "stop", "step")))


class _ArrowText(_Part):
    """A column of text that holds an array of Arrow."""

    def values(self) -> Any:
        return _values(self.state.get("_pa_array"))


class _NumpyText:
    """A column of text that holds an array of NumPy. The function that a file calls for it gets no content yet."""

    def __init__(self, *_: Any) -> None:
        self._content: Any = None

    def __setstate__(self, state: Any) -> None:
        # type, array
        self._content = state[1]

    def values(self) -> Any:
        return _values(self._content)


class _Arrow:
    """An array of text of Arrow: where each of them begins among the bytes of all, and which are missing."""

    def __init__(self, parts: Sequence[Any]) -> None:
        kind, self._length, _, self._offset, self._buffers, children, dictionary = parts
        self._offsets = _OFFSETS[kind]
        _expect(not children and dictionary is None, "nested text")

    def values(self) -> list[str | None]:
        missing, offsets, content = self._buffers
        count = self._offset + self._length
        bounds = np.frombuffer(offsets, self._offsets, count + 1)
        ascending = bool((np.diff(bounds) >= 0).all())
        _expect(ascending and bounds[0] >= 0 and bounds[-1] <= len(content), "torn text")
        there = _bits(missing, count)
        return [
            bytes(content[bounds[i] : bounds[i + 1]]).decode() if there[i] else None for i in range(self._offset, count)
        ]


def _bits(packed: Any, count: int) -> NDArray[np.bool_]:
    if packed is None:
        return np.ones(count, np.bool_)
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little").astype(np.bool_)


def _values(content: Any) -> Any:
    """Plain values of labels, of text, or of an array of one dimension."""
    if isinstance(content, np.ndarray):
        _expect(content.ndim == 1, f"labels or text of shape {content.shape}")
        return content.tolist()
    _expect(isinstance(content, _Index | _ArrowText | _NumpyText | _Arrow), f"a column of {type(content).__name__}")
    return content.values()


def _ignored(*arguments: Any) -> None:
    """What a file says of a type, which the values say, too."""


def _alias(name: Any) -> str:
    """A type of Arrow, by its name: a file gets no type of NumPy."""
    _expect(name in _OFFSETS, f"values of the type {name!r}")
    return str(name)


def _buffer(content: Any, encoding: str = "latin-1") -> bytes:
    """Bytes, which are text in old protocols."""
    if isinstance(content, str) and encoding == "latin-1":
        return content.encode(encoding)
    _expect(isinstance(content, bytes | bytearray), "a buffer that is no bytes")
    return bytes(content)


_CLASSES: dict[tuple[str, str], type] = {
    **dict.fromkeys((("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame")), _Frame),
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
    ("pandas.arrays", "ArrowStringArray"): _ArrowText,
}
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _Index,
    **dict.fromkeys(
        (
            ("pandas", "Index"),
            ("pandas", "RangeIndex"),
            ("pandas", "StringDtype"),
            ("pandas.arrays", "StringArray"),
            ("pandas.core.indexes.base", "Index"),
            ("pandas.core.indexes.range", "RangeIndex"),
            ("pandas.core.indexes.numeric", "Int64Index"),
        ),
        _ignored,
    ),
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _NumpyText,
    ("builtins", "slice"): slice,
    ("builtins", "bytearray"): _buffer,
    ("pyarrow.lib", "_restore_array"): _Arrow,
    ("pyarrow.lib", "type_for_alias"): _alias,
    ("pyarrow.lib", "py_buffer"): _buffer,
}


class _FramesOnly(ArraysOnly):
    """Builds what a data frame of numbers and text needs, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        # as protocol 2 calls it
        module = "builtins" if module == "__builtin__" else module
        if (module, name) in _CLASSES:
            return _CLASSES[module, name]
        if (module, name) in _FUNCTIONS:
            return Stand(_FUNCTIONS[module, name])
        return super().find_class(module, name)
