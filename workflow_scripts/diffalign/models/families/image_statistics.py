"""What any model must beat: the pixels themselves, and how often each colour occurs. Nothing is learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.protocol import Loaded
from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import nn

_PATH = re.compile(r"(pixels|colors)([1-9][0-9]*)")
# of bins a channel: 16 would be 4096 of them
_MOST_BINS = 16


def load(model: Model, folder: Path, device: torch.device) -> Loaded:
    """One module a layer: ``pixels32`` is a grid of 32 x 32 areas, ``colors8`` a histogram of 8 bins a channel.

    folder: empty, since there are no weights. Raises ValueError for another path, and for an input that is normalised:
    colours are those of the image.
    """
    from torch.nn import ModuleDict

    if model.input is None or (set(model.input.mean), set(model.input.std)) != ({0.0}, {1.0}):
        raise ValueError(f"{model.name}: statistics are of pixels in [0, 1]; set input.mean to zeros and std to ones")
    net = ModuleDict({path: _statistic(model.name, path) for path in model.layers.values()})

    def forward(batch: Mapping[str, Any]) -> None:
        # resampling overshoots
        pixels = batch["pixels"].float().clamp(0, 1)
        for statistic in net.values():
            statistic(pixels)

    facts = {"colors": "sRGB", "pooling": "none"}
    return Loaded(net.to(device), forward, lambda output: output, facts)


def _statistic(model: str, path: str) -> nn.Module:
    from diffalign.models.networks.image_statistics import Colors, Pixels

    match = _PATH.fullmatch(path)
    if match is None or (match[1] == "colors" and int(match[2]) > _MOST_BINS):
        raise ValueError(
            f"{model}: no statistic '{path}'; allowed: pixels and the side of a grid (pixels32), colors and bins a "
            f"channel, at most {_MOST_BINS} (colors8)"
        )
    return Pixels(int(match[2])) if match[1] == "pixels" else Colors(int(match[2]))


FAMILY = Family(reads="pixels", has_weights=False, load=load)
