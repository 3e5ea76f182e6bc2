"""VFM-VAE: a SigLIP2 encoder and an adapter, under the names of the published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from diffalign.io.checkpoint_errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """The SigLIP2 encoder, the layers that are read (0: the embedding, -1: after the last norm) and the latent.

    scale_factor: by which images are enlarged before the encoder sees them. compression: pixels of an image to a
    position of the latent.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    scale_factor: int
    compression: int
    patch_from_layers: tuple[int, ...]
    patch_out_dimension: int
    z_dimension: int

    @property
    def unshuffle(self) -> int:
        """Patches to a position of the latent, along each side."""
        return self.scale_factor * self.compression // self.patch_size

    @property
    def concatenated(self) -> int:
        """Numbers a position that the moments are made of."""
        return len(self.patch_from_layers) * self.patch_out_dimension * self.unshuffle**2


class MeanHeadAttention(nn.Module):
    """Self-attention whose heads are averaged, not concatenated, so that it narrows `inner` to `outer`.

    The bias of keys is a buffer of zeros in the published checkpoint.
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.heads = inner // outer
        self.q_bias = nn.Parameter(torch.zeros(inner))
        self.v_bias = nn.Parameter(torch.zeros(inner))
        self.zero_k_bias: Tensor
        self.register_buffer("zero_k_bias", torch.zeros(inner))
        self.qkv = nn.Linear(inner, 3 * inner, bias=False)
        self.proj = nn.Linear(outer, outer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inner) -> (B, T, outer)."""
        bias = torch.cat((self.q_bias, self.zero_k_bias, self.v_bias))
        qkv = nn.functional.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))
        return out


class GatedMlp(nn.Module):
    """A gated MLP with the tanh approximation of GELU, normalised at its entrance."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.w0 = nn.Linear(width, hidden)
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        normed = self.norm(x)
        out: Tensor = self.w2(nn.functional.gelu(self.w0(normed), approximate="tanh") * self.w1(normed))
        return out


class ProjectionBlock(nn.Module):
    """A linear projection plus attention that narrow tokens, then an MLP."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inner)
        self.attn = MeanHeadAttention(inner, outer)
        self.proj = nn.Linear(inner, outer)
        self.norm3 = nn.LayerNorm(inner)
        self.norm2 = nn.LayerNorm(outer)
        self.mlp = GatedMlp(outer, 2 * outer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inner) -> (B, T, outer)."""
        x = self.proj(self.norm3(x)) + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Projection(nn.Module):
    """The one block of an attention projection, under its published name."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ProjectionBlock(inner, outer)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inner) -> (B, T, outer)."""
        out: Tensor = self.blocks[0](x)
        return out


class TokenUnshuffle(nn.Module):
    """Squares of factor x factor neighbouring tokens become one token, as in a pixel unshuffle."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) on a square grid -> (B, T / factor², D · factor²)."""
        grid = _as_map(x)
        return nn.functional.pixel_unshuffle(grid, self.factor).flatten(2).transpose(1, 2)


class Adapter(nn.Module):
    """Three layers of tokens -> the moments of the latent."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        narrow = shape.patch_out_dimension
        self.patch_quants = nn.ModuleList(
            nn.Sequential(Projection(shape.hidden_size, narrow), TokenUnshuffle(shape.unshuffle))
            for _ in shape.patch_from_layers
        )
        self.final_quant = Projection(shape.concatenated, 2 * shape.z_dimension)

    def forward(self, patches: list[Tensor]) -> Tensor:
        """A list of (B, T, D) -> (B, 2C, H, W), mean and log-variance."""
        narrowed = [quant(tokens) for quant, tokens in zip(self.patch_quants, patches, strict=True)]
        return _as_map(self.final_quant(torch.cat(narrowed, dim=2)))


class SigLip2(nn.Module):
    """The encoder, under the names of the published checkpoint."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.vision_model = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=shape.hidden_size,
                intermediate_size=shape.intermediate_size,
                num_hidden_layers=shape.num_hidden_layers,
                num_attention_heads=shape.num_attention_heads,
                image_size=shape.image_size,
                patch_size=shape.patch_size,
            )
        )
        self._layers = shape.patch_from_layers

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in [-1, 1] -> (B, T, D) for each of the layers that are read, positions interpolated to S."""
        seen = self.vision_model(pixel_values=images, interpolate_pos_encoding=True, output_hidden_states=True)
        return [seen.last_hidden_state if layer == -1 else seen.hidden_states[layer] for layer in self._layers]


class Vfm(nn.Module):
    """What holds the encoder in the published checkpoint."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.encoder = SigLip2(shape)


class VfmVae(nn.Module):
    """The encoding half: encoder and adapter."""

    def __init__(self, shape: Architecture, posterior: nn.Module) -> None:
        super().__init__()
        self.vfm_encoder = Vfm(shape)
        self.ldm_adapter = Adapter(shape)
        self.posterior = posterior
        self._scale = shape.scale_factor

    def patches(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) in [0, 1] -> (B, T, D) for each of the layers that are read."""
        large = nn.functional.interpolate(images, scale_factor=self._scale, mode="bilinear", align_corners=False)
        tokens: list[Tensor] = self.vfm_encoder.encoder((large - 0.5) / 0.5)
        return tokens

    def moments(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, 2C, H, W), mean and log-variance."""
        out: Tensor = self.ldm_adapter(self.patches(images))
        return out

    def forward(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """(B, 3, S, S) -> unnormalised latents (B, C, H, W)."""
        latents: Tensor = self.posterior(self.moments(images), names)
        return latents


def _as_map(tokens: Tensor) -> Tensor:
    """(B, T, D) on a square grid -> (B, D, side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


def checked(shape: Architecture, place: str) -> Architecture:
    """The same architecture. Raises CheckpointError where sizes do not go into each other."""
    depth = shape.num_hidden_layers
    wrong = [
        (
            shape.scale_factor * shape.compression % shape.patch_size,
            "scale_factor x compression is no multiple of patch_size",
        ),
        (shape.hidden_size % shape.num_attention_heads, "hidden_size is no multiple of num_attention_heads"),
        (shape.hidden_size % shape.patch_out_dimension, "hidden_size is no multiple of patch_out_dimension"),
        (shape.concatenated % (2 * shape.z_dimension), f"z_dimension: twice it does not divide {shape.concatenated}"),
        (any(not -1 <= i <= depth for i in shape.patch_from_layers), f"patch_from_layers: expected -1 to {depth}"),
    ]
    mistakes = [text for is_wrong, text in wrong if is_wrong]
    if mistakes:
        raise CheckpointError(f"{place}: {'; '.join(mistakes)}")
    return shape
