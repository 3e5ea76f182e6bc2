"""What a study of this size can show: smallest scores and differences, images that others need, and the limit of N."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import jackknife
from diffalign.alignment.metrics import METRICS

# parts of the jackknife of a limit, each of which measures the whole curve again
LIMIT_PARTS = 10
# a subset of fewer images than this many times k has lists that hold most of it
FEWEST_TIMES_K = 5
# rows that share a limit: scores that are a ratio of sums over pairs of images have a bias of order 1/N
BY_KERNELS = ("cka", "unbiased_cka")
N_ALONE, RATIO = "N", "N and k, k/N fixed"

# metrics, positions of images (M,), k -> metric -> score
Curve = Callable[[Sequence[str], NDArray[np.intp], int], dict[str, float]]


def quantile_of(probability: float, freedom: int | None) -> float:
    """A quantile of Student's t with these degrees of freedom; None: of the normal distribution."""
    from scipy.stats import norm, t

    return float(norm.ppf(probability) if freedom is None else t.ppf(probability, freedom))


def smallest_score(
    score: float,
    error: float,
    null: tuple[float, float, float],
    power: float,
    freedom: int | None = None,
) -> float:
    """The smallest expected score that exceeds the threshold of its null with this probability; NaN without a null.

    It is the s for which s = threshold + q sd(s), q the quantile of `power`. The variance of a score is taken to run
    from that of the null, at its mean, linearly to that of the score that was measured: a weak alignment has about the
    spread of none. In simulations a power of .8 was .64 to .73. null: its mean, standard deviation and threshold.
    error: of the score.
    """
    mean, sd, threshold = null
    if not all(map(math.isfinite, (score, error, mean, sd, threshold))):
        return math.nan
    q = quantile_of(power, freedom)
    slope = (error**2 - sd**2) / (score - mean) if score > threshold else 0.0
    # (s - threshold)² = q² (sd² + slope (s - mean)), the root on the side of q
    half = q**2 * slope / 2
    at_threshold = max(0.0, sd**2 + slope * (threshold - mean))
    return threshold + half + math.copysign(math.sqrt(half**2 + q**2 * at_threshold), q)


def smallest_difference(
    error: float,
    alpha: float,
    power: float,
    correlation: float = 0.0,
    other: float | None = None,
    freedom: int | None = None,
) -> float:
    """The smallest difference of two scores that a two-sided test at level alpha finds with this probability.

    error, other: of the two scores, the same where other is None. correlation: of their errors over images. The test is
    that of a difference against its own error, (quantile of 1 - alpha/2 + quantile of power) times it (Cohen 1988).
    NaN where an error is.
    """
    second = error if other is None else other
    variance = error**2 + second**2 - 2 * correlation * error * second
    # the larger of 0 and NaN is 0
    spread = math.nan if math.isnan(variance) else math.sqrt(max(0.0, variance))
    return (quantile_of(1 - alpha / 2, freedom) + quantile_of(power, freedom)) * spread


def images_needed(count: int, smallest: float, difference: float) -> float:
    """How many images would show a difference, where `count` show `smallest`: errors fall as 1/√N. NaN for NaN."""
    return math.nan if math.isnan(smallest) else float(math.ceil(count * (smallest / difference) ** 2 - 1e-9))


