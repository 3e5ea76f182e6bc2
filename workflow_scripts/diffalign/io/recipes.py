"""The recipe beside every score: all that a reader needs to know where a number came from.

Its schema is schemas/recipe.schema.yaml, versioned by `score_recipes.KIND`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign import __version__
from diffalign.alignment.calibration import Calibration
from diffalign.alignment.groups import Exchanges, Groups
from diffalign.alignment.intervals import LEVEL, Interval
from diffalign.alignment.metrics import METRICS, Score, Settings
from diffalign.alignment.moments import CONCENTRATED
from diffalign.alignment.semantic_equivariance import Estimate, SemanticEquivariance, UnderConditions
from diffalign.alignment.settings import Preparation
from diffalign.conditions import CLEAN
from diffalign.io.atomic import read_settings_file
from diffalign.io.neighbor_files import NeighborFile
from diffalign.io.prepared_features import preparation_settings
from diffalign.io.score_recipes import KIND, leak, shared_noise


@dataclass(frozen=True)
class Where:
    """The images a score was measured on."""

    dataset: str
    condition: str


@dataclass(frozen=True)
class Drawing:
    """What a calibration depends on: permutations and their seed, the level, whether layers are chosen on half."""

    permutations: int
    alpha: float
    seed: int
    split_selection: bool


def read_settings(path: Path) -> Settings:
    """Read what the rule alignment_settings wrote."""
    content = read_settings_file(path)
    return Settings(int(content["k"]), float(content["eps"]), float(content["rbf_sigma"]))


def read_drawing(path: Path) -> Drawing:
    """Read what the rule calibration_settings wrote."""
    content = read_settings_file(path)
    return Drawing(
        int(content["permutations"]), float(content["alpha"]), int(content["seed"]), bool(content["split_selection"])
    )


def drawing_recipe(drawing: Drawing, exchanges: Exchanges | None = None) -> dict[str, Any]:
    """The settings of a calibration as plain JSON, with what is exchanged by its nulls."""
    return {**asdict(drawing), "level": LEVEL, **({} if exchanges is None else exchanges_recipe(exchanges))}


def exchanges_recipe(exchanges: Exchanges) -> dict[str, Any]:
    """What the permutations of a null exchange: the scheme, the number of groups, and of those that can move."""
    return {"exchanged": exchanges.scheme, "groups": exchanges.groups, "groups_moved": exchanges.moved}


def null_recipe(null: Calibration | None, drawing: Drawing, exchanges: Exchanges) -> dict[str, Any] | None:
    """The null of a single score; None where the metric has none. reason: why there is no p."""
    if null is None:
        return None
    cells = {
        key: _number(float(getattr(null, key)[0, 0])) for key in ("mean", "sd", "z", "p", "threshold", "calibrated")
    }
    drawn: dict[str, Any] = {}
    if null.method == "permutations":
        drawn = {"permutations": drawing.permutations, "seed": drawing.seed, **exchanges_recipe(exchanges)}
    return {"method": null.method, "alpha": drawing.alpha, **drawn, **cells, "reason": null.reason}


def interval_recipe(method: str, interval: Interval) -> dict[str, Any]:
    """The 95 % interval of a single score over images. reason: why there is none."""
    none = bool(np.isnan(interval.error[0, 0]))
    return {
        "method": method,
        "level": LEVEL,
        "reason": CONCENTRATED if none and method == "influence" else None,
        **{key: _number(float(getattr(interval, key)[0, 0])) for key in ("low", "high", "error")},
    }


def score_recipe(
    metric: str,
    a: NeighborFile,
    b: NeighborFile,
    layers: tuple[str, str],
    settings: Settings,
    where: Where,
    groups: Groups,
    score: Score,
) -> dict[str, Any]:
    """The recipe of a single score; ``value`` is null, and ``undefined`` says why, where it is NaN."""
    return {
        **_common(metric, a, b, settings, where, groups),
        "value": _number(score.value),
        "undefined": score.undefined,
        "a": _side(a, [layers[0]]),
        "b": _side(b, [layers[1]]),
    }


def semantic_equivariance_recipe(
    sides: Mapping[str, tuple[NeighborFile, NeighborFile]],
    layers: tuple[str, str],
    settings: Settings,
    dataset: str,
    asked: Mapping[str, str],
    measured: SemanticEquivariance,
    robustness: Mapping[str, UnderConditions],
    drawing: Drawing,
    noise: Mapping[str, Any],
    groups: Groups,
) -> dict[str, Any]:
    """The recipe of an SE-CKNNA: that of a single score, with clean, every condition, the change and the robustness.

    sides: condition -> both sides; clean comes first. asked: reference, mean_over, and score: ``raw``, or
    ``above_null`` for the mean less that of its null; `mean` and `above_null` of the recipe have both. robustness:
    ``a`` and, where it saw transformed images, ``b``. noise: condition -> its noise in files and at the input of each
    side.
    """
    conditions = [condition for condition in sides if condition != CLEAN]
    a, b = sides[CLEAN]
    undefined = [
        name
        for name, each in {CLEAN: measured.clean, **measured.transformed.conditions}.items()
        if math.isnan(each.value)
    ]
    mean = measured.transformed.mean if asked["score"] == "raw" else measured.above.mean
    null_means = {name or CLEAN: _number(value) for name, value in measured.null_means.items()}
    return {
        **_common("cknna", a, b, settings, Where(dataset, " ".join(conditions)), groups),
        "metric": "se_cknna",
        "value": _number(mean.value),
        "undefined": f"{METRICS['cknna'].undefined} ({', '.join(undefined)})" if undefined else None,
        "null": null_recipe(measured.null, drawing, groups.exchanges),
        "interval": None
        if math.isnan(mean.value)
        else {"method": "dyadic", "level": LEVEL, **{key: getattr(mean, key) for key in ("low", "high", "error")}},
        **asked,
        "mean": _estimate(measured.transformed.mean),
        "above_null": {key: _estimate(getattr(measured.above, key)) for key in ("mean", "clean", "change", "relative")},
        "clean": _estimate(measured.clean) | {"null_mean": null_means[CLEAN]},
        "conditions": {
            name: _estimate(each) | {"null_mean": null_means[name]}
            for name, each in measured.transformed.conditions.items()
        },
        "noise": dict(noise),
        "change": _estimate(measured.change),
        "relative_change": _estimate(measured.relative),
        "robustness": {
            side: {
                "mean": _estimate(of_side.mean),
                "conditions": {name: _estimate(each) for name, each in of_side.conditions.items()},
            }
            for side, of_side in robustness.items()
        },
        "a": _side(a, [layers[0]]),
        "b": _side(b, [layers[1]]),
        "images": {name: [side.recipe["images"] for side in pair] for name, pair in sides.items()},
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {key: _number(value) for key, value in asdict(estimate).items()}


def matrix_recipe(
    metric: str,
    a: NeighborFile,
    b: NeighborFile,
    settings: Settings,
    where: Where,
    groups: Groups,
    grid: NDArray[np.float64],
) -> dict[str, Any]:
    """The recipe of a layer x layer matrix: rows are layers of A, columns layers of B."""
    undefined = {
        f"{a.layers[i]},{b.layers[j]}": METRICS[metric].undefined for i, j in np.argwhere(np.isnan(grid)).tolist()
    }
    return {
        **_common(metric, a, b, settings, where, groups),
        "shape": [len(a.layers), len(b.layers)],
        "undefined": undefined,
        "a": _side(a, a.layers),
        "b": _side(b, b.layers),
    }


def _common(
    metric: str, a: NeighborFile, b: NeighborFile, settings: Settings, where: Where, groups: Groups
) -> dict[str, Any]:
    chance = METRICS[metric].chance
    return {
        "format": KIND.format,
        "diffalign": __version__,
        "metric": metric,
        "dataset": where.dataset,
        "condition": where.condition,
        "n": len(a.names),
        "groups": groups.count,
        "k": settings.k,
        "eps": settings.eps,
        "rbf_sigma": settings.rbf_sigma if METRICS[metric].needs == "rbf" else None,
        "preparation": {key: a.settings[key] for key in preparation_settings(Preparation())},
        "chance": None if chance is None else chance(len(a.names), settings.k),
        "shared_noise": shared_noise(a.recipe, b.recipe),
        "leak": leak(a.recipe, b.recipe),
    }


def _side(side: NeighborFile, layers: Sequence[str]) -> dict[str, Any]:
    recipe: Mapping[str, Any] = {key: value for key, value in side.recipe.items() if key not in ("modules", "spreads")}
    modules, spreads = side.recipe["modules"], side.recipe["spreads"]
    return {
        **recipe,
        "layers": [{"layer": layer, "module": modules[layer], "spread": spreads[layer]} for layer in layers],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
