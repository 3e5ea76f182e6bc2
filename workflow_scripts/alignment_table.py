"""One table of all scores: every metric, pair of models and pair of layers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffalign import logs
from diffalign.atomic import replacing
from diffalign.matrices import LayerMatrix, read_matrix

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def alignment_table(matrices: Sequence[Path], defaults: Mapping[str, str], tsv: Path, parquet: Path) -> None:
    """Write the scores of all matrices in long form, as TSV and Parquet with the same rows.

    Columns: metric, dataset, condition, a, b (bundles), layer_a, layer_b, depth_a, depth_b (0 first, 1 last), score,
    is_best (the largest of its matrix), is_default (both layers are the default
    layers of their models), n, k, chance, miniature.
    """
    table = pd.DataFrame([row for path in matrices for row in rows(read_matrix(path), defaults)])
    logs.log.info("%d scores from %d matrices", len(table), len(matrices))
    with replacing(tsv) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.9g")
    with replacing(parquet) as temporary:
        table.to_parquet(temporary, index=False)


def rows(matrix: LayerMatrix, defaults: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The cells of one matrix; defaults: model -> its default layer."""
    recipe, values = matrix.recipe, matrix.values
    layers_a, layers_b = matrix.layers("a"), matrix.layers("b")
    best = int(np.nanargmax(values)) if np.isfinite(values).any() else -1
    default = (defaults[matrix.model("a")], defaults[matrix.model("b")])
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
                "is_best": i * len(layers_b) + j == best,
                "is_default": (layer_a, layer_b) == default,
                "n": recipe["n"],
                "k": recipe["k"],
                "chance": recipe["chance"],
                "miniature": matrix.miniature,
            }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "alignment_table"):
        alignment_table(
            [Path(path) for path in snakemake.input.matrices],
            snakemake.params.defaults,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
