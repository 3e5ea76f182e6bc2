"""VA-VAE: latent-diffusion's AutoencoderKL at stride 16, under the names of its published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.images import unit_range
from diffalign.models.protocol import Loaded
from diffalign.models.registry import Family
from diffalign.models.tokens import spatial_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# what the published checkpoint carries beside the autoencoder
_TRAINING = ("foundation_model.", "linear_proj.", "loss.")
_DECODER = ("decoder.", "post_quant_conv.")


def load(model: Model, folder: Path, device: torch.device, decoder: bool = False) -> Loaded:
    """Load the encoding half of a checkpoint of latent-diffusion, or both halves; the rest of it is left out by name.

    Raises CheckpointError for a wrong architecture, and for missing or unexpected keys.
    """
    import torch

    from diffalign.io.layouts.lightningdit import statistics_in
    from diffalign.models.architectures import fill, read_fields, read_weights
    from diffalign.models.networks.posterior import Posterior
    from diffalign.models.networks.vavae import Architecture, VaVae

    spec = model.input
    if spec is None:
        raise ValueError(f"{model.name}: family vavae needs 'input'")
    shape = read_fields(Architecture, model.built, f"models.{model.name}.architecture")
    net = VaVae(shape, Posterior(model), decoder)
    state = read_weights(model, folder)
    fill(model, net, state.without(_TRAINING if decoder else (*_DECODER, *_TRAINING)))
    net.eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        return net(batch["pixels"], batch["names"])

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            return unit_range(net.decode(latents), spec)

    loaded = Loaded(
        net,
        forward,
        spatial_tokens,
        {"nesting": state.nesting, "pooling": "mean", "posterior": model.posterior, "latent_scaling": "none"},
        # every stage but the last halves the side
        multiple=2 ** (len(shape.ch_mult) - 1),
        latent_statistics=statistics_in(folder)[0],
    )
    return replace(loaded, decode=decode) if decoder else loaded


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, and the mean and std that its latents of noise have."""
    import torch

    from diffalign.io.safetensors_files import save_file
    from diffalign.models.architectures import read_fields
    from diffalign.models.networks.vavae import Architecture, Decoder, VaVae

    torch.manual_seed(seed)
    shape = read_fields(Architecture, miniature, "miniature")
    net = VaVae(shape, torch.nn.Identity())
    with torch.no_grad():
        means = net.moments(torch.randn(8, 3, 64, 64)).chunk(2, dim=1)[0]
    std, mean = torch.std_mean(means, (0, 2, 3), keepdim=True)
    torch.save({"mean": mean, "std": std}, folder / "latents_stats.pt")
    net.post_quant_conv = torch.nn.Conv2d(shape.z_channels, shape.z_channels, 1)
    net.decoder = Decoder(shape)
    save_file(net.state_dict(), folder / "model.safetensors")


FAMILY = Family(
    reads="pixels",
    needs=("architecture",),
    untrained="architecture",
    decodes=True,
    load=load,
    make_miniature=make_miniature,
)
