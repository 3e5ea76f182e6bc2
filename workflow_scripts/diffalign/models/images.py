"""Images as decoders give them, in the range that people look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffalign.specs import ImageInput

if TYPE_CHECKING:
    from torch import Tensor


def unit_range(images: Tensor, spec: ImageInput) -> Tensor:
    """Images (B, 3, H, W) in the range of a model's input, (x - mean) / std, as float32 in [0, 1]."""
    mean, std = (images.new_tensor(each, dtype=images.float().dtype).view(3, 1, 1) for each in (spec.mean, spec.std))
    return (images.float() * std + mean).clamp(0, 1)
