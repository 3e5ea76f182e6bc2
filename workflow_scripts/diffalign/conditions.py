"""The grammar of conditions. No other module parses their names.

    clean          unchanged images
    equivariance   one rotation and one scale per image
    noise_0.050    Gaussian noise of this standard deviation, in units of the range of pixels
    rotate_90      rotation in degrees, counter-clockwise
    scale_0.500    side of the input, as a share of the full side

Numbers have three decimals and degrees none, so that each condition has one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CLEAN, EQUIVARIANCE = "clean", "equivariance"
ROTATIONS = (0, 90, 180, 270)
SCALES = (1.0, 0.75, 0.5, 0.25)
_NAME = re.compile(
    r"clean|equivariance|noise_(?P<noise>[01]\.[0-9]{3})|rotate_(?P<rotate>90|180|270)|"
    r"scale_(?P<scale>0\.[0-9]{3})"
)


class UnknownCondition(ValueError):
    """A word is no condition."""


@dataclass(frozen=True)
class Condition:
    """The transform of all images of a condition.

    sigma: standard deviation of the noise, in (0, 1]; 0 without noise. rotation: degrees counter-clockwise. scale:
    share of the side of a model's input. rotation and scale are None for ``equivariance``, where each image has its
    own.
    """

    name: str
    sigma: float = 0.0
    rotation: int | None = 0
    scale: float | None = 1.0

    @property
    def is_scaled(self) -> bool:
        """Whether inputs of models are smaller."""
        return self.scale != 1.0


def parse_condition(name: str) -> Condition:
    """Parse a name. Raises UnknownCondition."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownCondition(
            f"'{name}' is no condition: write clean, equivariance, noise_ and a standard deviation with three decimals "
            "(noise_0.050), rotate_90, rotate_180, rotate_270, or scale_ and a share with three decimals (scale_0.500)"
        )
    for word in ("noise", "scale"):
        if match[word] and not 0 < float(match[word]) <= 1:
            raise UnknownCondition(f"'{name}': {match[word]} is not above 0 and at most 1")
    if match["noise"]:
        return Condition(name, sigma=float(match["noise"]))
    if match["rotate"]:
        return Condition(name, rotation=int(match["rotate"]))
    if match["scale"]:
        return Condition(name, scale=float(match["scale"]))
    return Condition(name, rotation=None, scale=None) if name == EQUIVARIANCE else Condition(name)


def is_condition(name: str) -> bool:
    """Whether a word is a condition. It need not be part of the study."""
    try:
        parse_condition(name)
    except UnknownCondition:
        return False
    return True


def separate_transforms(names: Iterable[str]) -> tuple[str, ...]:
    """The conditions, with ``equivariance`` replaced by one condition for each rotation and for each scale."""
    turns = [f"rotate_{degrees}" for degrees in ROTATIONS if degrees]
    shares = [f"scale_{scale:.3f}" for scale in SCALES if scale != 1]
    separate: list[str] = []
    for name in names:
        separate.extend([*turns, *shares] if name == EQUIVARIANCE else [name])
    return tuple(dict.fromkeys(separate))
