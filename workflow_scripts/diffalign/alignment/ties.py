"""Neighbour lists in which images are equally similar: cut, restricted to some images, and broken at random.

An image beyond the end of a list that is as similar as its last one has the same claim to be in it. So a list that is
cut keeps all images that are as similar as its last one, and nothing depends on the order or the names of images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.exact import Neighbors, Ties, spans
from diffalign.randomness import keyed

# listed images to handle at a time
_ENTRIES = 4_000_000


class ListsTooShort(ValueError):
    """Neighbour lists are shorter than the requested k."""


def first(lists: Neighbors, k: int) -> Neighbors:
    """The first k neighbours of every list, 1 <= k <= K, and all images that are as similar as the last of them."""
    if k == lists.k_max:
        return lists
    indices, similarities = lists.indices[:, :k].copy(), lists.similarities[:, :k].copy()
    if lists.ties is None:
        return Neighbors(indices, similarities)
    tied = lists.ties.tied[:, :k].copy()
    counts, unlisted = np.zeros(lists.count, np.int32), np.zeros(lists.count, np.int32)
    rest = [np.empty(0, np.int32)]
    for rows in _blocks(lists, np.flatnonzero(lists.ties.tied[:, k])):
        ties = _cut(lists, rows, k)[2]
        counts[rows], unlisted[rows] = ties.counts, ties.unlisted
        rest.append(ties.rest)
    return _neighbors(indices, similarities, Ties(tied, counts, np.concatenate(rest), unlisted))


def determined(lists: Neighbors) -> int:
    """The largest number of neighbours, 0 to K, of which all images that share the last places are known."""
    if lists.ties is None or not lists.ties.unlisted.any():
        return lists.k_max
    last = np.argmin(lists.ties.tied[lists.ties.unlisted > 0, ::-1], axis=1) + 1
    return lists.k_max - int(last.max())


def restricted(lists: Neighbors, keep: NDArray[np.intp], k: int) -> Neighbors:
    """The k nearest neighbours among a subset of images, numbered by position in `keep` (M,).

    They equal a search among these images, since images that are not in a list are farther than those in it, or are
    kept with it as ties. Raises ListsTooShort where fewer than k neighbours of a list are in the subset.
    """
    position = np.full(lists.count, -1, np.int32)
    position[keep] = np.arange(len(keep), dtype=np.int32)
    if lists.ties is not None:
        parts = [_cut(lists, rows, k, position) for rows in _blocks(lists, keep)]
        return joined([_neighbors(*part) for part in parts])
    targets = position[lists.indices[keep]]
    alive = targets >= 0
    rank = np.cumsum(alive, axis=1, dtype=np.int32)
    _check_length(int(rank[:, -1].min()), k, lists, position)
    chosen = alive & (rank <= k)
    shape = (len(keep), k)
    return Neighbors(targets[chosen].reshape(shape), lists.similarities[keep][chosen].reshape(shape))


def joined(parts: list[Neighbors]) -> Neighbors:
    """The lists of parts, one after another."""
    indices = np.concatenate([part.indices for part in parts])
    similarities = np.concatenate([part.similarities for part in parts])
    if all(part.ties is None for part in parts):
        return Neighbors(indices, similarities)
    ties = [part.ties or _no_ties(part) for part in parts]
    return Neighbors(
        indices,
        similarities,
        Ties(
            np.concatenate([each.tied for each in ties]),
            np.concatenate([each.counts for each in ties]),
            np.concatenate([each.rest for each in ties]),
            np.concatenate([each.unlisted for each in ties]),
        ),
    )


def broken(lists: Neighbors, draw: str) -> Neighbors:
    """Lists (N, K) whose ties are broken at random, at their ends and within, each by itself. Keyed by draw."""
    if lists.ties is None:
        return lists
    indices = lists.indices.copy()
    generator = keyed(0, "ties", draw)
    for rows in _blocks(lists, np.flatnonzero(lists.ties.tied.any(axis=1) | (lists.ties.counts > 0))):
        row, targets, _, group = _entries(lists, rows)
        drawn = np.lexsort((generator.random(len(row)), group, row))
        lengths = lists.k_max + lists.ties.counts[rows]
        chosen = spans(np.cumsum(lengths, dtype=np.int64) - lengths, np.full(len(rows), lists.k_max))
        indices[rows] = targets[drawn[chosen]].reshape(len(rows), lists.k_max)
    return Neighbors(indices, lists.similarities)


def _blocks(lists: Neighbors, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows of lists with ties, some at a time."""
    if lists.ties is not None and len(rows):
        ends = np.cumsum(lists.k_max + lists.ties.counts[rows].astype(np.int64))
        yield from np.split(rows, np.flatnonzero(np.diff(ends // _ENTRIES)) + 1)


def _entries(
    lists: Neighbors, rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """All listed images of some rows, with those beyond the ends: each (E,), one list after another, nearest first.

    Position in `rows`, image, similarity, and the number of different similarities up to here.
    """
    ties = lists.ties or _no_ties(lists)
    counts = ties.counts[rows]
    lengths = lists.k_max + counts
    row = np.repeat(np.arange(len(rows)), lengths)
    listed = spans(np.zeros(len(rows), np.int64), lengths) < lists.k_max
    starts = np.cumsum(ties.counts, dtype=np.int64)[rows] - counts
    groups = np.cumsum(~ties.tied[rows], axis=1, dtype=np.int32)
    targets = np.empty(len(row), np.int32)
    targets[listed], targets[~listed] = lists.indices[rows].ravel(), ties.rest[spans(starts, counts)]
    similarities = np.empty(len(row), np.float32)
    similarities[listed] = lists.similarities[rows].ravel()
    similarities[~listed] = np.repeat(lists.similarities[rows, -1], counts)
    group = np.empty(len(row), np.int32)
    group[listed], group[~listed] = groups.ravel(), np.repeat(groups[:, -1], counts)
    return row, targets, similarities, group


def _cut(
    lists: Neighbors, rows: NDArray[np.intp], k: int, position: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32], Ties]:
    """The first k neighbours of some rows and their ties. position: (N,) numbers of images, -1 for those left out."""
    row, targets, similarities, group = _entries(lists, rows)
    ties = lists.ties or _no_ties(lists)
    ends = np.cumsum(lists.k_max + ties.counts[rows], dtype=np.int64)
    end_group = group[ends - 1]
    if position is not None:
        targets = position[targets]
        alive = targets >= 0
        row, targets, similarities, group = row[alive], targets[alive], similarities[alive], group[alive]
    lengths = np.bincount(row, minlength=len(rows))
    if position is not None:
        _check_length(int(lengths.min()), k, lists, position)
    starts = np.cumsum(lengths) - lengths
    rank = np.arange(len(row)) - starts[row]
    last = group[starts + k - 1]
    chosen, more = rank < k, (rank >= k) & (group == last[row])
    shape = (len(rows), k)
    groups = group[chosen].reshape(shape)
    cut = Ties(
        np.concatenate([np.zeros((len(rows), 1), np.bool_), groups[:, 1:] == groups[:, :-1]], axis=1),
        np.bincount(row[more], minlength=len(rows)).astype(np.int32),
        targets[more],
        np.where(last == end_group, ties.unlisted[rows], 0).astype(np.int32),
    )
    return targets[chosen].reshape(shape), similarities[chosen].reshape(shape), cut


def _check_length(shortest: int, k: int, lists: Neighbors, position: NDArray[np.int32]) -> None:
    """Raise ListsTooShort where fewer than k neighbours of a list are left."""
    if shortest < k:
        raise ListsTooShort(
            f"{int((position >= 0).sum())} of {lists.count} images leave {shortest} of {lists.k_max} neighbours in a "
            f"list, and k = {k}; raise alignment.k_max"
        )


def _neighbors(indices: NDArray[np.int32], similarities: NDArray[np.float32], ties: Ties) -> Neighbors:
    """Lists, without ties where there are none."""
    some = ties.tied.any() or ties.counts.any() or ties.unlisted.any()
    return Neighbors(indices, similarities, ties if some else None)


def _no_ties(lists: Neighbors) -> Ties:
    none = np.zeros(lists.count, np.int32)
    return Ties(np.zeros(lists.indices.shape, np.bool_), none, none[:0], none)
