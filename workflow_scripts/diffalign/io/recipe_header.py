"""What readers of any recipe of a score need: its version, and whether its models are miniatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = 1


def is_miniature(recipe: Mapping[str, Any]) -> bool:
    """True where either side, or the autoencoder that it reads, has random miniature weights."""
    records = [recipe[side][key] for side in ("a", "b") for key in ("weights", "autoencoder_weights")]
    return any(record is not None and record["source"] == "miniature" for record in records)
