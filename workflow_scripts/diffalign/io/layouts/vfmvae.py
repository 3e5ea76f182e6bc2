"""VFM-VAE (https://github.com/tianciB/VFM-VAE): one layer as ``features`` (N, D) and ``names``, in ``.pt``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign.conditions import CLEAN, EQUIVARIANCE
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError
from diffalign.io.layouts.content import TensorFile, write_tensors

FILE = TensorFile(frozenset({"features", "names"}), "features", "names")


def write_features(
    path: Path, features: Features, condition: str, transforms: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write one layer as VFM-VAE's scripts do: ``features``, ``names`` and ``transformations``, or, for a model with a
    noise level, the keys of its diffusion features.

    transforms: name -> ``rotation`` and ``scale``, for the condition equivariance. Raises StoreError for a condition
    that its files have no words for.
    """
    import torch

    content: dict[str, Any] = {"features": torch.from_numpy(features.values), "names": list(features.names)}
    level = features.recipe.get("noise_level")
    if level is not None:
        content |= {
            "num_images": len(features.names),
            "sorted": True,
            "sorted_by": "name",
            "timestep": float(level["t"]),
            "feature_name": _published_name(features.recipe["layer"]),
            "feature_dim": int(features.values.shape[1]),
        }
    elif condition == EQUIVARIANCE and transforms is not None:
        content["transformations"] = [{**transforms[name], "mode": EQUIVARIANCE} for name in features.names]
    else:
        content["transformations"] = [_transformation(condition, path)] * len(features.names)
    write_tensors(path, content)


def _published_name(layer: str) -> str:
    """``b8`` -> ``block_8``, ``embed`` -> ``embedder``, ``final`` -> ``final_layer``; other aliases stay."""
    block = re.fullmatch(r"b([0-9]+)", layer)
    return f"block_{block[1]}" if block else {"embed": "embedder", "final": "final_layer"}.get(layer, layer)


def _transformation(condition: str, path: Path) -> dict[str, Any]:
    noise = re.fullmatch(r"noise_([0-9.]+)", condition)
    if noise:
        return {"mode": "noise", "noise_level": float(noise[1])}
    if condition != CLEAN:
        raise StoreError(
            f"{path}: VFM-VAE's layout is written for clean, noise_* and, where rotations and scales are known, "
            f"equivariance, not for '{condition}'"
        )
    return {"mode": CLEAN}
