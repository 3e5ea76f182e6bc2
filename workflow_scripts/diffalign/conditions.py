"""The grammar of conditions: the one module that takes their names apart.

    clean          the images as they are
    equivariance   one rotation and one scale an image
    noise_0.050    Gaussian noise of this standard deviation, in units of the range of pixels
    rotate_90      every image turned by so many degrees, counter-clockwise
    scale_0.500    every input of this share of its side

Numbers have three decimals, degrees none, so that a condition has one name.
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
    """A word that is no condition."""


@dataclass(frozen=True)
class Condition:
    """What is done to every image. sigma: of noise, in (0, 1]. rotation: degrees counter-clockwise. scale: share of the
    side of a model's input. Rotation and scale are None under ``equivariance``, where every image has its own.
    """

    name: str
    sigma: float = 0.0
    rotation: int | None = 0
    scale: float | None = 1.0

    @property
    def is_scaled(self) -> bool:
        """Whether models see smaller inputs."""
        return self.scale != 1.0


def parse_condition(name: str) -> Condition:
    """Take a name apart. Raises UnknownCondition."""
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
    """Whether a word is a condition, of the study or not."""
    try:
        parse_condition(name)
    except UnknownCondition:
        return False
    return True


def separate_transforms(names: Iterable[str]) -> tuple[str, ...]:
    """The same conditions with every rotation and every scale by itself in the place of ``equivariance``."""
    turns = [f"rotate_{degrees}" for degrees in ROTATIONS if degrees]
    shares = [f"scale_{scale:.3f}" for scale in SCALES if scale != 1]
    separate: list[str] = []
    for name in names:
        separate.extend([*turns, *shares] if name == EQUIVARIANCE else [name])
    return tuple(dict.fromkeys(separate))
