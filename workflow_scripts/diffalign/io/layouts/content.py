"""What a feature file of any layout holds, before layers are chosen and rows are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.pickled_arrays import stands
from diffalign.offenders import first_five, flagged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Content:
    """What a file holds: parts, each an array or tensor of shape (N, D), by key or index; and names, if it has any.

    layout: one of `feature_tables.LAYOUTS`. source: the file that was read.
    """

    layout: str
    parts: Mapping[str, Any]
    names: Sequence[object] | None
    source: Path


@dataclass(frozen=True)
class Keys:
    """What the features and the names are called in a file; None for the words of its layout."""

    features: str | None = None
    names: str | None = None

    @property
    def given(self) -> bool:
        """Whether a user says any of them."""
        return self.features is not None or self.names is not None


NO_KEYS = Keys()


def read_torch(path: Path) -> Any:
    """What a file of torch holds, on the CPU: tensors, arrays of NumPy, numbers, text and plain containers.

    Nothing else is unpickled. Raises what torch raises.
    """
    import torch

    # not NumPy's own, with which a file could have its bytes taken for addresses
    with torch.serialization.safe_globals(stands()):
        return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class TensorFile:
    """A layout of ``torch.save``: a dictionary with these keys, the features and, if it has any, the names.

    header: where the dictionary has a version, the kind of file that knows it.
    """

    keys: frozenset[str]
    features: str
    names: str | None = None
    header: FileKind | None = None

    def read(self, content: Mapping[str, Any], layout: str, path: Path) -> Content:
        """The content of a dictionary that has all of the keys. Raises StoreError for names that are no list, and
        features that are no tensors.
        """
        if self.header is not None:
            self.header.check_version(content["format"], path)
        names = None if self.names is None else listed(content[self.names], self.names, path)
        features = content[self.features]
        if isinstance(features, list | tuple):
            parts = {str(i): part for i, part in enumerate(features)}
        else:
            parts = stacked(features)
        strange = [key or "features" for key, part in parts.items() if not is_numbers(part)]
        if strange or not parts:
            raise StoreError(f"{path}: features are no tensors: {first_five(strange) or 'an empty list'}")
        return Content(layout, parts, names, path)


def listed(names: Any, key: str, path: Path) -> list[object]:
    """Names as a list. Raises StoreError for what is neither a list nor an array of text."""
    if isinstance(names, np.ndarray) and names.ndim == 1 and names.dtype.kind in "US":
        decoded = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
        return list(decoded.tolist())
    if not isinstance(names, list | tuple):
        raise StoreError(f"{path}: '{key}' is a {type(names).__name__}; expected a list of text")
    return list(names)


def is_numbers(part: Any) -> bool:
    """Whether it is a tensor, or an array of NumPy."""
    import torch

    return isinstance(part, torch.Tensor | np.ndarray)


def stacked(array: Any) -> dict[str, Any]:
    """The layers of (N, L, D) by index; anything else is one part, under the empty key."""
    if getattr(array, "ndim", None) == 3:
        return {str(i): array[:, i] for i in range(array.shape[1])}
    return {"": array}


def single(part: Any, names: Sequence[str], path: Path) -> NDArray[np.float32]:
    """(N, D) float32. StoreError for other numbers than floating-point ones, NaN, Inf, and what float32 cannot hold."""
    array = np.asarray(part) if isinstance(part, np.ndarray) else _from_tensor(part, path)
    if array.dtype.kind != "f":
        raise StoreError(f"{path}: features are {array.dtype}; expected floating-point numbers")
    _refuse(~np.isfinite(array).all(axis=1), names, path, "are NaN or infinite")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    _refuse(~np.isfinite(narrow).all(axis=1), names, path, f"become infinite as float32 (they are {array.dtype})")
    return narrow


def _from_tensor(tensor: Tensor, path: Path) -> NDArray[Any]:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise StoreError(f"{path}: features are a sparse or quantised tensor; expected a plain one")
    # numpy has no bfloat16
    wide = tensor.detach().float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor.detach()
    array: NDArray[Any] = wide.numpy()
    return array


def _refuse(bad: Any, names: Sequence[str], path: Path, what: str) -> None:
    offenders = flagged(names, bad)
    if offenders:
        raise StoreError(f"{path}: {len(offenders)} of {len(names)} rows {what}, first: {first_five(offenders)}")


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary with ``torch.save``, as a whole."""
    import torch

    # through a file object: torch would write the name of a path into the archive, and that name is temporary
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)
