"""REPA (Yu et al. 2025, github.com/sihyun-yu/REPA): SiT with projectors onto a vision model's tokens, fed t."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch

    from diffalign.models.protocol import Denoiser


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the checkpoint; all tokens are averaged. Raises CheckpointError."""
    from diffalign.models.architectures import fill, read_weights
    from diffalign.models.flows import flow_denoiser
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.repa import REPA, WIDTHS, RepaArchitecture, projector_widths

    state = read_weights(model, folder)
    net = REPA(read_architecture(RepaArchitecture, model.built, model.name, WIDTHS), *projector_widths(state))
    fill(model, net, state)
    return flow_denoiser(model, net, state, device, towards_data=False)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, with projectors of `z_dims` and `projector_dim`."""
    import torch

    from diffalign.models.flows import save_miniature
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.repa import REPA, WIDTHS, RepaArchitecture

    torch.manual_seed(seed)
    architecture = read_architecture(RepaArchitecture, miniature, "miniature", WIDTHS)
    save_miniature(REPA(architecture, miniature["z_dims"], miniature["projector_dim"]), folder)


FAMILY = Family(
    reads="latents",
    conditioned_on="labels",
    needs=("architecture", "path"),
    takes=("interpolate_positions",),
    untrained="architecture",
    load=load,
    make_miniature=make_miniature,
)
