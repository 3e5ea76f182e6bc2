"""Latents that were made elsewhere: folders of LightningDiT and VFM-VAE, and of REPA.

A folder is looked at once for its names; latents are then read one image at a time, unnormalised, in float32.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from diffalign.io.latents import LatentError, decode_names
from diffalign.io.layouts import cleaned_names, names_file
from diffalign.io.manifest import Image
from diffalign.offenders import first_five
from diffalign.randomness import normal

# Stable Diffusion's first autoencoder, the only one that REPA encodes with
REPA_SCALE, REPA_CHANNELS = 0.18215, 4
# what RAE adds to a variance before its root
RAE_EPS = 1e-5
# files with the mean of latents, and what else they hold
STATISTICS = {"latents_stats.pt": "std", "normalization_stats.pt": "var"}
_REPA_FILE = re.compile(r"img-mean-std-(\d+)\.npy")


@dataclass(frozen=True)
class Draw:
    """Which latent a mean and std stand for: ``mode`` or ``sample``, and how a sample is drawn."""

    posterior: str
    seeding: str
    seed: int


@dataclass(frozen=True)
class Folder:
    """Latents by name.

    read: a name -> (C, H, W) float32. labels: name -> class index, where the folder has one. statistics: mean and std
    that normalise, (1, C, 1, 1) or (1, C, H, W), where the folder defines them. files: what was read for all of this.
    """

    path: Path
    read: Callable[[str], Tensor]
    file_of: Mapping[str, Path]
    labels: Mapping[str, int]
    statistics: tuple[Tensor, Tensor] | None
    files: tuple[Path, ...]


def open_folder(path: Path, layout: str, names: Path | None, draw: Draw) -> Folder:
    """Look at a folder in the layout ``lightningdit`` or ``repa``.

    names: a text file with one name a line, for folders without names: in the order of the rows of the files in order
    of name, or of the indices that REPA names its files by. draw: is for REPA, whose files hold a posterior.
    Raises FileNotFoundError, or LatentError that names the file and the first five offenders.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of latents")
    given = None if names is None else cleaned_names(names_file(names), names)
    found = _repa(path, given, draw) if layout == "repa" else _lightningdit(path, given)
    return found if names is None else Folder(**{**vars(found), "files": (*found.files, names)})


def check_images(folder: Folder, rows: Sequence[Image]) -> None:
    """Raise LatentError for images without a latent, and for labels that say that latents are of other images.

    The folder may hold further images. Its classes may be numbered otherwise; but images that share a label in the
    manifest must share one there.
    """
    absent = [row.name for row in rows if row.name not in folder.file_of]
    if absent:
        raise LatentError(
            f"{folder.path}: no latents for {len(absent)} of {len(rows)} images: {first_five(absent)}; "
            f"the folder has {first_five(sorted(folder.file_of))}"
        )
    seen: dict[int, tuple[str, int]] = {}
    for row in rows:
        label = folder.labels.get(row.name)
        if row.label_index < 0 or label is None:
            continue
        name, other = seen.setdefault(row.label_index, (row.name, label))
        if other != label:
            raise LatentError(
                f"{folder.path}: {name} and {row.name} are both '{row.label}', but their latents have the labels "
                f"{other} and {label}; are they of other images?"
            )


# --- LightningDiT and VFM-VAE ---------------------------------------------------------------------------------------


def _lightningdit(path: Path, given: Sequence[str] | None) -> Folder:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise LatentError(f"{path}: no *.safetensors, so no latents in the layout of LightningDiT")
    where: dict[str, tuple[Path, int]] = {}
    labels: dict[str, int] = {}
    at, shape = 0, None
    for file in files:
        tensors, (count, *inner) = _opened(file)
        shape = shape or inner
        if inner != shape:
            raise LatentError(f"{file}: latents are {inner}, but {shape} in {files[0].name}")
        names = _row_names(file, tensors, count) if given is None else list(given[at : at + count])
        if len(names) != count:
            raise LatentError(f"{file}: {count} latents, but only {len(names)} names are left for them")
        at += count
        twice = sorted(set(names) & set(where))
        if twice:
            raise LatentError(f"{file}: names stand in an earlier file, too: {first_five(twice)}")
        where.update((name, (file, row)) for row, name in enumerate(names))
        if "labels" in tensors:
            with safe_open(file, "pt") as opened:
                labels.update(zip(names, opened.get_tensor("labels").tolist(), strict=True))
    if given is not None and at != len(given):
        raise LatentError(f"{path}: {at} latents, but {len(given)} names for them")

    def read(name: str) -> Tensor:
        file, row = where[name]
        with safe_open(file, "pt") as opened:
            latent: Tensor = opened.get_slice("latents")[row : row + 1][0].float()
        return latent

    statistics, beside = statistics_in(path)
    return Folder(path, read, {name: file for name, (file, _) in where.items()}, labels, statistics, beside)


