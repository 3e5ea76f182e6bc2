"""Every way to bring two sets of features into one space, by its name: fitted, and as arrays that a file can hold."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.groups import Groups
from diffalign.offenders import first_five, flagged
from diffalign.randomness import uniform
from diffalign.shared_space import landmarks
from diffalign.shared_space.half_shared import Encoder, HalfShared, fit_half_shared, targets
from diffalign.shared_space.linear_maps import (
    Affine,
    Padded,
    Relative,
    canonical,
    check_pair,
    fit_cca,
    fit_padded,
    fit_procrustes,
    fit_relative,
    fit_ridge,
    ridges,
)
from diffalign.shared_space.pairing import pairing
from diffalign.shared_space.predictivity import FOLDS, check_penalties, cross_validated
from diffalign.shared_space.rbf import Rbf, fit_rbf
from diffalign.specs import ALIGNMENTS

Array = NDArray[np.floating[Any]]

# the two sets as they are, each in its own units: what every method is compared with
UNALIGNED = "padded"
LINEAR = ("procrustes", "cca", "ridge")
METHODS = ALIGNMENTS
# methods with a training of their own for every seed
SEEDED = ("half_shared",)
# fewer images to fit or to measure cannot say anything
FEWEST = 2 * FOLDS
# nor can fewer groups of images that are not independent
FEWEST_GROUPS = FOLDS
_KINDS: Mapping[str, type] = {"affine": Affine, "padded": Padded, "relative": Relative, "rbf": Rbf, "encoder": Encoder}


class Transform(Protocol):
    """Takes rows (N, D) of the set that it was fitted to into the shared space."""

    def apply(self, x: Array) -> NDArray[np.float32]:
        """Rows (N, d) float32."""


@dataclass(frozen=True)
class Settings:
    """How two sets are aligned and measured.

    methods: of METHODS, with ``padded`` among them. landmarks: number of landmarks of ``rbf`` and anchors of
    ``relative``. choice: of landmarks, `landmarks.CHOICES`. c: mean affinity of ``rbf``. held_out: share of images that
    nothing is fitted to. components: of ``cca``; penalties: of ``ridge``, ``cca`` and of predictions, multiples of the
    mean eigenvalue; both are chosen by folds of the images that are fitted. half_shared: of ``half_shared``, and seeds:
    of its trainings. permutations, bootstrap: draws of nulls and of intervals. seed: of the split, landmarks, folds,
    permutations and bootstrap. k: neighbours of CKNNA. Raises ValueError that names the value.
    """

    methods: tuple[str, ...]
    landmarks: int
    choice: str
    c: float
    held_out: float
    components: tuple[int, ...]
    penalties: tuple[float, ...]
    half_shared: HalfShared
    seeds: tuple[int, ...]
    permutations: int
    bootstrap: int
    seed: int
    k: int = 10

    def __post_init__(self) -> None:
        for method in self.methods:
            check_method(method)
        if UNALIGNED not in self.methods:
            raise ValueError(f"methods are {', '.join(self.methods)}; '{UNALIGNED}' is missing, which all compare with")
        for key in ("methods", "seeds", "components"):
            if repeated := [str(each) for each, n in Counter(getattr(self, key)).items() if n > 1]:
                raise ValueError(f"{key} repeat: {first_five(repeated)}")
        if self.choice not in landmarks.CHOICES:
            raise ValueError(f"unknown choice of landmarks '{self.choice}'; allowed: {', '.join(landmarks.CHOICES)}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out = {self.held_out}: a share of images is between 0 and 1, both excluded")
        if not self.components or min(self.components) < 1:
            raise ValueError(f"components {list(self.components)}: each must be at least 1, and one is needed")
        if not self.seeds and set(SEEDED) & set(self.methods):
            raise ValueError(f"no seeds for {', '.join(SEEDED)}; at least 1 is needed, and 2 for an interval")
        for key, least in (("landmarks", 2), ("permutations", 19), ("bootstrap", 100), ("k", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} = {getattr(self, key)}; at least {least} is needed")
        check_penalties(self.penalties)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """Settings from plain values, as rules have them: lists for tuples, and a mapping for half_shared."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in params.items()
        }
        plain |= {
            "penalties": tuple(map(float, params["penalties"])),
            "half_shared": HalfShared(**params["half_shared"]),
        }
        return cls(**plain)

    @property
    def runs(self) -> list[tuple[str, int | None]]:
        """Every method, with each seed of those that are trained, else None."""
        return [(method, seed) for method in self.methods for seed in (self.seeds if method in SEEDED else (None,))]


