"""What is left of the score of two layers on neighbour lists, given controls: a null that keeps what controls explain.

The rows Y (N, D) of one side are regressed on the controls, Y = F + E. The fitted part F stays with its image, and the
residuals E move: Y* = F + PE for a random order P (Freedman and Lane 1983, J. Business & Economic Statistics 1, 292).
Neighbours of Y* are searched again and scored against the unmoved other side. Where a side depends on the other only
through the controls, linearly and with residuals of one distribution, Y* is like Y, so that the score is like those of
the null. With classes alone as controls, this is the relabelling of images within their class, which is exact.

Each side in turn is the one that moves, and what is reported is the larger p, and the null of the larger mean: the test
holds where the controls explain either side linearly. Residuals of groups of images move as wholes, and within classes
where labels are among the controls.

Relabelling images that are alike in the control, without a regression, does not serve here: images are alike in few
dimensions only, so that what is left of the control within a stratum is significant by itself (benchmarks/ladder.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Exchanges
from diffalign.alignment.metrics import METRICS, Layer, Settings, measure_grid
from diffalign.alignment.partial import Controls
from diffalign.alignment.settings import check_draws

Rows = NDArray[np.float32]
# null scores that are smaller by less than this count as equal: sums of the same numbers in another order
_TIE = 1e-9
# metrics of which regression gives the share that is left, `partial.beyond`
LINEAR = ("cka", "unbiased_cka")
# multiplications that a conditional null may take, for N² D of every search: an hour on one core
MOST_PRODUCTS = 2 * 10**14


def on_lists(metrics: Sequence[str]) -> list[str]:
    """The metrics whose conditional null moves residuals: those on neighbour lists."""
    return [name for name in metrics if METRICS[name].uses_k]


def moved(rows: NDArray[np.floating], given: Controls, exchanges: Exchanges, draws: int, seed: int) -> Iterator[Rows]:
    """Rows (N, D) float32 whose residuals on the controls are those of other images, once a draw; keyed by (seed,
    draw).
    """
    residuals = given.residuals(rows)
    fitted = rows - residuals
    for order in exchanges.orders(draws, seed):
        yield np.asarray(fitted + residuals[order], np.float32)


@dataclass(frozen=True)
class Conditional:
    """A score beside its conditional null. mean, sd: of the null of the side with the larger mean. p: the larger of
    both sides, (1 + #{null >= score}) / (K + 1); NaN with the reason where it is refused.
    """

    score: float
    mean: float
    sd: float
    p: float
    reason: str | None = None

    def share(self, chance: float) -> float:
        """What is left of the score above chance, (score - mean) / (score - chance): 1 where controls explain nothing,
        0 where they explain all; below 0 where they explain more. NaN where the score is not above chance.
        """
        return (self.score - self.mean) / (self.score - chance) if self.score > chance else math.nan


def conditional(
    metrics: Sequence[str],
    sides: tuple[Rows, Rows],
    given: Controls,
    exchanges: Exchanges,
    settings: Settings,
    draws: int,
    alpha: float,
    seed: int,
    as_layer: Callable[[Rows], Layer],
) -> dict[str, Conditional]:
    """The conditional null of two layers: metric -> `Conditional`, for metrics on lists.

    sides: rows (N, D_A) and (N, D_B), images in the same order. as_layer: a layer of such rows, whose neighbours it
    searches; they need not be of unit norm. exchanges: which residuals may take each other's place. draws: K of each
    side. Raises ValueError for a metric that is not on lists, for other numbers of images, and where K permutations
    have no p of alpha.
    """
    other = [name for name in metrics if not METRICS[name].uses_k]
    if other:
        raise ValueError(f"metrics that are not on lists have no conditional null: {', '.join(other)}")
    if not len(sides[0]) == len(sides[1]) == given.count:
        raise ValueError(
            f"{len(sides[0])} and {len(sides[1])} rows with controls of {given.count} images; they must be the same"
        )
    check_draws(draws, alpha)
    layers = [as_layer(rows).held() for rows in sides]
    observed = measure_grid(metrics, layers[:1], layers[1:], settings)
    nulls = np.empty((2, draws, len(metrics)))
    for side, rows in enumerate(sides):
        for draw, values in enumerate(moved(rows, given, exchanges, draws, seed)):
            pair = [as_layer(values) if i == side else layer for i, layer in enumerate(layers)]
            found = measure_grid(metrics, pair[:1], pair[1:], settings)
            nulls[side, draw] = [found[name][0, 0] for name in metrics]
    refused = exchanges.refusal(alpha)
    return {name: against(float(observed[name][0, 0]), nulls[:, :, i], refused) for i, name in enumerate(metrics)}


def against(score: float, null: NDArray[np.float64], refused: str | None = None) -> Conditional:
    """A score beside the nulls (S, K) of each of S sides that move. refused: why there is no p."""
    # a null without a value, such as CKNNA without a shared edge, shows no alignment
    finite = [side[np.isfinite(side)] for side in null]
    if math.isnan(score) or not all(map(len, finite)):
        return Conditional(score, math.nan, math.nan, math.nan, "the score or its null is undefined")
    means = [float(side.mean()) for side in finite]
    larger = int(np.argmax(means))
    p = max(1 + int((side >= score - _TIE).sum()) for side in finite) / (null.shape[1] + 1)
    return Conditional(score, means[larger], float(finite[larger].std()), math.nan if refused else p, refused)


def refusal(count: int, widths: Sequence[int], draws: int) -> str | None:
    """Why N images of layers of these widths and so many draws are too much to search; None where they are not."""
    products = float(count) ** 2 * sum(widths) * draws
    if products <= MOST_PRODUCTS:
        return None
    return (
        f"searches would take {products:.1e} products ({count}² images, {sum(widths)} dimensions, {draws} draws), more "
        f"than {MOST_PRODUCTS:.0e}"
    )
