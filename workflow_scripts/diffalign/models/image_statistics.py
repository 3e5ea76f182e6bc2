"""What any model must beat: the pixels themselves, and how often each colour occurs. Nothing is learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from diffalign.models import Loaded
from diffalign.specs import Model

READS = "pixels"
HAS_WEIGHTS = False
_PATH = re.compile(r"(pixels|colors)([1-9][0-9]*)")
# of bins a channel: 16 would be 4096 of them
_MOST_BINS = 16


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


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """One module a layer: ``pixels32`` is a grid of 32 x 32 areas, ``colors8`` a histogram of 8 bins a channel.

    folder: empty, since there are no weights. Raises ValueError for another path, and for an input that is normalised:
    colours are those of the image.
    """
    if model.input is None or (set(model.input.mean), set(model.input.std)) != ({0.0}, {1.0}):
        raise ValueError(f"{model.name}: statistics are of pixels in [0, 1]; set input.mean to zeros and std to ones")
    net = nn.ModuleDict({path: _statistic(model.name, path) for path in model.layers.values()})

    def forward(batch: Mapping[str, Any]) -> None:
        # resampling overshoots
        pixels = batch["pixels"].float().clamp(0, 1)
        for statistic in net.values():
            statistic(pixels)

    facts = {"colors": "sRGB", "pooling": "none"}
    return Loaded(net.to(device), forward, lambda output: output, facts)


def _statistic(model: str, path: str) -> nn.Module:
    match = _PATH.fullmatch(path)
    if match is None or (match[1] == "colors" and int(match[2]) > _MOST_BINS):
        raise ValueError(
            f"{model}: no statistic '{path}'; allowed: pixels and the side of a grid (pixels32), colors and bins a "
            f"channel, at most {_MOST_BINS} (colors8)"
        )
    return Pixels(int(match[2])) if match[1] == "pixels" else Colors(int(match[2]))
