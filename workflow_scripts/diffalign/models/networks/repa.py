"""REPA (Yu et al. 2025): SiT with projectors, under the names of its published state dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.state_dicts import StateDict
from diffalign.models.networks.latent_transformers import Architecture, FinalLayer, LatentTransformer

# widths that a checkpoint says itself
WIDTHS = ("z_dims", "projector_dim")


@dataclass(frozen=True)
class RepaArchitecture(Architecture):
    """encoder_depth: blocks before the projectors. qk_norm: whether queries and keys are normalised."""

    encoder_depth: int
    qk_norm: bool = False


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
        super().__init__(architecture, architecture.in_channels, leading, final=final, qk_norm=architecture.qk_norm)
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
