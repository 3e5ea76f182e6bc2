"""What a study of this size can show of the scores of one pair of layers, and their limits as N grows."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import power
from diffalign.alignment.calibration import Calibration, calibrate
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, UNDEFINED, Layer, Settings, measure_grid
from diffalign.alignment.moments import CONCENTRATED
from diffalign.alignment.single import interval
from diffalign.io import recipes, tables
from diffalign.io.unlisted_sides import Search, read_side

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("images", "groups", "k"), "int64"),
    **dict.fromkeys(("score", "error", "null_mean", "null_sd", "threshold", "alpha", "power"), "float64"),
    "smallest_score": "float64",
    "smallest_score_reason": "string",
    **dict.fromkeys(("correlation", "smallest_difference", "difference", "images_needed"), "float64"),
    "smallest_difference_reason": "string",
    "limit_of": "string",
    **dict.fromkeys(("limit", "limit_low", "limit_high"), "float64"),
    "limit_reason": "string",
}


def power_table(
    features: tuple[Path, Path],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    where: recipes.Where,
    metrics: Sequence[str],
    asked: tuple[float, float, float],
    search: Search,
    outputs: tuple[Path, Path],
) -> None:
    """Write one row a metric, as TSV and Parquet with the same rows.

    features: manifests of both sides. asked: power, difference, correlation. Columns: metric, dataset, condition, a,
    b, layer_a, layer_b, images, groups, k, score, error, null_mean, null_sd, threshold, alpha, power, smallest_score
    and why there is none, correlation, smallest_difference, difference and the images that it needs, why there are
    none of either, limit_of, limit, limit_low, limit_high and why there is none. Raises StoreError where the two sides
    have other images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    wanted, difference, correlation = asked
    first = read_side(features[0], search, [layers[0]])
    pair = first, read_side(features[1], search, [layers[1]], like=first, where=features[0])
    groups = first.groups
    held = [side.layer(alias).held() for side, alias in zip(pair, layers, strict=True)]
    grids = measure_grid(metrics, held[:1], held[1:], setting)
    nulls = calibrate(
        grids,
        held[:1],
        held[1:],
        setting,
        drawing.permutations,
        drawing.alpha,
        drawing.seed,
        exchanges=groups.exchanges,
        memory=search.memory_mb * 2**20,
    )

    def curve(names: Sequence[str], keep: NDArray[np.intp], k: int) -> dict[str, float]:
        """Scores of some images, with lists among themselves."""
        some = [
            replace(side, search=replace(side.search, k=k)).layer(alias, keep)
            for side, alias in zip(pair, layers, strict=True)
        ]
        found = measure_grid(names, some[:1], some[1:], replace(setting, k=k))
        return {name: float(grid[0, 0]) for name, grid in found.items()}

    limits = power.limits(metrics, curve, groups, setting.k, drawing.seed)
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        score = float(grids[metric][0, 0])
        error, no_error = _error(metric, (held[0], held[1]), setting, grids[metric], groups, drawing.seed)
        cells, no_null = _null(nulls.get(metric), score)
        smallest = power.smallest_score(score, error, cells, wanted, groups.freedom)
        gap = power.smallest_difference(error, drawing.alpha, wanted, correlation, freedom=groups.freedom)
        limit = {f"limit_{key}" if key != "value" else "limit": value for key, value in asdict(limits[metric]).items()}
        rows.append(
            {
                "metric": metric,
                **asdict(where),
                "a": pair[0].recipe["bundle"],
                "b": pair[1].recipe["bundle"],
                "layer_a": layers[0],
                "layer_b": layers[1],
                "images": len(first.names),
                "groups": groups.count,
                "k": setting.k,
                "score": score,
                "error": error,
                **dict(zip(("null_mean", "null_sd", "threshold"), cells, strict=True)),
                "alpha": drawing.alpha,
                "power": wanted,
                "smallest_score": smallest,
                "smallest_score_reason": no_null or no_error,
                "correlation": correlation,
                "smallest_difference": gap,
                "difference": difference,
                "images_needed": power.images_needed(len(first.names), gap, difference),
                "smallest_difference_reason": no_error,
                **limit,
            }
        )
    tables.write(tables.frame(rows, COLUMNS), *outputs)


def _error(
    metric: str, pair: tuple[Layer, Layer], setting: Settings, grid: NDArray[np.float64], groups: Groups, seed: int
) -> tuple[float, str]:
    """The error of a score (1, 1) over images or groups, and why it has none."""
    if not math.isfinite(grid[0, 0]):
        return math.nan, METRICS[metric].undefined or UNDEFINED
    if groups.count < 2:
        return math.nan, "images of one group have no error over groups"
    method, found = interval(metric, pair, setting, grid, groups, seed)
    error = float(found.error[0, 0])
    if math.isfinite(error):
        return error, ""
    return error, CONCENTRATED if method == "influence" else f"{UNDEFINED} without some of the images"


def _null(null: Calibration | None, score: float) -> tuple[tuple[float, float, float], str]:
    """Mean, standard deviation and threshold of a null, and why a score has none."""
    if null is None:
        return (math.nan,) * 3, "the metric has no null"
    mean, sd, threshold = (float(getattr(null, key)[0, 0]) for key in ("mean", "sd", "threshold"))
    if math.isfinite(threshold):
        return (mean, sd, threshold), ""
    undefined = "the null has no threshold" if math.isfinite(score) else UNDEFINED
    return (mean, sd, threshold), null.reason or undefined


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "power_table"), threadpool_limits(snakemake.threads):
        given, params = snakemake.input, snakemake.params
        power_table(
            (Path(given.features_a), Path(given.features_b)),
            (params.layer_a, params.layer_b),
            Path(given.settings),
            Path(given.calibration),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            params.metrics,
            (params.power, params.difference, params.correlation),
            Search.of_job(snakemake, params.k),
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
        )
