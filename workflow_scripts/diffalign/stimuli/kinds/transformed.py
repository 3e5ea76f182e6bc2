"""A folder of VFM-VAE: clean/, noise_0.050/ and so on, and equivariance_transforms.json."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image as Picture

from diffalign.conditions import CLEAN
from diffalign.dataset_specs import Dataset
from diffalign.stimuli import squares
from diffalign.stimuli.folders import flat_folder
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Supplied, of_files


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every clean image. Raises ImageError as `flat_folder`; a picture of another size raises it when it
    is read.
    """
    root = Path(str(dataset.path))

    def read(path: Path) -> tuple[Picture, str]:
        assert dataset.size is not None  # the config is checked
        image, notes = squares.read_rgb(path)
        squares.check_square(image, dataset.size, path)
        return image, notes

    return of_files(flat_folder(root / CLEAN, dataset.labels), root, read)


KIND = DatasetKind(
    rows,
    frozenset({"path", "archive", "sample", "split", "labels", "groups"}),
    needs=frozenset({"path"}),
    has_transformed=True,
)
