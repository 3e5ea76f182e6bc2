"""Contribution of each image to the alignment of one pair of layers, from their neighbour lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.graphs import EdgeIndex, broken_graphs, check_pair, knn_graphs
from diffalign.alignment.search.exact import Neighbors
from diffalign.alignment.ties import determined
from diffalign.randomness import shuffled


@dataclass(frozen=True, eq=False)
class PerImage:
    """Values per image, (N,); lists and masks are (N, k).

    neighbors_a, neighbors_b: int32, the k nearest in order of similarity, equally similar ones in random order and not
    the same under A and B. is_shared_a, is_shared_b: whether each of them is among those of the other layer. All else
    is what is expected over such orders (`KnnGraphs`). shared: number of shared neighbours, whole where no images share
    the last places of a list. overlap: shared / k, whose mean is mutual kNN. reciprocal: share of the shared neighbours
    that share this image in turn; NaN where shared is 0. in_degree_a, in_degree_b: number of lists that contain the
    image. similarity_a, similarity_b: mean cosine similarity to its neighbours. is_nearest_shared: whether the first of
    neighbors_a and neighbors_b are the same.
    """

    neighbors_a: NDArray[np.int32]
    neighbors_b: NDArray[np.int32]
    is_shared_a: NDArray[np.bool_]
    is_shared_b: NDArray[np.bool_]
    shared: NDArray[np.float64]
    overlap: NDArray[np.float64]
    reciprocal: NDArray[np.float64]
    is_nearest_shared: NDArray[np.bool_]
    in_degree_a: NDArray[np.float64]
    in_degree_b: NDArray[np.float64]
    similarity_a: NDArray[np.float64]
    similarity_b: NDArray[np.float64]


def per_image(a: Neighbors, b: Neighbors, k: int) -> PerImage:
    """Compare the first k neighbours of every image. Raises ValueError where N differs or lists are shorter than k."""
    graphs = knn_graphs([a], k), knn_graphs([b], k)
    check_pair(*graphs)
    matches = EdgeIndex(graphs[0]).matches(graphs[1])
    count = a.count
    credit = np.ones(len(matches.sources)) if matches.credit is None else matches.credit
    reverse = matches.reversed_at()
    shared = np.bincount(matches.sources, credit, minlength=count).astype(np.float64)
    mutual = credit * np.where(reverse >= 0, credit[reverse], 0.0)
    drawn = broken_graphs([a], k, "0"), broken_graphs([b], k, "1")
    common = EdgeIndex(drawn[0]).matches(drawn[1])
    masks = [np.zeros(count * k, np.bool_) for _ in "ab"]
    for mask, edges in zip(masks, (common.edges_a, common.edges_b), strict=True):
        mask[edges] = True
    lists = [side.lists[0] for side in drawn]
    similarities = [side.weights.reshape(count, k).mean(axis=1, dtype=np.float64) for side in drawn]
    into = [np.bincount(side.targets, side.credit, minlength=count).astype(np.float64) for side in graphs]
    return PerImage(
        neighbors_a=lists[0],
        neighbors_b=lists[1],
        is_shared_a=masks[0].reshape(count, k),
        is_shared_b=masks[1].reshape(count, k),
        shared=shared,
        overlap=shared / k,
        reciprocal=_share(np.bincount(matches.sources, mutual, minlength=count), shared),
        is_nearest_shared=lists[0][:, 0] == lists[1][:, 0],
        in_degree_a=into[0],
        in_degree_b=into[1],
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
    all depths d up to the length of the shorter list, or to where the images that share its last places are not all
    known (Webber, Moffat and Zobel 2010, without weights). It orders images whose overlap at one k is the same. Equally
    similar neighbours stand in random order, not the same under A and B. Raises ValueError where N differs.
    """
    length = min(determined(a), determined(b))
    graphs = broken_graphs([a], length, "0"), broken_graphs([b], length, "1")
    check_pair(*graphs)
    matches = EdgeIndex(graphs[0]).matches(graphs[1])
    # a shared neighbour counts from the depth on at which both lists have it
    depth = np.maximum(matches.ranks_a, matches.ranks_b)
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


def _share(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
