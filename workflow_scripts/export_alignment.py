"""The best score of a layer x layer matrix in the layout of platonic-rep, with its recipe beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import layouts, logs
from diffalign.atomic import write_json
from diffalign.matrices import read_matrix

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def export_alignment(matrix: Path, path: Path, recipe: Path) -> None:
    """Write the largest score and its layers, A in the place of y and B in that of x, and the recipe of the matrix.

    Raises StoreError where no score is defined.
    """
    found = read_matrix(matrix)
    layouts.write_platonic_alignment(path, found.values)
    write_json(recipe, dict(found.recipe))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        export_alignment(Path(snakemake.input.matrix), Path(snakemake.output.alignment), Path(snakemake.output.recipe))
