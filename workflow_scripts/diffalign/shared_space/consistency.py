"""Whether tokens that are near in a space lie on the same part of an object: across images, layers and models.

Tokens are (I, T, d): I images, T cells of a grid, row by row, with d features or coordinates. A space is shared by
several sets, each the tokens of one layer of one model for the same images and grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import quantile
from diffalign.alignment.nulls import SMALLEST_P
from diffalign.shared_space.affinity import check_rows, rows_in, squared_distances
from diffalign.shared_space.pairing import is_nearest, rounding

Tokens = NDArray[np.floating[Any]]
Array = NDArray[np.float64]

PART_OTHER_IMAGES, PART_SAME_IMAGE, CELL_SAME_IMAGE = "part_other_images", "part_same_image", "cell_same_image"
MEASURES = (PART_OTHER_IMAGES, PART_SAME_IMAGE, CELL_SAME_IMAGE)
# a difference has an interval over images, or groups of them, from so many on
FEWEST_IMAGES = 5
# differences of scores that are rounding
_EQUAL = 1e-9
# labels that are compared at a time
_BLOCK = 2**23


@dataclass(frozen=True, eq=False)
class Nearest:
    """Nearest neighbours as a list: token `queries[e]` of one set has `found[e]` of another as one of its nearest.

    queries, found: (E,) int64, numbers of tokens over all images, queries in order. shares: (E,) float64, 1 over how
    many are equally near.
    """

    queries: NDArray[np.int64]
    found: NDArray[np.int64]
    shares: Array


@dataclass(frozen=True, eq=False)
class Measured:
    """A score with what chance gives. null: (P,) scores under P shifts. per_image: (I,) scores of the tokens of each
    image, NaN where it has none that count. Of several scores under the same shifts, nulls belong to one another.

    undefined: why there is no score, '' where there is one.
    """

    score: float
    null: Array
    per_image: Array
    undefined: str = ""

    @property
    def p(self) -> float:
        """Share of the shifts, the grids as they are among them, whose score is at least this one."""
        return np.nan if self.undefined else _share(self.null >= self.score - 1e-12)


@dataclass(frozen=True)
class Contrast:
    """The difference of two scores, first - second, and its mean under the same shifts.

    It has no p: shifts are of spaces that both do not know of the map that is shifted, not of two that know it equally
    well, whose differences are larger. low, high: 95 % t interval over images, as of `over_images`; images share
    candidates, so it is approximate. reason: why there is none.
    """

    difference: float
    null_mean: float
    low: float
    high: float
    reason: str


@dataclass(frozen=True)
class OverImages:
    """The mean of one value an image, its 95 % t interval and its two-sided p; NaN where unknown, for a reason.

    images, groups: how many there are, and groups of them, of which each may be one.
    """

    mean: float
    low: float
    high: float
    p: float
    images: int
    groups: int
    reason: str


def contrast(first: Measured, second: Measured, groups: Sequence[str] | None = None) -> Contrast:
    """The difference of two scores, first - second. groups: as of `over_images`. Raises ValueError where either is
    undefined.
    """
    if reason := first.undefined or second.undefined:
        raise ValueError(f"no difference of scores that are undefined: {reason}")
    difference, null = first.score - second.score, first.null - second.null
    found = over_images(first.per_image - second.per_image, groups)
    return Contrast(difference, float(null.mean()), found.low, found.high, found.reason)


def over_images(values: Array, groups: Sequence[str] | None = None) -> OverImages:
    """The mean of differences (I,), one an image, those that are NaN left out.

    groups: (I,), of images that are not independent of each other; the error is then over groups. None where each image
    is a group of its own. Interval and p are NaN for fewer groups than `FEWEST_IMAGES`. Where all differences are the
    same there is no standard error: no interval, and no p but that of differences of 0, which is 1. p is
    `nulls.SMALLEST_P` at least: tails of a t distribution are not exact.
    """
    from scipy.stats import t

    there = np.isfinite(values)
    values, count = values[there], int(there.sum())
    named = [str(i) for i in range(len(there))] if groups is None else groups
    units = Groups.of([group for group, known in zip(named, there, strict=True) if known])
    mean = float(values.mean()) if count else np.nan
    counts = count, units.count
    what = f"{count} images" if units.alone else f"{units.count} groups of {count} images"
    if units.count < FEWEST_IMAGES:
        return OverImages(mean, np.nan, np.nan, np.nan, *counts, f"{what}, fewer than {FEWEST_IMAGES}")
    apart = units.sums(values - mean)
    error = float(np.sqrt(units.count / units.freedom * (apart @ apart))) / count
    if error <= _EQUAL:
        p = 1.0 if abs(mean) <= _EQUAL else np.nan
        return OverImages(mean, np.nan, np.nan, p, *counts, f"the difference is the same in all {what}")
    reach = quantile(units.freedom) * error
    p = max(float(2 * t.sf(abs(mean) / error, units.freedom)), SMALLEST_P)
    return OverImages(mean, mean - reach, mean + reach, p, *counts, "")


def consistency(
    sets: Mapping[str, Tokens], parts: NDArray[np.integer[Any]] | None, shifts: NDArray[np.int32], memory_mb: int = 512
) -> dict[tuple[str, str, str], Measured]:
    """All scores of a space: (measure, set, set) -> score; a measure within one set names it twice.

    sets: name -> (I, T, d), in one space. parts: (I, T), the part at each cell, 0 for none. shifts: of
    `shifts.grid_shifts`. Measures, each in both directions, the mean of which is the score:

    - ``part_other_images``: a token that has a part, and its nearest neighbour among all tokens of *other* images, of
      its own set or of another one: is that of the same part? Under chance the map of parts is shifted in each image.
      Parts that are in one image alone do not count. With one image it is undefined.
    - ``part_same_image``, of two sets: the same with neighbours in the same image. Under chance the maps of the
      neighbours are shifted, not those of the tokens: nearest neighbours may lie at the same cell.
    - ``cell_same_image``, of two sets: is the nearest neighbour in the same image at the same cell? Under chance the
      cells of the neighbours are shifted.

    Scores of parts are means over parts, so that large ones do not count more; a neighbour without a part is a miss.
    Shifts keep what is next to each other in a map, as a permutation of tokens would not. They are on a torus, so that
    each part keeps its size, which makes chance a little too small: of smooth maps without any relation on two grids of
    14 x 14, 4 to 9 % had p ≤ 0.05, and 3 to 10 % of differences. Images that all show an
    object at the same place make parts agree by place alone: compare with `by_position`.

    Raises ValueError for sets of other shapes, parts of another shape, NaN, and shifts of another number of tokens.
    """
    _check(sets, parts, shifts)
    found: dict[tuple[str, str, str], Measured] = {}
    for a, b in itertools.combinations_with_replacement(sets, 2):
        there = nearest(sets[a], sets[b], memory_mb)
        both = [there] if a == b else [there, nearest(sets[b], sets[a], memory_mb)]
        if parts is not None:
            others = [_parts(other, parts, shifts, other_images=True) for other, _ in both]
            found[PART_OTHER_IMAGES, a, b] = _averaged(others)
        if a != b:
            if parts is not None:
                own = [_parts(own, parts, shifts, other_images=False) for _, own in both]
                found[PART_SAME_IMAGE, a, b] = _averaged(own)
            images = sets[a].shape[0]
            found[CELL_SAME_IMAGE, a, b] = _averaged([_cells(own, images, shifts) for _, own in both])
    return found


def by_position(parts: NDArray[np.integer[Any]], shifts: NDArray[np.int32]) -> Measured:
    """``part_other_images`` where the neighbours of a token are those at the same cell of all other images: what
    knowing the place alone would give. parts: (I, T). See `consistency`.
    """
    images, tokens = parts.shape
    pairs = [(i, j) for i in range(images) for j in range(images) if i != j]
    cells = np.arange(tokens)
    queries = np.concatenate([i * tokens + cells for i, _ in pairs] or [cells[:0]])
    others = np.concatenate([j * tokens + cells for _, j in pairs] or [cells[:0]])
    order = np.argsort(queries, kind="stable")
    shares = np.full(len(queries), 1 / max(1, images - 1))
    return _parts(Nearest(queries[order], others[order], shares), parts, shifts, other_images=True)


def nearest(a: Tokens, b: Tokens, memory_mb: int = 512) -> tuple[Nearest, Nearest]:
    """Nearest tokens in b (I, T, d) of those in a (I, T, d): among other images, and in the same image.

    Tokens that are equally near share the credit. With one image the first has no pairs.
    """
    images, tokens, width = a.shape
    x, y = a.reshape(-1, width), b.reshape(-1, width)
    near_by = rounding(x, y)
    step = max(1, rows_in(memory_mb, x, y) // 2)
    others: list[Nearest] = []
    own: list[Nearest] = []
    for image in range(images):
        here = slice(image * tokens, (image + 1) * tokens)
        for begin in range(here.start, here.stop, step):
            rows = slice(begin, min(begin + step, here.stop))
            distances = squared_distances(x[rows], y).numpy()
            own.append(_nearest(distances[:, here], near_by[rows], begin, here.start))
            if images > 1:
                distances[:, here] = np.inf
                others.append(_nearest(distances, near_by[rows], begin, 0))
    return _joined(others), _joined(own)


def _nearest(distances: Array, near_by: Array, first_query: int, first: int) -> Nearest:
    found = is_nearest(distances, near_by)
    rows, columns = np.nonzero(found)
    return Nearest(rows + first_query, columns + first, 1 / found.sum(axis=1)[rows])


def _joined(blocks: Sequence[Nearest]) -> Nearest:
    none = Nearest(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    each = [none, *blocks]
    return Nearest(*(np.concatenate([getattr(one, key) for one in each]) for key in ("queries", "found", "shares")))


def _parts(near: Nearest, parts: NDArray[np.integer[Any]], shifts: NDArray[np.int32], other_images: bool) -> Measured:
    """The share of tokens with a part whose neighbours are of the same part, a mean over parts.

    A shift keeps how many tokens of an image have a part, so the weight of a token depends on its image and part alone.
    """
    images, tokens = parts.shape
    known, labels = np.unique(np.append(0, parts.ravel()), return_inverse=True)
    labels = labels[1:].astype(np.int32)
    counts = np.zeros((images, len(known)))
    np.add.at(counts, (np.arange(images * tokens) // tokens, labels), 1)
    if other_images:
        counts[(counts.sum(axis=0) - counts) == 0] = 0
    counts[:, 0] = 0
    if not counts.any():
        reason = "one image: there is no other" if images == 1 and other_images else "no part is in two images"
        return Measured(np.nan, np.full(len(shifts), np.nan), np.full(images, np.nan), reason)
    of_part = counts.sum(axis=0)
    weights = np.where(counts > 0, 1 / (np.maximum(of_part, 1) * (of_part > 0).sum()), 0)
    in_image = np.where(counts > 0, 1 / (np.maximum(counts, 1) * np.maximum((counts > 0).sum(axis=1), 1)[:, None]), 0)
    image = near.queries // tokens
    agree = near.shares * (labels[near.queries] == labels[near.found])
    score = float((agree * weights[image, labels[near.queries]]).sum())
    per_image = np.bincount(image, agree * in_image[image, labels[near.queries]], images)
    null = np.empty(len(shifts))
    for draws in _blocks(len(shifts), len(near.queries)):
        found = labels[shifts[draws][:, near.found]]
        queries = labels[shifts[draws][:, near.queries]] if other_images else labels[near.queries][None]
        null[draws] = ((found == queries) * near.shares * weights[image, queries]).sum(axis=1)
    return Measured(score, null, np.where(counts.any(axis=1), per_image, np.nan))


def _cells(near: Nearest, images: int, shifts: NDArray[np.int32]) -> Measured:
    """The share of tokens whose neighbour is at the same cell."""
    total = shifts.shape[1]
    agree = near.shares * (near.queries == near.found)
    per_image = np.bincount(near.queries // (total // images), agree, images) / (total // images)
    null = np.empty(len(shifts))
    for draws in _blocks(len(shifts), len(near.queries)):
        null[draws] = ((shifts[draws][:, near.found] == near.queries) * near.shares).sum(axis=1) / total
    return Measured(float(agree.sum() / total), null, per_image)


def _averaged(scores: Sequence[Measured]) -> Measured:
    """The mean of scores of the same tokens under the same shifts."""
    return Measured(
        float(np.mean([each.score for each in scores])),
        np.mean([each.null for each in scores], axis=0),
        np.mean([each.per_image for each in scores], axis=0),
        next((each.undefined for each in scores if each.undefined), ""),
    )


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, _BLOCK // max(1, width))
    return [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]


def _share(at_least: NDArray[np.bool_]) -> float:
    return float((1 + at_least.sum()) / (1 + len(at_least)))


def _check(sets: Mapping[str, Tokens], parts: NDArray[np.integer[Any]] | None, shifts: NDArray[np.int32]) -> None:
    if len({tokens.shape for tokens in sets.values()}) != 1:
        shapes = ", ".join(f"{name} {tokens.shape}" for name, tokens in sets.items())
        raise ValueError(f"sets of one space have the same images, cells and width; there are: {shapes or 'no sets'}")
    (images, cells, _) = next(iter(sets.values())).shape
    if parts is not None and parts.shape != (images, cells):
        raise ValueError(f"parts have shape {parts.shape}; expected {(images, cells)}, of images and cells")
    if shifts.shape[1] != images * cells:
        raise ValueError(f"shifts are of {shifts.shape[1]} tokens, sets of {images} images x {cells} cells")
    for name, tokens in sets.items():
        check_rows(tokens.reshape(images * cells, -1), f"tokens of {name}")
