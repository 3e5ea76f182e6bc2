"""Images of the study in the layout of VFM-VAE: clean and noisy PNG files, rotations and scales."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.atomic import make_empty, write_text
from diffalign.io.manifest import read_manifest
from diffalign.stimuli.transforms import Transform, print_records

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def export_images(folders: Sequence[Path], manifest: Path, targets: Sequence[Path], records: Path) -> None:
    """Copy folders of PNG files, and write the rotation and scale of every image of the condition equivariance."""
    for source, target in logs.progress(zip(folders, targets, strict=True), len(folders), "export_images"):
        make_empty(target)
        for path in sorted(source.glob("*.png")):
            shutil.copyfile(path, target / path.name)
    rows = read_manifest(manifest)
    write_text(records, print_records({row.name: Transform(row.rotation, row.scale) for row in rows}))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "export_images"):
        export_images(
            [Path(path) for path in snakemake.input.folders],
            Path(snakemake.input.manifest),
            [Path(path) for path in snakemake.output.folders],
            Path(snakemake.output.records),
        )
