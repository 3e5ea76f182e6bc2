"""What a feature file of any layout holds, before layers are chosen and rows are named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
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
        import torch

        if self.header is not None:
            self.header.check_version(content["format"], path)
        names = None if self.names is None else content[self.names]
        if names is not None and not isinstance(names, list | tuple):
            raise StoreError(f"{path}: 'names' is a {type(names).__name__}; expected a list of text")
        features = content[self.features]
        if isinstance(features, list | tuple):
            parts = {str(i): part for i, part in enumerate(features)}
        else:
            parts = stacked(features)
        strange = [key or "features" for key, part in parts.items() if not isinstance(part, torch.Tensor)]
        if strange or not parts:
            raise StoreError(f"{path}: features are no tensors: {first_five(strange) or 'an empty list'}")
        return Content(layout, parts, names, path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise StoreError that names the file for every error of a library that cannot read it."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # torch, numpy, zipfile and safetensors have an error of their own for each way to be broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "allow_pickle" in str(error):
            # both libraries raise the same error for a damaged file and for one that would have to be unpickled
            reason = "it is damaged, or holds pickled objects and not only arrays and text; nothing of it was executed"
        raise StoreError(f"{path}: cannot be read as features ({reason})") from error


def stacked(array: Any) -> dict[str, Any]:
    """The layers of (N, L, D) by index; anything else is one part, under the empty key."""
    if getattr(array, "ndim", None) == 3:
        return {str(i): array[:, i] for i in range(array.shape[1])}
    return {"": array}


def single(part: Any, names: Sequence[str], path: Path) -> NDArray[np.float32]:
    """(N, D) float32. StoreError for other numbers than floating-point ones, NaN, Inf, and what float32 cannot hold."""
    array = part if isinstance(part, np.ndarray) else _from_tensor(part, path)
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
