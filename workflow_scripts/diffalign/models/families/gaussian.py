"""The exact denoiser of a Gaussian with the mean and the power spectrum of latents: what they show of a data set alone.

Nothing is trained: a checkpoint holds the mean of each channel and the power of each frequency, and no latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch

    from diffalign.models.protocol import Denoiser


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the checkpoint. Raises CheckpointError where it is not the mean and power of real latents."""
    from diffalign.io.checkpoint_errors import check_keys
    from diffalign.io.state_dicts import checkpoint_file, read_state_dict
    from diffalign.models.flows import flow_level
    from diffalign.models.networks.gaussian import FittedArchitecture, FittedGaussian, check_power, gaussian_denoiser

    state = read_state_dict(checkpoint_file(folder))
    check_keys({"mean", "power"} - set(state.tensors), set(state.tensors) - {"mean", "power"}, str(state.path))
    mean, power = state.tensors["mean"], state.tensors["power"]
    check_power(mean, power, str(state.path))
    channels, side = power.shape[:2]
    net = FittedGaussian(FittedArchitecture(channels, side))
    state.load_into(net)
    return gaussian_denoiser(net, channels, partial(flow_level, model, False), device, only_side=side)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write the mean and power of two draws of white noise: they are random at every frequency.

    Raises CheckpointError for an architecture that does not exist.
    """
    import torch

    from diffalign.io.safetensors_files import save_file
    from diffalign.models.architectures import read_fields
    from diffalign.models.networks.gaussian import FittedArchitecture, fitted, state_of

    size = read_fields(FittedArchitecture, miniature, "miniature")
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, size.in_channels, size.input_size, size.input_size, generator=random)
    save_file(state_of(*fitted([drawn])), folder / "model.safetensors")


FAMILY = Family(
    reads="latents", needs=("path",), fitted=True, closed_form=True, load=load, make_miniature=make_miniature
)
