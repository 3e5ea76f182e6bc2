"""Which images of a collection a data set has: one part of a split, and a sample. Both are keyed by names."""

from __future__ import annotations

from collections.abc import Sequence

from diffalign.dataset_specs import Split
from diffalign.randomness import sample, uniform

PARTS = ("train", "held_out")


class SelectionError(ValueError):
    """Images that are asked for and not there; the message says where, and how many there are."""


def part(names: Sequence[str], split: Split, seed: int, where: str) -> list[str]:
    """The names of one part of a split, in their order. where: begins messages.

    An image is held out where `uniform` of (seed, "split", name) is below the share `held_out`. So its part depends on
    no other image, and a larger share holds out all images that a smaller one does. Raises SelectionError for an
    unknown part, or an empty one.
    """
    if split.part not in PARTS:
        raise SelectionError(f"{where}: unknown part '{split.part}' of a split; allowed: {', '.join(PARTS)}")
    is_held_out = split.part == "held_out"
    chosen = [name for name in names if (uniform(seed, "split", name) < split.held_out) == is_held_out]
    if not chosen:
        raise SelectionError(
            f"{where}: part '{split.part}' of a split that holds out a share of {split.held_out:g} is empty; "
            f"there are {len(names)} images"
        )
    return chosen


def select(names: Sequence[str], split: Split | None, count: int | None, seed: int, where: str) -> list[str]:
    """The names of a data set, in their order: of a part where there is a split, and of these a sample of `count`.
    where: begins messages.

    Raises SelectionError as `part`, and where there are fewer than `count`.
    """
    chosen = list(names) if split is None else part(names, split, seed, where)
    if count is None:
        return chosen
    if count > len(chosen):
        of = "" if split is None else f" in the part '{split.part}' of the split"
        raise SelectionError(f"{where}: sample of {count} asked for, but there are {len(chosen)} images{of}")
    drawn = set(sample(chosen, count, seed))
    return [name for name in chosen if name in drawn]
