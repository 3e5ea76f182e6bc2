"""Models whose checkpoints hold nothing but weights: the architecture is what their entry gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_type_hints

from torch import nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.layouts.lightningdit import STATISTICS
from diffalign.io.state_dicts import StateDict, checkpoint_file, read_state_dict
from diffalign.names import nearest
from diffalign.specs import Model

A = TypeVar("A")

_EXPECTED = {
    bool: "true or false",
    int: "a positive whole number",
    float: "a positive number",
    tuple[int, ...]: "a list of whole numbers",
}


def read_fields(kind: type[A], entry: Mapping[str, Any], place: str, also: Sequence[str] = ()) -> A:
    """An instance of the dataclass `kind` from the keys of an entry.

    kind: its fields are bool, int, float or tuple[int, ...]; those with a default may be left out. also: keys that are
    known and left out. Raises CheckpointError that names the place and every key that is unknown, missing, or of
    another type.
    """
    types = get_type_hints(kind)
    declared = fields(kind)  # type: ignore[arg-type]
    known = [field.name for field in declared]
    needed = [field.name for field in declared if field.default is MISSING]
    mistakes = [f"unknown key '{key}'{nearest(key, known)}" for key in entry if key not in (*known, *also)]
    mistakes += [f"missing key '{key}'" for key in needed if key not in entry]
    mistakes += [
        f"{key}: expected {_EXPECTED[types[key]]}, got {entry[key]!r}"
        for key in known
        if key in entry and not _fits(entry[key], types[key])
    ]
    if mistakes:
        raise CheckpointError(f"{place}: {'; '.join(mistakes)}")
    values = {key: entry[key] for key in known if key in entry}
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _fits(value: Any, expected: Any) -> bool:
    if expected == tuple[int, ...]:
        return isinstance(value, list | tuple) and bool(value) and all(type(item) is int for item in value)
    # YAML has 2 for 2.0
    kinds = (int, float) if expected is float else (expected,)
    return type(value) in kinds and (expected is bool or value > 0)


def read_weights(model: Model, folder: Path) -> StateDict:
    """The state dict of the one checkpoint in `folder`, beside which statistics of latents may lie.

    Raises CheckpointError.
    """
    given = model.weights.given_statistics
    own = () if given is None else (PurePosixPath(given).name,)
    return read_state_dict(checkpoint_file(folder, beside=(*STATISTICS, *own)))


def fill(model: Model, net: nn.Module, state: StateDict) -> None:
    """Load every tensor into `net`. Raises CheckpointError that points to the architecture where they do not fit."""
    try:
        state.load_into(net)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; models.{model.name}.architecture describes another model") from error
