"""REG (Wu et al. 2025, github.com/Martinser/REG): REPA with a noisy class token of DINOv2 beside the patches, fed t."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch

    from diffalign.models.protocol import Denoiser


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the checkpoint; patch tokens are averaged, all tokens of projectors. Raises CheckpointError."""
    from diffalign.models.architectures import fill, read_weights
    from diffalign.models.flows import flow_denoiser
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.reg import REG, WIDTHS, tokens_of
    from diffalign.models.networks.repa import RepaArchitecture, projector_widths

    state = read_weights(model, folder)
    projector = state.tensors.get("cls_projectors2.weight")
    if projector is None or projector.ndim != 2:
        raise CheckpointError(f"{state.path}: no matrix cls_projectors2.weight, so this is no checkpoint of REG")
    width = projector.shape[1]
    net = REG(read_architecture(RepaArchitecture, model.built, model.name, WIDTHS), *projector_widths(state), width)
    fill(model, net, state)
    return flow_denoiser(model, net, state, device, False, tokens_of, "patch; all of projectors", width)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, with class tokens of `cls_token_dim` numbers."""
    import torch

    from diffalign.models.flows import save_miniature
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.reg import REG, WIDTHS
    from diffalign.models.networks.repa import RepaArchitecture

    torch.manual_seed(seed)
    architecture = read_architecture(RepaArchitecture, miniature, "miniature", WIDTHS)
    save_miniature(REG(architecture, *(miniature[key] for key in WIDTHS)), folder)


FAMILY = Family(
    reads="latents",
    conditioned_on="labels",
    needs=("architecture", "path", "class_tokens"),
    takes=("interpolate_positions",),
    untrained="architecture",
    load=load,
    make_miniature=make_miniature,
)