@dataclass(frozen=True, eq=False)
class Pair:
    """A transform of either set into one space of d columns. chosen: what was chosen while fitting, by name."""

    first: Transform
    second: Transform
    chosen: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What folds of the fitted images choose. components, ridge: of CCA. penalty: of ridge. own_index: how often
    images of a fold are paired, by each linear method fitted to the other folds. best: the linear method with the
    largest, the first among equals; '' where there is none.
    """

    components: int
    ridge: float
    penalty: float
    own_index: Mapping[str, float]
    best: str


def run_name(method: str, seed: int | None) -> str:
    """``half_shared_0``, or the method alone."""
    return method if seed is None else f"{method}_{seed}"


def check_method(method: str) -> None:
    """Raise ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}' of alignment; allowed: {', '.join(METHODS)}")


def is_held_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Whether nothing is fitted to an image, (N,). It depends on its group and the seed alone, so that a group is held
    out as a whole, and a larger share holds out all that a smaller one does.

    groups: of each image; its own name where it is independent of all others. Raises ValueError where fewer than ten
    images, or five groups, are left on either side.
    """
    # another purpose than that of splits of data sets, whose parts would else be split no further
    held = np.array([uniform(seed, "shared space", group) < share for group in groups], np.bool_)
    out, of = int(held.sum()), Groups.of(groups)
    whole = len(set(of.codes[held].tolist()))
    for total, outside, least, what in (
        (len(groups), out, FEWEST, "images"),
        (of.count, whole, FEWEST_GROUPS, "groups of images"),
    ):
        if min(outside, total - outside) < least:
            raise ValueError(
                f"{total} {what} are too few: {outside} are held out and {total - outside} are left to fit; at least "
                f"{least} of each are needed"
            )
    return held


def fit(
    method: str,
    x: Array,
    y: Array,
    names: Sequence[str],
    labels: Sequence[str] | None,
    settings: Settings,
    seed: int,
    selection: Selection | None = None,
    groups: Sequence[str] | None = None,
) -> Pair:
    """Fit one method to rows x (N, D) and y (N, E) of the same images; held-out images are none of them.

    names: of rows, each once; rows may come in any order, and the fit is the same to the bit. labels: (N,), for
    half-shared encoders that are trained on them. seed: of a training. selection: of these images, which is made where
    it is needed and None; groups: for it, as of `select`. Landmarks are chosen in the first set, and are the same
    images in both. Raises ValueError for unknown methods, sets that differ in number, repeated names, NaN and infinite
    rows by name, constant sets, and fewer rows than landmarks.
    """
    check_method(method)
    x, y, names, labels, groups = _by_name(x, y, names, labels, groups)
    if method in ("rbf", "relative"):
        if len(names) < settings.landmarks:
            raise ValueError(f"{settings.landmarks} landmarks of {len(names)} images to fit; take fewer landmarks")
        rows = landmarks.choose(x, settings.landmarks, settings.choice, settings.seed, names)
        if method == "relative":
            return Pair(*fit_relative(x, y, rows))
        first, second = fit_rbf(x, rows, settings.c), fit_rbf(y, rows, settings.c)
        return Pair(first, second, {"gamma_first": first.gamma, "gamma_second": second.gamma})
    if method == "half_shared":
        wanted = targets(settings.half_shared, names, labels, seed)
        return Pair(*fit_half_shared(x, y, wanted, settings.half_shared, seed))
    if method in ("cca", "ridge"):
        return _selected(method, x, y, selection or select(x, y, names, settings, groups))
    return Pair(*(fit_procrustes if method == "procrustes" else fit_padded)(x, y))


def _selected(method: str, x: Array, y: Array, by: Selection) -> Pair:
    """CCA or ridge regression with what folds chose."""
    if method == "cca":
        return Pair(*fit_cca(x, y, by.components, by.ridge), {"components": by.components, "ridge": by.ridge})
    return Pair(*fit_ridge(x, y, by.penalty), {"penalty": by.penalty})


def select(
    x: Array, y: Array, names: Sequence[str], settings: Settings, groups: Sequence[str] | None = None
) -> Selection:
    """Choose components and penalties by folds of the images that are fitted, and the best linear method among those
    of the settings. x: (N, D), y: (N, E). groups: (N,), of images that are not independent, which folds take as wholes;
    None where each is a group of its own.

    Each fold is judged by the fit to the others. Of every method those numbers are chosen that pair most images of a
    fold with themselves, the same by which methods are compared. Among equals ridge takes the penalty with the largest
    R², and CCA the first in the order given. Raises ValueError as `fit`, for fewer images or groups than can be dealt
    into folds, and where all numbers of components are too large.
    """
    x, y, names, _, groups = _by_name(x, y, names, None, groups)
    of = Groups.of(groups)
    for count, least, what in ((len(names), FEWEST, "images"), (of.count, FEWEST_GROUPS, "groups of images")):
        if count < least:
            raise ValueError(f"{count} {what} to fit are too few; at least {least} are needed")
    folds = of.dealt(FOLDS, settings.seed, "shared space folds")
    r2 = dict(zip(settings.penalties, cross_validated(x, y, folds, settings.penalties).tolist(), strict=True))
    credit: dict[tuple[str, int, float], float] = {}
    # what one fold does not allow none does
    allowed = list(settings.components)
    for fold in range(FOLDS):
        inside = folds == fold
        train, test = (x[~inside], y[~inside]), (x[inside], y[inside])
        made: dict[tuple[str, int, float], tuple[Transform, Transform]] = {
            ("procrustes", 0, 0.0): fit_procrustes(*train)
        }
        for penalty, predicting in zip(settings.penalties, ridges(*train, settings.penalties), strict=True):
            made["ridge", 0, penalty] = predicting
        for ridge, variates in zip(settings.penalties, canonical(*train, settings.penalties), strict=True):
            allowed = [count for count in allowed if count <= variates.first[1].shape[1]]
            made |= {("cca", count, ridge): variates.leading(count) for count in allowed}
        for key, (first, second) in made.items():
            paired = pairing(first.apply(test[0]), second.apply(test[1])).own_index
            credit[key] = credit.get(key, 0.0) + paired * int(inside.sum()) / len(names)
    if not allowed:
        raise ValueError(
            f"components {list(settings.components)} are all more than the canonical variates of {len(names)} images "
            f"of {x.shape[1]} and {y.shape[1]} dimensions; take fewer"
        )
    cca = max((("cca", count, ridge) for count in allowed for ridge in settings.penalties), key=credit.__getitem__)
    best_ridge = max((("ridge", 0, each) for each in settings.penalties), key=lambda key: (credit[key], r2[key[2]]))
    every = {key[0]: credit[key] for key in (("procrustes", 0, 0.0), cca, best_ridge)}
    own_index = {method: every[method] for method in LINEAR if method in settings.methods}
    best = max(own_index, key=own_index.__getitem__) if own_index else ""
    return Selection(cca[1], cca[2], best_ridge[2], own_index, best)


def arrays(pair: Pair) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Kinds of both transforms, side -> kind, and their fields as arrays, ``side/field`` or ``side/field/number``."""
    kinds: dict[str, str] = {}
    made: dict[str, NDArray[Any]] = {}
    for side, transform in (("first", pair.first), ("second", pair.second)):
        kinds[side] = next(kind for kind, of in _KINDS.items() if type(transform) is of)
        for each in dataclasses.fields(transform):  # type: ignore[arg-type]
            value = getattr(transform, each.name)
            if isinstance(value, tuple):
                made |= {f"{side}/{each.name}/{i}": np.ascontiguousarray(part) for i, part in enumerate(value)}
            else:
                # ascontiguousarray makes a number a row
                made[f"{side}/{each.name}"] = np.asarray(value, order="C")
    return kinds, made


