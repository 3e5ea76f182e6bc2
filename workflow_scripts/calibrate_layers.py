"""Calibration of the matrices of one pair of models: nulls, intervals, layers chosen on half of the images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import calibration, intervals
from diffalign.alignment.metrics import Settings, measure_grid
from diffalign.alignment.moments import CONCENTRATED
from diffalign.io import calibration_files, recipes, sides
from diffalign.io.calibration_files import Selection, StoredCalibration
from diffalign.io.matrices import read_layer_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def calibrate_layers(
    files: tuple[sides.Files, sides.Files],
    settings: Path,
    calibration_settings: Path,
    manifest: Path | None,
    matrices: Path,
    metrics: Sequence[str],
    output: Path,
    memory_mb: int,
) -> None:
    """Write the calibrations of all metrics. They and all pairs of layers share the permutations of images."""
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    a, b = sides.read_sides(*files, drawing.seed, manifest)
    scores = {}
    for matrix in read_layer_matrices(matrices, metrics):
        if tuple(matrix.layers("a")) != a.layers or tuple(matrix.layers("b")) != b.layers:
            raise ValueError(
                f"{matrices}: its layers are not those of {files[0].neighbors} and {files[1].neighbors}; rerun"
            )
        scores[matrix.metric] = matrix.values
    layers = [[side.layer(alias) for alias in side.layers] for side in (a, b)]
    nulls = calibration.calibrate(
        scores,
        layers[0],
        layers[1],
        setting,
        drawing.permutations,
        drawing.alpha,
        drawing.seed,
        lambda orders, count: logs.progress(orders, count, "permutations"),
        a.groups.exchanges,
        memory_mb * 2**20,
    )
    for metric, null in nulls.items():
        if null.reason is not None:
            logs.log.warning("%s: no p in some or all pairs of layers: %s", metric, null.reason)
    bounds = calibration.over_images(scores, layers[0], layers[1], setting, memory_mb * 2**20, a.groups)
    for metric, interval in bounds.items():
        missing = np.isnan(interval.error) & np.isfinite(scores[metric])
        if missing.any():
            counts = int(missing.sum()), missing.size
            logs.log.warning("%s: no interval in %d of %d pairs of layers: %s", metric, *counts, CONCENTRATED)
    chosen = selections(list(scores), a, b, setting, drawing.seed, memory_mb) if drawing.split_selection else {}
    settled = recipes.drawing_recipe(drawing, a.groups.exchanges)
    stored = {}
    for metric in metrics:
        unknown = np.full_like(scores[metric], np.nan)
        around = bounds.get(metric, intervals.Interval(unknown, unknown, unknown))
        stored[metric] = StoredCalibration(
            nulls.get(metric), around.error, around.low, around.high, chosen.get(metric), settled
        )
    calibration_files.write_calibrations(output, stored)


def selections(
    metrics: list[str], a: sides.Side, b: sides.Side, setting: Settings, seed: int, memory_mb: int
) -> dict[str, Selection]:
    """The best pair of layers on one half of the images, of whole groups, and its score on the other half, for metrics
    with defined scores on both; of none where all images are one group.
    """
    if a.groups.count < 2:
        logs.log.warning("all images are one group: no layers are chosen on half of them")
        return {}
    both = a.groups.halves(seed)
    grids = []
    for keep in both:
        half = [[side.layer(alias).restricted(keep, setting.k) for alias in side.layers] for side in (a, b)]
        grids.append(measure_grid(metrics, half[0], half[1], setting, memory_mb * 2**20))
    by_metric = {}
    for metric in metrics:
        first, second = (grid[metric] for grid in grids)
        if np.isfinite(first).any() and np.isfinite(second).any():
            at = np.unravel_index(int(np.nanargmax(first)), first.shape)
            by_metric[metric] = Selection(
                layers=(a.layers[at[0]], b.layers[at[1]]),
                chosen=float(first[at]),
                reported=float(second[at]),
                uncorrected=float(np.nanmax(second)),
                count=len(both[1]),
            )
    return by_metric


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "calibrate_layers"), threadpool_limits(snakemake.threads):
        calibrate_layers(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            sides.manifest_of(snakemake.input),
            Path(snakemake.input.matrices),
            snakemake.params.metrics,
            Path(snakemake.output[0]),
            snakemake.resources.memory_mb,
        )
