"""Layers against a reference on images that come in groups: samples of one class, prompt or photograph.

What a group has in common both sides may encode, each in its own way, so that images of a group are close on both and
scores are far above those of free permutations although nothing else is shared.

- Nulls relabel images of the reference within their groups. They are exact, in the sense of permutation tests, where
  images of a group are independent draws and both sides are independent given the group, whatever the sizes of groups
  and however strong their effects are. What is significant is therefore shared beyond the group; the mean of the null
  holds what the groups alone make. In 1000 simulated studies each of 60 images in 6 equal groups, 6 unequal ones and 30
  pairs, with effects of groups that make up most of the variance of both sides, 3 to 6 % were significant at .05; with
  free permutations, 98 to 100 %.
- Errors leave out whole groups (`intervals.jackknife`), and so hold for other groups like these. In simulations of 60
  images with shared effects of groups they were 1.2 to 2 times the spread of scores between studies; formulas for
  independent images gave 0.6 to 1 times of it.
- Halves are of whole groups where there are at least four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.calibration import Calibration, calibrate_by_permutations
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import Interval, jackknife
from diffalign.alignment.kernel_permutations import permuted_cka, tied
from diffalign.alignment.metrics import (
    METRICS,
    ClosedForm,
    Grid,
    Layer,
    NeighborScores,
    NoNull,
    Permutations,
    Settings,
    first_lists,
    measure_grid,
    prepare,
)
from diffalign.alignment.series import Against, Drawn
from diffalign.alignment.settings import check_draws
from diffalign.randomness import keyed

Order = NDArray[np.intp]
# layers of all images, or of those at some positions: their neighbours among themselves
LayersOf = Callable[[Order | None], Sequence[Layer]]

# whole groups are dealt into at most so many parts, of which one at a time is left out
PARTS = 20
# fewer groups than this are cut in half image by image
_FEWEST_HALVED = 4


@dataclass(frozen=True, eq=False)
class Grouped:
    """Both sides of a comparison on the same images. names, groups: (N,). a: layers of the bundle. b: of the reference,
    which has one.
    """

    names: Sequence[str]
    groups: Sequence[str]
    a: LayersOf
    b: LayersOf

    def __post_init__(self) -> None:
        if len(self.names) != len(self.groups):
            raise ValueError(f"{len(self.groups)} groups of {len(self.names)} images")

    def halves(self, seed: int) -> tuple[Order, Order]:
        """Positions of the images of two halves, ascending, as `Groups.halves`; of single images where there are fewer
        than four groups.
        """
        groups = Groups.of(self.groups)
        return (groups if groups.count >= _FEWEST_HALVED else Groups.of(self.names)).halves(seed)


def within_groups(groups: Sequence[str], draws: int, seed: int) -> Iterator[Order]:
    """Random orders (N,) that move images within their groups alone, keyed by (seed, draw).

    Raises ValueError where every image is a group of its own, so that nothing can move.
    """
    members = sorted(set(groups))
    if len(members) == len(groups):
        raise ValueError(f"each of {len(groups)} images is a group of its own: there is nothing to permute within them")
    of = np.searchsorted(members, groups)
    # places of the images, group by group, and in each group at random
    places = np.argsort(of, kind="stable")
    for draw in range(draws):
        order = np.empty(len(groups), np.intp)
        order[places] = np.lexsort((keyed(seed, "within groups", str(draw)).random(len(groups)), of))
        yield order


def against(
    metrics: Sequence[str],
    sides: Grouped,
    keep: Order | None,
    settings: Settings,
    drawn: Drawn,
    memory: float = 2**30,
) -> dict[str, Against]:
    """Measure all layers against the reference, as `series.against`, with nulls and errors of the module's docstring.

    keep: positions (M,) of the images, ascending; None for all. Where no group has two images there are no nulls.
    Metrics that declare `NoNull` have none either. Raises ValueError where a null is undefined although the score is
    not.
    """
    kept = np.arange(len(sides.names)) if keep is None else keep
    groups = [sides.groups[i] for i in kept]
    layers, reference = sides.a(keep), sides.b(keep)
    scores = measure_grid(metrics, layers, reference, settings, memory)
    calibrations: dict[str, Calibration] = {}
    if len(set(groups)) < len(groups):
        check_draws(drawn.draws, drawn.alpha)
        orders = list(within_groups(groups, drawn.draws, drawn.seed))
        for name, null in _permuted(scores, layers, reference, settings, orders, memory).items():
            highest = METRICS[name].highest(settings.k)
            calibrations[name] = calibrate_by_permutations(scores[name], null, highest, drawn.alpha)
    intervals = _intervals(metrics, sides, kept, settings, drawn.seed, scores, memory)
    return {name: Against(scores[name], intervals[name], calibrations.get(name)) for name in scores}


def _permuted(
    scores: dict[str, Grid],
    layers: Sequence[Layer],
    reference: Sequence[Layer],
    settings: Settings,
    orders: Sequence[Order],
    memory: float,
) -> dict[str, NDArray[np.float64]]:
    """Scores under each order of the images of the reference: metric -> (K, L, 1)."""
    wanted = [name for name in scores if not isinstance(METRICS[name].null, NoNull)]
    on_lists = [name for name in wanted if METRICS[name].uses_k]
    scorer = None
    if on_lists:
        lists = first_lists(layers, settings.k), first_lists(reference, settings.k)
        scorer = NeighborScores(on_lists, *lists, settings.k)
    declared = {name: METRICS[name].null for name in wanted}
    by_kernels = [name for name, each in declared.items() if isinstance(each, ClosedForm) and each.by_kernels]
    statistics: dict[str, Callable[[Order], Grid]] = {}
    for name, each in declared.items():
        if isinstance(each, Permutations) and each.statistic is not None:
            a, b = ([prepare(METRICS[name].needs, layer, settings) for layer in side] for side in (layers, reference))
            statistics[name] = each.statistic(a, b, settings.eps)
    again = [name for name in wanted if name not in (*on_lists, *by_kernels, *statistics)]
    null: dict[str, list[Grid]] = {name: [] for name in wanted if name not in by_kernels}
    for order in orders:
        found = {} if scorer is None else scorer.scores(settings.eps, order)
        found |= {name: statistic(order) for name, statistic in statistics.items()}
        if again:
            found |= measure_grid(again, layers, [layer.relabelled(order) for layer in reference], settings, memory)
        for name, values in found.items():
            null[name].append(values)
    drawn = {name: np.stack(values) for name, values in null.items()}
    if by_kernels:
        read = [[partial(prepare, "moments", layer, settings) for layer in side] for side in (layers, reference)]
        drawn |= permuted_cka(by_kernels, read[0], read[1], orders, settings.eps, memory)
    for name, values in drawn.items():
        if (np.isnan(values) & ~np.isnan(scores[name])).any():
            raise ValueError(f"{name}: the null is undefined although the score is not")
    return {name: tied(values, scores[name]) for name, values in drawn.items()}


def _intervals(
    metrics: Sequence[str],
    sides: Grouped,
    kept: Order,
    settings: Settings,
    seed: int,
    scores: dict[str, Grid],
    memory: float,
) -> dict[str, Interval]:
    """95 % intervals over groups, each (L, 1); over images, dealt out, where all are one group."""
    groups = Groups.of([sides.groups[i] for i in kept])
    whole = groups if groups.count > 1 else Groups.of([sides.names[i] for i in kept])
    part = whole.dealt(PARTS, seed, "groups")

    def without(left: Order) -> NDArray[np.float64]:
        rest = kept[left]
        found = measure_grid(metrics, sides.a(rest), sides.b(rest), settings, memory)
        return np.stack([found[name] for name in metrics])

    found = jackknife(np.stack([scores[name] for name in metrics]), part, without)
    return {name: Interval(found.low[i], found.high[i], found.error[i]) for i, name in enumerate(metrics)}
