"""One table of all scores: every metric, pair of models and pair of layers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.io import tables
from diffalign.io.matrices import CalibratedMatrix, claimed, level_of, read_matrices, untested

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("depth_a", "depth_b", "score"), "float64"),
    **dict.fromkeys(("is_best", "is_default"), "bool"),
    **dict.fromkeys(("n", "groups", "k"), "int64"),
    **dict.fromkeys(("chance", "null_mean", "null_sd", "z", "p", "p_adjusted", "q"), "float64"),
    "significant": "bool",
    **dict.fromkeys(("calibrated", "error", "low", "high"), "float64"),
    "shared_noise": "string",
    "leak": "string",
    "miniature": "bool",
}


def alignment_table(read: Sequence[CalibratedMatrix], defaults: Mapping[str, str], tsv: Path, parquet: Path) -> None:
    """Write the scores of all matrices in long form, as TSV and Parquet with the same rows.

    Columns: metric, dataset, condition, a, b (bundles), layer_a, layer_b, depth_a, depth_b (0 first, 1 last), score,
    is_best (the largest of its matrix), is_default (both layers are the default layers of their models), n, groups, k,
    chance, null_mean, null_sd, z, p (of the cell by itself), p_adjusted (over the cells of its matrix), q (over all
    matrices of the table and the cells of those that passed: `alignment.claims`), significant (q at most alpha; False
    without a p), calibrated (0 where not significant), error, low, high (standard error and 95 % interval over images,
    or groups of them), shared_noise (as in recipes: how both sides see one noise), leak (as in recipes: what one side
    was given of the other), miniature. What is not known is empty. defaults: model -> its default layer.
    """
    alpha = level_of(read)
    table = tables.frame(
        (row for matrix, q in zip(read, claimed(read), strict=True) for row in rows(matrix, defaults, q, alpha)),
        COLUMNS,
    )
    logs.log.info("%d scores from %d matrices", len(table), len(read))
    if untested(read):
        logs.log.warning(untested(read))
    tables.write(table, tsv, parquet)


def rows(
    matrix: CalibratedMatrix, defaults: Mapping[str, str], q: NDArray[np.float64], alpha: float
) -> Iterator[dict[str, Any]]:
    """The cells of one matrix. defaults: model -> its default layer. q: (L_A, L_B). alpha: cells with q at most this
    are significant.
    """
    recipe, values, beside = matrix.recipe, matrix.values, matrix.calibration
    layers_a, layers_b = matrix.layers("a"), matrix.layers("b")
    grids = {"error": beside.error, "low": beside.low, "high": beside.high}
    if beside.null is not None:
        null = beside.null
        grids |= {"null_mean": null.mean, "null_sd": null.sd, "z": null.z, "p": null.p, "p_adjusted": null.p_adjusted}
        grids["calibrated"] = np.where((q <= alpha) | np.isnan(null.calibrated), null.calibrated, 0.0)
    default = matrix.default(defaults)
    for i, layer_a in enumerate(layers_a):
        for j, layer_b in enumerate(layers_b):
            yield {
                "metric": matrix.metric,
                "dataset": recipe["dataset"],
                "condition": recipe["condition"],
                "a": matrix.bundle("a"),
                "b": matrix.bundle("b"),
                "layer_a": layer_a,
                "layer_b": layer_b,
                "depth_a": i / max(1, len(layers_a) - 1),
                "depth_b": j / max(1, len(layers_b) - 1),
                "score": float(values[i, j]),
                "is_best": (i, j) == matrix.best,
                "is_default": (i, j) == default,
                "n": recipe["n"],
                "groups": recipe["groups"],
                "k": recipe["k"],
                "chance": recipe["chance"],
                **{key: float(grid[i, j]) for key, grid in grids.items()},
                "q": float(q[i, j]),
                "significant": bool(q[i, j] <= alpha),
                "shared_noise": recipe["shared_noise"],
                "leak": recipe["leak"],
                "miniature": matrix.miniature,
            }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "alignment_table"):
        alignment_table(
            read_matrices(
                [Path(path) for path in snakemake.input.matrices],
                [Path(path) for path in snakemake.input.calibrations],
                snakemake.params.metrics,
            ),
            snakemake.params.defaults,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
