"""Prompts as files: every distinct text embedded once, and which image has which; or embeddings that were given.

A file holds one tensor for every argument of a model, with one row a text; ``text`` (M, D), what stands for a text
without an image; ``row`` (N,) int64, the row of each image; ``names`` (N, L) uint8, zero-padded UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError, members_of, reading
from diffalign.io.latents import decode_names, encode_names
from diffalign.io.manifest import check_unique
from diffalign.io.pickled_dictionaries import read_by_image
from diffalign.io.safetensors_files import save_file
from diffalign.offenders import first_five, flagged
from diffalign.provenance import file_sha256
from diffalign.reasons import reason

KIND = FileKind("a file of prompts", 1)
# what a file of given embeddings must hold
EMBEDDINGS = "prompt_embeds"
# what an embedding of T tokens is by itself
ALONE = ("mean", "concatenated")


@dataclass(frozen=True)
class Prompts:
    """arguments: of the model, by name, one row a text. text: (M, D). row_of: name -> row. facts: for the recipe."""

    arguments: dict[str, Tensor]
    text: Tensor
    row_of: dict[str, int]
    facts: dict[str, Any]


def write_prompts(
    path: Path, tensors: Mapping[str, Tensor], rows: Sequence[int], names: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Write what `read_prompts` reads. tensors: one row a text, with ``text`` among them.

    Raises StoreError that names the first five images whose prompt is NaN or infinite.
    """
    for key, tensor in tensors.items():
        bad = ~tensor.flatten(1).isfinite().all(1)
        if bad.any():
            offenders = first_five(flagged(names, [bool(bad[row]) for row in rows]))
            raise StoreError(f"{path}: {key} is NaN or infinite for {offenders}")
    content = {key: value.contiguous() for key, value in tensors.items()}
    content |= {"row": torch.tensor(rows, dtype=torch.int64), "names": encode_names(names)}
    with replacing(path) as temporary:
        save_file(content, temporary, metadata=KIND.metadata(facts=json.dumps(facts, sort_keys=True)))


def read_prompts(path: Path) -> Prompts:
    """Read what `write_prompts` wrote. Raises StoreError for anything else, and names the file."""
    header = KIND.read_metadata(path)
    with KIND.reading(path):
        tensors = load_file(path)
        names, rows = decode_names(tensors.pop("names")), tensors.pop("row").tolist()
        row_of, facts = dict(zip(names, rows, strict=True)), json.loads(header["facts"])
        prompts = Prompts(tensors, tensors.pop("text"), row_of, facts)
    if not all(0 <= row < len(prompts.text) for row in rows):
        raise StoreError(f"{path}: some images have a row that is none of its {len(prompts.text)} texts")
    return prompts


def read_embeddings(path: Path, names: Sequence[str], alone: str = "mean") -> dict[str, Tensor]:
    """Embeddings that were given for these images, in their order, float32, with ``text`` among them.

    The file, .npz or .safetensors, holds ``names`` (text, or uint8 as above), ``prompt_embeds`` (N, T, D) or (N, D) and
    further arguments of the model, one row an image; a .npy is a pickled dictionary of the published code, image ->
    (1, T, D), (T, D) or (D,). alone: what an embedding is by itself, the ``mean`` of its T tokens, or these
    ``concatenated``, as published. Raises StoreError that names the file, and the first five images that it lacks, and
    ValueError for another `alone`.
    """
    if alone not in ALONE:
        raise ValueError(f"unknown way to take an embedding alone '{alone}'; allowed: {', '.join(ALONE)}")
    if not path.is_file():
        raise StoreError(f"{path}: no such file; models.*.embeddings in config.yaml says where embeddings are")
    arrays = _of_dictionary(path) if path.suffix == ".npy" else _arrays(path)
    missing = [key for key in ("names", EMBEDDINGS) if key not in arrays]
    if missing:
        raise StoreError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}, but no {', '.join(missing)}")
    table = arrays.pop("names")
    if table.ndim == 2 and table.dtype == np.uint8:
        with reading(path, "names"):
            given = decode_names(torch.from_numpy(table))
    elif table.ndim == 1 and table.dtype.kind == "U":
        given = [str(name) for name in table]
    else:
        raise StoreError(f"{path}: names are {table.dtype} of shape {table.shape}; expected text, one name a row")
    check_unique(given, str(path))
    for key, array in arrays.items():
        if len(array) != len(given) or array.dtype.kind not in "fiu":
            raise StoreError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}; expected numbers, a row for each of the "
                f"{len(given)} names"
            )
    row_of = {name: row for row, name in enumerate(given)}
    absent = [name for name in names if name not in row_of]
    if absent:
        raise StoreError(f"{path}: no embedding for {len(absent)} images, first: {first_five(absent)}")
    order = [row_of[name] for name in names]
    tensors = {
        key: torch.from_numpy(array[order].astype(np.float32 if array.dtype.kind == "f" else np.int64))
        for key, array in arrays.items()
    }
    embeds = tensors[EMBEDDINGS]
    if embeds.ndim not in (2, 3):
        raise StoreError(f"{path}: {EMBEDDINGS} has shape {tuple(embeds.shape)}; expected (N, T, D) or (N, D)")
    embeds = embeds if embeds.ndim == 3 else embeds[:, None]
    return {**tensors, EMBEDDINGS: embeds, "text": embeds.mean(1) if alone == "mean" else embeds.flatten(1).clone()}


def embedding_facts(path: Path, alone: str = "mean") -> dict[str, str]:
    """Given embeddings as the recipe names them; how they are taken alone where it is not the mean."""
    facts = {"embeddings": str(path), "sha256": file_sha256(path)}
    return facts if alone == "mean" else {**facts, "alone": alone}


def _of_dictionary(path: Path) -> dict[str, np.ndarray]:
    """Names and embeddings of a published dictionary. Raises StoreError that names the first five that do not fit."""
    by_image = read_by_image(path)
    arrays = {name: np.asarray(value) for name, value in by_image.items() if isinstance(value, np.ndarray)}
    other = [name for name in by_image if name not in arrays]
    if other or not arrays:
        raise StoreError(f"{path}: {len(other)} of {len(by_image)} values are no arrays, first: {first_five(other)}")
    first = next(iter(arrays.values()))
    bad = [name for name, array in arrays.items() if array.shape != first.shape or array.dtype.kind != "f"]
    if bad or first.ndim not in (1, 2, 3) or (first.ndim == 3 and len(first) != 1):
        raise StoreError(
            f"{path}: embeddings of shape {first.shape} and {first.dtype}, others for {len(bad)} names"
            f"{': ' + first_five(bad) if bad else ''}; expected numbers of one shape, (1, T, D), (T, D) or (D,)"
        )
    stacked = np.stack(list(arrays.values()))
    return {"names": np.array(list(arrays)), EMBEDDINGS: stacked[:, 0] if first.ndim == 3 else stacked}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return members_of(file)
        if path.suffix == ".safetensors":
            return {key: value.numpy() for key, value in load_file(path).items()}
    except Exception as error:  # NumPy and safetensors have many ways to refuse a file
        raise StoreError(f"{path}: cannot be read: {reason(error)}") from error
    raise StoreError(f"{path}: '{path.suffix}' is not known here; allowed: .npz, .safetensors, .npy")
