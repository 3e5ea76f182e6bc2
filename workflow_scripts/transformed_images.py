"""Images of a data set under a condition other than clean: PNG files made from the clean ones, and their manifest."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffalign import logs
from diffalign.conditions import EQUIVARIANCE, Condition, parse_condition
from diffalign.io import manifest
from diffalign.io.atomic import make_empty
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.stimuli import squares, transforms
from diffalign.stimuli.folders import flat_folder
from diffalign.stimuli.squares import ImageError
from diffalign.stimuli.transforms import Transform

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Job:
    """One image: the clean one, where it is read, where it goes, what is done to it, and how its noise is drawn."""

    clean: Path
    source: Path
    target: Path
    name: str
    index: int
    transform: Transform
    seeding: str
    seed: int
    noisy: bool


@dataclass(frozen=True)
class Made:
    """One PNG: its sha256, and of a noisy one how it differs from the clean image."""

    sha256: str
    noise: transforms.Difference | None


def make(job: Job) -> Made:
    """Write one PNG."""
    if job.transform.rotation == 0 and job.transform.sigma == 0:
        shutil.copyfile(job.source, job.target)
    else:
        image = np.asarray(squares.read_rgb(job.source)[0])
        added = None
        if job.transform.sigma:
            added = transforms.noise(image.shape, job.transform.sigma, job.seeding, job.seed, job.name, job.index)
        Image.fromarray(transforms.transformed(image, job.transform.rotation, added)).save(job.target)
    noise = None
    if job.noisy:
        clean, noisy = (np.asarray(squares.read_rgb(path)[0]) for path in (job.clean, job.target))
        noise = transforms.difference(clean, noisy)
    return Made(file_sha256(job.target), noise)


def transformed_images(
    condition: Condition,
    seeding: str,
    seed: int,
    published: Path | None,
    clean: Path,
    clean_manifest: Path,
    clean_spec: Path,
    folder: Path,
    manifest_path: Path,
    spec_path: Path,
    workers: int,
) -> None:
    """Write one PNG an image into `folder`, the manifest with its rotation and scale, and dataset.json.

    PNG files are rotated and made noisy, never scaled: a scale is applied to the input of each model. seeding, seed:
    see `stimuli.transforms`. published: a folder of VFM-VAE, whose noisy images, rotations and scales are taken as they
    are; None where they are drawn. workers: processes; no result depends on them. Raises ImageError that names the file
    and the first five images where a published folder lacks some.
    """
    rows = manifest.read_manifest(clean_manifest)
    of_clean = json.loads(clean_spec.read_text(encoding="utf-8"))
    names = [row.name for row in rows]
    make_empty(folder)
    drawn: dict[str, object] = {"seeding": seeding, "seed": seed}
    transform_of = transforms.transforms(names, condition, seeding, seed)
    source = clean
    if published is not None:
        if condition.name == EQUIVARIANCE:
            transform_of = transforms.read_records(published / transforms.RECORDS, names)
            drawn = {"records_sha256": file_sha256(published / transforms.RECORDS)}
        elif condition.sigma:
            source = published / condition.name
            check_published(source, names, of_clean["size"])
            transform_of, drawn = dict.fromkeys(names, Transform()), {"from": str(source)}
    todo = [
        Job(
            clean / f"{row.name}.png",
            source / f"{row.name}.png",
            folder / f"{row.name}.png",
            row.name,
            i,
            transform_of[row.name],
            seeding,
            seed,
            condition.sigma > 0,
        )
        for i, row in enumerate(rows)
    ]
    files = list(logs.progress(all_made(todo, workers), len(todo), condition.name))
    made = [
        replace(row, sha256=file.sha256, source=f"{row.name}.png", notes="", rotation=t.rotation, scale=t.scale)
        for row, t, file in zip(rows, transform_of.values(), files, strict=True)
    ]
    differences = [file.noise for file in files if file.noise is not None]
    noise = transforms.noise_of_files(differences) if differences else None
    if noise is not None:
        logs.log.info("noise of files: %s", noise)
    made_of = {
        **of_clean,
        "condition": condition.name,
        "transforms": drawn,
        **({} if noise is None else {"noise": noise}),
        "clean_manifest_sha256": of_clean["manifest_sha256"],
    }
    manifest.write_manifest(manifest_path, spec_path, made, made_of)


def check_published(folder: Path, names: Sequence[str], size: int) -> None:
    """Raise ImageError where a folder of noisy images lacks some, or the first is of another size."""
    there = {source.name: source.path for source in flat_folder(folder) if source.path.suffix == ".png"}
    missing = [name for name in names if name not in there]
    if missing:
        raise ImageError(f"{folder}: lacks {len(missing)} of {len(names)} images, first: {first_five(missing)}")
    for name in names:
        with Image.open(there[name]) as image:
            squares.check_square(image, size, there[name])


def all_made(todo: Sequence[Job], workers: int) -> Iterator[Made]:
    """Make every image, in order."""
    if workers < 2:
        yield from map(make, todo)
        return
    # fresh processes: a fork of one with threads may hang
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make, todo, chunksize=max(1, min(64, len(todo) // (4 * workers))))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "transformed_images"):
        path = snakemake.params.published
        transformed_images(
            parse_condition(snakemake.wildcards.condition),
            snakemake.params.seeding,
            snakemake.params.seed,
            None if path is None else Path(path),
            Path(snakemake.input.clean),
            Path(snakemake.input.manifest),
            Path(snakemake.input.spec),
            Path(snakemake.output.folder),
            Path(snakemake.output.manifest),
            Path(snakemake.output.spec),
            snakemake.resources.workers,
        )
