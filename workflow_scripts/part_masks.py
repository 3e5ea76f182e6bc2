"""Masks of the parts of images: which pixels are hair, eyes and so on, in the squares of the images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.dataset_specs import Dataset
from diffalign.io.manifest import read_manifest
from diffalign.io.part_files import write_parts
from diffalign.stimuli import kinds

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def part_masks(dataset: Dataset, manifest: Path, dataset_json: Path, folder: Path) -> None:
    """Write a mask for every clean image of the manifest, and parts.json.

    dataset_json: what the images are made of, which the recipe repeats. Raises ImageError that names the first five
    images without a mask or with one of another size.
    """
    rows = read_manifest(manifest)
    masks = kinds.part_masks(dataset, rows)
    pixels = np.zeros((len(rows), len(masks.parts) + 1), np.int64)

    def each() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for number, row in enumerate(logs.progress(rows, len(rows), "part masks")):
            mask = masks.read(row)
            pixels[number] = np.bincount(mask.ravel(), minlength=pixels.shape[1])
            yield row.name, mask

    write_parts(folder, masks.parts, each(), {"images": json.loads(dataset_json.read_text(encoding="utf-8"))})
    for part in (part for part, count in zip(masks.parts, pixels[:, 1:].sum(0), strict=True) if not count):
        logs.log.warning("%s: no image shows it", part)
    for part, counts in zip(masks.parts, pixels[:, 1:].T, strict=True):
        share = counts.sum() / pixels.sum()
        logs.log.info("%s: in %d of %d images, %.1f %% of all pixels", part, (counts > 0).sum(), len(rows), 100 * share)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "part_masks"):
        part_masks(
            Dataset(**snakemake.params.dataset),
            Path(snakemake.input.manifest),
            Path(snakemake.input.spec),
            Path(snakemake.output[0]),
        )
