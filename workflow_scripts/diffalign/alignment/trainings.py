"""Statistics over trainings: the same recipe with several seeds, and several recipes, measured at the same steps.

What is exchangeable is a training as a whole: its steps depend on each other, and its images are those of the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.intervals import around, of_mean
from diffalign.randomness import keyed

Array = NDArray[np.float64]

# values x and y, (n, S) each, of the trainings of every recipe
Both = list[tuple[NDArray[np.floating], NDArray[np.floating]]]

# so many orders are gone through, those of seven trainings of one recipe; of more, so many random ones
_ALL_ORDERS = math.factorial(7)
DRAWS = 5000
# the level that p must be able to reach
ALPHA = 0.05
# with fewer trainings of a recipe a rank correlation has no interval: without one of three, the ranks of a recipe say 1
# or -1
FEWEST = 4
# correlations this close are ties
_TIE = 1e-9


@dataclass(frozen=True)
class Mean:
    """A mean over trainings with its 95 % t interval, NaN for a single training."""

    value: float
    low: float
    high: float
    trainings: int


def mean_over_trainings(values: NDArray[np.floating]) -> Mean:
    """The mean of one value a training, (T,), ± t_{T-1} sd / √T. Raises ValueError for no or undefined values."""
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"a mean over trainings needs finite values, got {list(map(float, values))}")
    mean, interval = of_mean(values.astype(np.float64))
    return Mean(float(mean), float(interval.low), float(interval.high), len(values))


def paired_contrast(a: Mapping[int, float], b: Mapping[int, float]) -> Mean:
    """The mean of a - b over the seeds that both have, with its t interval. a, b: seed -> value.

    Trainings with the same seed begin with the same weights and see the same batches. Raises ValueError where no seed
    is shared.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise ValueError(f"no seed is shared: {sorted(a)} and {sorted(b)}")
    return mean_over_trainings(np.array([a[seed] - b[seed] for seed in shared], np.float64))


@dataclass(frozen=True)
class PartialCorrelation:
    """Spearman's ρ of two values of each training given step and recipe, with p and 95 % interval; NaN where undefined.

    trainings, recipes: those that count. reason: why ρ, p or the interval are missing; '' where they are not.
    """

    rho: float
    p: float
    low: float
    high: float
    trainings: int
    recipes: int
    steps: int
    reason: str = ""


def partial_spearman(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    seed: int,
    recipes: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> PartialCorrelation:
    """The partial rank correlation of x and y, (T, S) of T trainings at S steps, given the step and the recipe.

    recipes: (T,), the recipe of each training; None: all have one. Recipes are fixed conditions, of which any two that
    differ in both values would correlate, so that a correlation over them says nothing about trainings. Ranks are taken
    over trainings of one recipe at the same step, and Pearson's correlation of these ranks, each less the mean of its
    step, is over all steps and recipes. So step and recipe are held fixed exactly. A recipe of n trainings counts as
    n - 1; one of a single training is left out.

    p: share of the orders of trainings within recipes, each the same at all steps, with at least this |ρ|: of all
    orders where there are at most 5040 (those of seven trainings of one recipe), else of 5000 random ones, keyed by
    `seed`, and the order as it is. Of several recipes it is NaN where even a perfect correlation, which is as
    extreme as its reverse, would not be significant at .05.

    The interval leaves out one training at a time (jackknife within recipes, Student's t with Satterthwaite's degrees,
    n - 1 of one recipe) and ends at -1 and 1. Its error is at least the standard deviation of ρ over all orders: with
    few trainings that of the jackknife alone is too small. It is NaN where a recipe has fewer than four trainings.

    seeds: (T,), of the trainings; None: all are different. Trainings of one seed begin with the same weights and see
    the same batches, in whatever recipe, so that they are not independent: where recipes share their seeds, what is
    permuted and left out are seeds, with all of their trainings. Where they share some seeds and not others, nothing is
    given. Raises ValueError for other shapes and for undefined values.
    """
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"values have shapes {x.shape} and {y.shape}; expected (trainings, steps) of 2 trainings or more"
        )
    names = [""] * len(x) if recipes is None else list(recipes)
    if len(names) != len(x):
        raise ValueError(f"{len(names)} recipes are given for {len(x)} trainings")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a partial rank correlation needs finite values")
    members = [np.flatnonzero([name == each for each in names]) for name in dict.fromkeys(names)]
    several = np.sort(np.concatenate([of for of in members if len(of) > 1] or [np.array([], np.intp)]))
    if seeds is not None and len({seeds[at] for at in several}) < len(several):
        alone = "recipes with a single training do not count" if len(several) < len(x) else ""
        of_recipes, of_seeds = [names[at] for at in several], [seeds[at] for at in several]
        return _of_shared_seeds(x[several], y[several], seed, of_recipes, of_seeds, alone)
    both = [(x[of], y[of]) for of in members if len(of) > 1]
    sizes = tuple(len(of_x) for of_x, _ in both)
    if not both:
        return undefined("no recipe has two trainings", len(x), len(members), x.shape[1])
    counts = {"trainings": sum(sizes), "recipes": len(sizes), "steps": x.shape[1]}
    rho = _correlation(both)
    if math.isnan(rho):
        return undefined("one of them is the same in all trainings of each recipe", **counts)
    moved = _moved(both, seed)
    p, no_p = _p(sizes, rho, moved)
    low, high, no_interval = _interval(both, rho, float(moved.std()))
    alone = "recipes with a single training do not count" if len(both) < len(members) else ""
    reason = "; ".join(filter(None, (no_p, no_interval, alone)))
    return PartialCorrelation(rho, p, low, high, **counts, reason=reason)


