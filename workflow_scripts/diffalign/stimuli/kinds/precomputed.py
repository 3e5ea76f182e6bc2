"""No images and no texts: features that were made elsewhere, which know their names."""

from __future__ import annotations

from diffalign.dataset_specs import Dataset
from diffalign.stimuli.kinds.declaration import DatasetKind


def _never(_: Dataset) -> bool:
    return False


KIND = DatasetKind(None, has_images=_never)
