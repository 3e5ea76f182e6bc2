"""Checkpoints of a training that was killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class CheckpointFile(Protocol):
    """A file with the state of a training."""

    def read(self, device: torch.device) -> Mapping[str, Any] | None:
        """The last state; None where there is none."""

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace the state."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a training.

    key: identifies the run; a checkpoint with another key is ignored. every: number of epochs between checkpoints.
    """

    file: CheckpointFile
    key: Mapping[str, Any]
    every: int = 5
