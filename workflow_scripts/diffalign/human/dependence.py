"""Standard errors of odd-one-out accuracies: choices that share an object or a person are dependent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import Interval, around
from diffalign.human.triplets import Triplets
from diffalign.randomness import dealt

# values of one block of sums, in float64: 64 MiB
_BLOCK = 2**23
# groups of objects; a triplet touches at most three, so a layer is chosen for it on a third of all triplets or more
_FOLDS = 10


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariances of the mean credits of L layers on the same choices.

    means: (L,). values: (L, L), of dependent choices. least: (L, L), of choices that depend on those of the same
    triplet alone. freedom: degrees of freedom, the smaller number of objects and people less 1. over: what choices
    share that makes them dependent.
    """

    means: NDArray[np.float64]
    values: NDArray[np.float64]
    least: NDArray[np.float64]
    freedom: int
    over: tuple[str, ...]

    def interval(self, weights: NDArray[np.float64] | None = None) -> Interval:
        """95 % intervals of the means, or of weighted sums of them, with weights (M, L): mean ± t error.

        A variance by inclusion and exclusion may be below that of independent triplets, or negative, where there are
        few choices; then the latter is taken.
        """
        if weights is None:
            weights = np.eye(len(self.means))
        variance = np.maximum(*(np.einsum("ml,lk,mk->m", weights, each, weights) for each in (self.values, self.least)))
        # what rounding leaves of two means of the same credits
        rounding = 64 * np.finfo(np.float64).eps * np.square(weights) @ np.diag(self.least)
        variance = np.where(variance > rounding, variance, 0.0)
        return around(weights @ self.means, np.sqrt(variance), self.freedom)


def covariance(gained: NDArray[np.floating], triplets: Triplets, over: tuple[str, ...] = ("objects",)) -> Covariance:
    """Covariances of mean credits over objects, or over objects and people.

    Choices that share an object or, with ``people``, a person are dependent, all others independent; the variance of a
    mean is the sum of e_t e_u over dependent pairs of choices, with e the credit less its mean, divided by the number
    of choices (dyadic cluster-robust variance for triples: Fafchamps and Gubert 2007; Aronow, Samii and Assenova 2015;
    several ways: Cameron, Gelbach and Miller 2011). Two triplets with m common objects are in m sums over an object,
    in m (m - 1) / 2 over a pair and in one over all three where m = 3: added with alternating signs, each dependent
    pair counts once. The cost is linear in choices. The way of N objects has the correction N (N - 1) / (N - 3)², as
    the jackknife of a mean over triples (Arvesen 1969), that of C people C / (C - 1), and that of both the smaller one.

    gained: (L, T), 0 to 1 (or differences of credits). over: ``("objects",)`` or ``("objects", "people")``. Raises
    ValueError for another word, for people who are not known, and for fewer than four objects or two people.
    """
    if over not in (("objects",), ("objects", "people")):
        raise ValueError(f"choices depend on {over}; allowed: ('objects',), ('objects', 'people')")
    if triplets.people is None and "people" in over:
        raise ValueError(f"{triplets.where}: nothing says who made the choices")
    means = np.asarray(gained.mean(axis=1, dtype=np.float64))
    residuals = (gained - means[:, None]) / len(triplets)
    counts = [len(np.unique(triplets.objects))]
    if counts[0] < 4:
        raise ValueError(f"{triplets.where}: choices among {counts[0]} objects; an error over objects needs at least 4")
    of_objects = counts[0] * (counts[0] - 1) / (counts[0] - 3) ** 2
    values = _shared(residuals, triplets, None) * of_objects
    least = _gram(residuals, triplets.groups[:, None])
    if "people" in over and triplets.people is not None:
        people = np.unique(triplets.people, return_inverse=True)[1].astype(np.int64)
        counts.append(int(people.max()) + 1)
        if counts[1] < 2:
            raise ValueError(f"{triplets.where}: one person made all choices; an error over people needs at least two")
        of_people = counts[1] / (counts[1] - 1)
        values += _gram(residuals, people[:, None]) * of_people
        values -= _shared(residuals, triplets, people) * min(of_objects, of_people)
    return Covariance(means, values, least, min(counts) - 1, over)


