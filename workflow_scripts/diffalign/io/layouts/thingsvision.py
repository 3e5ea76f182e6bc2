"""thingsvision (https://github.com/ViCCo-Group/thingsvision): a folder with ``features.npy`` and ``file_names.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffalign.io.atomic import replacing
from diffalign.io.feature_files import Features
from diffalign.io.layouts.row_names import write_names

FEATURES, NAMES = "features.npy", "file_names.txt"


def is_written_by(path: Path) -> bool:
    """Whether a file is one of thingsvision: of its name, with the names file beside it."""
    return path.name == FEATURES and path.with_name(NAMES).is_file()


def write_features(features_path: Path, names_path: Path, features: Features) -> None:
    """Write one layer as thingsvision does: ``features.npy``, (N, D) float32, and ``file_names.txt``, one a line."""
    with replacing(features_path) as temporary:
        np.save(temporary, features.values, allow_pickle=False)
    write_names(names_path, features.names)
