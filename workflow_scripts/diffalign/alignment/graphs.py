"""k-nearest-neighbour graphs of many layers at once, and the edges that pairs of layers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.exact import Neighbors

# bytes of the bitmap of all N x N possible edges, which rejects most look-ups; larger bitmaps are not made
_BITMAP_BYTES = 256 * 2**20
# shared edges held at a time
_MATCHES = 2_000_000


class ListsTooShort(ValueError):
    """Neighbour lists are shorter than the requested k."""


@dataclass(frozen=True, eq=False)
class KnnGraphs:
    """The k nearest neighbours of N images in each of L layers.

    targets: (L, N, k) int32, in order of similarity. weights: (L, N, k) float32, cosine similarities.
    """

    targets: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def layers(self) -> int:
        """L."""
        return int(self.targets.shape[0])

    @property
    def count(self) -> int:
        """N."""
        return int(self.targets.shape[1])

    @property
    def k(self) -> int:
        """Neighbours of each image."""
        return int(self.targets.shape[2])

    def __getitem__(self, layers: slice) -> KnnGraphs:
        """Some of the layers."""
        return KnnGraphs(self.targets[layers], self.weights[layers])

    @cached_property
    def reverse(self) -> NDArray[np.int64]:
        """Position (L N k,) of the edge j -> i of the same layer, for each edge i -> j; -1 where there is none."""
        from diffalign.alignment.search.kernels import reverse_edges

        return np.asarray(reverse_edges(self.targets))

    def self_matches(self) -> Iterator[Matches]:
        """Matches of each layer with itself."""
        return (_with_itself(self[i : i + 1]) for i in range(self.layers))


def knn_graphs(layers: Sequence[Neighbors], k: int) -> KnnGraphs:
    """The first k neighbours of every list. Raises ValueError where k is above N - 1 or above what the lists hold."""
    for lists in layers:
        if k > lists.count - 1:
            raise ValueError(f"k = {k} needs at least {k + 1} images; there are {lists.count}")
        if k > lists.k_max:
            raise ListsTooShort(
                f"k = {k} is more than the {lists.k_max} neighbours that the lists hold; raise alignment.k_max"
            )
    return KnnGraphs(
        np.stack([lists.indices[:, :k] for lists in layers]), np.stack([lists.similarities[:, :k] for lists in layers])
    )


def restricted(lists: Neighbors, keep: NDArray[np.intp], k: int) -> Neighbors:
    """The k nearest neighbours among a subset of images, numbered by position in `keep` (M,).

    They equal a search among these images, since images that are not in a list are farther than those in it. Raises
    ListsTooShort where fewer than k neighbours of a list are in the subset.
    """
    position = np.full(lists.count, -1, np.int32)
    position[keep] = np.arange(len(keep), dtype=np.int32)
    targets = position[lists.indices[keep]]
    alive = targets >= 0
    rank = np.cumsum(alive, axis=1, dtype=np.int32)
    shortest = int(rank[:, -1].min())
    if shortest < k:
        raise ListsTooShort(
            f"{len(keep)} of {lists.count} images leave {shortest} of {lists.k_max} neighbours in a list, and k = {k}; "
            "raise alignment.k_max"
        )
    chosen = alive & (rank <= k)
    shape = (len(keep), k)
    return Neighbors(targets[chosen].reshape(shape), lists.similarities[keep][chosen].reshape(shape))


@dataclass(frozen=True, eq=False)
class Matches:
    """Edges i -> j shared by a layer of A and a layer of B, for many pairs of layers, in no particular order.

    graphs_a: layers of A. shape: (L_A, L_B). count: N. pairs: (M,) int64, layer of A times L_B plus layer of B.
    sources, targets: (M,) int64, i and j; those of B where edges of A were reversed (`EdgeIndex.backward`). edges_a,
    edges_b: (M,) int64, position of each edge among all edges of A and of B (layer, image, rank). weights_a, weights_b:
    (M,) float64, cosine similarities.
    """

    graphs_a: KnnGraphs
    shape: tuple[int, int]
    count: int
    k: int
    pairs: NDArray[np.int64]
    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    edges_a: NDArray[np.int64]
    edges_b: NDArray[np.int64]
    weights_a: NDArray[np.float64]
    weights_b: NDArray[np.float64]

    @property
    def ranks_a(self) -> NDArray[np.int64]:
        """Rank of each target in A's list, (M,)."""
        return self.edges_a % self.k

    @property
    def ranks_b(self) -> NDArray[np.int64]:
        """Rank of each target in B's list, (M,)."""
        return self.edges_b % self.k

    def reversed_at(self) -> NDArray[np.int64]:
        """Position (M,) of the match j -> i of the same pair, for each match i -> j; -1 where there is none."""
        # the edge of A that runs the other way must be shared too
        reverse = self.graphs_a.reverse[self.edges_a]
        candidates = np.flatnonzero(reverse >= 0)
        edges = self.graphs_a.targets.size
        layers_b = self.pairs % self.shape[1] * edges
        keys, wanted = layers_b + self.edges_a, (layers_b + reverse)[candidates]
        reversed_matches = np.full(len(keys), -1, np.int64)
        if self.shape[1] * edges <= 32 * len(keys):
            where = np.full(self.shape[1] * edges, -1, np.int32)
            where[keys] = np.arange(len(keys), dtype=np.int32)
            reversed_matches[candidates] = where[wanted]
        elif len(keys):
            order = np.argsort(keys)
            at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
            reversed_matches[candidates] = np.where(keys[order[at]] == wanted, order[at], -1)
        return reversed_matches

    def per_pair(self, values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Sums (L_A L_B,) of a value (M,) over the matches of each pair; their number without values."""
        return np.bincount(self.pairs, values, minlength=self.shape[0] * self.shape[1]).astype(np.float64)


class EdgeIndex:
    """An index of the edges of all layers of A, for matching those of B under many relabellings.

    backward: index the edges j -> i of A as i -> j.
    """

    def __init__(self, a: KnnGraphs, backward: bool = False) -> None:
        self.a = a
        sources = np.broadcast_to(np.arange(a.count, dtype=np.int64)[:, None], a.targets.shape)
        keys = (a.targets * np.int64(a.count) + sources if backward else sources * a.count + a.targets).ravel()
        # edges by key; `starts` is where the layers with a key begin
        self._edges = np.argsort(keys, kind="stable")
        ordered = keys[self._edges]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._keys = ordered[first]
        self._starts = np.append(first, len(keys))
        self._bitmap: NDArray[np.uint8] | None = None
        if a.count**2 / 8 <= _BITMAP_BYTES:
            self._bitmap = np.zeros(a.count**2 // 8 + 1, np.uint8)
            # keys ascend, so those of one byte stand together
            places = self._keys >> 3
            first = np.flatnonzero(np.r_[True, places[1:] != places[:-1]])
            bits = np.left_shift(1, self._keys & 7).astype(np.uint8)
            self._bitmap[places[first]] = np.bitwise_or.reduceat(bits, first)

    def matches(self, b: KnnGraphs, permutation: NDArray[np.intp] | None = None) -> Matches:
        """The edges that A shares with B, with image i of A paired with image ``permutation[i]`` of B.

        Relabelling needs no new lists: i has the neighbours ``inverse[targets[permutation[i]]]``.
        """
        a, targets = self.a, b.targets
        if permutation is not None:
            inverse = np.empty(a.count, np.int32)
            inverse[permutation] = np.arange(a.count, dtype=np.int32)
            targets = inverse[targets[:, permutation]]
        wanted = (np.arange(a.count, dtype=np.int64)[:, None] * a.count + targets).ravel()
        hits, slots = self._find(wanted)
        often = self._starts[slots + 1] - self._starts[slots]
        # one match for every layer of A with the edge
        in_b = np.repeat(hits, often)
        within = np.arange(len(in_b)) - np.repeat(np.cumsum(often) - often, often)
        in_a = self._edges[np.repeat(self._starts[slots], often) + within]
        edges = a.count * a.k
        layer_b, place = np.divmod(in_b, edges)
        at = place // a.k
        # position of the weight, before the relabelling
        origin = in_b if permutation is None else layer_b * edges + permutation[at] * a.k + in_b % a.k
        return Matches(
            graphs_a=a,
            shape=(a.layers, b.layers),
            count=a.count,
            k=a.k,
            pairs=in_a // edges * b.layers + layer_b,
            sources=at,
            targets=wanted[in_b] - at * a.count,
            edges_a=in_a,
            edges_b=in_b if permutation is None else origin,
            weights_a=a.weights.ravel()[in_a].astype(np.float64),
            weights_b=b.weights.ravel()[origin].astype(np.float64),
        )

    def _find(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positions of the wanted keys that exist, and the position of each of these among the keys."""
        candidates = np.arange(len(wanted))
        if self._bitmap is not None:
            bits = self._bitmap[wanted >> 3] >> (wanted & 7).astype(np.uint8)
            candidates = np.flatnonzero(bits & 1)
        slots = np.minimum(np.searchsorted(self._keys, wanted[candidates]), len(self._keys) - 1)
        exists = self._keys[slots] == wanted[candidates]
        return candidates[exists], slots[exists]


def chunks(a: KnnGraphs, b: KnnGraphs, expected: float) -> Iterator[slice]:
    """Layers of A to match with all of B at a time. expected: number of edges that a pair shares."""
    step = max(1, int(_MATCHES / max(1.0, expected * b.layers)))
    for start in range(0, a.layers, step):
        yield slice(start, min(start + step, a.layers))


def check_pair(a: KnnGraphs, b: KnnGraphs) -> None:
    """Raise ValueError for graphs of different N or k."""
    if a.count != b.count or a.k != b.k:
        raise ValueError(f"graphs differ: N = {a.count} and {b.count}, k = {a.k} and {b.k}")


def _with_itself(layer: KnnGraphs) -> Matches:
    edges = np.arange(layer.count * layer.k)
    weights = layer.weights.ravel().astype(np.float64)
    return Matches(
        graphs_a=layer,
        shape=(1, 1),
        count=layer.count,
        k=layer.k,
        pairs=np.zeros(len(edges), np.int64),
        sources=edges // layer.k,
        targets=layer.targets.ravel().astype(np.int64),
        edges_a=edges,
        edges_b=edges,
        weights_a=weights,
        weights_b=weights,
    )
