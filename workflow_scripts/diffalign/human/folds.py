"""How objects are dealt to the folds of a cross-validation, and which triplets lie within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.human.triplets import TripletError, Triplets
from diffalign.randomness import dealt

FOLD_RULES = ("name", "published")
# rnd_seed of the published probes and regressions
_PUBLISHED_SEED = 42
# R² within a fold of one object is undefined
_FEWEST = 2


def folds_of(rule: str, names: Sequence[str], listed: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (N,) of every object, 0 … folds - 1.

    rule: ``name`` deals objects by (seed, name), whatever other objects there are. ``published`` is scikit-learn's
    KFold(folds, shuffle=True, random_state=42) over the list of objects, as in the code of Linhardt et al. 2024 and in
    human_alignment: the shuffled list is cut into stretches, of which the first ones are longer by one. listed: place
    (N,) of every object in that list. Raises ValueError for another rule, and for folds of fewer than two objects.
    """
    if rule not in FOLD_RULES:
        raise ValueError(f"unknown rule of folds '{rule}'; allowed: {', '.join(FOLD_RULES)}")
    if folds * _FEWEST > len(names):
        allowed = (
            f"2 to {len(names) // _FEWEST}" if len(names) >= 2 * _FEWEST else f"none, from {2 * _FEWEST} objects on"
        )
        raise ValueError(
            f"{folds} folds of {len(names)} objects: a fold holds fewer than {_FEWEST}; "
            f"allowed numbers of folds: {allowed}"
        )
    if rule == "name":
        return dealt(names, folds, seed, "folds")
    order = np.arange(len(names))
    np.random.RandomState(_PUBLISHED_SEED).shuffle(order)
    fold_in_list = np.empty(len(names), np.int64)
    for fold, places in enumerate(np.array_split(order, folds)):
        fold_in_list[places] = fold
    return fold_in_list[listed]


@dataclass(frozen=True, eq=False)
class Split:
    """One outer fold. trained, stopped, tested: masks (T,) of the triplets for training, early stopping and accuracy.

    objects: mask (N,) of the training objects, to which preprocessing is fitted.
    """

    trained: NDArray[np.bool_]
    stopped: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    objects: NDArray[np.bool_]


def nested_splits(
    triplets: Triplets,
    names: Sequence[str],
    folds: int,
    inner: int,
    seed: int,
    outer: NDArray[np.int64] | None = None,
) -> list[Split]:
    """Object-disjoint splits, one per fold. Objects are dealt to `folds` by (seed, name); one in `inner` of the objects
    outside of a fold is for early stopping. Triplets with objects of different parts are left out.

    outer: the fold (N,) of every object in place of the dealt one. Raises TripletError where a part holds no triplet.
    """
    if len(names) != triplets.count:
        raise ValueError(f"{len(names)} names for {triplets.count} objects")
    if outer is None:
        outer = dealt(names, folds, seed, "folds")
    splits = []
    for fold in range(folds):
        rest = np.flatnonzero(outer != fold)
        stops = np.zeros(len(names), bool)
        stops[rest[dealt([names[int(i)] for i in rest], inner, seed, f"stop {fold}") == 0]] = True
        seen = (outer != fold) & ~stops
        masks = []
        for what, objects in (("to train on", seen), ("to stop by", stops), ("to report on", outer == fold)):
            masks.append(triplets.where_all(objects))
            if not masks[-1].any():
                raise TripletError(
                    f"{triplets.where}: no triplet lies wholly among the {int(objects.sum())} objects {what} of fold "
                    f"{fold} of {folds}; take fewer folds or more triplets"
                )
        splits.append(Split(masks[0], masks[1], masks[2], seen))
    return splits
