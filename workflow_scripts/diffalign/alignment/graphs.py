"""k-nearest-neighbour graphs of many layers at once, and the edges that pairs of layers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.search.exact import Neighbors, spans
from diffalign.alignment.ties import ListsTooShort, broken, first

# bytes of the bitmap of all N x N possible edges, which rejects most look-ups; larger bitmaps are not made
_BITMAP_BYTES = 256 * 2**20
# shared edges held at a time
_MATCHES = 2_000_000


class UnlistedTies(ValueError):
    """The last places of neighbour lists are shared by too many images."""


@dataclass(frozen=True, eq=False)
class KnnGraphs:
    """The k nearest neighbours of N images in each of L layers: edges by layer, by image, and the nearest first.

    Images that are equally similar share the last places of a list: where t images share c places, all t are in the
    list, each with a credit of c / t, the probability that it has a place if ties are broken at random. Others have a
    credit of 1, so that a list has a credit of k.

    targets: (E,) int32. weights: (E,) float32, cosine similarities. credit: (E,) float64; None where all are 1, and
    every image has k edges: E = L N k. sources: (E,) int32, the image of each edge, and starts: (L + 1,) int64, where
    the edges of each layer begin; None where credit is.
    """

    layers: int
    count: int
    k: int
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    credit: NDArray[np.float64] | None = None
    sources: NDArray[np.int32] | None = None
    starts: NDArray[np.int64] | None = None

    def __getitem__(self, layers: slice) -> KnnGraphs:
        """Some of the layers, from `layers.start` to `layers.stop`."""
        bounds = range(self.layers)[layers]
        start, stop = self.span(bounds.start, bounds.stop)
        edges = slice(start, stop)
        if self.credit is None or self.sources is None or self.starts is None:
            return KnnGraphs(len(bounds), self.count, self.k, self.targets[edges], self.weights[edges])
        return KnnGraphs(
            len(bounds),
            self.count,
            self.k,
            self.targets[edges],
            self.weights[edges],
            self.credit[edges],
            self.sources[edges],
            self.starts[bounds.start : bounds.stop + 1] - start,
        )

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Positions at which the edges of the layers first … last - 1 begin and end."""
        if self.starts is None:
            return first * self.count * self.k, last * self.count * self.k
        return int(self.starts[first]), int(self.starts[last])

    @property
    def degree(self) -> float:
        """Mean number of edges of an image."""
        return self.targets.size / (self.layers * self.count)

    @property
    def lists(self) -> NDArray[np.int32]:
        """The neighbours (L, N, k) of every image. Raises ValueError where images share places."""
        if self.credit is not None:
            raise ValueError("images share places, so the lists are of different lengths")
        return self.targets.reshape(self.layers, self.count, self.k)

    @cached_property
    def reverse(self) -> NDArray[np.int64]:
        """Position (E,) of the edge j -> i of the same layer, for each edge i -> j; -1 where there is none."""
        from diffalign.alignment.search.kernels import reverse_edges

        if self.credit is None:
            return np.asarray(reverse_edges(self.lists))
        layer = self.layer_of(np.arange(self.targets.size)) * self.count**2
        sources, targets = self.images, self.targets.astype(np.int64)
        keys, wanted = layer + sources * self.count + targets, layer + targets * self.count + sources
        order = np.argsort(keys)
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        return np.where(keys[at] == wanted, at, -1)

    @property
    def images(self) -> NDArray[np.int64]:
        """The image (E,) of each edge."""
        if self.sources is not None:
            return self.sources.astype(np.int64)
        return np.tile(np.repeat(np.arange(self.count), self.k), self.layers)

    def layer_of(self, edges: NDArray[np.int64]) -> NDArray[np.int64]:
        """The layer of each of these edges, by position."""
        if self.starts is None:
            return edges // (self.count * self.k)
        return np.searchsorted(self.starts, edges, side="right") - 1

    def self_matches(self) -> Iterator[Matches]:
        """Matches of each layer with itself."""
        return (_with_itself(self[i : i + 1]) for i in range(self.layers))


