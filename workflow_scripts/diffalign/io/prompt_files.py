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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffalign.io.atomic import replacing
from diffalign.io.latents import decode_names, encode_names
from diffalign.io.manifest import check_unique
from diffalign.offenders import first_five, flagged
from diffalign.provenance import file_sha256

FORMAT = 1
# what a file of given embeddings must hold
EMBEDDINGS = "prompt_embeds"


class PromptError(ValueError):
    """Prompts that cannot be trusted; the message names the file and the first five images."""


@dataclass(frozen=True)
class Prompts:
    """told: arguments of the model, one row a text. text: (M, D). row_of: name -> row. facts: what the recipe says."""

    told: dict[str, Tensor]
    text: Tensor
    row_of: dict[str, int]
    facts: dict[str, Any]


def write_prompts(
    path: Path, tensors: Mapping[str, Tensor], rows: Sequence[int], names: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Write what `read_prompts` reads. tensors: one row a text, with ``text`` among them.

    Raises PromptError that names the first five images whose prompt is NaN or infinite.
    """
    for key, tensor in tensors.items():
        bad = ~tensor.flatten(1).isfinite().all(1)
        if bad.any():
            offenders = first_five(flagged(names, [bool(bad[row]) for row in rows]))
            raise PromptError(f"{path}: {key} is NaN or infinite for {offenders}")
    content = {key: value.contiguous() for key, value in tensors.items()}
    content |= {"row": torch.tensor(rows, dtype=torch.int64), "names": encode_names(names)}
    with replacing(path) as temporary:
        save_file(content, temporary, metadata={"format": str(FORMAT), "facts": json.dumps(facts, sort_keys=True)})


def read_prompts(path: Path) -> Prompts:
    """Read a file of prompts. Raises PromptError for another format."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
    if header.get("format") != str(FORMAT):
        raise PromptError(f"{path}: format {header.get('format')!r} is not known here; delete it and rerun")
    tensors = load_file(path)
    names, rows = decode_names(tensors.pop("names")), tensors.pop("row").tolist()
    return Prompts(tensors, tensors.pop("text"), dict(zip(names, rows, strict=True)), json.loads(header["facts"]))


def read_embeddings(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Embeddings that were given for these images, in their order, float32, with ``text`` among them.

    The file, .npz or .safetensors, holds ``names`` (text, or uint8 as above), ``prompt_embeds`` (N, T, D) or (N, D) and
    what else the model is told, one row an image. Alone, an embedding is the mean of its T tokens. Raises PromptError
    that names the file, and the first five images that it lacks.
    """
    if not path.is_file():
        raise PromptError(f"{path}: no such file; models.*.embeddings in config.yaml says where embeddings are")
    found = _arrays(path)
    missing = [key for key in ("names", EMBEDDINGS) if key not in found]
    if missing:
        raise PromptError(f"{path}: holds {', '.join(sorted(found)) or 'nothing'}, but no {', '.join(missing)}")
    table = found.pop("names")
    if table.ndim == 2 and table.dtype == np.uint8:
        given = decode_names(torch.from_numpy(table))
    elif table.ndim == 1 and table.dtype.kind == "U":
        given = [str(name) for name in table]
    else:
        raise PromptError(f"{path}: names are {table.dtype} of shape {table.shape}; expected text, one name a row")
    check_unique(given, str(path))
    for key, array in found.items():
        if len(array) != len(given) or array.dtype.kind not in "fiu":
            raise PromptError(
                f"{path}: {key} is {array.dtype} of shape {array.shape}; expected numbers, a row for each of the "
                f"{len(given)} names"
            )
    row_of = {name: row for row, name in enumerate(given)}
    absent = [name for name in names if name not in row_of]
    if absent:
        raise PromptError(f"{path}: no embedding for {len(absent)} images, first: {first_five(absent)}")
    order = [row_of[name] for name in names]
    tensors = {
        key: torch.from_numpy(array[order].astype(np.float32 if array.dtype.kind == "f" else np.int64))
        for key, array in found.items()
    }
    embeds = tensors[EMBEDDINGS]
    if embeds.ndim not in (2, 3):
        raise PromptError(f"{path}: {EMBEDDINGS} has shape {tuple(embeds.shape)}; expected (N, T, D) or (N, D)")
    embeds = embeds if embeds.ndim == 3 else embeds[:, None]
    return {**tensors, EMBEDDINGS: embeds, "text": embeds.mean(1)}


def embedding_facts(path: Path) -> dict[str, str]:
    """What the recipe says of given embeddings."""
    return {"embeddings": str(path), "sha256": file_sha256(path)}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        if path.suffix == ".safetensors":
            return {key: value.numpy() for key, value in load_file(path).items()}
    except Exception as error:  # NumPy and safetensors have many ways to refuse a file
        raise PromptError(f"{path}: cannot be read: {error}") from error
    raise PromptError(f"{path}: '{path.suffix}' is not known here; allowed: .npz, .safetensors")
