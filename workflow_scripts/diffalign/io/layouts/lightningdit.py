"""LightningDiT (https://github.com/hustvl/LightningDiT) and VFM-VAE: latents in ``*.safetensors`` of one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from diffalign.io.headers import StoreError, reading
from diffalign.io.latents import decode_names
from diffalign.io.layouts.latent_records import Draw, Folder
from diffalign.io.layouts.row_names import cleaned_names
from diffalign.offenders import first_five

# what RAE adds to a variance before its root
RAE_EPS = 1e-5
# files with the mean and std of latents, or their mean and variance
STATISTICS = ("latents_stats.pt", "normalization_stats.pt")


def open_folder(path: Path, given: Sequence[str] | None, draw: Draw) -> Folder:
    """Look at a folder of LightningDiT or VFM-VAE.

    given: a name a row, files in order of name; None for the names in the files. draw: means nothing here, for files
    hold latents. Raises StoreError that names the file and the first five offenders.
    """
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise StoreError(f"{path}: no *.safetensors, so no latents in the layout of LightningDiT")
    where: dict[str, tuple[Path, int]] = {}
    labels: dict[str, int] = {}
    at, shape = 0, None
    for file in files:
        tensors, (count, *inner) = _opened(file)
        shape = shape or inner
        if inner != shape:
            raise StoreError(f"{file}: latents are {inner}, but {shape} in {files[0].name}")
        names = _row_names(file, tensors, count) if given is None else list(given[at : at + count])
        if len(names) != count:
            raise StoreError(f"{file}: {count} latents, but only {len(names)} names are left for them")
        at += count
        twice = sorted(set(names) & set(where))
        if twice:
            raise StoreError(f"{file}: names stand in an earlier file, too: {first_five(twice)}")
        where.update((name, (file, row)) for row, name in enumerate(names))
        if "labels" in tensors:
            with reading(file, "latents"), safe_open(file, "pt") as opened:
                labels.update(zip(names, opened.get_tensor("labels").tolist(), strict=True))
    if given is not None and at != len(given):
        raise StoreError(f"{path}: {at} latents, but {len(given)} names for them")

    def read(name: str) -> Tensor:
        file, row = where[name]
        with reading(file, "latents"), safe_open(file, "pt") as opened:
            latent: Tensor = opened.get_slice("latents")[row : row + 1][0].float()
        return latent

    statistics, beside = statistics_in(path)
    return Folder(path, read, {name: file for name, (file, _) in where.items()}, labels, statistics, beside)


def _opened(file: Path) -> tuple[set[str], list[int]]:
    """The keys of a file and the shape of its latents."""
    with reading(file, "safetensors"), safe_open(file, "pt") as opened:
        keys = set(opened.keys())
        shape = list(opened.get_slice("latents").get_shape()) if "latents" in keys else []
    if len(shape) != 4:
        raise StoreError(
            f"{file}: needs 'latents' (n, C, H, W); it has {', '.join(sorted(keys))} {shape or ''}".strip()
        )
    return keys, shape


def _row_names(file: Path, keys: set[str], count: int) -> list[str]:
    if "names" not in keys:
        raise StoreError(
            f"{file}: latents without names cannot be joined with images; give latents_from.names, a file with one "
            "name a line in the order of the rows"
        )
    with reading(file, "latents"), safe_open(file, "pt") as opened:
        names = cleaned_names(decode_names(opened.get_tensor("names")), file)
    if len(names) != count:
        raise StoreError(f"{file}: {count} latents for {len(names)} names")
    return names


def statistics_in(path: Path) -> tuple[tuple[Tensor, Tensor] | None, tuple[Path, ...]]:
    """Mean and std of LightningDiT's latents_stats.pt, or of RAE's normalization_stats.pt, and the file.

    Raises StoreError where it holds something else.
    """
    for name in STATISTICS:
        if (path / name).is_file():
            return statistics_of(path / name), (path / name,)
    return None, ()


def statistics_of(file: Path) -> tuple[Tensor, Tensor]:
    """Mean and std of latents, (1, C, 1, 1) or (1, C, H, W) float32, of a file with `mean` and `std` (LightningDiT,
    VFM-VAE) or `mean` and `var` (RAE), of these shapes or (C,) or (C, H, W).

    Nothing is unpickled but tensors and plain containers. Raises FileNotFoundError, and StoreError for anything else.
    """
    with reading(file, "tensors, 'mean' and 'std' of latents"):
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    there = content if isinstance(content, Mapping) else {}
    key = next((key for key in ("std", "var") if isinstance(there.get(key), Tensor)), None)
    if key is None or not isinstance(there.get("mean"), Tensor):
        what = first_five([str(word) for word in there]) if there else type(content).__name__
        raise StoreError(f"{file}: expected the tensors 'mean' and 'std', or 'mean' and 'var'; it has {what}")
    mean, spread = there["mean"].float(), there[key].float()
    std = torch.sqrt(spread + RAE_EPS) if key == "var" else spread
    if mean.ndim == 1:
        mean, std = mean[:, None, None], std[..., None, None]
    if mean.ndim == 3:
        mean, std = mean[None], std[None]
    if mean.shape != std.shape or mean.ndim != 4 or not (mean.isfinite().all() and (std > 0).all()):
        raise StoreError(f"{file}: mean {tuple(mean.shape)} and {key} {tuple(spread.shape)} do not normalise latents")
    return mean, std
