"""VFM-VAE (https://github.com/tianciB/VFM-VAE): one layer as ``features`` (N, D) and ``names``, in ``.pt``.

Keys and names of what is written are those of tools/evaluate_alignment at commit b3a752a.
"""

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
# what scripts call the outputs of projectors, by family
_PROJECTORS = {"repa": "projection", "reg": "projector"}


def write_features(
    path: Path, features: Features, condition: str, transforms: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write one layer with the keys that VFM-VAE's scripts write, in their order.

    Of a model with a noise level, those of its diffusion features: LightningDiT's leave some out, REG's add
    ``original_indices``. Of others ``transformations``, and for the latents of an autoencoder of diffusers what the
    script for SD-VAE adds. transforms: name -> ``rotation`` and ``scale``, for the condition equivariance. Raises
    StoreError for a condition that its files have no words for.
    """
    import torch

    content: dict[str, Any] = {"features": torch.from_numpy(features.values), "names": list(features.names)}
    more = _of_diffusion(features) if _has_noise(features) else _of_others(features, condition, transforms, path)
    write_tensors(path, content | more)


def file_name(prefix: str, features: Features, condition: str) -> str:
    """What VFM-VAE's scripts call the file of a layer: ``sit_block_8_t0.500.pt``, or ``sd_vae_noise_0.050.pt``."""
    if not _has_noise(features):
        return f"{prefix}_{condition}.pt"
    return f"{prefix}_{_published_name(features)}_t{_level(features):.3f}.pt"


def _has_noise(features: Features) -> bool:
    return features.recipe.get("noise_level") is not None


def _level(features: Features) -> float:
    return float(features.recipe["noise_level"]["t"])


def _family(features: Features) -> str | None:
    family: str | None = features.recipe.get("model", {}).get("family")
    return family


def _of_diffusion(features: Features) -> dict[str, Any]:
    """The keys after ``features`` and ``names`` of a model with a noise level."""
    count, width = features.values.shape
    name, level = _published_name(features), _level(features)
    if _family(features) == "lightningdit":
        return {"feature_name": name, "timestep": level, "num_images": count}
    # rows are in order of name, and so were those of the latents
    indices = {"original_indices": list(range(count))} if _family(features) == "reg" else {}
    order = {"num_images": count, "sorted": True, "sorted_by": "name", **indices}
    return {**order, "timestep": level, "feature_name": name, "feature_dim": width}


def _of_others(
    features: Features, condition: str, transforms: Mapping[str, Mapping[str, Any]] | None, path: Path
) -> dict[str, Any]:
    """The keys after ``features`` and ``names`` of an encoder or an autoencoder."""
    if condition == EQUIVARIANCE and transforms is not None:
        rows = [{"mode": EQUIVARIANCE, **transforms[name]} for name in features.names]
    else:
        rows = [_transformation(condition, path)] * len(features.names)
    made: dict[str, Any] = {"transformations": rows}
    if _family(features) == "diffusers_vae" and features.recipe["layer"] == "latent":
        # latents are never scaled here
        made |= {"apply_scaling": False, "num_images": len(features.names), "sorted": True}
        made |= {"noise_level": rows[0]["noise_level"]} if "noise_level" in rows[0] else {}
    return made


def _published_name(features: Features) -> str:
    """``b8`` -> ``block_8``, ``embed`` -> ``embedder``, ``final`` -> ``final_layer``, and ``proj0`` as the script of
    the family calls it; other aliases stay.
    """
    layer: str = features.recipe["layer"]
    numbered = re.fullmatch(r"(b|proj)([0-9]+)", layer)
    if numbered:
        word = {"b": "block", "proj": _PROJECTORS.get(str(_family(features)))}[numbered[1]]
        return f"{word}_{numbered[2]}" if word else layer
    return {"embed": "embedder", "final": "final_layer"}.get(layer, layer)


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
