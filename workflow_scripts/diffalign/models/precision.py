"""The arithmetic that a model runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from diffalign.models import Loaded


def at_precision(loaded: Loaded, precision: str, device: torch.device) -> Loaded:
    """A model that runs in ``float32``, ``bfloat16`` or ``float16``, changed in place.

    Below float32, what torch.autocast runs in lower precision does: matrix products, convolutions, attention. Norms,
    softmax and what a layer's tokens are averaged in stay float32. The weights of linear maps and convolutions are
    rounded once, not in every pass, which gives the same numbers in half of the memory.
    """
    if precision == "float32":
        return loaded
    dtype = getattr(torch, precision)
    for module in loaded.module.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.to(dtype)

    def forward(batch: Mapping[str, Any]) -> object:
        with torch.autocast(device.type, dtype):
            return loaded.forward(batch)

    return replace(loaded, forward=forward)
