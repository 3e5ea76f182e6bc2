"""The recipe of a bundle, or the settings of a stage, as an input file of the jobs that depend on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def recipe(content: Mapping[str, Any], path: Path) -> None:
    """Write the recipe as JSON.

    It is a file, not a parameter: Snakemake drops its record of the parameters of a job that gains an output, and would
    then miss changes.
    """
    write_json(path, content)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        recipe(snakemake.params.content, Path(snakemake.output[0]))
