"""The recipe beside every score: all that a reader needs to know where a number came from.

Its schema is schemas/recipe.schema.yaml, versioned by `FORMAT`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffalign import __version__
from diffalign.alignment.metrics import METRICS, Score
from diffalign.neighbor_store import NeighborFile

FORMAT = 1


@dataclass(frozen=True)
class Where:
    """The images a score was measured on."""

    dataset: str
    condition: str


@dataclass(frozen=True)
class Settings:
    """What a score depends on beside the neighbour lists."""

    k: int
    eps: float


def read_settings(path: Path) -> Settings:
    """Read what the rule alignment_settings wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Settings(int(content["k"]), float(content["eps"]))


def score_recipe(
    metric: str,
    a: NeighborFile,
    b: NeighborFile,
    layers: tuple[str, str],
    settings: Settings,
    where: Where,
    score: Score,
) -> dict[str, Any]:
    """The recipe of a single score; ``value`` is null, and ``undefined`` says why, where it is NaN."""
    return {
        **_common(metric, a, b, settings, where),
        "value": _number(score.value),
        "undefined": score.undefined,
        "a": _side(a, [layers[0]]),
        "b": _side(b, [layers[1]]),
    }


def matrix_recipe(
    metric: str, a: NeighborFile, b: NeighborFile, settings: Settings, where: Where, table: Sequence[Sequence[Score]]
) -> dict[str, Any]:
    """The recipe of a layer x layer matrix: rows are layers of A, columns layers of B."""
    undefined = {
        f"{row},{column}": score.undefined
        for row, line in zip(a.layers, table, strict=True)
        for column, score in zip(b.layers, line, strict=True)
        if math.isnan(score.value)
    }
    return {
        **_common(metric, a, b, settings, where),
        "shape": [len(a.layers), len(b.layers)],
        "undefined": undefined,
        "a": _side(a, a.layers),
        "b": _side(b, b.layers),
    }


def _common(metric: str, a: NeighborFile, b: NeighborFile, settings: Settings, where: Where) -> dict[str, Any]:
    if a.settings != b.settings:
        raise ValueError(f"{a.path} and {b.path} were prepared differently: {a.settings} and {b.settings}")
    chance = METRICS[metric].chance
    return {
        "format": FORMAT,
        "diffalign": __version__,
        "metric": metric,
        "dataset": where.dataset,
        "condition": where.condition,
        "n": len(a.names),
        "k": settings.k,
        "eps": settings.eps,
        "preparation": {key: a.settings[key] for key in ("clamp", "center", "normalize")},
        "chance": None if chance is None else chance(len(a.names), settings.k),
    }


def _side(side: NeighborFile, layers: Sequence[str]) -> dict[str, Any]:
    recipe: Mapping[str, Any] = {key: value for key, value in side.recipe.items() if key != "modules"}
    modules = side.recipe["modules"]
    return {**recipe, "layers": [{"layer": layer, "module": modules[layer]} for layer in layers]}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
