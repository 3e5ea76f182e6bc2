"""The code of Linhardt et al. 2024 (https://github.com/a1247418/diffusion-alignment): pickled arrays by source, model
and module, rows in the order of the list of concepts.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.human.transforms import Transform, TransformError
from diffalign.io.atomic import replacing
from diffalign.io.headers import StoreError
from diffalign.io.layouts.content import Content
from diffalign.io.pickled_dictionaries import read_pickled
from diffalign.io.pickled_frames import read_frame

LAYOUT = "diffusion-alignment"
ALL_FEATURES, ALIGNMENT = "model_features_per_source_cleaned.pkl", "alignment.pkl"
# between source, model and module in the name of a part
SEPARATOR = "/"
DIFFUSION, OTHER = "diffusion", "custom"
_CHECKPOINTS = {
    "sd1": "runwayml/stable-diffusion-v1-5",
    "sd2": "stabilityai/stable-diffusion-2-1",
    "sd2turbo": "stabilityai/sd-turbo",
    "sd3": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd3.5": "stabilityai/stable-diffusion-3.5-medium",
}
# conditioning -> prefix at a noise level, and of the text or embedding alone
_PREFIXES = {"label": "conditional", "caption": "conditionalcapt", "caption2": "conditionalcapt2"}
_TEXTS = {"label": "textlast", "caption": "textlastcapt", "caption2": "textlastcapt2"}
# names in files of features are shorter, in this order
_SHORT = {
    f"diffusion_{_CHECKPOINTS['sd2']}": "sd2",
    f"diffusion_{_CHECKPOINTS['sd1']}": "sd1",
    f"diffusion_{_CHECKPOINTS['sd2turbo']}": "sd2t",
}
# what stands for the noise level and the module of a text or embedding alone
_NO_NOISE, _NO_MODULE = "5", "mid_block"


def read_file(path: Path) -> Content:
    """A pickled array (N, D), or nested dictionaries of them, whose parts are ``source/model/module``.

    Nothing else is unpickled. Raises StoreError that names the file for anything else.
    """
    content = read_pickled(path)
    if isinstance(content, np.ndarray):
        return Content(LAYOUT, {"": content}, None, path)
    parts = {SEPARATOR.join(keys): value for keys, value in _leaves(content, path)}
    strange = [key for key, value in parts.items() if not isinstance(value, np.ndarray)]
    if strange:
        raise StoreError(f"{path}: '{strange[0]}' is a {type(parts[strange[0]]).__name__}; expected an array")
    return Content(LAYOUT, parts, None, path)


def read_accuracies(path: Path) -> dict[tuple[str, str, str], float]:
    """(source, model, module) -> odd-one-out accuracy of ``alignment.pkl`` or ``results_{reduction}_{pca}.npy``.

    Raises StoreError that names the file for anything else, and for numbers outside of 0 to 1.
    """
    found = {}
    for keys, value in _leaves(read_pickled(path), path):
        if not isinstance(value, int | float | np.number) or not 0 <= float(value) <= 1:
            raise StoreError(f"{path}: {' '.join(keys)} is {value!r}; expected an accuracy from 0 to 1")
        found[keys] = float(value)
    return found


@dataclass(frozen=True)
class ProbeResult:
    """A row of ``probing_results.pkl``: accuracy after the probe, its cross-entropy and its settings; None where the
    file does not say it.
    """

    source: str
    model: str
    module: str
    accuracy: float
    cross_entropy: float | None
    regularisation: float | None
    optimizer: str | None
    learning_rate: float | None
    folds: int | None
    bias: bool | None


# field of a result -> column of the file, and the type of its values
_COLUMNS: dict[str, tuple[str, type]] = {
    "source": ("source", str),
    "model": ("model", str),
    "module": ("module", str),
    "accuracy": ("probing", float),
    "cross_entropy": ("cross-entropy", float),
    "regularisation": ("l2_reg", float),
    "optimizer": ("optim", str),
    "learning_rate": ("lr", float),
    "folds": ("n_folds", int),
    "bias": ("bias", bool),
}
_NEEDED = ("source", "model", "module", "accuracy")


def read_probes(path: Path) -> list[ProbeResult]:
    """The rows of ``probing_results.pkl``, in its order; other columns are ignored.

    Raises StoreError that names the file for anything else, and for accuracies outside of 0 to 1.
    """
    table = read_frame(path)
    lacking = [column for field, (column, _) in _COLUMNS.items() if field in _NEEDED and column not in table]
    if lacking:
        raise StoreError(f"{path}: has no column {', '.join(lacking)}; it has {', '.join(table)}")
    empty = [None] * len(table["model"])
    columns = [table.get(column, empty) for column, _ in _COLUMNS.values()]
    found = []
    for number, row in enumerate(zip(*columns, strict=True)):
        cells: dict[str, Any] = {}
        for (field, (column, kind)), value in zip(_COLUMNS.items(), row, strict=True):
            missing = value is None or (isinstance(value, float) and math.isnan(value))
            if not (field not in _NEEDED if missing else _is(kind, value)):
                raise StoreError(f"{path}: row {number}: {column} is {value!r}; expected {kind.__name__}")
            cells[field] = None if missing else kind(value)
        if not 0 <= cells["accuracy"] <= 1:
            raise StoreError(f"{path}: row {number}: probing is {cells['accuracy']}; expected an accuracy from 0 to 1")
        found.append(ProbeResult(**cells))
    return found


def _is(kind: type, value: Any) -> bool:
    """Whether a value is of a type; whole numbers are numbers, truth values are not."""
    return isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)


def _leaves(content: Any, path: Path) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """What source -> model -> module leads to."""
    for keys, value in _walk(content, ()):
        if len(keys) != 3 or not all(isinstance(key, str) for key in keys):
            raise StoreError(
                f"{path}: holds {' '.join(map(str, keys)) or type(value).__name__} at its top; expected "
                "dictionaries by source, model and module"
            )
        yield (str(keys[0]), str(keys[1]), str(keys[2])), value


def _walk(content: Any, keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(content, Mapping) or len(keys) == 3:
        yield keys, content
        return
    for key, value in content.items():
        yield from _walk(value, (*keys, key))


def published_name(model: str, noise: str | None, conditioning: str | None, text: bool) -> tuple[str, str]:
    """Source and model as the published code names them: ``conditionalcapt-diffusion_stabilityai/sd-turbo_20``.

    model: of the catalogue. noise: ``s20``, or a level that has no published name, ``t0.2``. text: whether it is a text
    or an embedding alone. Models that the published code does not have keep their name, under the source ``custom``.
    """
    words = [word for word in (noise, "textlast" if text else None, conditioning) if word is not None]
    if model not in _CHECKPOINTS:
        return OTHER, "-".join([model, *words])
    prefix = "" if conditioning in (None, "uncond") else str(conditioning)
    if prefix in _PREFIXES:
        prefix = (_TEXTS if text else _PREFIXES)[prefix]
    elif prefix and not text:
        prefix = f"conditional{prefix}"
    level = _NO_NOISE if noise is None else noise.removeprefix("s")
    return DIFFUSION, f"{prefix}{'-' if prefix else ''}diffusion_{_CHECKPOINTS[model]}_{level}"


def published_module(module: str, text: bool) -> str:
    """The module as the published code names it: a text or an embedding alone stands under ``mid_block``."""
    return _NO_MODULE if text else module


def feature_file(source: str, model: str, module: str) -> str:
    """Where the published code keeps the features of one module: ``features/diffusion-sd2_20-mid_block.npy``."""
    for long, short in _SHORT.items():
        model = model.replace(long, short)
    return f"features/{source}-{model}-{module.replace('.', '_')}.npy"


def write_pickled(path: Path, content: Any) -> None:
    """Write arrays, numbers and dictionaries as a pickle, which is their layout: the published code unpickles them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def published_transform(transform: Transform, rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """A transform as ``transform.npy``: (D, D), or (D, D + 1) with the bias as last column.

    Such a file has no mean and std: features are standardised by their own. rows (N, D): all features, for which it
    gives what `transform` does. Raises TransformError for one that is not square, as after PCA.
    """
    width, height = transform.weights.shape
    if width != height:
        raise TransformError(f"{transform.where}: weights are {width} x {height}; transform.npy holds square ones")
    weights = np.asarray(transform.weights, np.float64)
    x = np.asarray(rows, np.float64)
    mean, std = float(x.mean()), float(x.std())
    own = (mean, std) if transform.mean is None or transform.std is None else (transform.mean, transform.std)
    shift = (mean - own[0]) / own[1] * weights.sum(axis=0)
    bias = shift if transform.bias is None else shift + transform.bias
    return np.concatenate([weights * (std / own[1]), bias[:, None]], axis=1).astype(np.float32)
