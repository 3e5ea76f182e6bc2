"""Random draws of a training, keyed by (seed, purpose, step): the same on every machine, whatever ran before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from diffalign.randomness import keyed

if TYPE_CHECKING:
    from torch import Tensor


def uniform(shape: tuple[int, ...], seed: int, purpose: str, step: int) -> Tensor:
    """Draws from [0, 1), float32, on the CPU."""
    drawn = keyed(seed, purpose, str(step)).random(shape, dtype=np.float32)
    return torch.from_numpy(drawn)


def normal(shape: tuple[int, ...], seed: int, purpose: str, step: int) -> Tensor:
    """Standard normal draws, float32, on the CPU."""
    drawn = keyed(seed, purpose, str(step)).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(drawn)


def number(seed: int, purpose: str, step: int = 0) -> int:
    """A number below 2⁶³ that seeds a generator of torch."""
    return int(keyed(seed, purpose, str(step)).integers(2**63))
