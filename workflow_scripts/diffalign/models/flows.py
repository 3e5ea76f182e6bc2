"""Class-conditional flow transformers as denoisers: what SiT, REPA, REG and LightningDiT share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.io.safetensors_files import save_file
from diffalign.io.state_dicts import StateDict
from diffalign.models.architectures import fill, read_weights
from diffalign.models.networks.latent_transformers import (
    A,
    LatentTransformer,
    initialise,
    read_architecture,
    unchanged,
)
from diffalign.models.predictions import from_velocity
from diffalign.models.protocol import Denoiser, Prediction, Trainable
from diffalign.models.residual_parts import named
from diffalign.noise import NoiseLevel, on_path, path_slopes
from diffalign.specs import Model


def flow_level(model: Model, towards_data: bool, noise: str) -> NoiseLevel:
    """The noise level on the model's path. towards_data: whether its own clock is 1 at data, not at noise.

    Raises ValueError for a strength, which nobody published for these models.
    """
    if noise[0] != "t":
        raise ValueError(f"{model.name}: family '{model.family}' has no img2img strength '{noise}'; write t0.2")
    alpha, sigma, tau = on_path(str(model.path), float(noise[1:]))
    return NoiseLevel(alpha, sigma, 1 - tau if towards_data else tau)


def flow_denoiser(
    model: Model,
    net: LatentTransformer,
    state: StateDict,
    device: torch.device,
    towards_data: bool,
    tokens: Callable[[Any], Tensor] = unchanged,
    kind: str = "all",
    class_token_width: int | None = None,
) -> Denoiser:
    """A network as a denoiser: it predicts the velocity of latents, and of class tokens where it reads them.

    towards_data: whether its clock, and so its velocity, runs from noise to data. kind: which tokens are averaged, for
    the recipe.
    """
    net.eval().to(device)

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Any:
        t = torch.full((len(x_t),), level.timestep, device=x_t.device)
        beside = [] if class_token_width is None else [conditioning["class_tokens"]]
        return net(x_t, t, conditioning["labels"], *beside)

    def convert(output: Any, x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Prediction:
        d_alpha, d_sigma = path_slopes(str(model.path), level.alpha, level.sigma)
        slopes = (-d_alpha, -d_sigma) if towards_data else (d_alpha, d_sigma)
        if class_token_width is None:
            return from_velocity(output, x_t, level, slopes)
        latents, class_tokens = output
        of_class = from_velocity(class_tokens, conditioning["class_tokens"], level, slopes)
        of_latents = from_velocity(latents, x_t, level, slopes)
        return Prediction(of_latents.x0, of_latents.eps, of_class)

    return Denoiser(
        net,
        partial(flow_level, model, towards_data),
        run,
        convert,
        tokens,
        net.architecture.in_channels,
        {"state_dict": state.nesting or "top", "tokens": kind, "pooling": "mean"},
        multiple=net.architecture.patch_size,
        only_side=None if model.interpolate_positions else net.architecture.input_size,
        classes=net.architecture.num_classes,
        class_token_width=class_token_width,
        parts=named(net, {"attention": ["attn"], "mlp": ["mlp"]}),
    )


def load_flow(
    model: Model,
    folder: Path,
    device: torch.device,
    network: Callable[[A], LatentTransformer],
    architecture: type[A],
    towards_data: bool,
) -> Denoiser:
    """The one checkpoint of a folder as a denoiser, for networks that their architecture describes as a whole.

    Raises CheckpointError for an architecture that does not exist or that the checkpoint does not fit.
    """
    net = network(read_architecture(architecture, model.built, model.name))
    state = read_weights(model, folder)
    fill(model, net, state)
    return flow_denoiser(model, net, state, device, towards_data)


def write_flow(
    network: Callable[[A], LatentTransformer],
    architecture: type[A],
    miniature: Mapping[str, Any],
    folder: Path,
    seed: int,
) -> None:
    """Write random weights of such a network. Raises CheckpointError for an architecture that does not exist."""
    torch.manual_seed(seed)
    save_miniature(network(read_architecture(architecture, miniature, "miniature")), folder)


def begin_flow(
    model: Model,
    device: torch.device,
    network: Callable[[A], LatentTransformer],
    architecture: type[A],
    towards_data: bool,
) -> Trainable:
    """Such a network as its training begins. Raises CheckpointError for an architecture that does not exist."""
    torch.manual_seed(model.seed)
    net = network(read_architecture(architecture, model.built, model.name))
    initialise(net)
    net.to(device)

    def run(x_t: Tensor, tau: Tensor, labels: Tensor) -> Tensor:
        velocity: Tensor = net(x_t, 1 - tau if towards_data else tau, labels)
        return -velocity if towards_data else velocity

    return Trainable(net, run, save_state, net.architecture.num_classes)


def save_state(state: Mapping[str, Tensor], folder: Path) -> None:
    """Write a state dict as the one file of a checkpoint."""
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")


def save_miniature(net: LatentTransformer, folder: Path) -> None:
    """Write the weights of `net` as the one file of a checkpoint."""
    save_state(net.state_dict(), folder)
