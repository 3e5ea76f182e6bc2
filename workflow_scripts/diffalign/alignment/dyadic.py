"""Standard errors over images, for scores that are sums over edges between images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.graphs import EdgeIndex, KnnGraphs, Matches, chunks
from diffalign.alignment.intervals import Spread

if TYPE_CHECKING:
    from scipy import sparse

    from diffalign.alignment.groups import Groups

Grid = NDArray[np.float64]
Shares = Callable[[Matches], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Parts:
    """A score as a sum over edges: shares w of shared edges, relative to the shares α and β of all edges of A and B.

    shares: w of the matches of a pair. backward: edges of A are reversed. scaled: α and β are the shares of each layer
    matched with itself, and `scale` (L_A, L_B) divides w; otherwise they are in proportion to the credit of an edge.
    competing: edges of one image share one contribution. See `spreads`.
    """

    shares: Shares
    backward: bool
    scaled: bool
    competing: bool
    scale: Grid


def spreads(a: KnnGraphs, b: KnnGraphs, scores: Mapping[str, Parts]) -> dict[str, Spread]:
    """Standard errors and skewness of scores of all pairs of layers: name -> (L_A, L_B) each.

    A score θ is Σ_ij w_ij over shared edges, normalised by sums over the edges of A and of B (their number, or HSIC of
    a layer with itself). To first order, an edge has the influence e_ij = w_ij - θ/2 (α_ij + β_ij) with Σα = Σβ = 1.
    Edges with a common image are dependent, all others independent. The variance is the sum of e_ij e_kl over dependent
    pairs of edges, each counted once: Σ_i (Σ_j e_ij + e_ji)² - ½ Σ_ij (e_ij + e_ji)² (dyadic cluster-robust variance:
    Fafchamps and Gubert 2007; Aronow, Samii and Assenova 2015). A jackknife lacks the second term, which is as large as
    the rest where few edges are shared. Few images can leave a difference that is far too small or negative, so it is
    at least the second term, the variance of edges that are dependent between the same two images alone. Competing
    edges are not independent even then; the second term only takes the place of a difference that is not positive.

    The skewness is that of h_i = Σ_j e_ij + e_ji and ψ_ij = e_ij + e_ji.
    """
    if not scores:
        return {}
    own = {
        name: [own_shares(side, parts.shares if parts.scaled else None) for side in (a, b)]
        for name, parts in scores.items()
    }
    by_name = {name: Spread(*(np.empty((a.layers, b.layers)) for _ in range(3))) for name in scores}
    for part in chunks(a, b, a.count * a.degree):
        layers = a[part]
        forward = EdgeIndex(layers).matches(b)
        turned = EdgeIndex(layers, backward=True).matches(b)
        for name, parts in scores.items():
            shared = turned if parts.backward else forward
            w = parts.shares(shared) / parts.scale[part].ravel()[shared.pairs]
            own_a, own_b = own[name][0][part], own[name][1]
            both = sum(
                (m.per_pair(own_a.values[m.edges_a] * own_b.values[m.edges_b]) for m in (forward, turned)),
                start=np.zeros(by_name[name].error[part].size),
            )
            found = _spread(shared, w, own_a, own_b, both, parts.competing)
            of_name = by_name[name]
            of_name.error[part], of_name.of_single[part], of_name.of_pairs[part] = found
    return by_name


class Own:
    """Shares α of the edges of L layers.

    values: (E,) α, layer by layer. both_ways: (E,) α plus that of the reverse edge. at_image: (L, N) sums of α over the
    edges at each image. squares: (L,) Σ α (α + that of the reverse edge). matrices: α of each layer as (N, N).
    """

    def __init__(
        self,
        values: Sequence[NDArray[np.float64]],
        both_ways: Sequence[NDArray[np.float64]],
        at_image: NDArray[np.float64],
        matrices: Sequence[sparse.csr_array],
    ) -> None:
        self._values, self._both_ways, self.at_image, self.matrices = values, both_ways, at_image, matrices
        self.values, self.both_ways = np.concatenate(values), np.concatenate(both_ways)
        self.squares = np.array([float(np.einsum("e,e->", x, y)) for x, y in zip(values, both_ways, strict=True)])

    def __getitem__(self, part: slice) -> Own:
        return Own(self._values[part], self._both_ways[part], self.at_image[part], self.matrices[part])


def own_shares(side: KnnGraphs, shares: Shares | None) -> Own:
    """Shares of the edges of all layers of a side; uniform without a function of them."""
    from scipy import sparse

    values, both_ways, at_image, matrices = [], [], [], []
    for itself in side.self_matches():
        if shares is not None:
            alpha = shares(itself)
        else:
            alpha = np.ones(len(itself.pairs)) if itself.credit is None else itself.credit
        alpha = alpha / alpha.sum()
        reverse = itself.reversed_at()
        values.append(alpha)
        both_ways.append(alpha + np.where(reverse >= 0, alpha[reverse], 0.0))
        at_image.append(
            np.bincount(itself.sources, alpha, minlength=side.count)
            + np.bincount(itself.targets, alpha, minlength=side.count)
        )
        edges = sparse.coo_array((alpha, (itself.sources, itself.targets)), shape=(side.count, side.count))
        matrices.append(edges.tocsr())
    return Own(values, both_ways, np.stack(at_image), matrices)


def _spread(
    shared: Matches, w: NDArray[np.float64], a: Own, b: Own, both: NDArray[np.float64], competing: bool
) -> tuple[Grid, Grid, Grid]:
    """Error and both parts of the skewness of the scores of all pairs of layers. both: Σ α_ij (β_ij + β_ji)."""
    n, size = shared.count, shared.shape[0] * shared.shape[1]
    half = -shared.per_pair(w) / 2
    base = shared.pairs * n
    of_pair = np.bincount(base + shared.sources, w, minlength=size * n)
    of_pair += np.bincount(base + shared.targets, w, minlength=size * n)
    halves = half.reshape(*shared.shape, 1)
    at_image = of_pair.reshape(*shared.shape, n) + halves * (a.at_image[:, None] + b.at_image)
    images = np.einsum("abn,abn->ab", at_image, at_image)
    by_a, by_b = np.arange(size) // shared.shape[1], np.arange(size) % shared.shape[1]
    reverse = shared.reversed_at()
    opposite = np.where(reverse >= 0, w[reverse], 0.0) if len(w) else w
    dyads = (
        shared.per_pair(w * (w + opposite))
        + 2 * half * shared.per_pair(w * (a.both_ways[shared.edges_a] + b.both_ways[shared.edges_b]))
        + half**2 * (a.squares[by_a] + b.squares[by_b] + 2 * both)
    ).reshape(shared.shape)
    # rounding can leave the second term below 0 where all edges are shared
    error = np.sqrt(np.maximum(at_least(images - dyads, dyads, competing), 0))
    flat = at_image.ravel()
    paired = shared.per_pair(w * flat[base + shared.sources] * flat[base + shared.targets]).reshape(shared.shape)
    paired += halves[..., 0] * (_between(a.matrices, at_image) + _between(b.matrices, at_image.swapaxes(0, 1)).T)
    return error, *skewness(np.maximum(images, dyads), (at_image**3).sum(axis=2), paired)


def _between(matrices: Sequence[sparse.csr_array], at_image: NDArray[np.float64]) -> Grid:
    """Σ_ij α_ij h_i h_j (L, M) of L layers with h (L, M, N)."""
    return np.stack(
        [
            np.einsum("mn,mn->m", influence, np.asarray(matrix @ influence.T).T)
            for matrix, influence in zip(matrices, at_image, strict=True)
        ]
    )


def skewness(variance: Grid, cubes: Grid, paired: Grid) -> tuple[Grid, Grid]:
    """Both parts of the skewness of `Spread` from Σ h_i³ and Σ e_ij h_i h_j; 0 without variance.

    variance: Σ h_i², or that of edges which are dependent between the same two images alone where it is more, as near
    independence: parts are then at most 1 and 4.3, so that an interval holds its score.
    """
    scale = np.where(variance > 0, variance, np.inf) ** 1.5
    return cubes / scale, 6 * paired / scale


def at_least(variance: NDArray[np.float64], of_edges: NDArray[np.float64], competing: bool) -> NDArray[np.float64]:
    """Variances, which are at least those of edges that are dependent between the same two images or groups alone; of
    competing edges, only where they are not positive. See `spreads`.
    """
    return np.where(variance > 0, variance, of_edges) if competing else np.maximum(variance, of_edges)


def influence(a: KnnGraphs, b: KnnGraphs, parts: Parts, eps: float = 0.0) -> sparse.csr_array:
    """First-order influence (N, N) of every edge on the score of a single pair of layers: e_ij of `spreads`.

    eps: added to the scale of the score. Raises ValueError for more than one layer.
    """
    from scipy import sparse

    if a.layers != 1 or b.layers != 1:
        raise ValueError(f"influences are of one pair of layers, not of {a.layers} x {b.layers}")
    scale = float(parts.scale[0, 0])
    shared = EdgeIndex(a, parts.backward).matches(b)
    w = parts.shares(shared) / (scale + eps)
    half = -w.sum() / 2 * (scale / (scale + eps) if parts.scaled else 1.0)
    values, rows, columns = [w], [shared.sources], [shared.targets]
    for side in (a, b):
        own = own_shares(side, parts.shares if parts.scaled else None)
        values.append(half * own.values)
        rows.append(side.images)
        columns.append(side.targets.astype(np.int64))
    where = (np.concatenate(rows), np.concatenate(columns))
    # repeated edges are summed
    return sparse.coo_array((np.concatenate(values), where), shape=(a.count, a.count)).tocsr()


def _by_group(edges: sparse.csr_array, groups: Groups) -> sparse.csr_array:
    """Sums (G, G) of edges (N, N) from group to group."""
    from scipy import sparse

    entries = edges.tocoo()
    where = groups.codes[entries.row], groups.codes[entries.col]
    return sparse.coo_array((entries.data, where), shape=(groups.count, groups.count)).tocsr()


class Covariances:
    """Covariances of scores of the same images, from the influences (N, N) of all edges on each score.

    groups: of images that are not independent; edges between two groups are then summed first, and those within a group
    count once, as in `clustered.spreads`. at_unit: (C, N) or (C, G), influence on each score of the edges at each
    image, or at each group.
    """

    def __init__(self, influences: Sequence[sparse.csr_array], groups: Groups | None = None) -> None:
        both_ways, within = [], []
        for edges in influences:
            blocks = edges if groups is None else _by_group(edges, groups)
            within.append(blocks.diagonal())
            both_ways.append(blocks + blocks.T)
        at_image = np.stack([np.asarray(x.sum(axis=1)) - own for x, own in zip(both_ways, within, strict=True)])
        # i -> j and j -> i, each pair once
        pairs = np.array([[float((x * y).sum()) / 2 for y in both_ways] for x in both_ways])
        inside = np.array(within) @ np.array(within).T
        self.at_unit = at_image
        # the diagonal of both ways is twice that within
        self._dyads = pairs - inside
        self._images = at_image @ at_image.T - (pairs - 2 * inside)

    def of(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariances (M, M) of M weighted sums of the C scores, with weights (M, C).

        Variances are at least those of edges that are dependent between the same two images or groups alone, of
        competing edges, too (`at_least`): with few images, differences of such scores would be significant too often.
        Correlations stay. Where few images leave no covariance, all are those of such edges.
        """
        covariance: NDArray[np.float64] = weights @ self._images @ weights.T
        of_edges: NDArray[np.float64] = weights @ self._dyads @ weights.T
        if np.linalg.eigvalsh(covariance).min() <= 0:
            return of_edges
        variances = covariance.diagonal()
        widened = np.sqrt(at_least(variances, of_edges.diagonal(), competing=False) / variances)
        return covariance * widened[:, None] * widened
