"""Standard errors over groups of images, for scores that are sums over edges between images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.dyadic import Parts, at_least, own_shares, skewness
from diffalign.alignment.graphs import EdgeIndex, KnnGraphs, chunks
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import Spread

Grid = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Sums of values of edges between two groups, whatever their direction. keys: (P,) ascending, the smaller group
    times G plus the larger one; values: (P,).
    """

    keys: NDArray[np.int64]
    values: NDArray[np.float64]


def spreads(a: KnnGraphs, b: KnnGraphs, scores: Mapping[str, Parts], groups: Groups) -> dict[str, Spread]:
    """Standard errors and skewness of scores of all pairs of layers, as `dyadic.spreads`, over groups.

    Edges are dependent where they have images of a common group: e_gh is the sum of e_ij over edges between the groups
    g and h, and the variance Σ_g (Σ_h e_gh)² - Σ_{g<h} e_gh². Edges within a group are one pair (g, g) and count once;
    pairs of edges between the same two groups would be counted twice (Aronow, Samii and Assenova 2015). It is at least
    Σ_{g<=h} e_gh² but for competing edges (`dyadic.at_least`). Where every image is a group it is the variance over
    images.
    """
    by_name = {name: Spread(*(np.empty((a.layers, b.layers)) for _ in range(3))) for name in scores}
    for name, parts in scores.items():
        own = [[_of_layer(graphs[i : i + 1], parts, groups) for i in range(graphs.layers)] for graphs in (a, b)]
        for part in chunks(a, b, a.count * a.degree):
            shared = EdgeIndex(a[part], parts.backward).matches(b)
            w = parts.shares(shared) / parts.scale[part].ravel()[shared.pairs]
            keys = _keys(shared.sources, shared.targets, groups)
            totals = shared.per_pair(w)
            order = np.argsort(shared.pairs, kind="stable")
            ends = np.cumsum(np.bincount(shared.pairs, minlength=totals.size))
            for pair, members in enumerate(np.split(order, ends[:-1])):
                i, j = divmod(pair, b.layers)
                half = -totals[pair] / 2
                of_a, of_b = own[0][part.start + i], own[1][j]
                everything = _summed(
                    np.concatenate([keys[members], of_a.keys, of_b.keys]),
                    np.concatenate([w[members], half * of_a.values, half * of_b.values]),
                )
                found, at = by_name[name], (part.start + i, j)
                found.error[at], found.of_single[at], found.of_pairs[at] = _spread(
                    everything, groups.count, parts.competing
                )
    return by_name


def _of_layer(layer: KnnGraphs, parts: Parts, groups: Groups) -> _Blocks:
    """Shares of all edges of one layer."""
    alpha = own_shares(layer, parts.shares if parts.scaled else None).values
    return _summed(_keys(layer.images, layer.targets.astype(np.int64), groups), alpha)


def _keys(sources: NDArray[np.int64], targets: NDArray[np.int64], groups: Groups) -> NDArray[np.int64]:
    first, second = groups.codes[sources], groups.codes[targets]
    return np.asarray(np.minimum(first, second) * groups.count + np.maximum(first, second))


def _summed(keys: NDArray[np.int64], values: NDArray[np.float64]) -> _Blocks:
    distinct, where = np.unique(keys, return_inverse=True)
    return _Blocks(distinct, np.asarray(np.bincount(where, values, minlength=len(distinct)), np.float64))


def _spread(blocks: _Blocks, count: int, competing: bool) -> tuple[float, float, float]:
    """Error and both parts of the skewness of one score."""
    low, high = np.divmod(blocks.keys, count)
    between = low != high
    at_group = np.bincount(low, blocks.values, minlength=count).astype(np.float64)
    at_group += np.bincount(high[between], blocks.values[between], minlength=count)
    squares = at_group @ at_group
    twice = np.square(blocks.values[between]).sum()
    single = np.square(blocks.values).sum()
    pairs = (blocks.values * at_group[low] * at_group[high])[between].sum()
    of_single, of_pairs = skewness(np.maximum(squares, single), (at_group**3).sum(), pairs)
    return float(np.sqrt(at_least(squares - twice, single, competing))), float(of_single), float(of_pairs)
