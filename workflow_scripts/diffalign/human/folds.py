"""How objects are dealt to the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import dealt

FOLD_RULES = ("name", "published")
# rnd_seed of the published probes and regressions
_PUBLISHED_SEED = 42


def folds_of(rule: str, names: Sequence[str], listed: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (N,) of every object, 0 … folds - 1.

    rule: ``name`` deals objects by (seed, name), whatever other objects there are. ``published`` is scikit-learn's
    KFold(folds, shuffle=True, random_state=42) over the list of objects, as in the code of Linhardt et al. 2024 and in
    human_alignment: the shuffled list is cut into stretches, of which the first ones are longer by one. listed: place
    (N,) of every object in that list. Raises ValueError for another rule, or for more folds than objects.
    """
    if rule not in FOLD_RULES:
        raise ValueError(f"unknown rule of folds '{rule}'; allowed: {', '.join(FOLD_RULES)}")
    if folds > len(names):
        raise ValueError(f"{folds} folds of {len(names)} objects; take fewer folds")
    if rule == "name":
        return dealt(names, folds, seed, "folds")
    order = np.arange(len(names))
    np.random.RandomState(_PUBLISHED_SEED).shuffle(order)
    fold_in_list = np.empty(len(names), np.int64)
    for fold, places in enumerate(np.array_split(order, folds)):
        fold_in_list[places] = fold
    return fold_in_list[listed]
