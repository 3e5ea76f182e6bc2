"""VA-VAE: the encoder of latent-diffusion's AutoencoderKL at stride 16, under the names of its published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffalign.io.layouts.lightningdit import STATISTICS, statistics_in
from diffalign.io.state_dicts import checkpoint_file, read_state_dict
from diffalign.models import Loaded, spatial_tokens
from diffalign.models.architectures import fill, read_fields
from diffalign.models.posterior import Posterior
from diffalign.specs import Model

# what a batch of this family holds
READS = "pixels"
NEEDS = ("architecture",)
# an untrained twin is written from the architecture of its entry
UNTRAINED = "architecture"

# what the published checkpoint carries beside the encoder
_NOT_THE_ENCODER = ("decoder.", "post_quant_conv.", "foundation_model.", "linear_proj.", "loss.")


@dataclass(frozen=True)
class Architecture:
    """Widths and depths, in the words of latent-diffusion's ``ddconfig``."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    resolution: int
    z_channels: int


class ResnetBlock(nn.Module):
    """Two convolutions with a shortcut (latent-diffusion's ResnetBlock without time embedding)."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1 = _norm(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2 = _norm(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.nin_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H, W)."""
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        hidden = self.conv2(nn.functional.silu(self.norm2(hidden)))
        out: Tensor = hidden + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)
        return out


class Attention(nn.Module):
    """Self-attention over positions with one head (latent-diffusion's AttnBlock)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.proj_out(attended)
        return out


class Downsample(nn.Module):
    """Half the side by a strided convolution, padded on the right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        out: Tensor = self.conv(nn.functional.pad(x, (0, 1, 0, 1)))
        return out


class Stage(nn.Module):
    """Residual blocks at one resolution, each with attention where it is asked for, and the step to the next."""

    def __init__(self, inner: int, outer: int, blocks: int, attention: bool, downsample: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inner if i == 0 else outer, outer) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(outer) for _ in range(blocks if attention else 0))
        if downsample:
            self.downsample = Downsample(outer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H, W), or half of H and W."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class Middle(nn.Module):
    """The bottleneck: a residual block, attention, a residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width)
        self.attn_1 = Attention(width)
        self.block_2 = ResnetBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Images in [-1, 1] -> what the moments are made of."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        widths = [shape.ch * multiple for multiple in (1, *shape.ch_mult)]
        last = len(shape.ch_mult) - 1
        self.conv_in = nn.Conv2d(3, shape.ch, 3, padding=1)
        self.down = nn.ModuleList(
            Stage(
                widths[i],
                widths[i + 1],
                shape.num_res_blocks,
                attention=shape.resolution // 2**i in shape.attn_resolutions,
                downsample=i < last,
            )
            for i in range(last + 1)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * shape.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 2C, S/16, S/16) for five stages."""
        hidden = self.conv_in(images)
        for stage in self.down:
            hidden = stage(hidden)
        out: Tensor = self.conv_out(nn.functional.silu(self.norm_out(self.mid(hidden))))
        return out


class VaVae(nn.Module):
    """The encoding half: the encoder, and the convolution that makes moments of its output."""

    def __init__(self, shape: Architecture, posterior: nn.Module) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.quant_conv = nn.Conv2d(2 * shape.z_channels, 2 * shape.z_channels, 1)
        self.posterior = posterior

    def moments(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, 2C, S/16, S/16), mean and log-variance."""
        out: Tensor = self.quant_conv(self.encoder(images))
        return out

    def forward(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """(B, 3, S, S) -> unnormalised latents (B, C, S/16, S/16)."""
        latents: Tensor = self.posterior(self.moments(images), names)
        return latents


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the encoding half of a checkpoint of latent-diffusion; the rest of it is left out by name.

    Raises CheckpointError for a wrong architecture, and for missing or unexpected keys.
    """
    shape = read_fields(Architecture, model.built, f"models.{model.name}.architecture")
    net = VaVae(shape, Posterior(model))
    state = read_state_dict(checkpoint_file(folder, beside=tuple(STATISTICS)))
    fill(model, net, state.without(_NOT_THE_ENCODER))
    net.eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        return net(batch["pixels"], batch["names"])

    facts = {"nesting": state.nesting, "pooling": "mean", "posterior": model.posterior, "latent_scaling": "none"}
    # every stage but the last halves the side
    stride = 2 ** (len(shape.ch_mult) - 1)
    return Loaded(net, forward, spatial_tokens, facts, latent_statistics=statistics_in(folder)[0], multiple=stride)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture, and the mean and std that its latents of noise have."""
    torch.manual_seed(seed)
    net = VaVae(read_fields(Architecture, miniature, "miniature"), nn.Identity())
    save_file(net.state_dict(), folder / "model.safetensors")
    with torch.no_grad():
        means = net.moments(torch.randn(8, 3, 64, 64)).chunk(2, dim=1)[0]
    std, mean = torch.std_mean(means, (0, 2, 3), keepdim=True)
    torch.save({"mean": mean, "std": std}, folder / "latents_stats.pt")
