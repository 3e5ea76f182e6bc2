"""Checkpoints of a training that may be killed and go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.atomic import replacing
from diffalign.io.headers import StoreError, reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A file of tensors, numbers and text in plain containers."""

    path: Path

    def read(self, device: torch.device) -> Mapping[str, Any] | None:
        """What was written last; None where nothing was. Raises StoreError for a file that cannot be read."""
        import torch

        if not self.path.exists():
            return None
        with reading(self.path, "a checkpoint of a training, so delete it and rerun"):
            content: Mapping[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the file as a whole."""
        import torch

        with replacing(self.path) as temporary:
            torch.save(dict(content), temporary)


@dataclass(frozen=True)
class TrainingFolder:
    """What a training of a model keeps until it is done: its state, and the weights of the steps that were asked for.

    Snakemake removes the outputs of a job that was killed, so that they cannot hold either.
    """

    path: Path

    @property
    def state(self) -> TrainingCheckpoint:
        """All that the training needs to go on."""
        return TrainingCheckpoint(self.path / "state.pt")

    def weights(self, step: int) -> TrainingCheckpoint:
        """The state dict of a step."""
        return TrainingCheckpoint(self.path / f"weights-{step}.pt")

    def read_weights(self, step: int) -> dict[str, Tensor]:
        """The state dict of a step, on the CPU. Raises StoreError where it is missing."""
        import torch

        file = self.weights(step)
        content = file.read(torch.device("cpu"))
        if content is None:
            raise StoreError(f"{file.path}: missing; delete {self.path} and rerun")
        return dict(content)

    def clear(self) -> None:
        """Remove the folder and all that is in it."""
        if self.path.exists():
            shutil.rmtree(self.path)
