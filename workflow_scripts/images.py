"""Images of a data set: square PNG files and their manifest."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image as Picture

from diffalign import logs
from diffalign.conditions import CLEAN
from diffalign.human.concepts import Concept
from diffalign.io import manifest
from diffalign.io.atomic import make_empty
from diffalign.provenance import file_sha256
from diffalign.specs import Dataset, SourceFile
from diffalign.stimuli import folders, photographs, squares, tables, things

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
    """Write one PNG an image into `folder`, the manifest, and dataset.json, which says what the images are.

    concepts: the list of those of THINGS, each of which must have an image. download: of a data set of the hub, its
    folder and the record of it.

    Raises ImageError that names the file for an unreadable image, an empty folder or two files with one stem; what was
    converted (grey, palette, CMYK) stands in the manifest and in the log.
    """
    assert dataset.size is not None  # the config is checked
    make_empty(folder)
    rows: list[manifest.Image] = []
    listed: dict[str, Concept] = {}

    def keep(
        name: str, label: str, index: int, caption: str, description: str, source: str, notes: str, image: Picture
    ) -> None:
        path = folder / f"{name}.png"
        image.save(path)
        if notes:
            logs.log.info("%s: %s", source, notes)
        rows.append(
            manifest.Image(name, label, index, caption, file_sha256(path), source, notes, description=description)
        )

    if dataset.kind == "photographs":
        total = len(photographs.PHOTOGRAPHS) * dataset.per_photograph
        found = photographs.photographs(dataset.size, dataset.per_photograph)
        for crop in logs.progress(found, total, "images"):
            keep(*crop)
    elif dataset.kind == "table":
        root = download[0] if download else Path(str(dataset.path))
        found_rows = tables.read_rows(root, dataset.table_columns, *dataset.table_texts, dataset.sample, seed)
        for row in logs.progress(found_rows, len(found_rows), "images"):
            content, at = (None, row.image) if isinstance(row.image, Path) else (row.image, root / row.source)
            image, notes = squares.read_rgb(at, content)
            square = squares.make_square(image, dataset.size, dataset.square)
            keep(row.name, row.label, row.label_index, row.caption, row.description, row.source, notes, square)
    else:
        assert dataset.path is not None  # the config is checked
        root = Path(dataset.path)
        if concepts is not None:
            things.verified(Path(concepts.path), concepts.sha256)
            listed = {concept.name: concept for concept in things.read_concepts(Path(concepts.path))}
            sources = things.concept_images(root, list(listed.values()))
        elif dataset.kind == "synsets":
            sources = folders.synset_folders(root, dataset.sample, seed)
        else:
            flat = root / CLEAN if dataset.kind == "transformed" else root
            sources = folders.flat_folder(flat, dataset.labels, dataset.sample, seed)
        for source in logs.progress(sources, len(sources), "images"):
            image, notes = squares.read_rgb(source.path)
            if dataset.kind == "transformed":
                squares.check_square(image, dataset.size, source.path)
            square = squares.make_square(image, dataset.size, dataset.square)
            said = listed.get(source.name)
            texts = (said.word, said.description) if said else ("", "")
            found_at = str(source.path.relative_to(root))
            keep(source.name, source.label, source.label_index, *texts, found_at, notes, square)
    converted = sum(bool(row.notes) for row in rows)
    logs.log.info("%d images, %d of them converted to RGB (see the column notes)", len(rows), converted)
    made_of = {
        "dataset": name,
        "condition": CLEAN,
        **asdict(dataset),
        "seed": seed,
        **({"download": json.loads(download[1].read_text(encoding="utf-8"))} if download else {}),
    }
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
