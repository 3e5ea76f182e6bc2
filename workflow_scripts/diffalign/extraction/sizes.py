"""Sides of what a model is fed where images are scaled, checked before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffalign.models import Loaded
from diffalign.offenders import first_five


def scaled_side(side: int, scale: float) -> int:
    """The side of a scaled input in pixels, rounded down as published."""
    # 0.29 x 100 is a little less than 29
    return int(side * scale + 1e-6)


def check_sides(model: str, loaded: Loaded, sides: Mapping[str, int]) -> None:
    """Raise ValueError that names the sides and the first five images that the model cannot take.

    sides: name -> side of its input in pixels, or of its latent. A model takes multiples of `Loaded.multiple`, and
    where it has one, only its `Loaded.only_side`.
    """
    only = loaded.only_side
    if only is not None and (wrong := [name for name, side in sides.items() if side != only]):
        raise ValueError(
            f"{model} has a fixed table of positions for inputs of side {only}, but {len(wrong)} of {len(sides)} are "
            f"of side {_listed(sides, wrong)}, first: {first_five(wrong)}; leave the scaled condition out, or set "
            f"models.{model}.interpolate_positions: true where the family allows it"
        )
    step = loaded.multiple
    if wrong := [name for name, side in sides.items() if side < step or side % step]:
        raise ValueError(
            f"{model} takes inputs whose side is a multiple of {step}, but {len(wrong)} of {len(sides)} are of side "
            f"{_listed(sides, wrong)}, first: {first_five(wrong)}; change models.{model}.input.size, or leave the "
            "scaled condition out"
        )


def buckets(sides: Sequence[int], batch_size: int) -> list[list[int]]:
    """Positions of items, in batches of one side each: large sides first, otherwise in order."""
    batches: list[list[int]] = []
    for side in sorted(set(sides), reverse=True):
        members = [i for i, each in enumerate(sides) if each == side]
        batches.extend(members[at : at + batch_size] for at in range(0, len(members), batch_size))
    return batches


def _listed(sides: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(str(side) for side in sorted({sides[name] for name in names}))
