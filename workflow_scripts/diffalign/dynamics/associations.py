"""Rank correlation of activations with what changes in the image next, corrected over the grid of layers and steps.

What is exchangeable are samples of one stratum: of one class or prompt, and one seed. Ranks are taken over all samples,
and each is less the mean of its stratum, so that a class which drives both sides is no evidence. The correlation of
these is Spearman's partial correlation given the stratum, and its null permutes samples within strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import false_discovery_rates
from diffalign.randomness import keyed

Array = NDArray[np.float64]

# sums of squares of centred ranks below this are rounding: ranks that differ give 1/2 or more
_CONSTANT = 1e-6
# statistics so close are ties, relatively: nulls are in float32, which takes half of the time
_TIE = 1e-5
# numbers of one chunk of permutations
_CHUNK = 2**23


@dataclass(frozen=True, eq=False)
class Associations:
    """Of every activation measure A, feature F, layer L and step S: (A, F, L, S) float64, NaN where undefined.

    rho: the partial rank correlation. p: of the cell alone, two-sided. p_family: of the largest standardised
    correlation among all layers and steps of the same measure and feature. q: Benjamini-Hochberg over these. samples:
    in strata of two or more; others say nothing.
    """

    rho: Array
    p: Array
    p_family: Array
    q: Array
    samples: int


def strata(seeds: Sequence[int], groups: Sequence[str]) -> list[str]:
    """The stratum of each sample: its seed and group, ``0/cat``; or its group alone, over seeds, where no seed has two
    samples of a group, as with photographs. Raises ValueError for lists of different lengths.
    """
    of_seed = [f"{seed}/{group}" for seed, group in zip(seeds, groups, strict=True)]
    return of_seed if len(set(of_seed)) < len(of_seed) else list(groups)


def associate(
    activations: NDArray[np.floating],
    changes: NDArray[np.floating],
    within: Sequence[str],
    permutations: int,
    seed: int,
) -> Associations:
    """Correlate activations (A, L, S, N) with changes (F, S, N) of features from each step to the next.

    within: the stratum of every sample (N,). All permutations, keyed by `seed`, are shared by all cells. p is
    (1 + #{|null| >= |observed|}) / (K + 1) of K permutations. p_family holds a cell against the largest of the whole
    grid under each permutation (Westfall and Young 1993, the max-T procedure), which keeps the rate of any false
    finding within a measure and feature. For this, correlations are divided by their exact standard deviation under
    permutations within strata, sqrt(Σ_g A_g F_g / (n_g - 1)) of sums of squares within strata, so that no cell rules
    the maximum because few of its strata vary.

    A cell is undefined, and no part of the maximum, where one side was not measured (NaN for all samples) or is
    constant within every stratum. Raises ValueError for other shapes, for values that are NaN or infinite for some
    samples, and for less than one permutation.
    """
    measures, layers, steps, count = _checked(activations, changes, within, permutations)
    features = len(changes)
    member = _members(within)
    sizes = member.sum(axis=0)
    a = _centred_ranks(activations, member).transpose(2, 0, 1, 3).reshape(steps, measures * layers, count)
    f = _centred_ranks(changes, member).transpose(1, 0, 2)
    dots = a @ f.transpose(0, 2, 1)
    scale = np.sqrt(_square_sums(a)[:, :, None] * _square_sums(f)[:, None, :])
    of_strata = (np.square(a) @ (member / np.maximum(sizes - 1, 1))) @ (np.square(f) @ member).transpose(0, 2, 1)
    defined = (scale > _CONSTANT) & (of_strata > _CONSTANT)
    rho = np.divide(dots, scale, out=np.full_like(dots, np.nan), where=defined)
    factor = np.divide(1, np.sqrt(np.maximum(of_strata, _CONSTANT)), out=np.zeros_like(dots), where=defined)
    observed = np.abs(dots) * factor
    reached = (observed * (1 - _TIE)).astype(np.float32)
    shape = (steps, measures, layers, features)
    exceeding = np.zeros_like(dots)
    maxima = np.empty((permutations, measures, features), np.float32)
    single = [values.astype(np.float32) for values in (a, f, factor)]
    orders = _orders(member, permutations, seed)
    step = max(1, _CHUNK // max(dots.size, steps * features * count))
    for start in range(0, permutations, step):
        chosen = orders[start : start + step]
        moved = single[1][:, :, chosen].reshape(steps, features * len(chosen), count)
        null = np.abs(single[0] @ moved.transpose(0, 2, 1)).reshape(*dots.shape, len(chosen))
        null *= single[2][..., None]
        exceeding += (null >= reached[..., None]).sum(axis=-1)
        maxima[start : start + step] = null.reshape(*shape, len(chosen)).max(axis=(0, 2)).transpose(2, 0, 1)
    p = np.where(defined, (1 + exceeding) / (permutations + 1), np.nan)

    def in_order(values: Array) -> Array:
        return np.ascontiguousarray(values.reshape(shape).transpose(1, 3, 2, 0))

    cells = in_order(reached.astype(np.float64)).reshape(measures, features, layers * steps)
    larger = (maxima.transpose(1, 2, 0)[:, :, None, :] >= cells[..., None]).sum(axis=-1)
    of_family = ((1 + larger) / (permutations + 1)).reshape(measures, features, layers, steps)
    pointwise = in_order(p)
    return Associations(
        in_order(rho),
        pointwise,
        np.where(np.isnan(pointwise), np.nan, of_family),
        _family_rates(pointwise),
        int(sizes[sizes > 1].sum()),
    )


def _checked(
    activations: NDArray[np.floating], changes: NDArray[np.floating], within: Sequence[str], permutations: int
) -> tuple[int, int, int, int]:
    """The sizes A, L, S and N. Raises ValueError."""
    fit = activations.ndim == 4 and changes.ndim == 3 and activations.shape[2:] == changes.shape[1:]
    if not fit or changes.shape[2] != len(within) or 0 in (*activations.shape, *changes.shape):
        raise ValueError(
            f"activations of shape {activations.shape}, changes of shape {changes.shape} and {len(within)} strata; "
            "expected (measures, layers, steps, samples), (features, steps, samples) and one a sample"
        )
    for what, values in (("activations", activations), ("changes", changes)):
        bad = ~np.isfinite(values)
        # infinite for all samples is no value that was left out
        some = (bad.any(axis=-1) & ~bad.all(axis=-1)) | np.isinf(values).any(axis=-1)
        if some.any():
            where = tuple(np.argwhere(some)[0].tolist())
            raise ValueError(f"{what} are NaN or infinite for some samples, first at {where}")
    if permutations < 1:
        raise ValueError(f"{permutations} permutations; expected at least 1")
    measures, layers, steps, count = activations.shape
    return measures, layers, steps, count


def _members(within: Sequence[str]) -> Array:
    """Which sample is in which stratum: (N, G), 1 or 0, strata in order of name."""
    different, which = np.unique(np.asarray(within), return_inverse=True)
    return np.eye(len(different))[which]


def _centred_ranks(values: NDArray[np.floating], member: Array) -> Array:
    """Ranks over the last axis, ties with mean ranks, less the mean of the stratum; 0 where nothing was measured."""
    from scipy.stats import rankdata

    measured = ~np.isnan(values).any(axis=-1, keepdims=True)
    ranks = np.asarray(rankdata(np.where(measured, values, 0), axis=-1), np.float64)
    centred: Array = ranks - (ranks @ member / member.sum(axis=0)) @ member.T
    return centred


def _square_sums(values: Array) -> Array:
    sums: Array = np.square(values).sum(axis=-1)
    return sums


def _orders(member: Array, permutations: int, seed: int) -> NDArray[np.intp]:
    """Orders of the samples (K, N), each permuted within its stratum; the first K do not depend on how many follow."""
    stratum = member.argmax(axis=1)
    drawn = keyed(seed, "associations", "permutations").random((permutations, len(stratum)))
    # a stable order by stratum tells where its members go
    places = np.argsort(stratum, kind="stable")
    shuffled = np.argsort(stratum + drawn, axis=1)
    orders = np.empty_like(shuffled)
    orders[:, places] = shuffled
    return orders


def _family_rates(p: Array) -> Array:
    """Rates q of each cell among the layers and steps of its measure and feature."""
    flat = p.reshape(-1, p.shape[2] * p.shape[3])
    return np.stack([false_discovery_rates(row) for row in flat]).reshape(p.shape)
