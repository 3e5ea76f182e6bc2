"""What results depend on, as an input of the jobs that make them: the recipe of a bundle, or settings of a stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def recipe(content: Mapping[str, Any], path: Path) -> None:
    """Write the recipe as JSON. It is a file, not a parameter: a job that gains an output loses Snakemake's record of
    its parameters, and with it every later change of them.
    """
    write_json(path, content)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        recipe(snakemake.params.content, Path(snakemake.output[0]))
