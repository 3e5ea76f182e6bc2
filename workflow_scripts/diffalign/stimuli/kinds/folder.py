"""The images of one flat folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffalign.specs import Dataset
from diffalign.stimuli.folders import flat_folder
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Supplied, of_files, square


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every image of the folder. Raises ImageError as `flat_folder`."""
    root = Path(str(dataset.path))
    return of_files(flat_folder(root, dataset.labels), root, partial(square, dataset))


KIND = DatasetKind(rows, frozenset({"path", "square", "sample", "split", "labels"}), needs=frozenset({"path"}))
