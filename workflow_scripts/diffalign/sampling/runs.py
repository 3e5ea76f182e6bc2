"""All that trajectories of one model and configuration need: the denoiser, its conditioning, levels, and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.models import Denoiser
from diffalign.noise import NoiseLevel
from diffalign.sampling.trajectories import State

# entered around all calls of the model in a step
Around = Callable[[int], AbstractContextManager[object]]


@dataclass(frozen=True)
class Files:
    """Checkpoints of a model and its autoencoder with their records, and latents, statistics and manifest of a data
    set.
    """

    weights: Path
    record: Path
    autoencoder_weights: Path
    autoencoder_record: Path
    latents: tuple[Path, ...]
    statistics: Path
    manifest: Path


@dataclass(frozen=True, eq=False)
class Run:
    """Trajectories of one model under one configuration, of any samples and seeds.

    decode: latents (B, C, h, w) as the model reads them -> images (B, 3, H, W) float32 in [0, 1]. levels: of states
    0 … S, t falling to 0. groups: name of each sample, in ascending order -> its class, prompt or photograph. facts:
    what the recipe says beyond the configuration.
    """

    denoiser: Denoiser
    decode: Callable[[Tensor], Tensor]
    levels: tuple[NoiseLevel, ...]
    groups: Mapping[str, str]
    facts: Mapping[str, Any]

    def states(self, names: Sequence[str], seed: int, around: Around | None = None) -> Iterator[State]:
        """States 0 … S of these samples, one batch. around: entered around every call of the model of that step."""
        raise NotImplementedError

    def conditioning(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What the conditional model is given beside latents, one row a name, to ask it again at stored states.

        Class tokens of models that denoise them are no part of it: they are stored with latents.
        """
        raise NotImplementedError


def prepare(recipe: Mapping[str, Any], files: Files, device: torch.device) -> Run:
    """Load what trajectories need, and check that the configuration fits the model, before anything is made."""
    raise NotImplementedError
