"""Loss and bits per byte of a language model, from a file of platonic-rep's features."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io import language_files
from diffalign.io.layouts import platonic
from diffalign.provenance import file_sha256

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def import_bits_per_byte(bundle: str, path: Path, output: Path) -> None:
    """Write the loss, bits per byte and number of parameters of a file. Raises FileNotFoundError or StoreError."""
    quality = platonic.read_quality(path)
    source = {"path": str(path), "layout": "platonic", "sha256": file_sha256(path)}
    language_files.write_published_quality(output, bundle, quality, source)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        import_bits_per_byte(snakemake.wildcards.means, Path(snakemake.params.path), Path(snakemake.output[0]))
