"""The arithmetic that a model runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from diffalign.models.protocol import Denoiser, Loaded

M = TypeVar("M", Loaded, Denoiser)
# what runs the network of a loaded model
_RUNS: dict[type, tuple[str, ...]] = {Loaded: ("forward", "decode"), Denoiser: ("run",)}


def at_precision(model: M, precision: str, device: torch.device) -> M:
    """A model that runs in ``float32``, ``bfloat16`` or ``float16``, changed in place.

    Below float32, what torch.autocast runs in lower precision does: matrix products, convolutions, attention. Norms,
    softmax and what a layer's tokens are averaged in stay float32. The weights of linear maps and convolutions are
    rounded once, not in every pass, which gives the same numbers in half of the memory.
    """
    if precision == "float32":
        return model
    dtype = getattr(torch, precision)
    for module in model.module.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.to(dtype)

    def cast(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            with torch.autocast(device.type, dtype):
                return function(*given)

        return run

    changed: dict[str, Any] = {name: cast(getattr(model, name)) for name in _RUNS[type(model)]}
    return replace(model, **changed)
