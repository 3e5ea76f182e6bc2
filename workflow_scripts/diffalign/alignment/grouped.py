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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import moments
from diffalign.alignment.calibration import Calibration, calibrate_by_permutations
from diffalign.alignment.intervals import jackknife
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
from diffalign.alignment.series import Against, Drawn, halves
from diffalign.alignment.settings import check_draws
from diffalign.randomness import dealt, keyed, shuffled

Order = NDArray[np.intp]
# layers of all images, or of those at some positions: their neighbours among themselves
LayersOf = Callable[[Order | None], Sequence[Layer]]

# whole groups are dealt into at most so many parts, of which one at a time is left out
PARTS = 20
# fewer groups than this are cut in half image by image
_FEWEST_HALVED = 4
# scores that differ by less are equal: sums of the same numbers in another order
_TIE = 1e-6


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
        """Positions of the images of two halves, ascending, as `series.halves`; of whole groups if there are four."""
        members = sorted(set(self.groups))
        if len(members) < _FEWEST_HALVED:
            return halves(self.names, seed)
        order = shuffled(members, seed, "halves")
        chosen = {members[i] for i in order[: len(order) // 2]}
        first = np.array([group in chosen for group in self.groups])
        return np.flatnonzero(first), np.flatnonzero(~first)


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
        orders = within_groups(groups, drawn.draws, drawn.seed)
        for name, null in _permuted(scores, layers, reference, settings, orders, memory).items():
            highest = METRICS[name].highest(settings.k)
            calibrations[name] = calibrate_by_permutations(scores[name], null, highest, drawn.alpha)
    errors = _errors(metrics, sides, kept, settings, drawn.seed, scores, memory)
    return {name: Against(scores[name], errors[name], calibrations.get(name)) for name in scores}


def _permuted(
    scores: dict[str, Grid],
    layers: Sequence[Layer],
    reference: Sequence[Layer],
    settings: Settings,
    orders: Iterable[Order],
    memory: float,
) -> dict[str, NDArray[np.float64]]:
    """Scores under each order of the images of the reference: metric -> (K, L, 1)."""
    wanted = [name for name in scores if not isinstance(METRICS[name].null, NoNull)]
    on_lists = [name for name in wanted if METRICS[name].uses_k]
    scorer = None
    if on_lists:
        lists = first_lists(layers, settings.k), first_lists(reference, settings.k)
        scorer = NeighborScores(on_lists, *lists, settings.k)
    statistics = {
        name: statistic
        for name in wanted
        if name not in on_lists and (statistic := _statistic(name, layers, reference, settings)) is not None
    }
    again = [name for name in wanted if name not in on_lists and name not in statistics]
    null: dict[str, list[Grid]] = {name: [] for name in wanted}
    for order in orders:
        found = {} if scorer is None else scorer.scores(settings.eps, order)
        found |= {name: statistic(order) for name, statistic in statistics.items()}
        if again:
            found |= measure_grid(again, layers, [layer.relabelled(order) for layer in reference], settings, memory)
        for name, values in found.items():
            null[name].append(values)
    return {name: _tied(name, np.stack(values), scores[name]) for name, values in null.items()}


def _tied(name: str, null: NDArray[np.float64], scores: Grid) -> NDArray[np.float64]:
    """A null (K, L, 1) whose values are the score where they differ by rounding, so that they count against it."""
    if (np.isnan(null) & ~np.isnan(scores)).any():
        raise ValueError(f"{name}: the null is undefined although the score is not")
    return np.asarray(np.where(np.isclose(null, scores, rtol=_TIE, atol=_TIE * 1e-3), scores, null))


def _statistic(
    name: str, layers: Sequence[Layer], reference: Sequence[Layer], settings: Settings
) -> Callable[[Order], Grid] | None:
    """A function from an order of the reference to scores (L, 1), where there is one faster than measuring again."""
    metric = METRICS[name]
    if isinstance(metric.null, Permutations) and metric.null.statistic is not None:
        a, b = ([prepare(metric.needs, each, settings) for each in side] for side in (layers, reference))
        return metric.null.statistic(a, b, settings.eps)
    if isinstance(metric.null, ClosedForm) and name in ("cka", "unbiased_cka"):
        rows, other = [each.rows() for each in layers], reference[0].rows()
        return _cka_statistic(rows, other, name == "unbiased_cka", settings.eps)
    return None


def _cka_statistic(
    layers: Sequence[NDArray[np.float32]], reference: NDArray[np.float32], unbiased: bool, eps: float
) -> Callable[[Order], Grid]:
    """Linear CKA under relabelling, by kernels: <K, L_π> is all that changes. Memory: 8 N² bytes a layer."""
    a, b = [moments.moments(rows) for rows in layers], moments.moments(reference)
    kernels = np.stack([_kernel(each) for each in a]).reshape(len(a), -1)
    other = _kernel(b)

    def hsic(x: moments.Moments, product: float, squares: NDArray[np.float64]) -> float:
        return moments.unbiased_hsic(product, x.squares, squares) if unbiased else product

    own = [hsic(x, float(np.square(_kernel(x)).sum()), x.squares) for x in (*a, b)]
    scales = [np.sqrt(each * own[-1]) if each > 0 and own[-1] > 0 else np.nan for each in own[:-1]]

    def scores(order: Order) -> Grid:
        products = kernels @ other[np.ix_(order, order)].ravel()
        squares = b.squares[order]
        values = [hsic(x, float(p), squares) / (scale + eps) for x, p, scale in zip(a, products, scales, strict=True)]
        return np.array(values)[:, None]

    return scores


def _kernel(layer: moments.Moments) -> NDArray[np.float64]:
    """The kernel (N, N) of centred rows."""
    rows = layer.rows.astype(np.float64)
    return np.asarray(rows @ rows.T)


def _errors(
    metrics: Sequence[str],
    sides: Grouped,
    kept: Order,
    settings: Settings,
    seed: int,
    scores: dict[str, Grid],
    memory: float,
) -> dict[str, Grid]:
    """Standard errors over groups, each (L, 1); over images, dealt out, where all are one group."""
    groups = [sides.groups[i] for i in kept]
    members = sorted(set(groups))
    if len(members) == 1:
        names = [sides.names[i] for i in kept]
        part = dealt(names, min(PARTS, len(names)), seed, "groups")
    else:
        of_group = dict(zip(members, dealt(members, min(PARTS, len(members)), seed, "groups"), strict=True))
        part = np.array([of_group[group] for group in groups], np.int64)

    def without(left: Order) -> NDArray[np.float64]:
        rest = kept[left]
        found = measure_grid(metrics, sides.a(rest), sides.b(rest), settings, memory)
        return np.stack([found[name] for name in metrics])

    error = jackknife(np.stack([scores[name] for name in metrics]), part, without).error
    return dict(zip(metrics, error, strict=True))
