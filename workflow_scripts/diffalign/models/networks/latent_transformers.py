"""Class-conditional flow transformers over latents: what SiT, REPA, REG and LightningDiT share.

Modules bear the names of the published state dicts (SiT: Ma et al. 2024), and `embedder` is one without weights, so
that patches with their positions can be tapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.architectures import read_fields

_FREQUENCIES = 256


@dataclass(frozen=True)
class Architecture:
    """Keys of ``architecture`` in a model's entry, in the words of the published code.

    input_size: height and width of latents. in_channels: theirs. patch_size: side of a patch. hidden_size, depth,
    num_heads: of the transformer. num_classes: the null label is the next one.
    """

    input_size: int
    in_channels: int
    patch_size: int
    hidden_size: int
    depth: int
    num_heads: int
    num_classes: int

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.input_size // self.patch_size


A = TypeVar("A", bound=Architecture)


def read_architecture(kind: type[A], entry: Mapping[str, Any], name: str, also: Sequence[str] = ()) -> A:
    """Check the architecture of the model `name`, or of its miniature, which has the keys `also`.

    Raises CheckpointError that names every key that is unknown, missing, or no positive number or truth value.
    """
    place = f"models.{name}.architecture"
    made = read_fields(kind, entry, place, also)
    for whole, part in (("hidden_size", "num_heads"), ("input_size", "patch_size")):
        if getattr(made, whole) % getattr(made, part):
            raise CheckpointError(f"{place}: {whole} {getattr(made, whole)} is no multiple of {part}")
    if made.hidden_size % 4:
        raise CheckpointError(f"{place}: hidden_size {made.hidden_size} is no multiple of 4")
    return made


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, T, D): one token a patch, row by row."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, latents: Tensor) -> Tensor:
        """Raises ValueError where patches do not fill the latents."""
        if latents.shape[-2] % self.patch or latents.shape[-1] % self.patch:
            raise ValueError(f"latents of {tuple(latents.shape[-2:])} cannot be cut into patches of {self.patch}")
        cells: Tensor = self.proj(latents)
        return cells.flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """t (B,) in [0, 1] -> (B, D), through cosines and sines of 128 frequencies from 1 down to 1/10000."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, D)."""
        half = _FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t[:, None] * torch.exp(-math.log(10000) * steps / half)
        embedded: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return embedded


class LabelEmbedder(nn.Module):
    """Labels (B,) -> (B, D); the last row of the table is the null label."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) -> (B, D)."""
        embedded: Tensor = self.embedding_table(labels)
        return embedded


class Attention(nn.Module):
    """Self-attention; `norm` makes the norms of queries and keys, if they have any."""

    def __init__(self, width: int, heads: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.Identity() if norm is None else norm(width // heads)
        self.k_norm = nn.Identity() if norm is None else norm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, D) -> (B, T, D); `rotate` turns queries and keys (B, heads, T, D / heads)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotate(self.q_norm(q)), rotate(self.k_norm(k)), v)
        attended: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return attended


