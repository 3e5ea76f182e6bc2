"""SiT (Ma et al. 2024, github.com/willisma/SiT): a flow transformer over SD-VAE latents, fed 1 - t."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch

    from diffalign.models.protocol import Denoiser, Trainable


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the checkpoint; all tokens are averaged. Raises CheckpointError."""
    from diffalign.models.flows import load_flow
    from diffalign.models.networks.sit import SiT, SiTArchitecture

    return load_flow(model, folder, device, SiT, SiTArchitecture, towards_data=True)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture."""
    from diffalign.models.flows import write_flow
    from diffalign.models.networks.sit import SiT, SiTArchitecture

    write_flow(SiT, SiTArchitecture, miniature, folder, seed)


def trainable(model: Model, device: torch.device) -> Trainable:
    """The network as its training begins. Raises CheckpointError for an architecture that does not exist."""
    from diffalign.models.flows import begin_flow
    from diffalign.models.networks.sit import SiT, SiTArchitecture

    return begin_flow(model, device, SiT, SiTArchitecture, towards_data=True)


FAMILY = Family(
    reads="latents",
    conditioned_on="labels",
    needs=("architecture", "path"),
    takes=("interpolate_positions",),
    untrained="architecture",
    trains=("flow_matching",),
    load=load,
    make_miniature=make_miniature,
    trainable=trainable,
)
