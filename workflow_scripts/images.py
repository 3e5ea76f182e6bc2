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
from diffalign.stimuli.squares import ImageError

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

    Raises ImageError that names the first five unreadable images, an empty folder or two files with one stem, and
    leaves no image; what was converted (grey, palette, CMYK), enlarged, or has a rotation in its EXIF data that is
    ignored, stands in the manifest and in the log.
    """
    make_empty(folder)
    listing = kinds.rows(dataset, Supplied(seed, download[0] if download else None, concepts))
    rows: list[manifest.Image] = []
    unreadable: list[str] = []
    for row in logs.progress(listing.rows, len(listing.names), "images"):
        assert row.picture is not None  # the rule is for data sets with images
        try:
            image, notes = row.picture()
        except ImageError as error:
            unreadable.append(str(error))
            continue
        path = folder / f"{row.name}.png"
        image.save(path)
        if notes:
            logs.log.info("%s: %s", row.source, notes)
        rows.append(row.in_manifest(file_sha256(path), notes))
    if unreadable:
        make_empty(folder)
        total = f"{len(unreadable)} of {len(listing.names)} images cannot be used: "
        raise ImageError(
            f"{total if len(unreadable) > 1 else ''}{'; '.join(unreadable[:5])}{' …' * (len(unreadable) > 5)}"
        )
    for word, what in (
        ("converted", "converted to RGB"),
        ("enlarged", "enlarged"),
        ("EXIF", "not turned by their EXIF"),
    ):
        count = sum(word in row.notes for row in rows)
        if count:
            logs.log.warning("%d of %d images are %s (see the column notes)", count, len(rows), what)
    logs.log.info("%d images", len(rows))
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
