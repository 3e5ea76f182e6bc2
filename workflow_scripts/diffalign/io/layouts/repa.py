"""REPA (https://github.com/sihyun-yu/REPA): a posterior an image, ``00000/img-mean-std-00000000.npy``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffalign.io.headers import StoreError
from diffalign.io.layouts.latent_records import Draw, Folder
from diffalign.offenders import first_five
from diffalign.randomness import normal
from diffalign.reasons import reason

# Stable Diffusion's first autoencoder, the only one that REPA encodes with
REPA_SCALE, REPA_CHANNELS = 0.18215, 4
_REPA_FILE = re.compile(r"img-mean-std-(\d+)\.npy")


def open_folder(path: Path, given: Sequence[str] | None, draw: Draw) -> Folder:
    """Look at a folder of REPA.

    given: names in the order of the indices that files are named by; None calls them as REPA does. draw: which latent
    of a posterior is meant. Raises StoreError that names the file and the first five offenders.
    """
    index_of = {file: int(match[1]) for file in path.glob("*/*.npy") if (match := _REPA_FILE.fullmatch(file.name))}
    if not index_of:
        raise StoreError(f"{path}: no 00000/img-mean-std-*.npy, so no latents in the layout of REPA")
    listing = path / "dataset.json"
    listed = _listed(listing)
    absent = [file for file in listed if path / file not in index_of]
    if absent:
        raise StoreError(f"{path}: {len(absent)} files of dataset.json are missing: {first_five(absent)}")
    if given is not None and max(index_of.values()) >= len(given):
        raise StoreError(f"{path}: indices up to {max(index_of.values())}, but {len(given)} names for them")
    # without names, as REPA calls the image of that index
    name_of = {file: f"img{index:08d}" if given is None else given[index] for file, index in index_of.items()}
    file_of = {name: file for file, name in name_of.items()}
    if len(file_of) != len(name_of):
        raise StoreError(f"{path}: some indices stand more than once")
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{listing}: expected {{'labels': [[file, label], …]}}: {reason(error)}") from error


def _drawn(file: Path, name: str, draw: Draw) -> Tensor:
    """The mode of a file with mean and std (2C, H, W), or a sample."""
    try:
        both = np.load(file, allow_pickle=False).astype(np.float32)
    except Exception as error:  # NumPy has many ways to refuse a file
        raise StoreError(f"{file}: cannot be read as an array: {reason(error)}") from error
    if both.ndim != 3 or len(both) != 2 * REPA_CHANNELS:
        raise StoreError(f"{file}: is {both.shape}; expected mean and std of {REPA_CHANNELS} channels, (8, H, W)")
    mean, std = np.split(both, 2)
    if not (std >= 0).all() or not math.isfinite(float(both.sum())):
        raise StoreError(f"{file}: a std is negative, or a value is NaN or infinite")
    if draw.posterior == "sample":
        mean = mean + std * normal(mean.shape, draw.key, name, "posterior")
    return torch.from_numpy(mean)
