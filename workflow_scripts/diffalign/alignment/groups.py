"""Groups of images that are not independent of each other: nulls exchange them, errors, folds and halves take them, as
wholes. Where every image is a group of its own, all of it is what it would be without groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import nulls
from diffalign.randomness import dealt, shuffled

Order = NDArray[np.intp]

# arrangements are counted up to here
_MANY = 10**9


@dataclass(frozen=True, eq=False)
class Exchanges:
    """Relabellings of the images of one side by whole groups: whole-block exchangeability within strata of groups
    (Winkler et al. 2015, "Multi-level block permutation", NeuroImage 123).

    A group takes the place of another of its stratum, image by image in the order of their rows, which is that of
    names. Groups of another stratum stay where they are. count: N. strata: each (G_s, m), rows of images of G_s groups
    of m images. scheme: how strata are made, in words.
    """

    count: int
    strata: tuple[Order, ...]
    scheme: str

    @property
    def groups(self) -> int:
        """Number of groups."""
        return sum(len(stratum) for stratum in self.strata)

    @property
    def moved(self) -> int:
        """Number of groups that have another to be exchanged with."""
        return sum(len(stratum) for stratum in self.strata if len(stratum) > 1)

    @property
    def is_free(self) -> bool:
        """Whether all N! orders can be drawn."""
        return len(self.strata) == 1 and self.strata[0].shape[1] == 1

    @property
    def arrangements(self) -> int:
        """Number of different orders, counted up to a billion."""
        product = 1
        for stratum in self.strata:
            for factor in range(2, len(stratum) + 1):
                product *= factor
                if product >= _MANY:
                    return _MANY
        return product

    def refusal(self, alpha: float) -> str | None:
        """Why nothing can be significant at level alpha; None where something can."""
        needed = math.ceil(1 / alpha - 1e-9)
        if self.arrangements >= needed:
            return None
        sizes = ", ".join(f"{len(stratum)} of {stratum.shape[1]}" for stratum in self.strata[:5])
        return (
            f"{self.groups} groups ({sizes} images) have {self.arrangements} arrangements ({self.scheme}); "
            f"significance at {alpha:g} needs at least {needed}"
        )

    def orders(self, draws: int, seed: int) -> Iterator[Order]:
        """Random orders (N,) of the images, keyed by (seed, draw): the same for every pair of layers and models."""
        for generator in nulls.generators(draws, seed):
            order = np.arange(self.count)
            for stratum in self.strata:
                order[stratum] = stratum[generator.permutation(len(stratum))]
            yield order


@dataclass(frozen=True, eq=False)
class Groups:
    """Which images are of one group. members: the G groups, in the order of their first images. codes: (N,), the group
    of each image.
    """

    members: tuple[str, ...]
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Sequence[str]) -> Groups:
        """The groups of N images, each of which names its own. Names of images make each a group of its own."""
        members = tuple(dict.fromkeys(groups))
        place = {member: code for code, member in enumerate(members)}
        return cls(members, np.array([place[group] for group in groups], np.int64))

    @property
    def count(self) -> int:
        """G."""
        return len(self.members)

    @property
    def alone(self) -> bool:
        """Whether every image is a group of its own."""
        return self.count == len(self.codes)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of errors over groups, of which each image may be one: G - 1."""
        return self.count - 1

    def at(self, keep: Order) -> Groups:
        """The groups of some of the images (M,)."""
        return Groups.of([self.members[code] for code in self.codes[keep]])

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums (G,) of values (N,) of the images of each group."""
        return np.asarray(np.bincount(self.codes, values, minlength=self.count), np.float64)

    def dealt(self, parts: int, seed: int, purpose: str) -> NDArray[np.int64]:
        """Part (N,) of every image, 0 … parts - 1: groups are dealt out as wholes, as `randomness.dealt`. Where there
        are fewer groups than parts, there are as many parts as groups.
        """
        return dealt(self.members, min(parts, self.count), seed, purpose)[self.codes]

    def halves(self, seed: int) -> tuple[Order, Order]:
        """Positions of the images of two halves of whole groups, ascending, keyed by (seed, group): one chooses, the
        other reports. Raises ValueError for a single group.
        """
        if self.count < 2:
            raise ValueError(f"{len(self.codes)} images are one group: there are no halves of whole groups")
        first = np.zeros(self.count, np.bool_)
        first[shuffled(self.members, seed, "halves")[: self.count // 2]] = True
        chosen = first[self.codes]
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)

    @cached_property
    def exchanges(self) -> Exchanges:
        """Exchanges of whole groups of one size."""
        return self._exchanges([""] * len(self.codes), "images" if self.alone else "whole groups of one size")

    def exchanges_within(self, labels: Sequence[str]) -> Exchanges:
        """Exchanges of whole groups of one size and with the same labels, image by image. labels: (N,)."""
        return self._exchanges(labels, f"{'images' if self.alone else 'whole groups of one size'} with one label")

    @cached_property
    def exchanges_inside(self) -> Exchanges:
        """Exchanges of single images within their groups, as `grouped.within_groups` draws them."""
        places = [np.flatnonzero(self.codes == code)[:, None] for code in range(self.count)]
        return Exchanges(len(self.codes), tuple(places), "images within groups")

    def _exchanges(self, labels: Sequence[str], scheme: str) -> Exchanges:
        if len(labels) != len(self.codes):
            raise ValueError(f"{len(labels)} labels of {len(self.codes)} images")
        places: list[list[int]] = [[] for _ in self.members]
        for image, code in enumerate(self.codes):
            places[code].append(image)
        strata: dict[tuple[int, tuple[str, ...]], list[list[int]]] = {}
        for images in places:
            strata.setdefault((len(images), tuple(labels[image] for image in images)), []).append(images)
        return Exchanges(len(self.codes), tuple(np.array(strata[key], np.intp) for key in sorted(strata)), scheme)