class Mlp(nn.Module):
    """Two layers with a tanh GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        changed: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return changed


def bare_norm(width: int) -> nn.Module:
    """Layer norm without weights."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def modulated(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """X (1 + scale) + shift, alike for all tokens."""
    x = x * (1 + scale[:, None])
    return x if shift is None else x + shift[:, None]


def unchanged(x: Tensor) -> Tensor:
    """The tokens themselves: of a layer, where all are averaged, or queries and keys without rotary positions."""
    return x


class Block(nn.Module):
    """Attention and an MLP, each scaled, shifted (unless `shift` is false) and gated by the condition (adaLN)."""

    def __init__(
        self,
        width: int,
        heads: int,
        norm: Callable[[int], nn.Module] = bare_norm,
        mlp: Callable[[int], nn.Module] = Mlp,
        qk_norm: Callable[[int], nn.Module] | None = None,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, qk_norm)
        self.norm2 = norm(width)
        self.mlp = mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (6 if shift else 4) * width))

    def forward(self, x: Tensor, condition: Tensor, rotate: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
        """Tokens (B, T, D) and condition (B, D) -> tokens."""
        shift1: Tensor | None = None
        shift2: Tensor | None = None
        if self.shift:
            shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        else:
            scale1, gate1, scale2, gate2 = self.adaLN_modulation(condition).chunk(4, dim=-1)
        x = x + gate1[:, None] * self.attn(modulated(self.norm1(x), scale1, shift1), rotate)
        gated: Tensor = gate2[:, None] * self.mlp(modulated(self.norm2(x), scale2, shift2))
        return x + gated


class FinalLayer(nn.Module):
    """Tokens -> what the model predicts for each patch, (B, T, patch² C)."""

    def __init__(self, width: int, out: int, norm: Callable[[int], nn.Module] = bare_norm) -> None:
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def normed(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalised and modulated tokens."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return modulated(self.norm_final(x), scale, shift)

    def forward(self, x: Tensor, condition: Tensor) -> Any:
        """(B, T, D) -> (B, T, patch² C)."""
        return self.linear(self.normed(x, condition))


class LatentTransformer(nn.Module):
    """SiT, and the frame of what descends from it.

    leading: tokens before those of patches, with rows of their own in the table of positions. qk_norm: whether queries
    and keys go through layer norms with weights, as in Attention of timm.
    """

    def __init__(
        self,
        architecture: Architecture,
        out_channels: int,
        leading: int = 0,
        block: Callable[[], Block] | None = None,
        final: Callable[[int, int], FinalLayer] = FinalLayer,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        a, width = architecture, architecture.hidden_size
        self.architecture = a
        self.leading = leading
        self.x_embedder = PatchEmbed(a.in_channels, a.patch_size, width)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(a.num_classes, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, leading + a.grid**2, width), requires_grad=False)
        with torch.no_grad():
            self.pos_embed[0, leading:].copy_(sine_positions(a.grid, width))
        self.embedder = nn.Identity()
        made = block or (lambda: Block(width, a.num_heads, qk_norm=nn.LayerNorm if qk_norm else None))
        self.blocks = nn.ModuleList(made() for _ in range(a.depth))
        self.final_layer = final(width, a.patch_size**2 * out_channels)

    def positions(self, latents: Tensor) -> Tensor:
        """The table of positions (1, T, D), interpolated for latents of another size than the model's own."""
        rows, columns = (side // self.architecture.patch_size for side in latents.shape[-2:])
        grid = self.architecture.grid
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        table = self.pos_embed[:, self.leading :].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        table = functional.interpolate(table, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, : self.leading], table.flatten(2).transpose(1, 2)], dim=1)

    def condition(self, t: Tensor, labels: Tensor) -> Tensor:
        """(B, D)."""
        both: Tensor = self.t_embedder(t) + self.y_embedder(labels)
        return both

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Any:
        """Noisy latents (B, C, H, W), the model's own clock (B,) and labels (B,) -> its prediction (B, C', H, W)."""
        x = self.embedder(self.x_embedder(latents) + self.positions(latents))
        condition = self.condition(t, labels)
        for block in self.blocks:
            x = block(x, condition)
        return self.unpatched(self.final_layer(x, condition), latents)

    def unpatched(self, patches: Tensor, latents: Tensor) -> Tensor:
        """Patches (B, T, patch² C') as a map (B, C', H, W) of the size of `latents`."""
        p = self.architecture.patch_size
        rows, columns = latents.shape[-2] // p, latents.shape[-1] // p
        cells = patches.reshape(len(patches), rows, columns, p, p, -1)
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def initialise(net: LatentTransformer) -> None:
    """Draw the weights that training begins with, as the published code of DiT and SiT does.

    Matrices are Xavier-uniform, also that of the patches, and biases 0; the table of labels and the MLP of the time are
    normal with a standard deviation of 0.02; modulations and the last layer are 0, so that each block begins as the
    identity (adaLN-Zero, Peebles and Xie 2023).
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.data.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(net.y_embedder.embedding_table.weight, std=0.02)
    for layer in net.t_embedder.mlp:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
    modulations = [module.adaLN_modulation[-1] for module in net.modules() if isinstance(module, Block | FinalLayer)]
    for layer in (*modulations, net.final_layer.linear):
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def sine_positions(grid: int, width: int) -> Tensor:
    """(grid², width): sines and cosines of the column, then of the row, as in MAE (He et al. 2022)."""
    frequencies = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    side = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = side.expand(grid, -1, -1)
    rows = side[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()
