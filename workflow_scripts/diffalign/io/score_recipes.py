"""Recipes of scores as their readers need them: the version, and whether models are miniatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign.io.headers import FileKind

KIND = FileKind("a recipe of a score", 1)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the JSON beside a score. Raises StoreError for another format."""
    return KIND.read_json(path)


def is_miniature(recipe: Mapping[str, Any]) -> bool:
    """True where either side, or the autoencoder that it reads, has random miniature weights."""
    records = [recipe[side][key] for side in ("a", "b") for key in ("weights", "autoencoder_weights")]
    return any(record is not None and record["source"] == "miniature" for record in records)
