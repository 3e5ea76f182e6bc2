"""Statistics of pixels as modules, so that they can be tapped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d


class Pixels(nn.Module):
    """Pixels in [0, 1], (B, 3, S, S), averaged over the areas of a grid and flattened, (B, 1, 3 side²)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        """Raises ValueError for an image smaller than the grid."""
        if pixels.shape[-1] < self.side:
            raise ValueError(f"images of side {pixels.shape[-1]} have no {self.side} x {self.side} areas")
        return adaptive_avg_pool2d(pixels, self.side).flatten(1)[:, None]


class Colors(nn.Module):
    """The joint histogram of sRGB values, bins of equal width a channel: shares of pixels, (B, 1, bins³)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, pixels: Tensor) -> Tensor:
        """Of pixels in [0, 1]; 1 falls into the last bin."""
        levels = (pixels * self.bins).long().clamp(0, self.bins - 1)
        cells = (levels[:, 0] * self.bins + levels[:, 1]) * self.bins + levels[:, 2]
        counts = [torch.bincount(each.flatten(), minlength=self.bins**3) for each in cells]
        return torch.stack(counts)[:, None].float() / cells[0].numel()
