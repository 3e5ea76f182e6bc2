"""One row a pair of models and metric: the best layers, the default layers, the layers chosen on half of the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.alignment import claims
from diffalign.io import tables
from diffalign.io.matrices import CalibratedMatrix, claimed, level_of, read_matrices, untested

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("grid_p", "grid_q"), "float64"),
    "significant": "bool",
    **dict.fromkeys(("maximum", "maximum_p", "maximum_q", "maximum_threshold", "maximum_calibrated"), "float64"),
    **dict.fromkeys(("default_layer_a", "default_layer_b"), "string"),
    **dict.fromkeys(("default_score", "default_p", "default_q", "default_low", "default_high"), "float64"),
    **dict.fromkeys(("selected_layer_a", "selected_layer_b"), "string"),
    **dict.fromkeys(("selected_chosen", "selected_reported", "selected_uncorrected"), "float64"),
    "selected_count": "Int64",
    **dict.fromkeys(("n", "groups", "k"), "int64"),
    "null": "string",
    "reason": "string",
    "permutations": "Int64",
    "shared_noise": "string",
    "leak": "string",
    "miniature": "bool",
}


def pairs_table(read: Sequence[CalibratedMatrix], defaults: Mapping[str, str], tsv: Path, parquet: Path) -> None:
    """Write what is claimed of every pair of models, as TSV and Parquet with the same rows.

    Columns: metric, dataset, condition, a, b (bundles); layer_a, layer_b (the best pair of layers); grid_p (that no
    pair of layers is aligned), grid_q (over all rows that have one), significant (grid_q at most alpha; False without a
    p); maximum (the largest score), maximum_p, maximum_threshold (of this cell, corrected over the grid), maximum_q (as
    q of `alignment_table`), maximum_calibrated (by that threshold, 0 where maximum_q is above alpha); default_layer_a,
    default_layer_b, default_score, default_p, default_q (Benjamini-Hochberg over all rows), default_low, default_high;
    selected_layer_a, selected_layer_b (the best on one half of the images), selected_chosen (their score there),
    selected_reported (on the other half), selected_uncorrected (the largest of the other half), selected_count (images
    of the other half), all empty unless alignment.split_selection; n, groups, k, null (permutations, moments or
    refused), reason (why there is no p), permutations, shared_noise (as in recipes: how both sides see one noise), leak
    (as in recipes: what one side was given of the other), miniature. What is not known is empty. defaults: bundle ->
    its default layer.
    """
    alpha = level_of(read)
    each = zip(read, claimed(read), strict=True)
    table = tables.frame((row(matrix, defaults, q, alpha) for matrix, q in each), COLUMNS)
    tables.add_q(table, "default_p", "default_q")
    if untested(read):
        logs.log.warning(untested(read))
    tables.write(table, tsv, parquet)


def row(matrix: CalibratedMatrix, defaults: Mapping[str, str], q: NDArray[np.float64], alpha: float) -> dict[str, Any]:
    """One matrix, without default_q. defaults: bundle -> its default layer. q: (L_A, L_B), of its cells. alpha: the
    level at which q is significant.
    """
    recipe, beside = matrix.recipe, matrix.calibration
    layers_a, layers_b = matrix.layers("a"), matrix.layers("b")
    default = matrix.default(defaults)
    cells: dict[str, Any] = {
        "metric": matrix.metric,
        "dataset": recipe["dataset"],
        "condition": recipe["condition"],
        "a": matrix.bundle("a"),
        "b": matrix.bundle("b"),
        "default_layer_a": layers_a[default[0]],
        "default_layer_b": layers_b[default[1]],
        "default_score": float(matrix.values[default]),
        "default_low": float(beside.low[default]),
        "default_high": float(beside.high[default]),
        "significant": claims.smallest(q) <= alpha,
        "n": recipe["n"],
        "groups": recipe["groups"],
        "k": recipe["k"],
        "shared_noise": recipe["shared_noise"],
        "leak": recipe["leak"],
        "miniature": matrix.miniature,
    }
    if matrix.best is not None:
        cells |= {
            "layer_a": layers_a[matrix.best[0]],
            "layer_b": layers_b[matrix.best[1]],
            "maximum": float(matrix.values[matrix.best]),
        }
    if beside.null is not None:
        null = beside.null
        # without any defined score there is no largest one to test
        if matrix.best is not None:
            cells |= {key: getattr(null, key) for key in ("maximum_p", "maximum_threshold", "maximum_calibrated")}
            cells["maximum_q"] = float(q[matrix.best])
            if cells["maximum_q"] > alpha:
                cells["maximum_calibrated"] = 0.0
            cells |= {"grid_p": claims.smallest(null.p_adjusted), "grid_q": claims.smallest(q)}
        cells |= {
            "default_p": float(null.p[default]),
            "null": null.method,
            "reason": null.reason,
            "permutations": len(null.maxima) or None,
        }
    if beside.selection is not None:
        chosen = beside.selection
        cells |= {
            "selected_layer_a": chosen.layers[0],
            "selected_layer_b": chosen.layers[1],
            "selected_chosen": chosen.chosen,
            "selected_reported": chosen.reported,
            "selected_uncorrected": chosen.uncorrected,
            "selected_count": chosen.count,
        }
    return cells


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "pairs_table"):
        pairs_table(
            read_matrices(
                [Path(path) for path in snakemake.input.matrices],
                [Path(path) for path in snakemake.input.calibrations],
                snakemake.params.metrics,
            ),
            snakemake.params.defaults,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
