"""VA-VAE: latent-diffusion's AutoencoderKL, under the names of its published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


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


class Upsample(nn.Module):
    """Twice the side by repeating positions, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        out: Tensor = self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Stage(nn.Module):
    """Residual blocks at one resolution, each with attention where it is asked for, and the step to the next.

    step: ``down`` or ``up`` in size, or None.
    """

    def __init__(self, inner: int, outer: int, blocks: int, attention: bool, step: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inner if i == 0 else outer, outer) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(outer) for _ in range(blocks if attention else 0))
        # one of two names, as in the published state dict
        if step == "down":
            self.downsample = Downsample(outer)
        elif step == "up":
            self.upsample = Upsample(outer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H, W), or half or twice of H and W."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        for step in ("downsample", "upsample"):
            if hasattr(self, step):
                x = getattr(self, step)(x)
        return x


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
                step="down" if i < last else None,
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


class Decoder(nn.Module):
    """Latents, after a convolution -> images in [-1, 1], more or less (latent-diffusion's Decoder)."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        widths = [shape.ch * multiple for multiple in (*shape.ch_mult, shape.ch_mult[-1])]
        last = len(shape.ch_mult) - 1
        self.conv_in = nn.Conv2d(shape.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        # numbered as in the encoder, so the last stage runs first
        self.up = nn.ModuleList(
            Stage(
                widths[i + 1],
                widths[i],
                shape.num_res_blocks + 1,
                attention=shape.resolution // 2**i in shape.attn_resolutions,
                step="up" if i > 0 else None,
            )
            for i in range(last + 1)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, 16H, 16W) for five stages."""
        hidden = self.mid(self.conv_in(latents))
        for stage in reversed(self.up):
            hidden = stage(hidden)
        out: Tensor = self.conv_out(nn.functional.silu(self.norm_out(hidden)))
        return out


class VaVae(nn.Module):
    """The encoder and the convolution that makes moments of its output; with `decoder`, the decoding half as well."""

    def __init__(self, shape: Architecture, posterior: nn.Module, decoder: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.quant_conv = nn.Conv2d(2 * shape.z_channels, 2 * shape.z_channels, 1)
        self.posterior = posterior
        if decoder:
            self.post_quant_conv = nn.Conv2d(shape.z_channels, shape.z_channels, 1)
            self.decoder = Decoder(shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Unnormalised latents (B, C, H, W) -> images (B, 3, 16H, 16W), about in [-1, 1]."""
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out

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
