"""How a metric is declared: its function, range, null and standard error; and the layers that it is measured on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import factors, moments
from diffalign.alignment.graphs import KnnGraphs, Matches, knn_graphs
from diffalign.alignment.groups import Groups
from diffalign.alignment.nulls import KernelCubes, NullMoments, kernel_cubes
from diffalign.alignment.search.exact import Neighbors
from diffalign.alignment.ties import first, restricted

Grid = NDArray[np.float64]

# preparations of a layer that a metric can ask for
NEEDS = ("lists", "moments", "patterns", "factors", "ranks", "rbf", "regressions")


@dataclass(frozen=True)
class Settings:
    """Settings that scores depend on, in addition to the features.

    k: neighbours per image. eps: added to the denominator of CKNNA and CKA. rbf_sigma: bandwidth of the RBF kernel, in
    units of the distance between unit rows.
    """

    k: int = 10
    eps: float = 0.0
    rbf_sigma: float = 1.0


@dataclass(frozen=True)
class Score:
    """A score. undefined: the reason where the value is NaN, else None."""

    value: float
    undefined: str | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of one model. Fields are functions, called when a metric needs their value.

    count: N. lists: nearest neighbours. rows: (N, D) float32, `preparation.kernel_rows`. folds: fold of each image in
    cross-validation, (N,). factors: stored leading singular vectors; cubes: stored third-order sums of the kernel. None
    where nothing is stored; they are then computed from the rows.
    """

    count: int
    lists: Callable[[], Neighbors]
    rows: Callable[[], NDArray[np.float32]]
    folds: Callable[[], NDArray[np.int64]]
    factors: Callable[[], factors.Factors] | None = None
    cubes: Callable[[], KernelCubes] | None = None

    def held(self) -> Layer:
        """The same layer with cached lists and rows."""
        return replace(self, lists=cache(self.lists), rows=cache(self.rows))

    def relabelled(self, order: NDArray[np.intp]) -> Layer:
        """The same layer with its images in another order (N,), for metrics on anything but lists.

        Folds are not reordered: both sides of a pair share them. Lists are relabelled by `EdgeIndex.matches` instead
        and raise NotImplementedError here.
        """

        def no_lists() -> Neighbors:
            raise NotImplementedError("lists are relabelled as edges, by NeighborScores")

        stored = self.factors
        return Layer(
            self.count,
            no_lists,
            lambda: self.rows()[order],
            self.folds,
            None if stored is None else lambda: factors.Factors(stored().vectors[order]),
            self.cubes,
        )

    def restricted(self, keep: NDArray[np.intp], k: int) -> Layer:
        """The layer of a subset of its images (M,), with lists cut to k. Rows keep the preparation of the whole layer;
        stored factors and cubes are dropped, since they belong to all images.
        """
        return Layer(
            len(keep),
            lambda: restricted(self.lists(), keep, k),
            lambda: self.rows()[keep],
            lambda: self.folds()[keep],
        )


@dataclass(frozen=True)
class Permutations:
    """A null of random relabellings of the images of side B.

    statistic: takes the prepared layers of both sides and eps, and returns a function from an order (N,) to the scores
    (L_A, L_B). Give it where that is faster than preparing each relabelled layer of B again; its value at the identity
    must be the score. Not for metrics on lists, whose edges are relabelled. exact: takes the neighbour graphs of both
    sides and returns the mean and standard deviation over all N! orders, which replace those of the orders drawn. For
    metrics on lists only.
    """

    statistic: Callable[[Sequence[Any], Sequence[Any], float], Callable[[NDArray[np.intp]], Grid]] | None = None
    exact: Callable[[KnnGraphs, KnnGraphs], NullMoments] | None = None


@dataclass(frozen=True)
class ClosedForm:
    """A null whose moments over all N! relabellings have a formula.

    moments: a function of both sides. Formulas leave out the eps of the denominator, which makes scores smaller and so
    p-values larger. by_kernels: the score is linear CKA, which `kernel_permutations` has under any relabelling.
    """

    moments: Callable[[BothSides], NullMoments]
    by_kernels: bool = False


@dataclass(frozen=True)
class NoNull:
    """No null, for the given reason: the metric has neither p-values nor calibrated scores."""

    reason: str


Null: TypeAlias = Permutations | ClosedForm | NoNull


@dataclass(frozen=True, eq=False)
class KernelSums:
    """Of every layer of a side: sums of its linear kernel, without rows; third-order sums; and the effective numbers of
    images of the U-centred kernel (`unbiased`) and of the centred one (`biased`).
    """

    sums: list[moments.Moments]
    cubes: list[KernelCubes]
    unbiased: list[float]
    biased: list[float]


def _kernel_sums(layers: Iterable[Layer]) -> KernelSums:
    of_side = KernelSums([], [], [], [])
    for layer in layers:
        centred = moments.moments(layer.rows())
        of_side.cubes.append(layer.cubes() if layer.cubes else kernel_cubes(centred))
        of_side.unbiased.append(moments.effective_images(centred, unbiased=True))
        of_side.biased.append(moments.effective_images(centred, unbiased=False))
        of_side.sums.append(_without_rows(centred))
    return of_side