def p_of_differences(interval: Interval, differences: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
    """Two-sided p (M,) of differences (M,) of means by Student's t: 1 where there is no difference, NaN where the
    error of one is 0.
    """
    from scipy.stats import t

    ratio = np.where(differences == 0, 0.0, np.nan)
    np.divide(np.abs(differences), interval.error, out=ratio, where=interval.error > 0)
    return np.asarray(2 * t.sf(ratio, freedom), np.float64)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P (M,) corrected for M tests by Holm (1979): the chance of any false claim among those at or below a level."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def known(triplets: Triplets) -> tuple[str, ...]:
    """What choices are known to share: objects, and people where the data say who chose."""
    return ("objects",) if triplets.people is None else ("objects", "people")


def _shared(
    residuals: NDArray[np.float64], triplets: Triplets, people: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Sums (L, L) of products over pairs of choices with a common object, and of the same person where given."""
    ordered = np.sort(triplets.objects, axis=1).astype(np.int64)
    total = np.zeros((len(residuals), len(residuals)))
    for size, sign in ((1, 1), (2, -1), (3, 1)):
        keys = []
        for columns in itertools.combinations(range(3), size):
            key = ordered[:, columns[0]]
            for column in columns[1:]:
                key = key * triplets.count + ordered[:, column]
            keys.append(key)
        stacked = np.stack(keys, axis=1)
        if people is not None:
            # numbers of sets of objects first: the product of four numbers may not fit
            numbers = np.unique(stacked, return_inverse=True)[1].reshape(stacked.shape)
            stacked = numbers * (int(people.max()) + 1) + people[:, None]
        total += sign * _gram(residuals, stacked)
    return total


def _gram(residuals: NDArray[np.float64], keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """Products (L, L) of the sums of residuals (L, T) over all choices with one key. keys: (T, M), M of each choice."""
    total = np.zeros((len(residuals), len(residuals)))
    for members, starts in _blocks(keys, max(1, _BLOCK // len(residuals))):
        sums = np.add.reduceat(residuals[:, members], starts, axis=1)
        total += sums @ sums.T
    return total


def _blocks(keys: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Choices sorted by key, in blocks of whole keys of about `size`, and where each key starts in its block."""
    flat = keys.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    members = order // keys.shape[1]
    stops = np.append(starts[1:], len(flat))
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + size, side="right")))
        yield members[starts[first] : stops[last - 1]], starts[first:last] - starts[first]
        first = last


@dataclass(frozen=True, eq=False)
class Selected:
    """Credit by the layer that is best on other objects.

    credit: (T,). kept: (T,) the choices that have other objects to choose by; the credit of others is of no use.
    shares: (L,) how often each layer was chosen.
    """

    credit: NDArray[np.float64]
    kept: NDArray[np.bool_]
    shares: NDArray[np.float64]


def chosen_on_other_objects(gained: NDArray[np.floating], triplets: Triplets, folds: NDArray[np.int64]) -> Selected:
    """Credit of every choice by the layer with the largest accuracy on the triplets that share no fold of objects.

    The layer that counts for a triplet was chosen without its objects, so its accuracy is not biased by the choice.
    The first of equal layers is taken. A triplet that shares a fold with every other one is not kept; of a single
    layer, all are.

    gained: (L, T). folds: (N,) the fold of every object, 0 … F - 1.
    """
    if len(gained) == 1:
        return Selected(gained[0].astype(np.float64), np.ones(len(triplets), bool), np.ones(1))
    touched = np.zeros((len(triplets), int(folds.max()) + 1), bool)
    np.put_along_axis(touched, folds[triplets.objects], values=True, axis=1)
    patterns, which = np.unique(touched, axis=0, return_inverse=True)
    which = which.ravel()
    sums = np.stack([np.bincount(which, row, len(patterns)) for row in gained])
    apart = (patterns.astype(np.int64) @ patterns.T.astype(np.int64) == 0).astype(np.float64)
    others = apart @ np.bincount(which, minlength=len(patterns))
    layer = np.argmax((sums @ apart) / np.maximum(others, 1), axis=0)[which]
    kept = others[which] > 0
    credit = np.take_along_axis(gained, layer[None], axis=0)[0].astype(np.float64)
    shares = np.bincount(layer[kept], minlength=len(gained)) / max(1, int(kept.sum()))
    return Selected(credit, kept, shares)


@dataclass(frozen=True)
class Best:
    """The accuracy of the best layer of a bundle, chosen on other objects than it is reported on.

    layer: the one chosen most often, as a position. share: how often. interval: over objects, and people where known.
    choices: number of choices that could be reported on.
    """

    accuracy: float
    low: float
    high: float
    error: float
    layer: int
    share: float
    choices: int


def best_of(gained: NDArray[np.floating], triplets: Triplets, folds: NDArray[np.int64]) -> Best | None:
    """The best of L layers, from credit (L, T); None where no choice has other objects to choose by."""
    chosen = chosen_on_other_objects(gained, triplets, folds)
    if not chosen.kept.any():
        return None
    part = triplets.taken(chosen.kept)
    over = covariance(chosen.credit[None, chosen.kept], part, known(triplets))
    interval = over.interval()
    layer = int(chosen.shares.argmax())
    return Best(
        float(over.means[0]),
        float(interval.low[0]),
        float(interval.high[0]),
        float(interval.error[0]),
        layer,
        float(chosen.shares[layer]),
        len(part),
    )


def selection_folds(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Fold (N,) of every object for the choice of a layer, one of ten, by the hash of (seed, name)."""
    return dealt(names, _FOLDS, seed, "selection")
