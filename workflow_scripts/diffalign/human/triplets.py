"""Odd-one-out choices of people among three objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffalign.dataset_specs import SourceFile, TripletFile
from diffalign.offenders import first_five
from diffalign.reasons import reason

ODD = ("last", "column")
# times that a file names every object on the average, from which one that it never names is no chance
_SURE = 20


class TripletError(ValueError):
    """Choices are invalid. The message names the file and the first offenders."""


@dataclass(frozen=True, eq=False)
class Triplets:
    """T choices among N objects. objects: (T, 3) int32, positions 0 … N - 1, the odd one last.

    count: N. people: (T,) the person of each choice, None where unknown. where: the file, for messages. Raises
    TripletError for a position out of range and for a triplet with a repeated object.
    """

    objects: NDArray[np.int32]
    count: int
    people: NDArray[np.int64] | None = None
    where: str = "triplets"

    def __post_init__(self) -> None:
        if self.objects.ndim != 2 or self.objects.shape[1] != 3 or not len(self.objects):
            raise TripletError(f"{self.where}: triplets have shape {self.objects.shape}; expected (T, 3), T at least 1")
        if self.people is not None and self.people.shape != (len(self.objects),):
            raise TripletError(f"{self.where}: {len(self.people)} people for {len(self.objects)} choices")
        a, b, odd = self.objects.T
        outside = (self.objects.min(axis=1) < 0) | (self.objects.max(axis=1) >= self.count)
        repeated = (a == b) | (a == odd) | (b == odd)
        for bad, what in ((outside, f"name an object outside of 0 … {self.count - 1}"), (repeated, "repeat an object")):
            if bad.any():
                lines = [f"row {row} {self.objects[row].tolist()}" for row in np.flatnonzero(bad)[:6]]
                raise TripletError(
                    f"{self.where}: {int(bad.sum())} of {len(bad)} triplets {what} (counted from 0), "
                    f"first: {first_five(lines)}"
                )

    def __len__(self) -> int:
        return len(self.objects)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Number (T,) of the set of three objects of each choice, 0 … G - 1."""
        ordered = np.sort(self.objects, axis=1).astype(np.int64)
        keys = (ordered[:, 0] * self.count + ordered[:, 1]) * self.count + ordered[:, 2]
        return np.asarray(np.unique(keys, return_inverse=True)[1], np.int64)

    def where_all(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask (T,) of the triplets whose three objects are all in `kept` (N,)."""
        return np.asarray(kept[self.objects].all(axis=1))

    def taken(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Triplets:
        """A subset of the choices."""
        people = None if self.people is None else self.people[chosen]
        return Triplets(self.objects[chosen], self.count, people, self.where)


def source_files(entry: TripletFile) -> tuple[SourceFile, ...]:
    """Every file of an entry with the sha256 that it must have, in order."""
    if isinstance(entry.path, str):
        return (SourceFile(entry.path, None if entry.sha256 is None else str(entry.sha256)),)
    digests: Sequence[str | None] = entry.sha256 or [None] * len(entry.path)
    return tuple(SourceFile(*each) for each in zip(entry.path, digests, strict=True))


def published_sample(triplets: Triplets, most: int) -> Triplets:
    """The first `most` choices in the permutation of NumPy's RandomState(42); all choices where there are no more."""
    if len(triplets) <= most:
        return triplets
    return triplets.taken(np.random.RandomState(42).permutation(len(triplets))[:most])


def read_triplets(path: Path, count: int, first: int, odd: str) -> Triplets:
    """Read choices among `count` objects.

    path: ``.npy`` with integers (T, 3) or more columns; otherwise a text file of numbers, separated by white space or
    commas, without a header. first: 0 or 1, the number of the first object. odd: ``last``, the odd one is the third
    object of a row (train_90.npy); ``column``, the fourth column is its position 1, 2 or 3 (test_triplets.csv), and an
    optional fifth column is the person. Raises TripletError for anything else.
    """
    if first not in (0, 1):
        raise TripletError(f"{path}: objects are numbered from 0 or from 1, not from {first}")
    if odd not in ODD:
        raise TripletError(f"unknown place of the odd one '{odd}'; allowed: {', '.join(ODD)}")
    table = _read_table(path)
    columns = (3,) if odd == "last" else (4, 5)
    if table.ndim != 2 or table.shape[1] not in columns or not len(table):
        expected = " or ".join(map(str, columns))
        raise TripletError(f"{path}: holds a table {table.shape}; with odd: {odd} expected {expected} columns")
    objects: NDArray[np.integer] = table[:, :3] - first
    if odd == "column":
        which = table[:, 3]
        bad = np.flatnonzero(~np.isin(which, (1, 2, 3)))
        if len(bad):
            raise TripletError(f"{path}: row {bad[0]} has the odd one at {which[bad[0]]}; expected 1, 2 or 3")
        objects = odd_last(objects, which - 1)
    people = table[:, 4] if table.shape[1] == 5 else None
    return Triplets(np.ascontiguousarray(objects, np.int32), count, people, str(path))


def stacked(parts: Sequence[Triplets]) -> Triplets:
    """The choices of several files, one after the other, as the published code stacks train_90.npy and test_10.npy.

    A number of a person means the same one in all of them. Raises TripletError that names two files where one says who
    chose and the other does not, and where they are of different counts of objects: other counts N, or one names no
    object beyond a number that others exceed, although it names objects 20 times as often as there are any.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    highest = max(int(part.objects.max()) for part in parts)
    for part in parts:
        if part.count != first.count:
            raise TripletError(f"{first.where}: choices among {first.count} objects; {part.where}: among {part.count}")
        if (part.people is None) != (first.people is None):
            silent, told = (part, first) if part.people is None else (first, part)
            raise TripletError(f"{told.where} says who chose and {silent.where} does not; give files of one kind")
        own = int(part.objects.max())
        if own < highest and part.objects.size >= _SURE * part.count:
            raise TripletError(
                f"{part.where}: {len(part)} choices name no object beyond number {own} (counted from 0), while others "
                f"of these files name {highest}; files of one list are of the same objects"
            )
    people = [part.people for part in parts if part.people is not None]
    return Triplets(
        np.concatenate([part.objects for part in parts]),
        first.count,
        np.concatenate(people) if people else None,
        ", ".join(part.where for part in parts),
    )


def odd_last(objects: NDArray[np.integer], odd: NDArray[np.int64]) -> NDArray[np.integer]:
    """Move the odd one, at position 0, 1 or 2 of each row (T, 3), to the end. The other two keep their order."""
    others = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])
    return np.take_along_axis(objects, others[odd], axis=1)


def _read_table(path: Path) -> NDArray[np.int64]:
    try:
        if path.suffix == ".npy":
            table = np.load(path, allow_pickle=False)
        else:
            import pandas as pd

            separator = _separator(path)
            table = pd.read_csv(path, sep=separator, header=None, comment="#", skipinitialspace=True).to_numpy()
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and pandas have many ways to refuse a file
        raise TripletError(f"{path}: cannot be read as a table of numbers ({reason(error)})") from error
    # the published arrays are floats
    if not np.issubdtype(table.dtype, np.number) or not np.array_equal(table, np.rint(table)):
        raise TripletError(f"{path}: expected whole numbers, got {table.dtype}")
    return np.asarray(table, np.int64)


def _separator(path: Path) -> str:
    """The separator of the numbers of a text file, from its first line that is no comment."""
    with path.open(encoding="utf-8") as file:
        first = next((line for line in file if line.strip() and not line.startswith("#")), "")
    return "," if "," in first else r"\s+"


def distinct(triplets: Triplets, chosen: NDArray[np.bool_] | None = None) -> int:
    """Number of distinct sets of three objects among the choices, or among a subset (T,) of them."""
    groups = triplets.groups if chosen is None else triplets.groups[chosen]
    return len(np.unique(groups))
