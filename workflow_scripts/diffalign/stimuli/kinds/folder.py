"""The images of one flat folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from diffalign.dataset_specs import Dataset
from diffalign.io.manifest import Image
from diffalign.stimuli.folders import flat_folder
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, PartMasks, Supplied, of_files, square
from diffalign.stimuli.masks import folder_masks


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every image of the folder. Raises ImageError as `flat_folder`."""
    root = Path(str(dataset.path))
    return of_files(flat_folder(root, dataset.labels), root, partial(square, dataset))


def part_masks(dataset: Dataset, images: Sequence[Image]) -> PartMasks:
    """The masks of the folder `Dataset.parts`. Raises ImageError as `folder_masks`."""
    assert dataset.size is not None  # the config is checked
    assert dataset.parts is not None  # `kinds.has_part_masks` is
    sources = {image.name: Path(str(dataset.path)) / image.source for image in images}
    masks = folder_masks(Path(dataset.parts), sources, dataset.size, dataset.square)
    return PartMasks(masks.parts, lambda image: masks.read(image.name))


KIND = DatasetKind(
    rows,
    frozenset({"path", "archive", "square", "sample", "split", "labels", "groups", "parts"}),
    needs=frozenset({"path"}),
    part_masks=part_masks,
    images_alone=True,
)
