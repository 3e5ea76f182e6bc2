"""One folder a class, as ImageNet's validation set is usually unpacked."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffalign.dataset_specs import Dataset
from diffalign.stimuli.folders import synset_folders
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Supplied, of_files, square


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every image below the folders. Raises ImageError as `synset_folders`."""
    root = Path(str(dataset.path))
    return of_files(synset_folders(root), root, partial(square, dataset))


KIND = DatasetKind(
    rows,
    frozenset({"path", "archive", "square", "sample", "split", "groups"}),
    needs=frozenset({"path"}),
    images_alone=True,
)
