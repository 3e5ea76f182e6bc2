"""Latents that were made elsewhere, whatever their layout: what is known of a folder, and which latent is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffalign.randomness import NoiseKey


@dataclass(frozen=True)
class Draw:
    """Which latent a mean and std stand for: ``mode`` or ``sample``, and what a sample is keyed by."""

    posterior: str
    key: NoiseKey


@dataclass(frozen=True)
class Folder:
    """Latents by name.

    read: a name -> (C, H, W) float32. labels: name -> class index, where the folder has one. statistics: mean and std
    that normalise, (1, C, 1, 1) or (1, C, H, W), where the folder defines them. files: what was read for all of this.
    """

    path: Path
    read: Callable[[str], Tensor]
    file_of: Mapping[str, Path]
    labels: Mapping[str, int]
    statistics: tuple[Tensor, Tensor] | None
    files: tuple[Path, ...]
