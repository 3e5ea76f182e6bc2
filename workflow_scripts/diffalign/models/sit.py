"""SiT (Ma et al. 2024, github.com/willisma/SiT): a flow transformer over SD-VAE latents, fed 1 - t."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.models import Loaded
from diffalign.models.architectures import fill
from diffalign.models.latent_transformers import (
    Architecture,
    LatentTransformer,
    flow_level,
    flow_loaded,
    read_architecture,
    read_weights,
    save_miniature,
)
from diffalign.noise import NoiseLevel
from diffalign.specs import Model

# what a batch of this family holds
READS = "latents"
CONDITIONED_ON = "labels"
NEEDS = ("architecture", "path")
TAKES = ("interpolate_positions",)
# an untrained twin is written from the architecture of its entry
UNTRAINED = "architecture"


@dataclass(frozen=True)
class SiTArchitecture(Architecture):
    """learn_sigma: whether the model also predicts a variance, in as many channels again."""

    learn_sigma: bool


class SiT(LatentTransformer):
    """All stages are tokens (B, T, D)."""

    def __init__(self, architecture: SiTArchitecture) -> None:
        super().__init__(architecture, architecture.in_channels * (2 if architecture.learn_sigma else 1))

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, C, H, W), without the variance."""
        predicted: Tensor = super().forward(latents, t, labels)
        return predicted[:, : self.architecture.in_channels]


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """α and σ on the model's path; its own clock is 1 at data."""
    return flow_level(model, noise, towards_data=True)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the checkpoint; all tokens are averaged. Raises CheckpointError."""
    assert noise is not None  # the config is checked
    net = SiT(read_architecture(SiTArchitecture, model.built, model.name))
    state = read_weights(folder)
    fill(model, net, state)
    return flow_loaded(model, net, state, noise_level(model, folder, noise), device)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture."""
    torch.manual_seed(seed)
    save_miniature(SiT(read_architecture(SiTArchitecture, miniature, "miniature")), folder)
