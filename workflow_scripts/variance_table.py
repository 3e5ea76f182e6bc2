"""Where the spread of the scores of one pair of layers comes from, and how far noise limits them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import variance
from diffalign.alignment.metrics import METRICS, UNDEFINED, Layer, Settings, measure_grid
from diffalign.alignment.single import interval
from diffalign.alignment.variance import Spread
from diffalign.io import recipes, tables
from diffalign.io.score_recipes import shared_noise
from diffalign.io.unlisted_sides import Search, UnlistedSide, read_side
from diffalign.randomness import SHARED_BY_ALL

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES, NOISE, TRAINING, PREPARATION = "images", "noise", "training", "preparation"
BOTH = "both"
COLUMNS = {
    **dict.fromkeys(("metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("images", "groups", "k"), "int64"),
    "score": "float64",
    **dict.fromkeys(("source", "side"), "string"),
    "n": "int64",
    **dict.fromkeys(("mean", "sd", "low", "high", "minimum", "maximum", "variance", "share"), "float64"),
    **dict.fromkeys(("part_of", "reason"), "string"),
    **dict.fromkeys(("reliability_a", "reliability_b", "of_ceiling"), "float64"),
}


@dataclass(frozen=True)
class Others:
    """What else one side could have been: the manifests of its redraws, and of trainings with other seeds."""

    redraws: Sequence[Path]
    trainings: Sequence[Path]


@dataclass(frozen=True)
class Repeated:
    """The scores of one source by metric, the first as it is; or the reason why there are none."""

    source: str
    side: str
    scores: Mapping[str, Sequence[float]]
    reason: str = ""
    part_of: str = ""


def variance_table(
    features: tuple[Path, Path],
    layers: tuple[str, str],
    others: tuple[Others, Others],
    sensitivity: Path,
    settings: Path,
    where: recipes.Where,
    metrics: Sequence[str],
    search: Search,
    outputs: tuple[Path, Path],
) -> None:
    """Write one row a metric and source of variance, as TSV and Parquet.

    features: manifests of both sides. sensitivity: the table of scores under other preparations. Columns: metric,
    dataset, condition, a, b, layer_a, layer_b, images (their number), groups, k, score, source (images, noise,
    training, preparation), side (a, b or both), n (images or groups, draws, trainings, preparations), mean, sd, low and
    high of the sd, minimum, maximum, variance, share (of the sum of the rows with an sd that are no part of another
    one), part_of (the source that holds this one), reason (why there is no sd, or no share), reliability_a,
    reliability_b, of_ceiling. Raises StoreError where features are of other images.
    """
    setting = recipes.read_settings(settings)
    first = read_side(features[0], search, [layers[0]])
    pair = first, read_side(features[1], search, [layers[1]], like=first, where=features[0])
    held = pair[0].layer(layers[0]).held(), pair[1].layer(layers[1]).held()
    redrawn = [[_other(path, layers[i], pair[0]) for path in others[i].redraws] for i in (0, 1)]
    base = measured(metrics, held[0], held[1], setting)
    sources = [
        *noise(metrics, pair, held, redrawn, setting, base),
        *trainings(metrics, pair, layers, held, others, setting, base),
    ]
    reliabilities = [
        reliability(metrics, side, again or [side], setting) for side, again in zip(held, redrawn, strict=True)
    ]
    choices = tables.read(sensitivity, ("metric", "score"))
    groups = pair[0].groups
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        identity = {
            "metric": metric,
            **asdict(where),
            "a": pair[0].recipe["bundle"],
            "b": pair[1].recipe["bundle"],
            "layer_a": layers[0],
            "layer_b": layers[1],
            "images": len(pair[0].names),
            "groups": groups.count,
            "k": setting.k,
            "score": base[metric],
        }
        by_side = [each[metric] for each in reliabilities]
        known = {
            "reliability_a": by_side[0],
            "reliability_b": by_side[1],
            "of_ceiling": variance.of_ceiling(base[metric], *by_side),
        }
        found = [
            _of_images(metric, held, setting, base[metric], pair[0], search.seed),
            *(_repeated(each, metric) for each in sources),
            _of_preparations(choices.loc[choices["metric"] == metric, "score"].tolist()),
        ]
        _add_shares(found)
        rows += ({**identity, **row, **known} for row in found)
    tables.write(tables.frame(rows, COLUMNS), *outputs)


def _other(path: Path, alias: str, like: UnlistedSide) -> Layer:
    """The same layer of another bundle."""
    return read_side(path, like.search, [alias], like=like).layer(alias).held()


def measured(metrics: Sequence[str], a: Layer, b: Layer, setting: Settings) -> dict[str, float]:
    """The scores of two layers."""
    return {name: float(grid[0, 0]) for name, grid in measure_grid(metrics, [a], [b], setting).items()}


def _all_measured(
    metrics: Sequence[str], pairs: Sequence[tuple[Layer, Layer]], setting: Settings, base: Mapping[str, float]
) -> dict[str, list[float]]:
    """The first score and those of other pairs of layers, by metric."""
    found = [base, *(measured(metrics, a, b, setting) for a, b in logs.progress(pairs, len(pairs), "scores"))]
    return {metric: [scores[metric] for scores in found] for metric in metrics}


def noise(
    metrics: Sequence[str],
    pair: tuple[UnlistedSide, UnlistedSide],
    held: tuple[Layer, Layer],
    redrawn: Sequence[Sequence[Layer]],
    setting: Settings,
    base: Mapping[str, float],
) -> Iterator[Repeated]:
    """Other draws of noise of each side beside the first of the other; of both at once where they share their noise.

    Noise keyed by image is drawn anew with other images, so the error over images holds it; noise that all images share
    is not.
    """
    models = [side.recipe["model"] for side in pair]
    part_of = ["" if model.get("seeding", "name") in SHARED_BY_ALL else IMAGES for model in models]
    shared = shared_noise(pair[0].recipe, pair[1].recipe)
    if shared is not None:
        missing = [_undrawn(model) for model, again in zip(models, redrawn, strict=True) if not again]
        if missing:
            yield Repeated(NOISE, BOTH, {}, f"both sides see one noise, and one of them {missing[0]}")
            return
        again = list(zip(*redrawn, strict=True))
        yield Repeated(NOISE, BOTH, _all_measured(metrics, again, setting, base), part_of=part_of[0])
        return
    for i, side in enumerate("ab"):
        if not redrawn[i]:
            yield Repeated(NOISE, side, {}, _undrawn(models[i]))
            continue
        again = [(held[0], other) if i else (other, held[1]) for other in redrawn[i]]
        yield Repeated(NOISE, side, _all_measured(metrics, again, setting, base), part_of=part_of[i])


def _undrawn(model: Mapping[str, Any]) -> str:
    """Why there is no other draw of a side."""
    if model.get("latents") is None:
        return "draws no noise"
    if model.get("draws", 1) > 1:
        return (
            f"is the mean of {model['draws']} draws; its redraws are those of the name without -draws{model['draws']}"
        )
    return f"is draw {model['redraw']} itself; its redraws are those of the name without -redraw{model['redraw']}"


def trainings(
    metrics: Sequence[str],
    pair: tuple[UnlistedSide, UnlistedSide],
    layers: tuple[str, str],
    held: tuple[Layer, Layer],
    others: tuple[Others, Others],
    setting: Settings,
    base: Mapping[str, float],
) -> Iterator[Repeated]:
    """Trainings of each side with other seeds, at the same step, beside the other side as it is."""
    for i, side in enumerate("ab"):
        if not others[i].trainings:
            name = pair[i].recipe["model"]["name"]
            yield Repeated(TRAINING, side, {}, f"through_training.recipes names no other seed of {name} at this step")
            continue
        again = [_other(path, layers[i], pair[0]) for path in others[i].trainings]
        both = [(held[0], other) if i else (other, held[1]) for other in again]
        yield Repeated(TRAINING, side, _all_measured(metrics, both, setting, base))


def reliability(metrics: Sequence[str], side: Layer, again: Sequence[Layer], setting: Settings) -> dict[str, float]:
    """The mean score of a layer with its redraws, by metric."""
    grids = measure_grid(metrics, [side], again, setting)
    return {metric: float(grid.mean()) for metric, grid in grids.items()}


def _row(source: str, side: str, spread: Spread, reason: str = "", part_of: str = "") -> dict[str, Any]:
    squared = spread.sd**2
    return {
        "source": source,
        "side": side,
        **asdict(spread),
        "variance": squared,
        "share": math.nan,
        "part_of": part_of,
        "reason": reason,
    }


def _of_images(
    metric: str, held: tuple[Layer, Layer], setting: Settings, score: float, side: UnlistedSide, seed: int
) -> dict[str, Any]:
    """The error over images, or groups of them."""
    count = side.groups.count
    if math.isnan(score):
        return _row(IMAGES, BOTH, Spread(count), METRICS[metric].undefined or UNDEFINED)
    if count < 2:
        return _row(IMAGES, BOTH, Spread(count), "all images are one group")
    _, found = interval(metric, held, setting, np.array([[score]]), side.groups, seed)
    error = float(found.error[0, 0])
    return _row(IMAGES, BOTH, Spread(count, score, error), "" if math.isfinite(error) else "has no error")


def _repeated(each: Repeated, metric: str) -> dict[str, Any]:
    if each.reason:
        return _row(each.source, each.side, Spread(0), each.reason)
    spread = variance.over_draws(each.scores[metric])
    reason = "" if math.isfinite(spread.sd) else METRICS[metric].undefined or "a score is undefined"
    return _row(each.source, each.side, spread, reason, each.part_of)


def _of_preparations(scores: Sequence[float]) -> dict[str, Any]:
    return _row(PREPARATION, BOTH, variance.over_choices(scores), "a choice and no draw: it has no share")


def _add_shares(rows: Sequence[dict[str, Any]]) -> None:
    """Shares of the sum of all sources that are draws and no part of another one."""
    counted = [row for row in rows if row["source"] != PREPARATION and not row["part_of"]]
    whole = sum(row["variance"] for row in counted if math.isfinite(row["variance"]))
    for row in rows:
        if row["source"] != PREPARATION and whole > 0:
            row["share"] = row["variance"] / whole


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "variance_table"), threadpool_limits(snakemake.threads):
        given, params = snakemake.input, snakemake.params
        variance_table(
            (Path(given.features_a), Path(given.features_b)),
            (params.layer_a, params.layer_b),
            (
                Others([Path(path) for path in given.redraws_a], [Path(path) for path in given.trainings_a]),
                Others([Path(path) for path in given.redraws_b], [Path(path) for path in given.trainings_b]),
            ),
            Path(given.sensitivity),
            Path(given.settings),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            params.metrics,
            Search.of_job(snakemake, params.k),
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
        )
