"""Exact nearest neighbours by cosine similarity, blockwise: no N x N matrix is held."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.bounds import Found, Precision, Search, Settle, empty_lists, searched

if TYPE_CHECKING:
    import torch

# rows with more candidates from float32 products are searched again with float64 products
CROWD = 1024
# larger blocks do not speed up the matrix product
_BLOCK_ROWS = 2048
# bytes per product
_BYTES = {np.float32: 4, np.float64: 8}
# bytes of products that one thread settles at once, for its cache
_CHUNK_BYTES = 2 * 2**20
# most images beyond the lists of a layer that are kept, because they are as similar as the last ones of their lists
_FURTHER = 50_000_000


@dataclass(frozen=True, eq=False)
class Ties:
    """Which neighbours of lists (N, K) are equally similar.

    tied: (N, K), whether a neighbour is as similar as the one before it. counts: (N,) int32, number of images beyond
    each list that are as similar as its last one and are kept. rest: (R,) int32, these images, one list after another,
    each ascending. unlisted: (N,) int32, number of such images that are not kept, because they are too many.
    """

    tied: NDArray[np.bool_]
    counts: NDArray[np.int32]
    rest: NDArray[np.int32]
    unlisted: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The K nearest neighbours of every image, without the image itself. A part has the lists of some images only.

    indices: (N, K) int32. similarities: (N, K) float32, cosine. Rows are ordered by (-similarity, index). ties: None
    where no two images are equally similar to a third, as far as the lists say.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]
    ties: Ties | None = None

    @property
    def count(self) -> int:
        """N."""
        return int(self.indices.shape[0])

    @property
    def k_max(self) -> int:
        """K, the length of the lists."""
        return int(self.indices.shape[1])


def nearest_neighbors(
    rows: NDArray[np.float32],
    k: int,
    queries: range | None = None,
    *,
    memory_mb: int = 2000,
    threads: int = 1,
    device: torch.device | None = None,
) -> Neighbors:
    """The k nearest neighbours among all rows, of every row or of the rows `queries`.

    rows: (N, D) float32 of unit norm. queries: a range within [0, N] of step 1; the concatenated lists of consecutive
    ranges are the lists of all rows. memory_mb: for blocks of products, beyond the rows. device: None multiplies with
    NumPy; otherwise torch multiplies on this device, which then holds rows and blocks.

    Candidates come from float32 products and the bound of their error, and are measured again in float64. Rows with too
    many candidates are searched with float64 products. The lists equal a float64 brute force, and do not depend on the
    part, memory, threads, BLAS or device. Nearly collinear rows are ordered by their distances: that is the order of
    cosines, which the rounding of their norms would hide (`bounds.searched`), and takes one more copy of the rows.
    Similarities that are the same multiple of 2**-40, of the unit of distances there, are ties: those of equal rows
    always are. Ties go to the smaller index, and the lists say where they are; images beyond a list that are as similar
    as its last one are kept where they are at most 5e7 / N. Raises ValueError unless 1 <= k <= N - 1, for rows that are
    not of unit norm, and for queries outside of the rows.
    """
    single = np.ascontiguousarray(rows, dtype=np.float32)
    asked = range(len(single)) if queries is None else queries
    _check(single, k, asked, memory_mb)
    side = searched(single)
    budget = memory_mb * 10**6
    if device is None:
        from diffalign.alignment.search.numpy_products import numpy_search

        search: Search = numpy_search(side, k, budget)
    else:
        from diffalign.alignment.search.torch_products import torch_search

        search = torch_search(side, k, budget, device)
    found = empty_lists(len(asked), k)
    most_further = _FURTHER // len(single)
    rest: list[tuple[NDArray[np.intp], NDArray[np.int32]]] = []
    waiting = np.arange(asked.start, asked.stop)
    chunk = max(1, min(32, _CHUNK_BYTES // (4 * len(single))))
    with ThreadPoolExecutor(threads) as pool:
        for precision, most in ((np.float32, min(k + CROWD, len(single))), (np.float64, len(single))):
            crowded = [waiting[:0]]
            for block in _blocks(waiting, _block_rows(len(single), precision, budget)):
                settle = search(block, precision, most)
                lists = empty_lists(len(block), k)

                def part(
                    start: int, settle: Settle = settle, lists: Found = lists
                ) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
                    rows = slice(start, start + chunk)
                    return settle(rows, lists[rows], most_further)

                # all parts now: the next block overwrites this one
                parts = list(pool.map(part, range(0, len(block), chunk)))
                left = np.concatenate([too_many for too_many, _ in parts])
                at = block[~left] - asked.start
                found.put(at, lists[~left])
                rest.append((at, np.concatenate([images for _, images in parts])))
                crowded.append(block[left])
            waiting = np.concatenate(crowded)
    return Neighbors(found.indices, side.cosines(found.similarities), _ties(found, rest, most_further))


def _ties(found: Found, rest: list[tuple[NDArray[np.intp], NDArray[np.int32]]], most_further: int) -> Ties | None:
    """The ties of lists. rest: positions of queries, and the further images of these, one list after another."""
    if not (found.tied.any() or found.further.any()):
        return None
    counts = np.where(found.further <= most_further, found.further, 0)
    starts = np.cumsum(counts, dtype=np.int64) - counts
    images = np.empty(int(counts.sum(dtype=np.int64)), np.int32)
    for at, of_queries in rest:
        images[spans(starts[at], counts[at])] = of_queries
    return Ties(found.tied, counts, images, found.further - counts)


def spans(starts: NDArray[np.int64], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """The positions start, start + 1, … of runs of the given lengths, one run after another."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths))


def _check(rows: NDArray[np.float32], k: int, queries: range, memory_mb: int) -> None:
    """Raise ValueError for arguments outside of their ranges."""
    count = len(rows)
    if not 1 <= k <= count - 1:
        raise ValueError(f"k = {k} neighbours need at least {k + 1} images, got {count}")
    if queries.step != 1 or not 0 <= queries.start <= queries.stop <= count:
        raise ValueError(f"queries {queries} are no part of the {count} rows; expected range(start, stop) within them")
    if memory_mb < 1:
        raise ValueError(f"memory_mb = {memory_mb}; at least 1 is needed")
    norms = np.einsum("nd,nd->n", rows, rows)
    off = np.flatnonzero(~(np.abs(norms - 1) < 1e-3))
    if len(off):
        raise ValueError(f"{len(off)} of {count} rows are not of unit norm, the first is row {off[0]}")


def _block_rows(count: int, precision: Precision, budget: int) -> int:
    """Number of rows of a block, for products with `count` rows. All rows, where they fit: half of the products are
    then known by symmetry.
    """
    fit = max(1, min(budget // (_BYTES[precision] * count), (2**31 - 1) // count))
    return count if fit >= count and precision is np.float32 else min(_BLOCK_ROWS, fit)


def _blocks(waiting: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    return (waiting[start : start + size] for start in range(0, len(waiting), size))
