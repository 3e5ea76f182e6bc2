"""How firmly models stand in an order: rank correlations with other orders, and pairs that keep theirs on halves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups

# with fewer models an order is one comparison
FEWEST = 3
# divisions into halves, each of which gives two orders
DIVISIONS = 20


def tau_b(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Kendall's τ-b of two scores of the same models, (M,) both: concordant less discordant pairs of models, over the
    geometric mean of those that are not tied in x and in y. NaN where all are tied, where a score is undefined, and of
    fewer than three models. Raises ValueError for arrays of different lengths.
    """
    from scipy.stats import kendalltau

    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} scores are not of the same models")
    if len(x) < FEWEST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    return float(kendalltau(x, y).statistic)


def halves(groups: Groups, seed: int, divisions: int = DIVISIONS) -> Iterator[NDArray[np.intp]]:
    """Positions of the images of both halves of each division, of whole groups, keyed by (seed, division, group)."""
    for division in range(divisions):
        half = groups.dealt(2, seed, f"rank stability\x00{division}")
        for which in (0, 1):
            yield np.flatnonzero(half == which)


def kept(scores: NDArray[np.float64], resampled: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share (M, M) of resamples in which two models stand as in the scores of all images.

    scores: (M,). resampled: (H, M). A tie counts one half, in the scores and in a resample. NaN for undefined scores.
    The score of a random half departs from that of all images by as much as that does from the score of the population
    (half-samples, McCarthy 1969), so that a difference of d standard errors keeps its sign in about Φ(d) of halves.
    """
    sign = np.sign(scores[:, None] - scores[None, :])
    signs = np.sign(resampled[:, :, None] - resampled[:, None, :])
    share: NDArray[np.float64] = ((1 + sign * signs) / 2).mean(axis=0)
    return share
