"""Which rows of a set are its landmarks: the rows to which affinities are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five
from diffalign.randomness import keyed, shuffled
from diffalign.shared_space.affinity import EQUAL, check_rows, row_blocks, rows_in, squared_distances
from diffalign.specs import LANDMARKS

Array = NDArray[np.floating[Any]]

CHOICES = LANDMARKS
_MEMORY_MB = 512
# rows among which several farthest points are found before all rows are looked at again
_CANDIDATES = 2048
# landmarks of k-means++ that are drawn before all distances are computed again
_FRESH = 64


def choose(x: Array, count: int, choice: str, seed: int, names: Sequence[str]) -> NDArray[np.int64]:
    """Row numbers of the landmarks, (count,) sorted, of x (N, D).

    choice: ``farthest`` begins with the row closest to the mean and adds the row farthest from all landmarks (Gonzalez
    1985); ``kmeans`` draws rows with probability proportional to their squared distance from the landmarks (k-means++
    seeding, Arthur and Vassilvitskii 2007), the first uniformly; ``random`` draws without looking at x. names: of the
    rows, each once. Draws are keyed by seed and names, and ties fall by them: the names that are chosen do not depend
    on the order of rows. ``farthest`` depends on the seed in ties alone.

    Raises ValueError for another choice, names that repeat or are too few, rows that are NaN or infinite, fewer rows
    than landmarks, and, but for ``random``, fewer distinct rows.
    """
    if choice not in CHOICES:
        raise ValueError(f"unknown choice of landmarks '{choice}'; allowed: {', '.join(CHOICES)}")
    if len(names) != len(x):
        raise ValueError(f"{len(names)} names for {len(x)} rows")
    check_rows(x, names=names)
    if len(set(names)) < len(names):
        raise ValueError(f"names repeat: {first_five([name for name, n in Counter(names).items() if n > 1])}")
    if not 1 <= count <= len(x):
        raise ValueError(f"{count} landmarks of {len(x)} rows; allowed: 1 to {len(x)}")
    # in an order that the names alone give, so that sums and ties are the same, whatever the order of rows
    order = np.array(shuffled(names, seed, "landmarks"), np.int64)
    if choice == "random":
        rows = list(range(count))
    elif choice == "farthest":
        rows = _farthest(x[order], count)
    else:
        rows = _kmeans(x[order], count, seed)
    return np.sort(order[rows])


def _nearest(x: Array, rows: Sequence[int]) -> NDArray[np.float64]:
    """Squared distance (N,) of every row of x to the nearest of some rows of it."""
    others = x[list(rows)]
    size = rows_in(_MEMORY_MB, x, others)
    blocks = (squared_distances(x[begin : begin + size], others) for begin in range(0, len(x), size))
    return np.concatenate([block.amin(1).numpy() for block in blocks])


def _farthest(x: Array, count: int) -> list[int]:
    """Greedy farthest points.

    Distances to landmarks only shrink as landmarks are added. So the farthest of all rows is the farthest of the
    candidates, those that were farthest when all were last looked at, while it is no nearer than any other row was
    then; this way nearly all distances come from products of matrices.
    """
    middle = x.mean(axis=0, dtype=np.float64)
    rows = [int(np.argmin(np.concatenate([np.square(each - middle).sum(axis=1) for _, each in row_blocks(x, 2**22)])))]
    near = _nearest(x, rows)
    while len(rows) < count:
        order = np.argsort(-near, kind="stable")
        candidates = order[:_CANDIDATES]
        outside = float(near[order[_CANDIDATES]]) if len(x) > _CANDIDATES else -1.0
        added = list(_farthest_of(x[candidates], near[candidates], outside, count - len(rows)))
        _check_distinct(added, rows, count, len(x))
        fresh = [int(candidates[at]) for at in added]
        rows += fresh
        near = np.minimum(near, _nearest(x, fresh))
    return rows


def _farthest_of(x: Array, near: NDArray[np.float64], outside: float, most: int) -> Iterator[int]:
    """Candidates that are farthest in turn, the first always, others while farther than any row outside was."""
    about_mean = x - x.mean(axis=0, dtype=np.float64)
    norms = np.square(about_mean).sum(axis=1)
    for number in range(most):
        at = int(near.argmax())
        if near[at] == 0 or (number and near[at] <= outside):
            return
        yield at
        both = norms + norms[at]
        distances = both - 2 * about_mean @ about_mean[at]
        near = np.minimum(near, np.where(distances <= EQUAL * both, 0, distances))
        near[at] = 0


def _kmeans(x: Array, count: int, seed: int) -> list[int]:
    """k-means++ seeding.

    Rows are drawn by their distance when all were last looked at, and accepted with the share of it that is left: the
    probabilities are those of the definition, and most distances come from products of matrices.
    """
    generator = keyed(seed, "landmarks", "kmeans")
    rows = [int(generator.integers(len(x)))]
    near = _nearest(x, rows)
    while len(rows) < count:
        cumulative = np.cumsum(near)
        fresh: list[int] = []
        for _ in range(2 * _FRESH):
            at = int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
            at = min(at, len(x) - 1)
            left = float(near[at])
            if fresh and left:
                left = min(left, float(squared_distances(x[at : at + 1], x[fresh]).min()))
            if left > generator.random() * near[at]:
                fresh.append(at)
            if len(fresh) in (_FRESH, count - len(rows)):
                break
        _check_distinct(fresh, rows, count, len(x))
        rows += fresh
        near = np.minimum(near, _nearest(x, fresh))
    return rows


def _check_distinct(added: Sequence[int], rows: Sequence[int], count: int, total: int) -> None:
    """Raise ValueError where no row is left that differs from all landmarks."""
    if not added:
        raise ValueError(f"{count} landmarks of {total} rows, of which only {len(rows)} are distinct")
