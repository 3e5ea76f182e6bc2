"""Model families: one module each, found by its name, behind one small protocol.

A family is a module of this package with two functions:

    load(model, folder, noise, device) -> Loaded      read a checkpoint in `folder`
    make_miniature(widths, folder, seed) -> None      write a narrow checkpoint that `load` reads

A family of diffusion models has two more:

    noise_level(model, folder, noise) -> NoiseLevel                 translate t0.5 or s20 to its own clock
    embed_prompts(folder, texts, device) -> dict[str, Tensor]       one row a text

Modules are imported when a job needs them, so a job of one family never imports another's libraries.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that does not fit its model; the message names the file and the first offending keys."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for extraction.

    module: layers are module paths within it. forward: runs one batch (a dict with ``names`` and tensors on the
    device). tokens: turns what a module returned into (B, T, D), the tokens that are averaged. facts: what the
    recipe says beyond the config. latent_statistics: for autoencoders, mean and std (1, C, 1, 1) that it defines.
    """

    module: nn.Module
    forward: Callable[[Mapping[str, Any]], object]
    tokens: Callable[[Any], Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    latent_statistics: tuple[Tensor, Tensor] | None = None


def families() -> tuple[str, ...]:
    """The families that exist: the modules of this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def family(name: str) -> ModuleType:
    """Import one family. Raises ValueError for an unknown one."""
    if name not in families():
        raise ValueError(f"unknown family '{name}'; allowed: {', '.join(families())}")
    return importlib.import_module(f"{__name__}.{name}")


def check_keys(missing: set[str], unexpected: set[str], where: str) -> None:
    """Raise CheckpointError that names the first five missing and unexpected keys, if there are any."""
    parts = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:5])}{' …' if len(keys) > 5 else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if parts:
        raise CheckpointError(f"{where}: the checkpoint does not fit the model: keys {' and '.join(parts)}")


def spatial_tokens(output: Tensor) -> Tensor:
    """A (B, C, H, W) map as (B, HW, C) tokens."""
    if output.ndim != 4:
        raise ValueError(f"expected a map of shape (B, C, H, W), got {tuple(output.shape)}")
    return output.flatten(2).transpose(1, 2)
