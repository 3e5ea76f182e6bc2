"""REG (Wu et al. 2025): REPA with a class token, under the names of its published state dict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from diffalign.models.networks import repa
from diffalign.models.networks.latent_transformers import FinalLayer
from diffalign.models.networks.repa import REPA, RepaArchitecture

WIDTHS = (*repa.WIDTHS, "cls_token_dim")


class Projector(nn.Sequential):
    """A projector of REPA whose tokens are all averaged, the class token's too, as the published features do."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(B, 1 + T, D) -> a tuple, which `tokens_of` leaves as it is."""
        for layer in self:
            x = layer(x)
        return (x,)


class ClassFinalLayer(FinalLayer):
    """A final layer that predicts the class token, too."""

    def __init__(self, width: int, out: int, class_width: int) -> None:
        super().__init__(width, out)
        self.linear_cls = nn.Linear(width, class_width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1 + T, D) -> (B, T, patch² C) and (B, class width)."""
        normed = self.normed(x, condition)
        return self.linear(normed[:, 1:]), self.linear_cls(normed[:, 0])


class REG(REPA):
    """Token 0 of all stages but the final one is the class token."""

    def __init__(
        self, architecture: RepaArchitecture, z_dims: Sequence[int], projector_dim: int, cls_token_dim: int
    ) -> None:
        final = partial(ClassFinalLayer, class_width=cls_token_dim)
        super().__init__(architecture, z_dims, projector_dim, leading=1, final=final)
        self.projectors = nn.ModuleList(Projector(*project.children()) for project in self.projectors)
        self.cls_projectors2 = nn.Linear(cls_token_dim, architecture.hidden_size)
        self.wg_norm = nn.LayerNorm(architecture.hidden_size, eps=1e-6)

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor, class_tokens: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The velocities of latents (B, C, H, W) and of class tokens (B, class width)."""
        condition = self.condition(t, labels)
        first = self.wg_norm(self.cls_projectors2(class_tokens))[:, None]
        x = torch.cat([first, self.x_embedder(latents)], dim=1) + self.positions(latents)
        patches, predicted = self.final_layer(self.through_blocks(self.embedder(x), condition), condition)
        return self.unpatched(patches, latents), predicted


def tokens_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The patches' tokens; of projectors and of the final layer, what they say are tokens."""
    return output[0] if isinstance(output, tuple) else output[:, 1:]
