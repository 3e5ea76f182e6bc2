"""The settings that every score depends on, as an input of alignment."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def alignment_settings(content: Mapping[str, Any], path: Path) -> None:
    """Write what scores depend on, or their calibration: numbers and the digest of the code. The list of metrics is not
    among them, so a new metric recomputes no list.
    """
    write_json(path, content)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "alignment_settings"):
        alignment_settings(snakemake.params.content, Path(snakemake.output[0]))
