"""The extraction loop: batches in, pooled features of every layer out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffalign import logs
from diffalign.extraction.inputs import Batches
from diffalign.extraction.taps import Taps, find_module
from diffalign.extraction.token_grids import token_grid
from diffalign.io.shard_files import Shard, Shards
from diffalign.io.token_files import Grid, TokenBatch
from diffalign.models import Loaded
from diffalign.offenders import first_five, flagged

Batch = Mapping[str, Any]
# names of images, and alias -> (N, D), rows in their order
Pooled = tuple[list[str], dict[str, NDArray[np.float32]]]
SHARD_SECONDS = 30.0


@dataclass(frozen=True)
class Kept:
    """Where finished batches are kept, from which a killed extraction goes on. seconds: of work that a shard holds, so
    that a short extraction keeps none.
    """

    shards: Shards
    seconds: float = SHARD_SECONDS


def pooled_features(loaded: Loaded, layers: Mapping[str, str], batches: Batches | Sequence[Batch]) -> Pooled:
    """Run every batch once and average the tokens of each layer on the device.

    Returns the names in the order of the batches and alias -> (N, D) float32. Raises ValueError that names the layer
    where it does not give tokens of every image, and the first five images where a feature is NaN or infinite.
    """
    count = batches.images if isinstance(batches, Batches) else sum(len(batch["names"]) for batch in batches)
    return mean_of_passes(loaded, layers, [batches], count)


def mean_of_passes(
    loaded: Loaded,
    layers: Mapping[str, str],
    passes: Sequence[Iterable[Batch]],
    count: int,
    what: str | None = None,
    kept: Kept | None = None,
) -> Pooled:
    """The mean of the features of several passes over the same images, such as draws of noise.

    count: of images in each pass. what: shown beside the progress of `Batches`. kept: where finished batches are.
    Features are held once: of a single pass as they are, of several as sums in float64. Returns and raises as
    `pooled_features`, and ValueError where two passes saw other images, or in another order, or where there are not as
    many.
    """
    names: list[str] = []
    held: dict[str, NDArray[Any]] = {}
    ends = [0] * len(passes)
    for number, (members, features) in _batches_of_passes(loaded, layers, passes, what, kept):
        rows = slice(ends[number], ends[number] + len(members))
        ends[number] = rows.stop
        if rows.stop > count:
            raise ValueError(f"batches hold more than {count} images")
        if number == 0:
            names.extend(members)
        elif names[rows] != members:
            raise ValueError("passes over other images cannot be averaged")
        for alias, values in features.items():
            if alias not in held:
                dtype = np.float32 if len(passes) == 1 else np.float64
                held[alias] = np.empty((count, values.shape[1]), dtype)
            if number == 0:
                held[alias][rows] = values
            else:
                held[alias][rows] += values
    for end in ends:
        if end != count:
            raise ValueError(f"batches hold {end} images, not {count}")
    if len(passes) > 1:
        for alias, sums in held.items():
            np.divide(sums, len(passes), out=sums)
            held[alias] = sums.astype(np.float32)
    return names, held


def _batches_of_passes(
    loaded: Loaded,
    layers: Mapping[str, str],
    passes: Sequence[Iterable[Batch]],
    what: str | None,
    kept: Kept | None,
) -> Iterator[tuple[int, Pooled]]:
    """The number of a pass, names and features, one batch after the other; of finished batches as they are kept."""
    done = [0] * len(passes)
    for shard in () if kept is None else kept.shards.finished():
        number = shard.facts["pass"]
        done[number] += shard.facts["batches"]
        yield number, (shard.facts["names"], dict(shard.arrays))
    if any(done):
        logs.log.info("%s: goes on after %d batches", what, sum(done))
    for number, batches in enumerate(passes):
        rest = batches.after(done[number]) if isinstance(batches, Batches) else islice(batches, done[number], None)
        shown = logs.progress(rest, len(rest), what) if what is not None and isinstance(rest, Batches) else rest
        pending: list[Pooled] = []
        since = time.monotonic()
        for made in _pooled_batches(loaded, layers, shown):
            yield number, made
            if kept is None:
                continue
            pending.append(made)
            if time.monotonic() - since >= kept.seconds:
                kept.shards.append(_shard(number, pending))
                pending, since = [], time.monotonic()
        if kept is not None and pending and number + 1 < len(passes):
            kept.shards.append(_shard(number, pending))


def _shard(number: int, made: Sequence[Pooled]) -> Shard:
    """Batches of a pass that are done, as one shard."""
    arrays = {alias: np.concatenate([features[alias] for _, features in made]) for alias in made[0][1]}
    names = [name for members, _ in made for name in members]
    return Shard(arrays, {"pass": number, "batches": len(made), "names": names})


def _pooled_batches(loaded: Loaded, layers: Mapping[str, str], batches: Iterable[Batch]) -> Iterator[Pooled]:
    """Names and features of one batch after the other."""

    def mean_token(output: Any) -> Tensor:
        return loaded.tokens(output).mean(dim=1, dtype=torch.float32)

    with torch.inference_mode(), Taps(loaded.module, layers, mean_token) as taps:
        for batch in batches:
            caught = taps.run(lambda batch=batch: loaded.forward(batch))  # type: ignore[misc]
            names = list(batch["names"])
            features = dict(zip(caught, _fetched(caught, len(names)), strict=True))
            for alias, values in features.items():
                bad = ~np.asarray(np.isfinite(values).all(axis=1))
                if bad.any():
                    offenders = first_five(flagged(names, bad))
                    raise ValueError(f"layer {alias}: features are NaN or infinite for {offenders}")
            yield names, features


def all_tokens(loaded: Loaded, layers: Mapping[str, str], batches: Iterable[Batch]) -> Iterator[TokenBatch]:
    """Run every batch once; names of its images, all tokens of every layer (B, T, C) float32, and their grids, None
    where they are unknown. Nothing is kept. Raises ValueError that names a layer without tokens of every image.
    """
    fed: Batch = {}
    # by identity of the tokens, which the taps hand back as they are
    grids: dict[int, Grid | None] = {}

    def every_token(output: Any) -> Tensor:
        tokens = loaded.tokens(output).float()
        if tokens.ndim == 3:
            grids[id(tokens)] = token_grid(output, tokens, fed, loaded.multiple)
        return tokens

    with torch.inference_mode(), Taps(loaded.module, layers, every_token) as taps:
        for fed in batches:
            grids.clear()
            caught = taps.run(lambda batch=fed: loaded.forward(batch))  # type: ignore[misc]
            for alias, tokens in caught.items():
                if tokens.ndim != 3 or len(tokens) != len(fed["names"]):
                    shape = tuple(tokens.shape)
                    raise ValueError(f"layer {alias}: gave tokens of shape {shape} for {len(fed['names'])} images")
            yield TokenBatch(
                list(fed["names"]),
                {alias: tokens.cpu().numpy() for alias, tokens in caught.items()},
                {alias: grids[id(tokens)] for alias, tokens in caught.items()},
            )


def _fetched(caught: Mapping[str, Tensor], count: int) -> list[NDArray[np.float32]]:
    """Features of one batch on the host, in one copy. Raises ValueError for a layer without one row an image."""
    for alias, pooled in caught.items():
        if pooled.ndim != 2 or len(pooled) != count:
            raise ValueError(f"layer {alias}: gave features of shape {tuple(pooled.shape)} for {count} images")
    widths = [pooled.shape[1] for pooled in caught.values()]
    return np.split(torch.cat(list(caught.values()), dim=1).cpu().numpy(), np.cumsum(widths)[:-1], axis=1)


def compile_layers(loaded: Loaded, layers: Mapping[str, str], backend: str = "inductor") -> None:
    """Compile the modules that are layers with torch.compile, each for itself, in place.

    Layers are alias -> module path. One by one, since a tap is a hook of its module, which then runs outside of what is
    compiled, and since blocks that are alike are compiled once.
    """
    paths = set(layers.values())
    for path in paths:
        module = find_module(loaded.module, path)
        inside = any(path.startswith(f"{other}.") for other in paths)
        if not inside and next(module.parameters(), None) is not None:
            module.forward = torch.compile(module.forward, backend=backend)
