"""SiT (Ma et al. 2024, github.com/willisma/SiT): a flow transformer over SD-VAE latents, fed 1 - t."""

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
    from diffalign.models.architectures import fill
    from diffalign.models.flows import flow_denoiser, read_weights
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.sit import SiT, SiTArchitecture

    net = SiT(read_architecture(SiTArchitecture, model.built, model.name))
    state = read_weights(folder)
    fill(model, net, state)
    return flow_denoiser(model, net, state, device, towards_data=True)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture."""
    import torch

    from diffalign.models.flows import save_miniature
    from diffalign.models.networks.latent_transformers import read_architecture
    from diffalign.models.networks.sit import SiT, SiTArchitecture

    torch.manual_seed(seed)
    save_miniature(SiT(read_architecture(SiTArchitecture, miniature, "miniature")), folder)


FAMILY = Family(
    reads="latents",
    conditioned_on="labels",
    needs=("architecture", "path"),
    takes=("interpolate_positions",),
    untrained="architecture",
    load=load,
    make_miniature=make_miniature,
)
