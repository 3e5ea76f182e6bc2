"""Best scores that others published, and those of the study beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.io import tables
from diffalign.io.headers import StoreError
from diffalign.io.layouts import platonic
from diffalign.io.matrices import LayerMatrix, read_layer_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("file", "metric"), "string"),
    "k": "Int64",
    **dict.fromkeys(("x", "y"), "string"),
    "score": "float64",
    **dict.fromkeys(("layer_x", "layer_y"), "string"),
    "here": "float64",
    **dict.fromkeys(("here_layer_x", "here_layer_y"), "string"),
    "difference": "float64",
}


@dataclass(frozen=True)
class ScoreFile:
    """A file of scores. x, y: names of its rows and columns. layers: name -> layers of a model of the study, in order
    of depth. bundles: name -> bundle of the same.
    """

    path: Path
    metric: str
    k: int
    x: Sequence[str]
    y: Sequence[str]
    layers: Mapping[str, Sequence[str]]
    bundles: Mapping[str, str]


def published_scores_table(
    files: Mapping[str, ScoreFile], matrices: Sequence[Path], metrics: Sequence[str], k: int, tsv: Path, parquet: Path
) -> None:
    """Write one row a score of every file, as TSV and Parquet with the same rows.

    Columns: file (its name in the configuration), metric, k (of metrics on neighbours), x, y, score, layer_x, layer_y
    (numbers of the best layers in the file, from 0; empty where no score was above 0), here (the
    largest score of the study, of y as a and x as b), here_layer_x, here_layer_y, difference (here - score). What the
    study does not have is empty. metrics: those of the study that files are of. k: of the study. Raises
    FileNotFoundError or StoreError for a file that cannot be read or has another shape than its names say.
    """
    read = (each for path in matrices for each in read_layer_matrices(path, metrics))
    ours = {(each.metric, each.bundle("a"), each.bundle("b")): each for each in read}
    rows = [row for name, file in files.items() for row in rows_of(name, file, ours, k)]
    tables.write(tables.frame(rows, COLUMNS), tsv, parquet)


def rows_of(
    name: str, file: ScoreFile, ours: Mapping[tuple[str, str, str], LayerMatrix], k: int
) -> Iterator[dict[str, Any]]:
    """The scores of one file. ours: (metric, a, b) -> matrix of the study."""
    scores, indices = platonic.read_alignment(file.path)
    if scores.shape != (len(file.x), len(file.y)):
        raise StoreError(
            f"{file.path}: has {scores.shape[0]} x {scores.shape[1]} scores, but exchange.scores.{name} names "
            f"{len(file.x)} x and {len(file.y)} y"
        )
    uses_k = METRICS[file.metric].uses_k
    for (i, x), (j, y) in ((row, column) for row in enumerate(file.x) for column in enumerate(file.y)):
        cells: dict[str, Any] = {
            "file": name,
            "metric": file.metric,
            "k": file.k if uses_k else None,
            "x": x,
            "y": y,
            "score": float(scores[i, j]),
            # stored in the order (y, x)
            "layer_y": _layer(file, y, indices[i, j, 0]),
            "layer_x": _layer(file, x, indices[i, j, 1]),
        }
        matrix = ours.get((file.metric, file.bundles.get(y, ""), file.bundles.get(x, "")))
        if matrix is not None and matrix.best is not None and (not uses_k or file.k == k):
            best = float(matrix.values[matrix.best])
            cells |= {
                "here": best,
                "here_layer_y": matrix.layers("a")[matrix.best[0]],
                "here_layer_x": matrix.layers("b")[matrix.best[1]],
                "difference": best - cells["score"],
            }
        yield cells


def _layer(file: ScoreFile, name: str, index: float) -> str | None:
    """The number of a layer as the file has it, which may count other layers than the study does. Raises StoreError for
    one that the study's model lacks.
    """
    if np.isnan(index):
        return None
    layers = file.layers.get(name)
    if layers is not None and index >= len(layers):
        raise StoreError(f"{file.path}: the best layer of {name} is number {int(index)}; it has {len(layers)}")
    return str(int(index))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "published_scores_table"):
        published_scores_table(
            {
                name: ScoreFile(**{**entry, "path": Path(entry["path"]).expanduser()})
                for name, entry in snakemake.params.files.items()
            },
            [Path(path) for path in snakemake.input.matrices],
            snakemake.params.metrics,
            snakemake.params.k,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
