"""The features of a bundle: one file a layer, beside their folder the manifest; or those of a part of the images.

A part is one safetensors file: a tensor (n, D) float32 a layer, ``names`` as in latents, and as metadata what the
recipe of every layer shares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from diffalign.io import feature_files
from diffalign.io.atomic import replacing
from diffalign.io.headers import StoreError, reading
from diffalign.io.latents import decode_names, encode_names
from diffalign.io.manifest import check_unique
from diffalign.io.safetensors_files import save_file
from diffalign.provenance import file_sha256

_NAMES, _PART = "names", "a part of features"


def write(
    manifest: Path,
    names: Sequence[str],
    values: Callable[[str], NDArray[np.float32]],
    recipe: Mapping[str, Any],
    modules: Mapping[str, str],
) -> None:
    """Write a feature file a layer, as `feature_files.layer_path` says, and their manifest.

    values: alias -> (N, D), asked for one layer at a time. recipe: what those of all layers share. modules: alias ->
    module path. Raises StoreError as `feature_files.write_features`.
    """
    made_of = {}
    for alias, module in modules.items():
        path, of_layer = feature_files.layer_path(manifest, alias), values(alias)
        made = {**recipe, "layer": alias, "module": module}
        feature_files.write_features(path, feature_files.Features(of_layer, tuple(names), made))
        # with a digest: Snakemake takes a small input whose content is the same for unchanged
        made_of[alias] = {"width": int(of_layer.shape[1]), "sha256": file_sha256(path)}
    feature_files.LAYERS.write_json(manifest, bundle=recipe["bundle"], count=len(names), layers=made_of)


def write_part(
    path: Path,
    names: Sequence[str],
    values: Mapping[str, NDArray[Any]],
    recipe: Mapping[str, Any],
    total: int,
) -> None:
    """Write the features of a part of `total` images: alias -> (n, D), and the recipe that all layers share."""
    tensors = {alias: torch.from_numpy(np.ascontiguousarray(rows)) for alias, rows in values.items()}
    with replacing(path) as temporary:
        save_file(
            {**tensors, _NAMES: encode_names(names)},
            temporary,
            # the order of layers in a recipe is that of their depth
            metadata={"recipe": json.dumps(recipe), "total": str(total)},
        )


def merge(parts: Sequence[Path], manifest: Path) -> None:
    """Write from parts what one job would have written, with rows in order of name.

    Raises StoreError where parts have other recipes, share an image, or lack one.
    """
    names, recipe, values = read_parts(parts)
    write(manifest, names, values, recipe, recipe["model"]["layers"])


def read_parts(parts: Sequence[Path]) -> tuple[list[str], dict[str, Any], Callable[[str], NDArray[Any]]]:
    """Names in order, the recipe, and key -> (N, …), read when it is asked for. Raises StoreError as `merge`."""
    recipes, totals, names = [], [], []
    for path in parts:
        with reading(path, _PART), safe_open(path, "np") as file:
            metadata = file.metadata()
            recipes.append(metadata["recipe"])
            totals.append(int(metadata["total"]))
        with reading(path, _PART), safe_open(path, "pt") as file:
            names.extend(decode_names(file.get_tensor(_NAMES)))
    for path, recipe in zip(parts, recipes, strict=True):
        if recipe != recipes[0]:
            raise StoreError(f"{path} has another recipe than {parts[0]}; delete the parts and rerun")
    check_unique(names, f"{parts[0].parent}")
    if {len(names)} != set(totals):
        raise StoreError(
            f"{parts[0].parent}: {len(parts)} parts hold {len(names)} images of {totals[0]}; delete the parts and rerun"
        )
    rank = sorted(range(len(names)), key=names.__getitem__)

    def values(key: str) -> NDArray[Any]:
        rows = []
        for path in parts:
            with reading(path, _PART), safe_open(path, "np") as file:
                rows.append(file.get_tensor(key))
        merged: NDArray[Any] = np.concatenate(rows)[rank]
        return merged

    with reading(parts[0], _PART):
        recipe = json.loads(recipes[0])
    return [names[i] for i in rank], recipe, values
