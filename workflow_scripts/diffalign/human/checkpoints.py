"""Where a training goes on after it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class CheckpointFile(Protocol):
    """A file that keeps the state of a training."""

    def read(self, device: torch.device) -> Mapping[str, Any] | None:
        """What was written last; None where nothing was."""

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the state, in place of the last one."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training goes on after it was killed. key: identifies the run; one with another key is ignored."""

    file: CheckpointFile
    key: Mapping[str, Any]
    every: int = 5
