"""Latents as files, in the layout of LightningDiT: shards in safetensors and ``latents_stats.pt``.

A shard holds ``latents`` (n, C, H, W) float32, unnormalised; ``labels`` (n,) int64, -1 for none; ``names`` (n, L)
uint8, zero-padded UTF-8. z = (x - mean) / std with mean and std of shape (1, C, 1, 1). Where images were scaled, their
latents are of several sides: a shard then holds ``latents_{H}``, ``labels_{H}`` and ``names_{H}`` for every side H.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from diffalign.io.atomic import replacing
from diffalign.io.headers import StoreError, reading
from diffalign.io.manifest import Image, check_unique
from diffalign.io.safetensors_files import save_file
from diffalign.offenders import first_five, flagged


def split(rows: Sequence[Image], shards: int) -> list[Sequence[Image]]:
    """Contiguous parts of nearly equal size, in order of name. Raises StoreError for more shards than images."""
    if shards > len(rows):
        raise StoreError(f"latents.shards is {shards}, but there are only {len(rows)} images")
    bounds = [len(rows) * i // shards for i in range(shards + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(bounds)]


class RunningMoments:
    """Per-channel mean and unbiased std over all images and positions, in one pass (Chan et al. 1979), in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, latents: Tensor) -> None:
        """Take in (B, C, H, W)."""
        flat = latents.double().transpose(0, 1).flatten(1)
        count, mean = flat.shape[1], flat.mean(1)
        squares = (flat - mean[:, None]).square().sum(1)
        if self._count == 0:
            self._count, self._mean, self._squares = count, mean, squares
            return
        total = self._count + count
        shift = mean - self._mean
        self._mean = self._mean + shift * (count / total)
        self._squares = self._squares + squares + shift.square() * (self._count * count / total)
        self._count = total

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and std, (1, C, 1, 1) float32."""
        std = (self._squares / (self._count - 1)).sqrt()
        return self._mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)


def check_finite(latents: Tensor, names: Sequence[str]) -> None:
    """Raise StoreError that names the first five images with NaN or infinite latents."""
    bad = ~latents.flatten(1).isfinite().all(1)
    if bad.any():
        raise StoreError(f"latents are NaN or infinite for {first_five(flagged(names, bad.tolist()))}")


def encode_names(names: Sequence[str]) -> Tensor:
    """Names as (n, L) uint8, zero-padded UTF-8, since safetensors holds no text."""
    encoded = [name.encode() for name in names]
    table = torch.zeros(len(names), max(map(len, encoded)), dtype=torch.uint8)
    for i, name in enumerate(encoded):
        table[i, : len(name)] = torch.frombuffer(bytearray(name), dtype=torch.uint8)
    return table


def decode_names(table: Tensor) -> list[str]:
    """The inverse of `encode_names`."""
    return [bytes(row).rstrip(b"\x00").decode() for row in table.tolist()]


def write_shard(path: Path, rows: Sequence[Image], parts: Sequence[Tensor]) -> None:
    """Write one shard; `parts` are batches, of one side each, in the order of `rows`."""
    by_side: dict[int, list[Tensor]] = {}
    members: dict[int, list[Image]] = {}
    at = 0
    for part in parts:
        side = int(part.shape[-1])
        by_side.setdefault(side, []).append(part)
        members.setdefault(side, []).extend(rows[at : at + len(part)])
        at += len(part)
    tensors = {}
    for side, batches in by_side.items():
        suffix = f"_{side}" if len(by_side) > 1 else ""
        tensors[f"latents{suffix}"] = torch.cat(batches).contiguous()
        tensors[f"labels{suffix}"] = torch.tensor([row.label_index for row in members[side]], dtype=torch.int64)
        tensors[f"names{suffix}"] = encode_names([row.name for row in members[side]])
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def normalises(mean: Tensor, shape: Sequence[int]) -> bool:
    """Whether a mean, and so a std, (1, C, …) is of latents of `shape` (C, H, W): of their channels, alike for all
    positions or of the same ones.
    """
    return list(mean.shape[1:]) in ([shape[0], 1, 1], list(shape))


def check_statistics(mean: Tensor, shape: Sequence[int], whose: str) -> None:
    """Raise StoreError, which says `whose` it is, where a mean does not normalise latents of `shape` (C, H, W)."""
    if not normalises(mean, shape):
        raise StoreError(
            f"{whose}: mean and std of the shape {tuple(mean.shape)} do not normalise latents of {tuple(shape)}"
        )


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and std, (1, C, 1, 1) each, of ``latents_stats.pt``. Raises FileNotFoundError, or StoreError that names the
    file for anything else.
    """
    with reading(path, "statistics of latents"):
        stats = torch.load(path, map_location="cpu", weights_only=True)
        mean, std = stats["mean"], stats["std"]
        fits = mean.shape == std.shape and mean.ndim == 4 and bool(mean.isfinite().all() and (std > 0).all())
    if not fits:
        raise StoreError(f"{path}: mean {tuple(mean.shape)} and std {tuple(std.shape)} do not normalise latents")
    return mean, std


def unnormalised(latents: Tensor, statistics: tuple[Tensor, Tensor], multiplier: float = 1.0) -> Tensor:
    """Latents (B, C, H, W) as their autoencoder gives them, which it can decode, of those that a diffusion model reads.

    statistics: mean and std (1, C, 1, 1) of ``latents_stats.pt``. multiplier: the model's ``latent_multiplier``. The
    inverse of `Latents`.
    """
    mean, std = (each.to(latents) for each in statistics)
    return latents / multiplier * std + mean


class Latents(Mapping[str, Tensor]):
    """Normalised latents by name, times `multiplier`, read from the shards one row at a time.

    sides: name -> H. Raises StoreError for files that disagree.
    """

    def __init__(self, shards: Sequence[Path], statistics: Path, multiplier: float = 1.0) -> None:
        self._mean, self._std = (each[0] for each in read_statistics(statistics))
        self._multiplier = multiplier
        self._files = list(shards)
        self._where: dict[str, tuple[int, str, int]] = {}
        self.sides: dict[str, int] = {}
        names: list[str] = []
        for number, path in enumerate(self._files):
            with reading(path, "latents"), safe_open(path, "pt") as file:
                # one table, or one of every side
                keys = [key for key in sorted(file.keys()) if re.fullmatch(r"latents(_[0-9]+)?", key)]
                for key in keys:
                    names_there = decode_names(file.get_tensor(key.replace("latents", "names")))
                    shape = file.get_slice(key).get_shape()
                    if len(names_there) != shape[0]:
                        raise StoreError(f"{path}: {key} {shape} for {len(names_there)} names")
                    check_statistics(self._mean[None], shape[1:], str(statistics))
                    names.extend(names_there)
                    self._where.update((name, (number, key, row)) for row, name in enumerate(names_there))
                    self.sides |= dict.fromkeys(names_there, shape[-1])
        check_unique(names, str(self._files[0].parent))

    @property
    def channels(self) -> int:
        """C."""
        return len(self._mean)

    def __getitem__(self, name: str) -> Tensor:
        number, key, row = self._where[name]
        with safe_open(self._files[number], "pt") as file:
            latent = file.get_slice(key)[row : row + 1][0]
        normalised: Tensor = (latent - self._mean) / self._std
        return normalised if self._multiplier == 1 else normalised * self._multiplier

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
