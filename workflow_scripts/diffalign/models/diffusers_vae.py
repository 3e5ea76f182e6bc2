"""Autoencoders of diffusers (AutoencoderKL): the encoder's stages and the latent itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from diffalign.models import CheckpointError, Loaded, from_diffusers, spatial_tokens
from diffalign.randomness import normal
from diffalign.study import Model

# what a batch of this family holds
READS = "pixels"


class Posterior(nn.Module):
    """The moments of a diagonal Gaussian -> its mode, or a sample of it drawn with the given noise."""

    def forward(self, moments: Tensor, noise: Tensor | None) -> Tensor:
        """(B, 2C, H, W) -> (B, C, H, W)."""
        mean, log_variance = moments.chunk(2, dim=1)
        if noise is None:
            return mean
        return mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise


class Encoder(nn.Module):
    """The encoding half of an AutoencoderKL with the latent as a module of its own, so that it can be tapped."""

    def __init__(self, vae: AutoencoderKL, model: Model) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv if vae.quant_conv is not None else nn.Identity()
        self.posterior = Posterior()
        self._model = model

    def forward(self, images: Tensor, names: list[str]) -> Tensor:
        """(B, 3, S, S) -> unnormalised latents (B, C, H, W)."""
        moments = self.quant_conv(self.encoder(images))
        noise = None
        if self._model.posterior == "sample":
            shape = (moments.shape[1] // 2, *moments.shape[2:])
            draws = [normal(shape, self._model.seeding, self._model.seed, name, "posterior") for name in names]
            noise = torch.stack([torch.from_numpy(draw) for draw in draws]).to(moments)
        latents: Tensor = self.posterior(moments, noise)
        return latents


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load an AutoencoderKL from `folder` or its subfolder ``vae``. Raises CheckpointError for keys that do not fit."""
    if model.input is None:
        raise ValueError(f"{model.name}: family diffusers_vae needs 'input'")
    where = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    if not (where / "config.json").is_file():
        raise CheckpointError(f"{folder}: neither config.json nor vae/config.json; not an AutoencoderKL of diffusers")
    vae = from_diffusers(AutoencoderKL, where)
    encoder = Encoder(vae, model).eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        return encoder(batch["pixels"], batch["names"])

    facts = {
        "diffusers": diffusers.__version__,
        "pooling": "mean",
        "posterior": model.posterior,
        "latent_scaling": "none",
    }
    return Loaded(encoder, forward, spatial_tokens, facts, latent_statistics=_fixed_statistics(vae))


def _fixed_statistics(vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Mean and std (1, C, 1, 1) that the configuration defines: per channel, or one shift and one scale."""
    channels = vae.config.latent_channels
    if vae.config.get("latents_mean") is not None and vae.config.get("latents_std") is not None:
        mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    else:
        mean = torch.full((channels,), float(vae.config.get("shift_factor") or 0.0))
        std = torch.full((channels,), 1.0 / float(vae.config.scaling_factor))
    return mean.float().view(1, channels, 1, 1), std.float().view(1, channels, 1, 1)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow AutoencoderKL from ``miniature``, the keys of its configuration."""
    torch.manual_seed(seed)
    widths = dict(miniature)
    stages = len(widths["block_out_channels"])
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * stages, up_block_types=["UpDecoderBlock2D"] * stages, **widths
    )
    vae.save_pretrained(folder)
