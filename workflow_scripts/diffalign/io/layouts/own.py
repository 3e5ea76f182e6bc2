"""Our own feature file, one layer with its recipe, as `io.feature_files` writes it."""

from __future__ import annotations

from diffalign.io.feature_files import KEYS, KIND
from diffalign.io.layouts.content import TensorFile

FILE = TensorFile(KEYS, "features", "names", header=KIND)
