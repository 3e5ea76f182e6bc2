"""REPA (Yu et al. 2025, github.com/sihyun-yu/REPA): SiT with projectors onto a vision model's tokens, fed t."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.state_dicts import StateDict
from diffalign.models import Loaded
from diffalign.models.architectures import fill
from diffalign.models.latent_transformers import (
    Architecture,
    FinalLayer,
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

# widths that a checkpoint says itself
WIDTHS = ("z_dims", "projector_dim")


@dataclass(frozen=True)
class RepaArchitecture(Architecture):
    """encoder_depth: blocks before the projectors."""

    encoder_depth: int


class REPA(LatentTransformer):
    """SiT whose tokens after `encoder_depth` blocks also go through projectors.

    z_dims: what each projects onto. projector_dim: its hidden width.
    """

    def __init__(
        self,
        architecture: RepaArchitecture,
        z_dims: Sequence[int],
        projector_dim: int,
        leading: int = 0,
        final: Callable[[int, int], FinalLayer] = FinalLayer,
    ) -> None:
        super().__init__(architecture, architecture.in_channels, leading, final=final)
        self.encoder_depth = architecture.encoder_depth
        self.projectors = nn.ModuleList(projector(architecture.hidden_size, projector_dim, z_dim) for z_dim in z_dims)

    def through_blocks(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens through all blocks, and on the way through the projectors."""
        for depth, block in enumerate(self.blocks, 1):
            x = block(x, condition)
            if depth == self.encoder_depth:
                for project in self.projectors:
                    project(x)
        return x

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, C, H, W)."""
        condition = self.condition(t, labels)
        x = self.through_blocks(self.embedder(self.x_embedder(latents) + self.positions(latents)), condition)
        return self.unpatched(self.final_layer(x, condition), latents)


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """Three layers with SiLU between them."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
    )


def projector_widths(state: StateDict) -> tuple[list[int], int]:
    """What the projectors of a checkpoint project onto, and their hidden width. Raises CheckpointError without any."""
    z_dims, hidden = state.widths("projectors.{}.4.weight"), state.widths("projectors.{}.0.weight")
    if not z_dims or not hidden:
        raise CheckpointError(f"{state.path}: no projectors.0.…, so this is no checkpoint of REPA or REG")
    return z_dims, hidden[0]


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """α and σ on the model's path; its own clock is 1 at noise."""
    return flow_level(model, noise, towards_data=False)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the checkpoint; all tokens are averaged. Raises CheckpointError."""
    assert noise is not None  # the config is checked
    state = read_weights(folder)
    net = REPA(read_architecture(RepaArchitecture, model.built, model.name, WIDTHS), *projector_widths(state))
    fill(model, net, state)
    return flow_loaded(model, net, state, noise_level(model, folder, noise), device)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, with projectors of `z_dims` and `projector_dim`."""
    torch.manual_seed(seed)
    architecture = read_architecture(RepaArchitecture, miniature, "miniature", WIDTHS)
    save_miniature(REPA(architecture, miniature["z_dims"], miniature["projector_dim"]), folder)
