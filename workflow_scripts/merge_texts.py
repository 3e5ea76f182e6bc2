"""Merge the parts of the features of a language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io import bundles, language_files
from diffalign.io.language_files import Outputs, outputs_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def merge_texts(parts: Sequence[Path], outputs: Outputs, batch_size: int) -> None:
    """Write both bundles and the loss of the model. Raises StoreError where parts do not belong together."""
    names, recipe, values = bundles.read_parts(parts)
    parameters = recipe.pop("parameters")
    language_files.write(
        outputs,
        names,
        lambda alias: values(f"mean:{alias}"),
        lambda alias: values(f"last:{alias}"),
        values("measures"),
        recipe,
        parameters,
        batch_size,
    )
    logs.log.info("%s: %d parts", outputs.mean, len(parts))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        parts = [Path(part) for part in snakemake.input]
        merge_texts(parts, outputs_of(snakemake.output), snakemake.resources.batch_size)
