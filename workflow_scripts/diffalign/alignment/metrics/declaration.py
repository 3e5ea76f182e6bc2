"""What a metric promises: its function, range, null and standard error; and what it may ask of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import factors, moments
from diffalign.alignment.graphs import KnnGraphs, Matches, restricted
from diffalign.alignment.nulls import KernelCubes, NullMoments, kernel_cubes
from diffalign.alignment.search.exact import Neighbors

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What scores depend on beside the features.

    k: neighbours that a score looks at. eps: added to the denominator of CKNNA and CKA. rbf_sigma: bandwidth of the
    RBF kernel, in units of the distance between unit rows.
    """

    k: int = 10
    eps: float = 0.0
    rbf_sigma: float = 1.0


@dataclass(frozen=True)
class Score:
    """A value, or NaN with the reason why there is none."""

    value: float
    undefined: str | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of one model, as metrics may need it; what no metric needs is never made.

    lists: its nearest neighbours. rows: unit rows (N, D) float32. folds: fold of each image for cross-validation.
    factors: its leading singular vectors, and cubes: third-order sums of its kernel, where they are stored. Each is a
    function, called when it is needed.
    """

    count: int
    lists: Callable[[], Neighbors]
    rows: Callable[[], NDArray[np.float32]]
    folds: Callable[[], NDArray[np.int64]]
    factors: Callable[[], factors.Factors] | None = None
    cubes: Callable[[], KernelCubes] | None = None

    def held(self) -> Layer:
        """The same layer, whose lists and rows are made once and kept."""
        return replace(self, lists=cache(self.lists), rows=cache(self.rows))

    def relabelled(self, order: NDArray[np.intp]) -> Layer:
        """The same layer with its images in another order (N,); folds stay where they are. For metrics on rows."""
        return Layer(self.count, self.lists, lambda: self.rows()[order], self.folds)

    def restricted(self, keep: NDArray[np.intp], k: int) -> Layer:
        """The same layer of some of the images, prepared as it was with all of them. Factors are made anew."""
        return Layer(
            len(keep),
            lambda: restricted(self.lists(), keep, k),
            lambda: self.rows()[keep],
            lambda: self.folds()[keep],
        )


@dataclass(frozen=True)
class Permutations:
    """A null of relabellings of the images of B.

    statistic: of the prepared layers of both sides, a function from an order (N,) to the scores (L_A, L_B), for metrics
    that have a faster way than preparing every relabelled layer of B anew. exact: of the neighbour graphs of both
    sides, the mean and standard deviation over all N! orders, in place of those of the orders drawn.
    """

    statistic: Callable[[Sequence[Any], Sequence[Any]], Callable[[NDArray[np.intp]], Grid]] | None = None
    exact: Callable[[KnnGraphs, KnnGraphs], NullMoments] | None = None


@dataclass(frozen=True)
class ClosedForm:
    """A null whose moments over all N! relabellings are known. moments: a function of both sides, without eps."""

    moments: Callable[[BothSides], NullMoments]


@dataclass(frozen=True)
class NoNull:
    """No null, and why: then there is neither a p-value nor a calibrated score."""

    reason: str


Null: TypeAlias = Permutations | ClosedForm | NoNull


@dataclass(frozen=True, eq=False)
class BothSides:
    """The layers of both sides as moments of nulls need them, prepared once for all metrics."""

    a: Sequence[Layer]
    b: Sequence[Layer]

    @property
    def count(self) -> int:
        """N."""
        return self.a[0].count

    @property
    def shape(self) -> tuple[int, int]:
        """(L_A, L_B)."""
        return len(self.a), len(self.b)

    @cached_property
    def kernel_sums(self) -> tuple[list[list[moments.Moments]], tuple[list[KernelCubes], list[KernelCubes]]]:
        """Of each side, sums of the linear kernel of every layer (without rows), and its third-order sums."""
        sums: list[list[moments.Moments]] = [[], []]
        cubes: tuple[list[KernelCubes], list[KernelCubes]] = [], []
        for side, layers in enumerate((self.a, self.b)):
            for layer in layers:
                of_layer = moments.moments(layer.rows())
                cubes[side].append(layer.cubes() if layer.cubes else kernel_cubes(of_layer))
                sums[side].append(_without_rows(of_layer))
        return sums, cubes

    @cached_property
    def pattern_sums(self) -> list[list[moments.Moments]]:
        """Of each side, sums of standardised rows of every layer, without rows."""
        return [
            [_without_rows(moments.moments(moments.standardised(layer.rows()))) for layer in layers]
            for layers in (self.a, self.b)
        ]


def _without_rows(of_layer: moments.Moments) -> moments.Moments:
    """The sums alone: the features are not needed again."""
    return replace(of_layer, rows=of_layer.rows[:, :0].copy())


@dataclass(frozen=True)
class Metric:
    """What a metric promises; property tests are made from it.

    function: for ``lists`` a function of the edges that pairs of layers share, for other needs one of two prepared
    layers and eps (for ``rbf`` of two sequences of layers). label: its name in figures. symmetric: score(a, b) =
    score(b, a). orthogonal: whether rotations of the features of a layer change nothing, which they do where columns
    are standardised or the mean of a row is taken off; the scale of a layer and the order of images never matter.
    lowest, highest: its range, infinite where unbounded; highest is a function of k. undefined: why it may
    be NaN. scaled: divided by the geometric mean of both layers' values with themselves. backward: edges of A are
    turned round. includes_self: an image counts among its own k neighbours. identical: whether equal layers score
    `highest` (or 1, where that is infinite). minimum_k: the smallest k it is defined for. chance: expected score of
    independent representations as a function of (N, k), or None where it depends on the representations and must be
    estimated. shares: for ``lists``, what each shared edge adds to the score, from which its standard error follows.
    error: for ``moments``, the standard error of the score of two layers. null: how its distribution without alignment
    is found; what has none says why.
    """

    function: Callable[..., Any]
    label: str
    needs: str
    symmetric: bool
    lowest: float
    highest: Callable[[int], float]
    null: Null
    orthogonal: bool = True
    undefined: str | None = None
    scaled: bool = False
    backward: bool = False
    includes_self: bool = False
    identical: bool = True
    minimum_k: int = 1
    chance: Callable[[int, int], float] | None = None
    shares: Callable[[Matches], Grid] | None = None
    error: Callable[[Any, Any], float] | None = None

    @property
    def uses_k(self) -> bool:
        """Whether the score depends on k."""
        return self.needs == "lists"


def one(k: int) -> float:
    """The highest score of metrics within [0, 1]."""
    return 1.0


def unbounded(k: int) -> float:
    """The highest score where there is none."""
    return math.inf


NO_SCALE = "the HSIC of a layer with itself is not positive, so the score has no scale"
CONSTANT = "all images of a layer have the same features"
AS_COSTLY = NoNull("one permutation costs as much as the score")
