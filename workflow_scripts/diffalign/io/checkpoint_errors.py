"""Checkpoints that do not fit their model: the error, and checks of their files and keys."""

from __future__ import annotations

from pathlib import Path

from diffalign.io.headers import StoreError
from diffalign.offenders import first_five


class CheckpointError(StoreError):
    """A checkpoint that does not fit its model; the message names the file and the first offending keys."""


def check_there(path: Path) -> None:
    """Raise CheckpointError where a folder of diffusers lacks a file of its configuration."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; not a folder of diffusers")


def check_keys(missing: set[str], unexpected: set[str], where: str) -> None:
    """Raise CheckpointError that names the first five missing and unexpected keys, if there are any."""
    parts = [
        f"{len(keys)} {what} ({first_five(sorted(keys))})"
        for what, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if parts:
        raise CheckpointError(f"{where}: the checkpoint does not fit the model: keys {' and '.join(parts)}")
