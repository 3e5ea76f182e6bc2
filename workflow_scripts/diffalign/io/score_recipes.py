"""Recipes of scores as their readers need them: the version, whether models are miniatures, and share their noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign.io.headers import FileKind

KIND = FileKind("a recipe of a score", 2)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the JSON beside a score. Raises StoreError for another format."""
    return KIND.read_json(path)


def is_miniature(recipe: Mapping[str, Any]) -> bool:
    """True where either side, or the autoencoder that it reads, has random miniature weights."""
    records = [recipe[side][key] for side in ("a", "b") for key in ("weights", "autoencoder_weights")]
    return any(record is not None and record["source"] == "miniature" for record in records)


def shared_noise(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """How two sides share their noise, by which they agree even where they have nothing else in common.

    a, b: recipes of both sides. ``model``: they are one model, at two noise levels for example. ``common``,
    ``constant``: rules of `diffalign.randomness.normal` that share it between models. None: each has its own, or one of
    them has none.
    """
    first, second = a["model"], b["model"]
    if any(model.get("latents") is None for model in (first, second)):
        return None
    keys = [(model.get("seeding", "name"), model.get("seed", 0)) for model in (first, second)]
    if keys[0] != keys[1]:
        return None
    seeding: str = keys[0][0]
    if seeding == "name":
        return "model" if first["name"] == second["name"] else None
    return seeding
