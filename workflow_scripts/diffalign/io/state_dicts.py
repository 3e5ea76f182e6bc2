"""Checkpoints as researchers publish them: one file, its state dict nested or not, read without running its code."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError, check_keys
from diffalign.offenders import first_five
from diffalign.reasons import reason

# where a state dict may lie, the one that is preferred first
NESTINGS = ("ema", "G_ema", "model", "state_dict")
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_PREFIX = "module."


@dataclass(frozen=True)
class StateDict:
    """A state dict and where it lay: ``ema``, ``ema.state_dict`` … or '' for the top of the file."""

    path: Path
    tensors: Mapping[str, Tensor]
    nesting: str

    def widths(self, pattern: str) -> list[int]:
        """The first dimension of ``pattern`` with ``{}`` = 0, 1, … for as long as there is such a tensor."""
        widths: list[int] = []
        while (tensor := self.tensors.get(pattern.format(len(widths)))) is not None:
            widths.append(len(tensor))
        return widths

    def without(self, prefixes: Sequence[str]) -> StateDict:
        """Without the tensors whose names begin with one of the prefixes."""
        kept = {key: tensor for key, tensor in self.tensors.items() if not key.startswith(tuple(prefixes))}
        return StateDict(self.path, kept, self.nesting)

    def load_into(self, net: nn.Module) -> None:
        """Copy every tensor into `net`. Raises CheckpointError that names the first five keys or shapes that differ."""
        expected = net.state_dict()
        given = set(self.tensors)
        check_keys(set(expected) - given, given - set(expected), str(self.path))
        shapes = [
            f"{key} is {tuple(self.tensors[key].shape)}, not {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if self.tensors[key].shape != tensor.shape
        ]
        if shapes:
            raise CheckpointError(
                f"{self.path}: the checkpoint does not fit the model: {len(shapes)} shapes ({first_five(shapes)})"
            )
        net.load_state_dict(dict(self.tensors))


def checkpoint_file(folder: Path, beside: Sequence[str] = ()) -> Path:
    """The one file of weights in a checkpoint's folder. Raises CheckpointError where there is none or several.

    beside: names of files that are no weights.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in SUFFIXES)
    weights = [path for path in files if path.name not in beside]
    if len(weights) != 1:
        what = first_five([path.relative_to(folder).as_posix() for path in weights]) or "none"
        raise CheckpointError(
            f"{folder}: expected one file {', '.join(SUFFIXES)}, found {what}; "
            "of several, name one in 'files' of the model's weights"
        )
    return weights[0]


def read_state_dict(path: Path) -> StateDict:
    """Read a file; under ``ema``, ``G_ema``, ``model`` or ``state_dict``, in this order, and without ``module.``.

    Tensors are on the CPU. Nothing is unpickled but tensors, plain containers and argparse.Namespace, which training
    scripts leave beside the weights. Raises CheckpointError for a broken file, another type, or no state dict.
    """
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    nesting: list[str] = []
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = next((word for word in NESTINGS if isinstance(content.get(word), Mapping)), None)
        if inner is None:
            break
        nesting.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        where = f" under '{'.'.join(nesting)}'" if nesting else ""
        there = first_five([str(key) for key in content]) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path}: no state dict{where}, nor nested under {', '.join(NESTINGS)}; there is {there or 'nothing'}"
        )
    tensors = {key.removeprefix(_PREFIX): tensor for key, tensor in content.items()}
    if len(tensors) != len(content):
        raise CheckpointError(f"{path}: some keys stand both with and without '{_PREFIX}'")
    return StateDict(path, tensors, ".".join(nesting))


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {reason(error)}") from error


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # mapped where the format allows it: beside the weights lies an optimizer of twice their size
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise
    except Exception as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path}: holds a {refused[1]}, which is no tensor, and reading it may run code of its author; "
                "where you trust it, save its state dict alone"
            ) from error
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {reason(error)}") from error
