"""The exact denoiser of a Gaussian with power 1 / f^exponent; of photographs it is near 2 (Field 1987).

Nothing is learned.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch

    from diffalign.models.protocol import Denoiser


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """The denoiser of latents of any size, which have mean 0 and variance 1 before ``latent_multiplier``.

    folder: empty, since there are no weights. Raises CheckpointError for an architecture that does not exist.
    """
    from diffalign.models.architectures import read_fields
    from diffalign.models.flows import flow_level
    from diffalign.models.networks.gaussian import PowerLaw, PowerLawArchitecture, gaussian_denoiser

    law = read_fields(PowerLawArchitecture, model.architecture, f"models.{model.name}.architecture")
    net = PowerLaw(law, variance=model.latent_multiplier**2)
    return gaussian_denoiser(net, law.in_channels, partial(flow_level, model, False), device)


FAMILY = Family(reads="latents", needs=("architecture", "path"), has_weights=False, closed_form=True, load=load)