def knn_graphs(layers: Sequence[Neighbors], k: int) -> KnnGraphs:
    """The first k neighbours of every list. Raises ListsTooShort where k is above what the lists hold, UnlistedTies
    where more images share the last places of a list than are kept, ValueError where k is above N - 1.
    """
    cut = _first_lists(layers, k)
    if not any(lists.ties is not None and lists.ties.counts.any() for lists in cut):
        return _unshared(cut)
    edges = [_shared_places(lists) for lists in cut]
    sources, targets, weights, credit = zip(*edges, strict=True)
    return KnnGraphs(
        len(cut),
        cut[0].count,
        k,
        np.concatenate(targets),
        np.concatenate(weights),
        np.concatenate(credit),
        np.concatenate(sources),
        np.cumsum([0, *map(len, sources)]),
    )


def broken_graphs(layers: Sequence[Neighbors], k: int, draw: str) -> KnnGraphs:
    """The first k neighbours of every list, with ties broken at random, keyed by draw. Raises as `knn_graphs` does."""
    return _unshared([broken(lists, draw) for lists in _first_lists(layers, k)])


def stacked(graphs: Sequence[KnnGraphs]) -> KnnGraphs:
    """Several graphs of the same layers as one of as many copies of all images, which share no edges: (T N) images.

    Means over images are then means over graphs, too.
    """
    first_graph, count = graphs[0], graphs[0].count
    targets = np.stack([graph.lists + np.int32(i * count) for i, graph in enumerate(graphs)], axis=1)
    weights = np.stack([graph.weights.reshape(graph.lists.shape) for graph in graphs], axis=1)
    return KnnGraphs(first_graph.layers, len(graphs) * count, first_graph.k, targets.ravel(), weights.ravel())


def unstacked(graph: KnnGraphs, number: int) -> list[KnnGraphs]:
    """The graphs of which `stacked` makes one."""
    count = graph.count // number
    shape = (graph.layers, number, count * graph.k)
    targets, weights = graph.targets.reshape(shape), graph.weights.reshape(shape)
    return [
        KnnGraphs(graph.layers, count, graph.k, (targets[:, i] - i * count).ravel(), weights[:, i].ravel())
        for i in range(number)
    ]


def are_tied(layers: Sequence[Neighbors], k: int) -> bool:
    """Whether two of the first k neighbours, or the k-th and the next, are equally similar in some list."""
    return any(first(lists, k).ties is not None for lists in layers)


def _first_lists(layers: Sequence[Neighbors], k: int) -> list[Neighbors]:
    """The first k neighbours of every list, with all images that share the last places."""
    cut = []
    for lists in layers:
        if k > lists.count - 1:
            raise ValueError(f"k = {k} needs at least {k + 1} images; there are {lists.count}")
        if k > lists.k_max:
            raise ListsTooShort(
                f"k = {k} is more than the {lists.k_max} neighbours that the lists hold; raise alignment.k_max"
            )
        cut.append(first(lists, k))
        ties = cut[-1].ties
        if ties is not None and ties.unlisted.any():
            raise UnlistedTies(
                f"the k = {k} nearest neighbours of {int((ties.unlisted > 0).sum())} of {lists.count} images are not "
                f"determined: up to {int(ties.unlisted.max())} more images are exactly as similar as the last of them. "
                "The features have few distinct values, or very many images are equal. Remove equal images, take a k "
                "with which lists end elsewhere, or use a metric without lists, such as cka"
            )
    return cut


def _unshared(layers: Sequence[Neighbors]) -> KnnGraphs:
    """The lists (N, k) of every layer as edges."""
    targets, weights = np.stack([x.indices for x in layers]), np.stack([x.similarities for x in layers])
    return KnnGraphs(len(layers), layers[0].count, layers[0].k_max, targets.ravel(), weights.ravel())


def _shared_places(
    lists: Neighbors,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]:
    """The edges (E,) of one layer: source, target, weight and credit."""
    k, images = lists.k_max, np.arange(lists.count, dtype=np.int32)
    if lists.ties is None:
        everything = np.ones(lists.indices.size)
        return np.repeat(images, k), lists.indices.ravel(), lists.similarities.ravel(), everything
    counts = lists.ties.counts
    lengths = k + counts
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    sources = np.repeat(images, lengths)
    targets, weights = np.empty(len(sources), np.int32), np.repeat(lists.similarities[:, -1], lengths)
    listed = spans(starts, np.full(lists.count, k))
    targets[listed], weights[listed] = lists.indices.ravel(), lists.similarities.ravel()
    targets[spans(starts + k, counts)] = lists.ties.rest
    # places at the end of a list that go to equally similar images
    shared = np.argmin(lists.ties.tied[:, ::-1], axis=1) + 1
    shared[counts == 0] = 0
    credit = np.ones(len(sources))
    credit[spans(starts + k - shared, shared + counts)] = np.repeat(
        shared / np.maximum(shared + counts, 1), shared + counts
    )
    return sources, targets, weights, credit


