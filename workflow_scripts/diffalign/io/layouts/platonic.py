"""platonic-rep (https://github.com/minyoungg/platonic-rep): ``feats`` of all layers in ``.pt``, and alignments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError, check_same_names, reading
from diffalign.io.layouts.content import TensorFile, read_torch, write_tensors
from diffalign.io.layouts.row_names import write_names
from diffalign.io.pickled_arrays import unpickled
from diffalign.reasons import reason

if TYPE_CHECKING:
    from torch import Tensor

FILE = TensorFile(frozenset({"feats"}), "feats")


def read_quality(path: Path) -> dict[str, float]:
    """How well a language model predicts texts, by its file of features: ``loss`` (nats a token), ``bits_per_byte``
    (both means over texts) and ``parameters``. Raises FileNotFoundError or StoreError.
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    with reading(path, "features"):
        content = read_torch(path)
    keys = {"loss": "loss", "bpb": "bits_per_byte", "num_params": "parameters"}
    missing = sorted(set(keys) - set(content if isinstance(content, dict) else ()))
    if missing:
        raise StoreError(f"{path}: has no {', '.join(missing)}, so it is not of a language model")
    measured = {name: content[key] for key, name in keys.items()}
    for name, value in measured.items():
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise StoreError(f"{path}: {name} has the shape {tuple(value.shape)}; expected one number")
        if not math.isfinite(value) or value <= 0:
            raise StoreError(f"{path}: {name} is {float(value)}; expected a number above 0")
    return {name: float(value) for name, value in measured.items()}


@dataclass(frozen=True)
class Predictions:
    """What platonic-rep writes of a language model beside its features.

    parameters: of the model. loss, bits_per_byte: means over texts, in nats a token and bits; None where the model
    predicts no text. tokens: of each text, by name of its image; None where that is not known.
    """

    parameters: int
    loss: float | None
    bits_per_byte: float | None
    tokens: Mapping[str, int] | None = None


def write_features(
    path: Path, names_path: Path, layers: Sequence[Features], predictions: Predictions | None = None
) -> None:
    """Write layers, in order of depth, as platonic-rep's extract_features.py does: ``feats`` (N, L, D), or a list of
    (N, D) where widths differ. Its layout has no names, so they go to `names_path`.

    predictions: of a language model, for the keys ``num_params``; ``mask`` (N, T) int64, 1 where a token is, with
    padding on the left to the longest text; ``loss`` and ``bpb``, tensors of one float32. What is not known has no key.
    Raises StoreError where layers are of other images, or a text has no number of tokens.
    """
    import torch

    for layer in layers:
        check_same_names(layers[0].names, layer.names, path, path)
    tensors = [torch.from_numpy(layer.values) for layer in layers]
    same = len({tensor.shape[1] for tensor in tensors}) == 1
    content: dict[str, Any] = {"feats": torch.stack(tensors, dim=1) if same else tensors}
    if predictions is not None:
        content["num_params"] = predictions.parameters
        if predictions.tokens is not None:
            check_same_names(layers[0].names, sorted(predictions.tokens), path, path)
            content["mask"] = _mask([predictions.tokens[name] for name in layers[0].names])
        told = {"loss": predictions.loss, "bpb": predictions.bits_per_byte}
        content |= {key: torch.tensor(value) for key, value in told.items() if value is not None}
    write_tensors(path, content)
    write_names(names_path, layers[0].names)


def _mask(lengths: Sequence[int]) -> Tensor:
    """The attention mask (N, T) int64 of texts of these numbers of tokens, padded on the left."""
    import torch

    longest = max(lengths)
    return (torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]).long()


def alignment_name(metric: str, k: int) -> str:
    """What platonic-rep calls the file of a metric, without its suffix (utils.to_alignment_filename): k stands in the
    name of every metric in which it reads ``knn``, CKNNA among them.
    """
    return f"{metric}_k{k}" if "knn" in metric else metric


def write_alignment(path: Path, grid: Sequence[Sequence[NDArray[np.float64]]]) -> None:
    """Write the best scores of matrices as platonic-rep does: a pickled dictionary of ``scores`` (X, Y) and
    ``indices`` (X, Y, 2), the layers in the order (y, x).

    grid: X lists of Y matrices, layers of A x layers of B. platonic-rep calls its metrics as (y, x), so the As stand
    for y and the Bs for x. Raises StoreError where a matrix has no defined score.
    """
    scores = np.empty((len(grid), len(grid[0])))
    indices = np.empty((*scores.shape, 2))
    for x, y in np.ndindex(scores.shape):
        values = grid[x][y]
        if not np.isfinite(values).any():
            raise StoreError(f"{path}: no score of the matrix ({x}, {y}) is defined, so there is no best one to write")
        indices[x, y] = np.unravel_index(np.nanargmax(values), values.shape)
        scores[x, y] = np.nanmax(values)
    best = {"scores": scores, "indices": indices}
    with replacing(path) as temporary:
        # the pickle is their layout: their readers call np.load(..., allow_pickle=True).item()
        np.save(temporary, best, allow_pickle=True)  # type: ignore[arg-type]


def read_alignment(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (X, Y) and indices (X, Y, 2) of an alignment file of platonic-rep, the layers in the order (y, x).

    A pair without a score above 0 may have NaN in the place of its layers. Only NumPy arrays of numbers and a
    dictionary are unpickled. Raises StoreError for anything else, and for scores that are NaN or infinite.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if shape != () or dtype != np.dtype(object):
                raise StoreError(f"holds {dtype} of shape {shape}, not a dictionary")
            content = unpickled(file.read()).item()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as an alignment of platonic-rep ({reason(error)})") from error
    if not isinstance(content, dict) or not {"scores", "indices"} <= set(content):
        raise StoreError(f"{path}: no alignment of platonic-rep; it needs the keys indices, scores")
    scores, indices = content["scores"], content["indices"]
    if any(not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" for array in (scores, indices)):
        raise StoreError(f"{path}: scores and indices are not arrays of numbers")
    if scores.ndim != 2 or indices.shape != (*scores.shape, 2):
        raise StoreError(f"{path}: scores {scores.shape} and indices {indices.shape}; expected (X, Y) and (X, Y, 2)")
    scores, indices = scores.astype(np.float64), indices.astype(np.float64)
    if not np.isfinite(scores).all():
        raise StoreError(f"{path}: the score at {_first(~np.isfinite(scores))} is NaN or infinite")
    whole = (indices >= 0) & (indices == np.floor(indices)) & np.isfinite(indices)
    wrong = ~(whole | (np.isnan(indices) & (scores <= 0)[..., None])).all(axis=2)
    if wrong.any():
        raise StoreError(f"{path}: the layers at {_first(wrong)} are no whole numbers of at least 0")
    return scores, indices


def _first(wrong: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the first cell that is True."""
    row, column = np.argwhere(wrong)[0]
    return int(row), int(column)