@dataclass(frozen=True, eq=False)
class BothSides:
    """The layers of both sides, with the sums that closed forms share. Sums are computed on first use and kept."""

    a: Sequence[Layer]
    b: Sequence[Layer]
    settings: Settings

    @property
    def count(self) -> int:
        """N."""
        return self.a[0].count

    @property
    def shape(self) -> tuple[int, int]:
        """(L_A, L_B)."""
        return len(self.a), len(self.b)

    @cached_property
    def graphs(self) -> tuple[KnnGraphs, KnnGraphs]:
        """Graphs of the first `settings.k` neighbours, of each side."""
        k = self.settings.k
        return knn_graphs(first_lists(self.a, k), k), knn_graphs(first_lists(self.b, k), k)

    @cached_property
    def kernel_sums(self) -> tuple[KernelSums, KernelSums]:
        """Sums of the linear kernel of every layer, for each side."""
        return _kernel_sums(self.a), _kernel_sums(self.b)

    @cached_property
    def pattern_sums(self) -> list[list[moments.Moments]]:
        """Sums of the standardised rows of every layer (without rows), for each side."""
        return [
            [_without_rows(moments.moments(moments.standardised(layer.rows()))) for layer in layers]
            for layers in (self.a, self.b)
        ]


def first_lists(layers: Iterable[Layer], k: int) -> list[Neighbors]:
    """The first k neighbours of every layer, and those that share the last places (`ties.first`). The longer stored
    lists are held for one layer at a time; lists that are too short stay as they are.
    """
    cut = []
    for layer in layers:
        lists = layer.lists()
        cut.append(first(lists, min(k, lists.k_max)))
    return cut


def _without_rows(centred: moments.Moments) -> moments.Moments:
    """The sums alone, so that the features can be freed."""
    return replace(centred, rows=centred.rows[:, :0].copy())


@dataclass(frozen=True)
class Metric:
    """The declaration of a metric. Property tests are generated from it.

    function: the score. For ``lists`` it takes the `Matches` of many pairs and returns their scores (L_A L_B,); for
    ``rbf`` two sequences of prepared layers and eps, and returns (L_A, L_B); for other needs two prepared layers and
    eps, and returns a float. label: name in figures. needs: the preparation, one of `NEEDS`. symmetric: score(a, b) =
    score(b, a). lowest, highest: range, infinite where unbounded; highest is a function of k. null: distribution of the
    score without alignment. orthogonal: whether the score is invariant to rotations of the features of a layer; it is
    not where columns are standardised or rows are centred. All metrics are invariant to the scale of a layer and to the
    order of images. undefined: why the score may be NaN. identical: whether equal layers score `highest` (or 1, where
    that is infinite). chance: expected score of independent representations as a function of (N, k); None where it
    depends on the representations and must be estimated.

    For ``lists`` only: scaled: divide by the geometric mean of both layers' values with themselves. backward: reverse
    the edges of A. includes_self: an image counts among its own k neighbours. minimum_k: smallest k with a score.
    ordered: the score depends on the order of a list, so it is the mean over random orders of equally similar
    neighbours; others give them a credit (`KnnGraphs`). shares: contribution of each shared edge to the score, from
    which the standard error follows. competing: edges of one image share one contribution, so that a variance is not at
    least that of independent edges.

    For ``moments`` only: error: standard error of the score of two layers, over images or over groups of them.
    difference: of two pairs of layers, the standard error of the difference of their scores, and the influence of every
    image or group on it. One goes with the other.

    Raises TypeError for a null of another type, ValueError for an unknown need, for a `NoNull` without a reason and for
    fields that do not go with the need or with each other.
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
    ordered: bool = False
    chance: Callable[[int, int], float] | None = None
    shares: Callable[[Matches], Grid] | None = None
    competing: bool = False
    error: Callable[[Any, Any, Groups | None], float] | None = None
    difference: Callable[[Any, Any, Groups | None], tuple[float, NDArray[np.float64]]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.null, Permutations | ClosedForm | NoNull):
            raise TypeError(f"the metric '{self.label}' declares no null: give Permutations, ClosedForm or NoNull")
        if self.needs not in NEEDS:
            raise ValueError(f"the metric '{self.label}': unknown need '{self.needs}'; allowed: {', '.join(NEEDS)}")
        if isinstance(self.null, NoNull) and not self.null.reason.strip():
            raise ValueError(f"the metric '{self.label}' has no null and gives no reason")
        permutations = self.null if isinstance(self.null, Permutations) else Permutations()
        for_lists = {
            "shares": self.shares,
            "scaled": self.scaled,
            "backward": self.backward,
            "includes_self": self.includes_self,
            "ordered": self.ordered,
            "competing": self.competing,
            "null.exact": permutations.exact,
        }
        misplaced = [] if self.uses_k else [field for field, value in for_lists.items() if value]
        if self.uses_k and permutations.statistic:
            misplaced.append("null.statistic")
        if self.includes_self and self.minimum_k < 2:
            raise ValueError(f"the metric '{self.label}' includes the image itself, so minimum_k is at least 2")
        if self.needs != "moments":
            misplaced += [field for field in ("error", "difference") if getattr(self, field)]
        elif (self.error is None) != (self.difference is None):
            raise ValueError(f"the metric '{self.label}' declares one of error and difference; declare both or none")
        if misplaced:
            raise ValueError(f"the metric '{self.label}' on {self.needs} cannot declare {', '.join(misplaced)}")

    @property
    def uses_k(self) -> bool:
        """Whether the score depends on k, which metrics on lists do."""
        return self.needs == "lists"


def one(k: int) -> float:
    """Highest score of metrics that end at 1."""
    return 1.0


def unbounded(k: int) -> float:
    """Highest score of metrics without an upper bound."""
    return math.inf


NO_SCALE = "the HSIC of a layer with itself is not positive, so the score has no scale"
CONSTANT = "all images of a layer have the same features"
UNDEFINED = "the score is undefined"
AS_COSTLY = NoNull("one permutation costs as much as the score")
