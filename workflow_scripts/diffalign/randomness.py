"""Random draws keyed by seed and names, so that results do not depend on order, batches or workers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = ("posterior", "noise", "class_token")
# how the draws of a model are keyed: `normal`
SEEDINGS = ("name", "common", "constant", "published")
# rules by which all images and models share their draws
SHARED_BY_ALL = ("constant", "published")
# of `published`: what the code of Linhardt et al. 2024 seeds its generator with for every image
PUBLISHED_SEED = 42


def _digest(seed: int, purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\x00{purpose}\x00{name}".encode()).digest()


def one_each(seed: int | Sequence[int], names: Sequence[str]) -> list[tuple[int, str]]:
    """(seed, name) of every name; seed: one for all, or one for each of the names. Raises ValueError for others."""
    seeds = [seed] * len(names) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(names):
        raise ValueError(f"{len(seeds)} seeds of {len(names)} names; expected one for all or one for each")
    return list(zip(seeds, names, strict=True))


def sample(names: Sequence[str], count: int, seed: int) -> list[str]:
    """A sample of `count` names: those with the smallest hash of (seed, name).

    It does not depend on the order of names. Larger samples contain smaller ones.
    """
    return sorted(names, key=lambda name: _digest(seed, "sample", name))[:count]


def keyed(seed: int, purpose: str, name: str) -> np.random.Generator:
    """The generator of (seed, purpose, image name)."""
    key = int.from_bytes(_digest(seed, purpose, name)[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def uniform(seed: int, purpose: str, name: str) -> float:
    """A number in [0, 1), keyed by (seed, purpose, image name): the first 53 bits of their hash."""
    return (int.from_bytes(_digest(seed, purpose, name)[:8], "big") >> 11) / 2**53


def shuffled(names: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Positions of the names, sorted by the hash of (seed, purpose, name)."""
    return sorted(range(len(names)), key=lambda i: _digest(seed, purpose, names[i]))


def dealt(names: Sequence[str], groups: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Group (N,) of every name, 0 … groups - 1. Names are dealt out in turn, in the order of `shuffled`."""
    group_of = np.empty(len(names), np.int64)
    group_of[shuffled(names, seed, purpose)] = np.arange(len(names)) % groups
    return group_of


@dataclass(frozen=True)
class NoiseKey:
    """What the draws of a model are keyed by, beside the image. seeding: a rule of `normal`. model: its name in the
    catalogue, which all of its variants and checkpoints share.
    """

    seeding: str
    seed: int
    model: str


def normal(shape: tuple[int, ...], key: NoiseKey, name: str, draw: str, index: int = 0) -> NDArray[np.float32]:
    """A standard normal float32 array for one image.

    key.seeding: ``name`` keys the draw by (seed, draw, model, image name), so that two models see noise of their own.
    ``common`` keys it by (seed, draw, image name), so that all models share it: at t = 1, where it is all they see,
    their representations agree for this reason alone. ``constant``: a torch generator is seeded anew for every image
    and draws the posterior sample first and the noise second, so that all images and models share both. ``published``
    is the same with the seed 42 whatever key.seed is, as the code of Linhardt et al. 2024 draws both (there on its GPU,
    whose generator gives other numbers for the seed than this one, of the CPU). draw: ``posterior``, ``noise``, or
    ``class_token`` (noise of the class token; no rule is published, and all images share it under the last two). index:
    number of the draw, for several draws; under the last two the generator is seeded with seed + 1000 index, as
    published. Raises ValueError for another rule or draw.
    """
    if draw not in DRAWS:
        raise ValueError(f"unknown draw '{draw}'; allowed: {', '.join(DRAWS)}")
    if key.seeding not in SEEDINGS:
        raise ValueError(f"unknown seeding '{key.seeding}'; allowed: {', '.join(SEEDINGS)}")
    seed = PUBLISHED_SEED if key.seeding == "published" else key.seed
    if key.seeding in SHARED_BY_ALL and draw != "class_token":
        import torch

        generator = torch.Generator().manual_seed(seed + 1000 * index)
        drawn = torch.randn(shape, generator=generator)
        if draw == "noise":
            drawn = torch.randn(shape, generator=generator)
        return np.asarray(drawn.numpy(), dtype=np.float32)
    seen = {"name": f"{key.model}\x00{name}", "common": name}.get(key.seeding, "")
    purpose = draw if index == 0 else f"{draw}\x00{index}"
    return keyed(seed, purpose, seen).standard_normal(shape, dtype=np.float32)