def _of_shared_seeds(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    seed: int,
    recipes: Sequence[str],
    seeds: Sequence[int],
    alone: str,
) -> PartialCorrelation:
    """The correlation of recipes with the same seeds: that of one recipe whose steps are those of all of them. alone:
    what is to be said of other recipes.
    """
    row = dict(zip(zip(seeds, recipes, strict=True), range(len(x)), strict=True))
    listed, named = sorted(set(seeds)), list(dict.fromkeys(recipes))
    counts = {"trainings": len(x), "recipes": len(named), "steps": x.shape[1]}
    if len(listed) < 2:
        return undefined("all trainings have one seed", **counts)
    if len(row) < len(listed) * len(named):
        return undefined("recipes share some of their seeds and not others", **counts)
    of_seeds = np.array([[row[each, name] for name in named] for each in listed])
    of_x, of_y = (values[of_seeds].reshape(len(listed), -1) for values in (x, y))
    found = partial_spearman(of_x, of_y, seed)
    count = math.factorial(len(listed))
    no_p = ""
    if len(named) > 1 and not math.isnan(found.p) and 2 / count > ALPHA:
        no_p = f"no p, since of {count} orders of seeds a perfect correlation has p = {2 / count:.2g}"
    reason = "; ".join(filter(None, (no_p, found.reason, alone)))
    return replace(found, **counts, p=math.nan if no_p else found.p, reason=reason)


def undefined(reason: str, trainings: int, recipes: int, steps: int) -> PartialCorrelation:
    """No correlation, for this reason."""
    return PartialCorrelation(math.nan, math.nan, math.nan, math.nan, trainings, recipes, steps, reason)


def _moved(both: Both, seed: int) -> Array:
    """ρ of every order of trainings within recipes (K,); that of the identity first."""
    sizes = tuple(len(of_x) for of_x, _ in both)
    ranks_x, ranks_y = (np.concatenate([_ranks(pair[side]) for pair in both]) for side in (0, 1))
    scale = math.sqrt(float(np.square(ranks_x).sum() * np.square(ranks_y).sum()))
    # products of every training with every other, over all steps
    products = ranks_x @ ranks_y.T
    return np.asarray(products[np.arange(sum(sizes)), _orders(sizes, seed)].sum(axis=1) / scale)


def _p(sizes: Sequence[int], rho: float, moved: Array) -> tuple[float, str]:
    """The share of orders within recipes that are at least as extreme; NaN with a reason where they are too few."""
    count = math.prod(map(math.factorial, sizes))
    if len(sizes) > 1 and 2 / count > ALPHA:
        return math.nan, f"no p, since of {count} orders within recipes a perfect correlation has p = {2 / count:.2g}"
    return float((np.abs(moved) >= abs(rho) - _TIE).mean()), ""


def _interval(both: Both, rho: float, unrelated: float) -> tuple[float, float, str]:
    """Bounds by the jackknife within recipes; NaN with a reason where there are none. unrelated: the standard deviation
    of ρ over orders, which the error does not fall below.
    """
    if min(len(of_x) for of_x, _ in both) < FEWEST:
        return math.nan, math.nan, f"no interval, since a recipe has fewer than {FEWEST} trainings"
    parts: list[float] = []
    for at, (of_x, of_y) in enumerate(both):
        keeps = [np.arange(len(of_x)) != left_out for left_out in range(len(of_x))]
        without = np.array([_correlation([*both[:at], (of_x[keep], of_y[keep]), *both[at + 1 :]]) for keep in keeps])
        parts.append((len(of_x) - 1) / len(of_x) * float(np.square(without - without.mean()).sum()))
    variance = sum(parts)
    degrees = [len(of_x) - 1 for of_x, _ in both]
    # Satterthwaite 1946: of one recipe n - 1
    below = sum(part**2 / freedom for part, freedom in zip(parts, degrees, strict=True))
    freedom = variance**2 / below if below else sum(degrees)
    interval = around(np.array([rho]), np.array([max(math.sqrt(variance), unrelated)]), freedom)
    low, high = (float(np.clip(bound[0], -1, 1)) for bound in (interval.low, interval.high))
    return low, high, "no interval, since ρ is undefined without one of the trainings" if math.isnan(low) else ""


def _correlation(both: Both) -> float:
    """The correlation of centred ranks; NaN where a side is the same in all trainings of a recipe at every step."""
    a, b = (np.concatenate([_ranks(pair[side]) for pair in both]) for side in (0, 1))
    scale = math.sqrt(float(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def _ranks(values: NDArray[np.floating]) -> Array:
    """Ranks over the trainings of one recipe at each step (n, S), less their mean; ties have mean ranks.

    The squares of ranks without ties sum to n - 1 at each step.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    return np.asarray((ranks - ranks.mean(axis=0)) * math.sqrt(12 / (len(values) * (len(values) + 1))), np.float64)


@cache
def _orders(sizes: tuple[int, ...], seed: int) -> NDArray[np.intp]:
    """Orders (K, T) within recipes of these sizes, whose trainings follow each other; the identity first."""
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    if math.prod(map(math.factorial, sizes)) <= _ALL_ORDERS:
        within = [itertools.permutations(range(start, start + n)) for start, n in zip(starts, sizes, strict=True)]
        return np.array([[at for of in order for at in of] for order in itertools.product(*within)], np.intp)
    drawn = [np.arange(sum(sizes))]
    for draw in range(DRAWS):
        generator = keyed(seed, "trainings", str(draw))
        drawn.append(np.concatenate([start + generator.permutation(n) for start, n in zip(starts, sizes, strict=True)]))
    return np.array(drawn, np.intp)
