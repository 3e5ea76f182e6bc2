"""Contribution of each image to the alignment of one pair of layers, from their neighbour lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.graphs import EdgeIndex, check_pair, knn_graphs
from diffalign.alignment.search.exact import Neighbors
from diffalign.randomness import shuffled


@dataclass(frozen=True, eq=False)
class PerImage:
    """Values per image, (N,); lists and masks are (N, k).

    neighbors_a, neighbors_b: int32, the k nearest in order of similarity. is_shared_a, is_shared_b: whether each of
    them is a neighbour in the other layer. shared: number of shared neighbours. overlap: shared / k, whose mean is
    mutual kNN. reciprocal: share of the shared neighbours that share this image in turn; NaN where shared is 0.
    is_nearest_shared: whether both layers have the same nearest neighbour. in_degree_a, in_degree_b: number of lists
    that contain the image. similarity_a, similarity_b: mean cosine similarity to its neighbours.
    """

    neighbors_a: NDArray[np.int32]
    neighbors_b: NDArray[np.int32]
    is_shared_a: NDArray[np.bool_]
    is_shared_b: NDArray[np.bool_]
    shared: NDArray[np.int64]
    overlap: NDArray[np.float64]
    reciprocal: NDArray[np.float64]
    is_nearest_shared: NDArray[np.bool_]
    in_degree_a: NDArray[np.int64]
    in_degree_b: NDArray[np.int64]
    similarity_a: NDArray[np.float64]
    similarity_b: NDArray[np.float64]


def per_image(a: Neighbors, b: Neighbors, k: int) -> PerImage:
    """Compare the first k neighbours of every image. Raises ValueError where N differs or lists are shorter than k."""
    graphs = knn_graphs([a], k), knn_graphs([b], k)
    check_pair(*graphs)
    matches = EdgeIndex(graphs[0]).matches(graphs[1])
    count = a.count
    shared = np.bincount(matches.sources, minlength=count)
    mutual = np.bincount(matches.sources[matches.reversed_at() >= 0], minlength=count)
    masks = [np.zeros(count * k, np.bool_) for _ in "ab"]
    for mask, edges in zip(masks, (matches.edges_a, matches.edges_b), strict=True):
        mask[edges] = True
    targets = [side.targets[0] for side in graphs]
    similarities = [side.weights[0].mean(axis=1, dtype=np.float64) for side in graphs]
    return PerImage(
        neighbors_a=targets[0],
        neighbors_b=targets[1],
        is_shared_a=masks[0].reshape(count, k),
        is_shared_b=masks[1].reshape(count, k),
        shared=shared,
        overlap=shared / k,
        reciprocal=_share(mutual, shared),
        is_nearest_shared=targets[0][:, 0] == targets[1][:, 0],
        in_degree_a=np.bincount(targets[0].ravel(), minlength=count),
        in_degree_b=np.bincount(targets[1].ravel(), minlength=count),
        similarity_a=similarities[0],
        similarity_b=similarities[1],
    )


def same_label(
    neighbors: NDArray[np.int32], labels: Sequence[str], counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Share (N,) of each image's neighbours (N, k) with the same label.

    counted: (N, k), neighbours to count; None for all. NaN where none counts, or the image has no label ('').
    """
    words = np.asarray(labels, dtype=object)
    among = np.ones(neighbors.shape, np.bool_) if counted is None else counted
    same = (words[neighbors] == words[:, None]) & among
    return np.asarray(np.where(words == "", np.nan, _share(same.sum(axis=1), among.sum(axis=1))))


def agreement(a: Neighbors, b: Neighbors) -> NDArray[np.float64]:
    """Average overlap (N,) of whole lists, in [0, 1]: the share of the first d neighbours that both have, averaged over
    all depths d up to the length of the shorter list (Webber, Moffat and Zobel 2010, without weights). It orders images
    whose overlap at one k is the same. Raises ValueError where N differs.
    """
    length = min(a.k_max, b.k_max)
    graphs = knn_graphs([a], length), knn_graphs([b], length)
    check_pair(*graphs)
    matches = EdgeIndex(graphs[0]).matches(graphs[1])
    # a shared neighbour counts from the depth on at which both lists have it
    depth = np.maximum(matches.edges_a % length, matches.edges_b % length)
    harmonic = np.cumsum(1 / np.arange(1, length + 1))
    before = np.concatenate([[0.0], harmonic[:-1]])
    return np.bincount(matches.sources, (harmonic[-1] - before)[depth], minlength=a.count) / length


def extremes(
    overlap: NDArray[np.float64], finer: NDArray[np.float64], names: Sequence[str], number: int, seed: int
) -> dict[str, list[int]]:
    """Positions of the ``most``, ``median`` and ``least`` aligned images, `number` of each: by overlap (N,), where that
    is the same by a finer measure (N,), and where both are by lot, keyed by (seed, name).

    The three are disjoint: the most aligned are taken first, then the least, so small sets leave fewer for the median.
    """
    lot = np.empty(len(names), np.int64)
    lot[shuffled(names, seed, "gallery")] = np.arange(len(names))
    rising = [int(i) for i in np.lexsort((lot, finer, overlap))]
    most = rising[::-1][:number]
    left = rising[: len(rising) - len(most)]
    least, between = left[:number], left[number:]
    # centred on the median of all images
    start = max(0, min(len(names) // 2 - len(least) - number // 2, len(between) - number))
    return {"most": most, "median": between[start : start + number], "least": least}


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
