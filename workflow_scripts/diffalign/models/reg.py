"""REG (Wu et al. 2025, github.com/Martinser/REG): REPA with a noisy class token of DINOv2 beside the patches, fed t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Loaded
from diffalign.models.architectures import fill
from diffalign.models.latent_transformers import (
    FinalLayer,
    flow_level,
    flow_loaded,
    read_architecture,
    read_weights,
    save_miniature,
)
from diffalign.models.repa import REPA, WIDTHS, RepaArchitecture, projector_widths
from diffalign.noise import NoiseLevel
from diffalign.specs import Model

# what a batch of this family holds
READS = "latents"
CONDITIONED_ON = "labels"
NEEDS = ("architecture", "path", "class_tokens")
TAKES = ("interpolate_positions",)
# an untrained twin is written from the architecture of its entry
UNTRAINED = "architecture"

_WIDTHS = (*WIDTHS, "cls_token_dim")


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


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """α and σ on the model's path, of latents and of class tokens; its own clock is 1 at noise."""
    return flow_level(model, noise, towards_data=False)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the checkpoint; patch tokens are averaged, all tokens of projectors. Raises CheckpointError."""
    assert noise is not None  # the config is checked
    state = read_weights(folder)
    projector = state.tensors.get("cls_projectors2.weight")
    if projector is None or projector.ndim != 2:
        raise CheckpointError(f"{state.path}: no matrix cls_projectors2.weight, so this is no checkpoint of REG")
    width = projector.shape[1]
    net = REG(read_architecture(RepaArchitecture, model.built, model.name, _WIDTHS), *projector_widths(state), width)
    fill(model, net, state)
    level = noise_level(model, folder, noise)
    return flow_loaded(model, net, state, level, device, tokens_of, "patch; all of projectors", width)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, with class tokens of `cls_token_dim` numbers."""
    torch.manual_seed(seed)
    architecture = read_architecture(RepaArchitecture, miniature, "miniature", _WIDTHS)
    save_miniature(REG(architecture, *(miniature[key] for key in _WIDTHS)), folder)