def _opened(file: Path) -> tuple[set[str], list[int]]:
    """The keys of a file and the shape of its latents."""
    try:
        with safe_open(file, "pt") as opened:
            keys = set(opened.keys())
            shape = list(opened.get_slice("latents").get_shape()) if "latents" in keys else []
    except Exception as error:
        raise LatentError(f"{file}: cannot be read as safetensors: {error}") from error
    if len(shape) != 4:
        raise LatentError(
            f"{file}: needs 'latents' (n, C, H, W); it has {', '.join(sorted(keys))} {shape or ''}".strip()
        )
    return keys, shape


def _row_names(file: Path, keys: set[str], count: int) -> list[str]:
    if "names" not in keys:
        raise LatentError(
            f"{file}: latents without names cannot be joined with images; give latents_from.names, a file with one "
            "name a line in the order of the rows"
        )
    with safe_open(file, "pt") as opened:
        names = cleaned_names(decode_names(opened.get_tensor("names")), file)
    if len(names) != count:
        raise LatentError(f"{file}: {count} latents for {len(names)} names")
    return names


def statistics_in(path: Path) -> tuple[tuple[Tensor, Tensor] | None, tuple[Path, ...]]:
    """Mean and std of LightningDiT's latents_stats.pt, or of RAE's normalization_stats.pt, and the file.

    Raises LatentError where it holds something else.
    """
    for name, key in STATISTICS.items():
        if (path / name).is_file():
            return _read_statistics(path / name, key), (path / name,)
    return None, ()


def _read_statistics(file: Path, key: str) -> tuple[Tensor, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
        mean, spread = content["mean"].float(), content[key].float()
    except Exception as error:
        raise LatentError(f"{file}: expected {{'mean', '{key}'}}, two tensors: {error}") from error
    std = torch.sqrt(spread + RAE_EPS) if key == "var" else spread
    if mean.ndim == 3:
        mean, std = mean[None], std[None]
    if mean.shape != std.shape or mean.ndim != 4 or not (mean.isfinite().all() and (std > 0).all()):
        raise LatentError(f"{file}: mean {tuple(mean.shape)} and {key} {tuple(spread.shape)} do not normalise latents")
    return mean, std


# --- REPA -----------------------------------------------------------------------------------------------------------


def _repa(path: Path, given: Sequence[str] | None, draw: Draw) -> Folder:
    index_of = {file: int(match[1]) for file in path.glob("*/*.npy") if (match := _REPA_FILE.fullmatch(file.name))}
    if not index_of:
        raise LatentError(f"{path}: no 00000/img-mean-std-*.npy, so no latents in the layout of REPA")
    listing = path / "dataset.json"
    listed = _listed(listing)
    absent = [file for file in listed if path / file not in index_of]
    if absent:
        raise LatentError(f"{path}: {len(absent)} files of dataset.json are missing: {first_five(absent)}")
    if given is not None and max(index_of.values()) >= len(given):
        raise LatentError(f"{path}: indices up to {max(index_of.values())}, but {len(given)} names for them")
    # without names, as REPA calls the image of that index
    name_of = {file: f"img{index:08d}" if given is None else given[index] for file, index in index_of.items()}
    file_of = {name: file for file, name in name_of.items()}
    if len(file_of) != len(name_of):
        raise LatentError(f"{path}: some indices stand more than once")
    labels = {name_of[path / file]: label for file, label in listed.items()}

    def read(name: str) -> Tensor:
        return _drawn(file_of[name], name, draw)

    shape = (1, REPA_CHANNELS, 1, 1)
    statistics = torch.zeros(shape), torch.full(shape, 1 / REPA_SCALE)
    return Folder(path, read, file_of, labels, statistics, (listing,) if listing.is_file() else ())


def _listed(listing: Path) -> dict[str, int]:
    """File -> label of dataset.json; nothing where it has no labels."""
    if not listing.is_file():
        return {}
    try:
        return {
            str(file): int(label) for file, label in json.loads(listing.read_text(encoding="utf-8"))["labels"] or []
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LatentError(f"{listing}: expected {{'labels': [[file, label], …]}}: {error}") from error


def _drawn(file: Path, name: str, draw: Draw) -> Tensor:
    """The mode of a file with mean and std (2C, H, W), or a sample."""
    try:
        both = np.load(file, allow_pickle=False).astype(np.float32)
    except (ValueError, EOFError, OSError) as error:
        raise LatentError(f"{file}: cannot be read as an array: {error}") from error
    if both.ndim != 3 or len(both) != 2 * REPA_CHANNELS:
        raise LatentError(f"{file}: is {both.shape}; expected mean and std of {REPA_CHANNELS} channels, (8, H, W)")
    mean, std = np.split(both, 2)
    if not (std >= 0).all() or not math.isfinite(float(both.sum())):
        raise LatentError(f"{file}: a std is negative, or a value is NaN or infinite")
    if draw.posterior == "sample":
        mean = mean + std * normal(mean.shape, draw.seeding, draw.seed, name, "posterior")
    return torch.from_numpy(mean)
