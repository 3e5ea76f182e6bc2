"""LightningDiT (Yao et al. 2025), under the names of its published state dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.models.networks.latent_transformers import (
    Architecture,
    Block,
    FinalLayer,
    LatentTransformer,
    Mlp,
    bare_norm,
    unchanged,
)


@dataclass(frozen=True)
class LightningArchitecture(Architecture):
    """use_swiglu, use_rmsnorm, use_rope, use_qknorm: as named; wo_shift: blocks are scaled, never shifted. learn_sigma:
    whether the model also predicts a variance.
    """

    use_swiglu: bool
    use_rmsnorm: bool
    use_rope: bool
    use_qknorm: bool
    wo_shift: bool
    learn_sigma: bool


class SwiGLU(nn.Module):
    """w3(silu(a) b) with a and b from one matrix; the hidden width is two thirds of an MLP's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(2 / 3 * 4 * width)
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        a, b = self.w12(x).chunk(2, dim=-1)
        changed: Tensor = self.w3(functional.silu(a) * b)
        return changed


class RotaryPositions(nn.Module):
    """Rotations of neighbouring pairs of numbers by the row, then by the column, of a patch."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, head_width: int, grid: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.grid = grid
        angles = self.angles(grid, grid)
        self.register_buffer("freqs_cos", angles.cos())
        self.register_buffer("freqs_sin", angles.sin())

    def angles(self, rows: int, columns: int) -> Tensor:
        """(rows x columns, head width); another size than the model's own is stretched over its grid."""
        half = self.head_width // 2
        frequencies = 1 / 10000 ** (torch.arange(0, half, 2)[: half // 2].float() / half)

        def along(count: int) -> Tensor:
            places = torch.arange(count) / count * self.grid
            return (places[:, None] * frequencies).repeat_interleave(2, dim=-1)

        by_row = along(rows)[:, None].expand(-1, columns, -1)
        by_column = along(columns)[None].expand(rows, -1, -1)
        return torch.cat([by_row, by_column], dim=-1).flatten(0, 1)

    def of(self, rows: int, columns: int) -> Callable[[Tensor], Tensor]:
        """What rotates queries and keys (B, heads, rows x columns, head width)."""
        cos, sin = self.freqs_cos, self.freqs_sin
        if (rows, columns) != (self.grid, self.grid):
            angles = self.angles(rows, columns).to(cos)
            cos, sin = angles.cos(), angles.sin()

        def rotate(x: Tensor) -> Tensor:
            even, odd = x[..., ::2], x[..., 1::2]
            return x * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin

        return rotate


class LightningDiT(LatentTransformer):
    """All stages are tokens (B, T, D)."""

    def __init__(self, architecture: LightningArchitecture) -> None:
        a = architecture
        rms: Callable[[int], nn.Module] = partial(nn.RMSNorm, eps=1e-6)
        norm = rms if a.use_rmsnorm else bare_norm
        qk_norm = None if not a.use_qknorm else rms if a.use_rmsnorm else nn.LayerNorm
        super().__init__(
            a,
            a.in_channels * (2 if a.learn_sigma else 1),
            block=lambda: Block(
                a.hidden_size, a.num_heads, norm, SwiGLU if a.use_swiglu else Mlp, qk_norm, shift=not a.wo_shift
            ),
            final=partial(FinalLayer, norm=norm),
        )
        self.feat_rope = RotaryPositions(a.hidden_size // a.num_heads, a.grid) if a.use_rope else None

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, C, H, W), without the variance."""
        patch = self.architecture.patch_size
        rows, columns = latents.shape[-2] // patch, latents.shape[-1] // patch
        rotate = unchanged if self.feat_rope is None else self.feat_rope.of(rows, columns)
        x = self.embedder(self.x_embedder(latents) + self.positions(latents))
        condition = self.condition(t, labels)
        for block in self.blocks:
            x = block(x, condition, rotate)
        return self.unpatched(self.final_layer(x, condition), latents)[:, : self.architecture.in_channels]