@dataclass(frozen=True, eq=False)
class Matches:
    """Edges i -> j shared by a layer of A and a layer of B, for many pairs of layers, in no particular order.

    graphs_a: layers of A. shape: (L_A, L_B). count: N. pairs: (M,) int64, layer of A times L_B plus layer of B.
    sources, targets: (M,) int64, i and j; those of B where edges of A were reversed (`EdgeIndex.backward`). edges_a,
    edges_b: (M,) int64, position of each edge among all edges of A and of B (layer, image, rank). credit: (M,)
    float64, the probability that both lists have the edge if ties are broken at random on each side; None where all
    are 1. weights_a, weights_b: (M,) float64, cosine similarities times credit.
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
    credit: NDArray[np.float64] | None

    @property
    def ranks_a(self) -> NDArray[np.int64]:
        """Rank of each target in A's list, (M,). No places are shared, as in `broken_graphs`."""
        return self.edges_a % self.k

    @property
    def ranks_b(self) -> NDArray[np.int64]:
        """Rank of each target in B's list, (M,). No places are shared, as in `broken_graphs`."""
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
        keys = _edge_keys(a, backward)
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
        a = self.a
        wanted = _edge_keys(b, permutation=permutation)
        hits, slots = self._find(wanted)
        often = self._starts[slots + 1] - self._starts[slots]
        # one match for every layer of A with the edge
        in_b = np.repeat(hits, often)
        within = np.arange(len(in_b)) - np.repeat(np.cumsum(often) - often, often)
        in_a = self._edges[np.repeat(self._starts[slots], often) + within]
        keys = wanted[in_b]
        at = keys // a.count
        layer_b = b.layer_of(in_b)
        # position of the weight, before the relabelling
        origin = in_b
        if permutation is not None and b.credit is None:
            origin = layer_b * (a.count * a.k) + permutation[at] * a.k + in_b % a.k
        weights_a, weights_b = a.weights[in_a].astype(np.float64), b.weights[origin].astype(np.float64)
        credit = None
        if a.credit is not None or b.credit is not None:
            credit = np.ones(len(in_a))
            for side, edges in ((a, in_a), (b, origin)):
                if side.credit is not None:
                    credit *= side.credit[edges]
            weights_a *= credit
            weights_b *= credit
        return Matches(
            graphs_a=a,
            shape=(a.layers, b.layers),
            count=a.count,
            k=a.k,
            pairs=a.layer_of(in_a) * b.layers + layer_b,
            sources=at,
            targets=keys - at * a.count,
            edges_a=in_a,
            edges_b=origin,
            weights_a=weights_a,
            weights_b=weights_b,
            credit=credit,
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


def _edge_keys(
    graphs: KnnGraphs, backward: bool = False, permutation: NDArray[np.intp] | None = None
) -> NDArray[np.int64]:
    """The key i N + j (E,) of every edge, or j N + i, with image `permutation[i]` called i: image by image in the new
    order, or in the order of edges where lists are of different lengths.
    """
    count = np.int64(graphs.count)
    sources: NDArray[np.integer] = np.arange(count)[:, None] if graphs.credit is None else graphs.images
    targets = graphs.lists if graphs.credit is None else graphs.targets
    if permutation is not None:
        inverse = np.empty(graphs.count, np.int32)
        inverse[permutation] = np.arange(graphs.count, dtype=np.int32)
        if graphs.credit is None:
            targets = inverse[targets[:, permutation]]
        else:
            sources, targets = inverse[sources], inverse[targets]
    keys = targets * count + sources if backward else sources * count + targets
    return np.asarray(keys).ravel()


def _with_itself(layer: KnnGraphs) -> Matches:
    edges = np.arange(layer.targets.size)
    weights = layer.weights.astype(np.float64)
    if layer.credit is not None:
        weights *= layer.credit
    return Matches(
        graphs_a=layer,
        shape=(1, 1),
        count=layer.count,
        k=layer.k,
        pairs=np.zeros(len(edges), np.int64),
        sources=layer.images,
        targets=layer.targets.astype(np.int64),
        edges_a=edges,
        edges_b=edges,
        weights_a=weights,
        weights_b=weights,
        credit=layer.credit,
    )
