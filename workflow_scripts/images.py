"""Images of a data set: square PNG files and their manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.conditions import CLEAN
from diffalign.dataset_specs import Dataset, SourceFile
from diffalign.io import manifest
from diffalign.io.atomic import make_empty
from diffalign.provenance import file_sha256
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import Supplied

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def images(
    name: str,
    dataset: Dataset,
    concepts: SourceFile | None,
    seed: int,
    folder: Path,
    manifest_path: Path,
    spec_path: Path,
    download: tuple[Path, Path] | None = None,
) -> None:
    """Write one PNG an image into `folder`, the manifest, and dataset.json, which describes the images.

    concepts: the list of those of THINGS, each of which must have an image. download: of a data set of the hub, its
    folder and the record of it.

    Raises ImageError that names the file for an unreadable image, an empty folder or two files with one stem; what was
    converted (grey, palette, CMYK) stands in the manifest and in the log.
    """
    make_empty(folder)
    listing = kinds.rows(dataset, Supplied(seed, download[0] if download else None, concepts))
    rows: list[manifest.Image] = []
    for row in logs.progress(listing.rows, len(listing.names), "images"):
        assert row.picture is not None  # the rule is for data sets with images
        image, notes = row.picture()
        path = folder / f"{row.name}.png"
        image.save(path)
        if notes:
            logs.log.info("%s: %s", row.source, notes)
        rows.append(row.in_manifest(file_sha256(path), notes))
    converted = sum(bool(row.notes) for row in rows)
    logs.log.info("%d images, %d of them converted to RGB (see the column notes)", len(rows), converted)
    made_of = manifest.made_of(name, CLEAN, dataset.recipe(), seed, download[1] if download else None)
    manifest.write_manifest(manifest_path, spec_path, rows, made_of)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "images"):
        images(
            snakemake.wildcards.dataset,
            Dataset(**snakemake.params.dataset),
            None if snakemake.params.concepts is None else SourceFile(**snakemake.params.concepts),
            snakemake.params.seed,
            Path(snakemake.output.folder),
            Path(snakemake.output.manifest),
            Path(snakemake.output.spec),
            (Path(snakemake.input.download), Path(snakemake.input.record)) if snakemake.input else None,
        )