@dataclass(frozen=True)
class Limit:
    """A score as N grows without bound, with its 95 % interval; NaN, and the reason, where it is not identified.

    of: what grows: N alone, or N and k at a fixed k/N.
    """

    of: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def parts_of(k: int, of_lists: bool) -> tuple[int, int, int] | None:
    """Into how many parts images are dealt for the three points of a curve: 1, 2 and 4; or 1 and the two smallest
    divisors of k above it, so that k/N stays. None where k has no two divisors that leave k of 2 or more.
    """
    if not of_lists:
        return 1, 2, 4
    divisors = [d for d in range(2, k // 2 + 1) if k % d == 0]
    return (1, divisors[0], divisors[1]) if len(divisors) >= 2 else None


def fewest(parts: NDArray[np.int64], left_out: NDArray[np.int64]) -> int:
    """The images of the smallest part (N,) where a jackknife leaves out one of its own parts (N,) at a time."""
    sizes = np.zeros((int(parts.max()) + 1, int(left_out.max()) + 1), np.int64)
    np.add.at(sizes, (parts, left_out), 1)
    return int((sizes.sum(axis=1) - sizes.max(axis=1)).min())


def limits(metrics: Sequence[str], curve: Curve, groups: Groups, k: int, seed: int) -> dict[str, Limit]:
    """The limit of every metric: N → ∞ of the CKAs, N → ∞ with k/N fixed of metrics on lists, and refusals.

    Images are dealt into 1, p and r disjoint parts of whole groups, and the scores of the parts averaged, s(1), s(p),
    s(r). Such scores have a bias of order 1/N, so s(d) = s∞ + c d, and s∞ = (p s(1) - s(p)) / (p - 1). The third point
    tests this law: where it departs significantly from the line there is no limit. Errors are those of a jackknife that
    leaves out one of ten parts, of whole groups, and measures all three points again. At fixed k, metrics on lists
    look at ever closer neighbours as N grows, by a rate that depends on the geometry: that limit is not estimated.
    Nor is one where a part, less one of the jackknife, has fewer than five images per neighbour: parts of large groups
    are of very different sizes. curve: scores of some images at some k.
    """
    found: dict[str, Limit] = {}
    for of_lists in (False, True):
        names = [name for name in metrics if (METRICS[name].uses_k if of_lists else name in BY_KERNELS)]
        if names:
            found |= _limits(names, curve, groups, k, seed, of_lists)
    no_law = Limit(N_ALONE, reason="no law of its bias in N is known")
    return {name: found.get(name, no_law) for name in metrics}


def _limits(names: Sequence[str], curve: Curve, groups: Groups, k: int, seed: int, of_lists: bool) -> dict[str, Limit]:
    of = RATIO if of_lists else N_ALONE
    parts = parts_of(k, of_lists)
    count = len(groups.codes)
    if parts is None:
        return {
            name: Limit(of, reason=f"k = {k} has no two divisors that leave 2 neighbours or more") for name in names
        }
    most = parts[-1]
    if groups.count < most * LIMIT_PARTS:
        reason = f"{count} images in {groups.count} groups are too few for {most} parts of {LIMIT_PARTS} each"
        return {name: Limit(of, reason=reason) for name in names}
    dealt = {d: groups.dealt(d, seed, "limit") for d in parts}
    left_out = groups.dealt(LIMIT_PARTS, seed, "limit jackknife")
    for d in parts:
        smallest, at = fewest(dealt[d], left_out), k // d if of_lists else k
        if smallest < FEWEST_TIMES_K * at:
            reason = (
                f"a part of whole groups has {smallest} of {count} images, dealt into {d} and less one of "
                f"{LIMIT_PARTS} that the jackknife leaves out, which are too few for k = {at}"
            )
            return {name: Limit(of, reason=reason) for name in names}

    def points(keep: NDArray[np.intp]) -> NDArray[np.float64]:
        """Scores (names, 3) of the images that are kept."""
        columns = []
        for d in parts:
            each = [curve(names, keep[dealt[d][keep] == part], k // d if of_lists else k) for part in range(d)]
            columns.append([np.mean([scores[name] for scores in each]) for name in names])
        return np.array(columns).T

    def combined(keep: NDArray[np.intp]) -> NDArray[np.float64]:
        """The limit and the departure from the law (names, 2)."""
        _, p, r = parts
        one, second, third = points(keep).T
        slope = (second - one) / (p - 1)
        return np.stack([one - slope, third - one - slope * (r - 1)], axis=1)

    every = np.arange(count)
    values = combined(every)
    interval = jackknife(values, left_out, combined)
    found = {}
    for i, name in enumerate(names):
        limit, low, high = (float(each[i, 0]) for each in (values, interval.low, interval.high))
        if not all(map(math.isfinite, (limit, low, high))):
            found[name] = Limit(of, reason="a score of a part is undefined")
        elif not interval.low[i, 1] <= 0 <= interval.high[i, 1]:
            found[name] = Limit(
                of, reason="three points are on no line over 1/N: the law of the bias does not hold yet"
            )
        else:
            found[name] = Limit(of, limit, low, high)
    return found
