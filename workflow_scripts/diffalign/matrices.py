"""Layer x layer matrices with their recipes, as figures and tables read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.recipes import FORMAT


@dataclass(frozen=True)
class LayerMatrix:
    """Scores of every layer of A (rows) with every layer of B (columns)."""

    values: NDArray[np.float64]
    recipe: Mapping[str, Any]

    def layers(self, side: str) -> list[str]:
        """Aliases of side ``a`` or ``b``, in order of depth."""
        return [entry["layer"] for entry in self.recipe[side]["layers"]]

    def bundle(self, side: str) -> str:
        """The canonical bundle of side ``a`` or ``b``."""
        return str(self.recipe[side]["bundle"])

    def model(self, side: str) -> str:
        """Name of the model of side ``a`` or ``b``."""
        return str(self.recipe[side]["model"]["name"])

    @property
    def miniature(self) -> bool:
        """True where either side, or the autoencoder that it reads, has random miniature weights."""
        records = [self.recipe[side][key] for side in ("a", "b") for key in ("weights", "autoencoder_weights")]
        return any(record is not None and record["source"] == "miniature" for record in records)

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.recipe["metric"])


def read_matrix(path: Path) -> LayerMatrix:
    """Read ``x.npy`` and the recipe ``x.json`` beside it. Raises ValueError where they disagree."""
    recipe = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if recipe.get("format") != FORMAT:
        raise ValueError(f"{path.with_suffix('.json')}: format {recipe.get('format')!r} is not known here; rerun it")
    values = np.load(path, allow_pickle=False)
    if list(values.shape) != recipe["shape"]:
        raise ValueError(f"{path}: shape {values.shape}, but its recipe says {recipe['shape']}")
    return LayerMatrix(values, recipe)
