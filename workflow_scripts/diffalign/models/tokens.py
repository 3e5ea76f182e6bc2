"""What a layer returned, as tokens (B, T, D): the ones that are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def spatial_tokens(output: Tensor) -> Tensor:
    """A (B, C, H, W) map as (B, HW, C) tokens."""
    if output.ndim != 4:
        raise ValueError(f"expected a map of shape (B, C, H, W), got {tuple(output.shape)}")
    return output.flatten(2).transpose(1, 2)


def map_tokens(output: Tensor, channels_last: bool | None = None) -> Tensor:
    """A map as (B, HW, C) tokens, of (B, H, W, C) or (B, C, H, W).

    channels_last: which of the two; where it is None, the two equal sides are those of the map. Raises ValueError where
    no two are equal, or all are.
    """
    if output.ndim != 4:
        raise ValueError(f"expected a map, got shape {tuple(output.shape)}")
    if channels_last is None:
        _, first, second, third = output.shape
        if (first == second) == (second == third):
            raise ValueError(f"which axis of shape {tuple(output.shape)} is that of the channels is ambiguous")
        channels_last = first == second
    return output.flatten(1, 2) if channels_last else spatial_tokens(output)
