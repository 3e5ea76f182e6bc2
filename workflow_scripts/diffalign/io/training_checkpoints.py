"""Checkpoints of a training that may be killed and go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.atomic import replacing

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A file of tensors, numbers and text in plain containers."""

    path: Path

    def read(self, device: torch.device) -> Mapping[str, Any] | None:
        """What was written last; None where nothing was."""
        import torch

        if not self.path.exists():
            return None
        content: Mapping[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the file as a whole."""
        import torch

        with replacing(self.path) as temporary:
            torch.save(dict(content), temporary)
