"""What every loss is to the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffalign.training.batches import Batch


@dataclass(frozen=True)
class Objective:
    """A loss of a batch at a step.

    parts: names of what `measure` gives beside ``loss``, in the order of the table. measure: ``loss``, a scalar with
    gradients, and its parts, scalars too. beside: a module that is trained with the network and is no part of its
    checkpoints, or None.
    """

    parts: tuple[str, ...]
    measure: Callable[[Batch, int], Mapping[str, Tensor]]
    beside: nn.Module | None = None