def from_arrays(kinds: Mapping[str, str], made: Mapping[str, NDArray[Any]], chosen: Mapping[str, float]) -> Pair:
    """What `arrays` took apart. Raises ValueError for unknown kinds, and missing fields, by name."""
    sides: list[Transform] = []
    for side in ("first", "second"):
        kind = kinds.get(side, "")
        if kind not in _KINDS:
            raise ValueError(f"unknown kind '{kind}' of the {side} transform; allowed: {', '.join(_KINDS)}")
        of = _KINDS[kind]
        sides.append(of(**{each.name: _field(made, f"{side}/{each.name}") for each in dataclasses.fields(of)}))
    return Pair(sides[0], sides[1], dict(chosen))


def _field(made: Mapping[str, NDArray[Any]], name: str) -> Any:
    if name in made:
        return made[name].item() if made[name].ndim == 0 else made[name]
    numbered = [key for key in made if key.startswith(f"{name}/")]
    if not numbered:
        raise ValueError(f"'{name}' is missing; there: {', '.join(sorted(made)) or 'nothing'}")
    return tuple(made[f"{name}/{i}"] for i in range(len(numbered)))


def _by_name(
    x: Array, y: Array, names: Sequence[str], labels: Sequence[str] | None, groups: Sequence[str] | None
) -> tuple[Array, Array, list[str], list[str] | None, list[str]]:
    """Rows in the order of names, so that sums are the same to the bit whatever the order they come in. Groups are the
    names where there are none.
    """
    for each, which in ((x, "first"), (y, "second")):
        if each.ndim != 2 or len(each) != len(names):
            raise ValueError(f"features of the {which} set have shape {each.shape}; expected ({len(names)}, D)")
        bad = ~np.asarray(np.isfinite(each).all(axis=1))
        if bad.any():
            raise ValueError(f"features of the {which} set are NaN or infinite for {first_five(flagged(names, bad))}")
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        raise ValueError(f"names repeat: {first_five(repeated)}")
    for words, what in ((labels, "labels"), (groups, "groups")):
        if words is not None and len(words) != len(names):
            raise ValueError(f"{len(words)} {what} for {len(names)} images")
    check_pair(x, y)
    order = sorted(range(len(names)), key=names.__getitem__)
    return (
        np.ascontiguousarray(x[order]),
        np.ascontiguousarray(y[order]),
        [names[i] for i in order],
        None if labels is None else [labels[i] for i in order],
        [(names if groups is None else groups)[i] for i in order],
    )
