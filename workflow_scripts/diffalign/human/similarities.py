"""Human similarity judgements of pairs of objects, and representational similarity analysis against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import BOUNDS
from diffalign.human.concepts import Concept
from diffalign.human.matlab import read_variable
from diffalign.offenders import first_five
from diffalign.reasons import reason

MEASURES = ("dissimilarity", "similarity")
_DRAWS = 1000
# fewer objects have too few pairs to rank
_FEWEST = 4


class SimilarityError(ValueError):
    """A matrix or names cannot be used. The message names the file."""


@dataclass(frozen=True, eq=False)
class Similarities:
    """Human similarities of K objects. values: (K, K), larger for more similar ones. names: uniqueIDs of rows."""

    values: NDArray[np.float64]
    names: tuple[str, ...]


def read_similarities(
    path: Path, key: str | None, names: Path, names_key: str | None, measures: str, concepts: Sequence[Concept]
) -> Similarities:
    """Read a matrix and the names of its rows.

    path: ``.npy``, ``.csv`` without a header, or a MATLAB file with the matrix under ``key``. names: a text file with
    one name per line, or a MATLAB file with a cell array under ``names_key``. Names are uniqueIDs, or words of a single
    concept. measures: ``dissimilarity`` or ``similarity``. Raises SimilarityError.
    """
    given = np.asarray(_matlab(path, key) if path.suffix == ".mat" else _array(path))
    if given.dtype.kind not in "fiu":
        raise SimilarityError(f"{path}: holds {given.dtype}; expected numbers")
    matrix = given.astype(np.float64)
    if measures not in MEASURES:
        raise SimilarityError(f"unknown measure '{measures}'; allowed: {', '.join(MEASURES)}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < _FEWEST:
        raise SimilarityError(f"{path}: holds {matrix.shape}; expected as many rows as columns, at least {_FEWEST}")
    pairs = ~np.eye(len(matrix), dtype=bool)
    if not np.isfinite(matrix[pairs]).all() or not np.allclose(matrix, matrix.T, equal_nan=True):
        raise SimilarityError(f"{path}: not symmetric, or NaN or infinite off the diagonal")
    cells = _matlab(names, names_key).ravel() if names.suffix == ".mat" else _lines(names)
    listed = [str(name).strip() for name in cells if str(name).strip()]
    if len(listed) != len(matrix):
        raise SimilarityError(f"{names}: {len(listed)} names for {len(matrix)} rows of {path}")
    return Similarities(-matrix if measures == "dissimilarity" else matrix, _unique_ids(listed, concepts, names))


def _unique_ids(listed: Sequence[str], concepts: Sequence[Concept], where: Path) -> tuple[str, ...]:
    known = {concept.name for concept in concepts}
    by_word: dict[str, list[str]] = {}
    for concept in concepts:
        by_word.setdefault(concept.word, []).append(concept.name)
    called = [[name] if name in known else by_word.get(name, []) for name in listed]
    for wrong, what in (
        ([name for name, ids in zip(listed, called, strict=True) if not ids], "are no concepts"),
        ([name for name, ids in zip(listed, called, strict=True) if len(ids) > 1], "are words of several concepts"),
    ):
        if wrong:
            raise SimilarityError(f"{where}: {len(wrong)} names {what}, first: {first_five(wrong)}; write uniqueIDs")
    unique = tuple(ids[0] for ids in called)
    if len(set(unique)) < len(unique):
        twice = sorted({name for name in unique if unique.count(name) > 1})
        raise SimilarityError(f"{where}: {len(twice)} objects stand twice, first: {first_five(twice)}")
    return unique


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, MemoryError) as error:
        raise SimilarityError(f"{path}: cannot be read as a list of names ({reason(error)})") from error


def _array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy has many ways to refuse a file
        raise SimilarityError(f"{path}: cannot be read as a matrix of numbers ({reason(error)})") from error


def _matlab(path: Path, key: str | None) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return read_variable(path, key)
    except ValueError as error:
        raise SimilarityError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Rsa:
    """Correlations over pairs of objects with 95 % bounds, and the number of objects."""

    spearman: float
    spearman_low: float
    spearman_high: float
    pearson: float
    pearson_low: float
    pearson_high: float
    objects: int


def rsa(people: NDArray[np.float64], model: NDArray[np.float64], draws: np.random.Generator) -> Rsa:
    """Correlate the upper triangles of two similarity matrices (K, K), with bootstrap intervals over objects.

    Pairs of an object with itself are left out of a draw (Nili et al. 2014). Raises ValueError where a matrix is
    constant.
    """
    above = np.triu_indices(len(people), 1)
    if any(np.ptp(each[above]) == 0 for each in (people, model)):
        raise ValueError("all pairs of objects are equally similar, so correlations are undefined")
    observed = _correlations(people[above], model[above])
    values = np.empty((_DRAWS, 2))
    for i in range(_DRAWS):
        taken = draws.integers(len(people), size=len(people))
        first, second = taken[above[0]], taken[above[1]]
        differ = first != second
        values[i] = _correlations(people[first, second][differ], model[first, second][differ])
    low, high = np.nanquantile(values, BOUNDS, axis=0).tolist()
    return Rsa(observed[0], low[0], high[0], observed[1], low[1], high[1], len(people))


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Spearman's and Pearson's correlation; NaN for constant values."""
    from scipy.stats import rankdata

    return _pearson(rankdata(a), rankdata(b)), _pearson(a, b)


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")
