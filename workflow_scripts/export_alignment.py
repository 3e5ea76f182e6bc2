"""The best scores of layer x layer matrices in the layout of platonic-rep, with their recipes beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.headers import FileKind
from diffalign.io.layouts import platonic
from diffalign.io.matrices import read_layer_matrices

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

KIND = FileKind("a list of exported alignments", 1)


def export_alignment(matrices: Sequence[Path], metric: str, path: Path, recipe: Path) -> None:
    """Write the largest scores and their layers, the As in the place of y and the Bs in that of x, and what they are:
    the bundles ``x`` and ``y`` in order, and the recipe of every matrix.

    matrices: of every A with every B. Raises ValueError where a pair is missing, StoreError where no
    score is defined.
    """
    read = [read_layer_matrices(each, [metric])[0] for each in matrices]
    matrix_of = {(each.bundle("a"), each.bundle("b")): each for each in read}
    y, x = (list(dict.fromkeys(side)) for side in zip(*matrix_of, strict=True))
    missing = [f"{a} and {b}" for b in x for a in y if (a, b) not in matrix_of]
    if missing or len(matrix_of) != len(matrices):
        raise ValueError(f"{path}: no single matrix of {missing[0] if missing else 'each pair'}")
    platonic.write_alignment(path, [[matrix_of[a, b].values for a in y] for b in x])
    recipes = [{**matrix_of[a, b].recipe} for b in x for a in y]
    KIND.write_json(recipe, x=x, y=y, recipes=recipes)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        export_alignment(
            # one file, or a list of them
            [Path(path) for path in snakemake.input],
            snakemake.params.metric,
            Path(snakemake.output.alignment),
            Path(snakemake.output.recipe),
        )
