"""Tokens of several models on one grid: resampled by a named rule and never cut, named, and beside masks of parts.

Grids are (rows, columns), and tokens lie in reading order, row by row from the top. A cell of a grid of r rows is an
r-th of the height of the image, so that grids of any two sizes cover the same picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five
from diffalign.specs import RESAMPLING

Grid = tuple[int, int]

# nearest: the token of the cell in which the middle of the new cell lies. area: the mean of tokens over the area of the
# new cell, each by its share of it. bilinear: the four tokens whose middles lie around that of the new cell, by
# distance; beyond the outermost middles the outermost token; where cells grow, it passes over tokens between them
RULES = RESAMPLING


def common_grid(grids: Mapping[str, Grid], rule: str | None) -> Grid:
    """The grid of all these models or layers: the one that they share, or with a rule the coarsest (of equal numbers of
    cells the first).

    Raises ValueError without a grid, for an unknown rule, and, where there is no rule, for two that differ, by name.
    """
    if not grids:
        raise ValueError("no model or layer was given, so there is no common grid")
    _check_rule(rule)
    for grid in grids.values():
        _check_grid(grid)
    first = next(iter(grids))
    if rule is None:
        other = next((name for name, grid in grids.items() if grid != grids[first]), first)
        if other != first:
            raise ValueError(_differ((first, other), grids[first], grids[other]))
    return min(grids.values(), key=lambda grid: grid[0] * grid[1])


def on_grid(
    tokens: NDArray[np.floating],
    from_grid: Grid,
    to_grid: Grid,
    rule: str | None,
    models: tuple[str, str] = ("these tokens", "the common grid"),
) -> NDArray[np.float32]:
    """Tokens (N, T, C) of a grid on another one, (N, T', C) float32. rule: one of RULES; None allows no other grid.

    Weights of every new token sum to 1, in float64. models: whose the two grids are, for messages. Raises ValueError
    for two grids without a rule, that names both; for an unknown rule, for tokens that do not fill their grid, and that
    are NaN or infinite.
    """
    _check_rule(rule)
    _check_grid(from_grid)
    _check_grid(to_grid)
    if tokens.ndim != 3 or tokens.shape[1] != from_grid[0] * from_grid[1]:
        raise ValueError(f"tokens of {models[0]} are {tokens.shape}; expected (N, {from_grid[0]} x {from_grid[1]}, C)")
    if not np.isfinite(tokens).all():
        raise ValueError(f"tokens of {models[0]} are NaN or infinite")
    if from_grid == to_grid:
        return np.asarray(tokens, np.float32)
    if rule is None:
        raise ValueError(_differ(models, from_grid, to_grid))
    count, _, channels = tokens.shape
    rows, columns = (weights(old, new, rule) for old, new in zip(from_grid, to_grid, strict=True))
    made = np.empty((count, *to_grid, channels), np.float32)
    for number, image in enumerate(tokens):
        laid = image.reshape(*from_grid, channels).astype(np.float64)
        # of the columns first, then of the rows
        made[number] = np.tensordot(rows, columns @ laid, 1)
    return made.reshape(count, -1, channels)


def weights(old: int, new: int, rule: str) -> NDArray[np.float64]:
    """What each of `old` cells of a side gives to each of `new` ones, (new, old); rows sum to 1. Raises ValueError for
    an unknown rule.
    """
    _check_rule(rule)
    if rule == "area":
        starts, cells = np.arange(new)[:, None] * (old / new), np.arange(old)
        overlaps = np.minimum(starts + old / new, cells + 1) - np.maximum(starts, cells)
        shares = np.maximum(overlaps, 0)
        # an overlap that is rounding alone is none
        shares[shares < 1e-9] = 0
        made: NDArray[np.float64] = shares / shares.sum(1, keepdims=True)
        return made
    middles = (np.arange(new) + 0.5) * (old / new)
    made = np.zeros((new, old))
    if rule == "nearest":
        made[np.arange(new), np.minimum(middles.astype(np.int64), old - 1)] = 1
        return made
    # middles of old cells are at 0.5, 1.5 …
    at = np.clip(middles - 0.5, 0, old - 1)
    below = np.minimum(at.astype(np.int64), max(old - 2, 0))
    above = np.minimum(below + 1, old - 1)
    np.add.at(made, (np.arange(new), below), 1 - (at - below))
    np.add.at(made, (np.arange(new), above), at - below)
    return made


def part_of_cells(mask: NDArray[np.integer], grid: Grid, coverage: float = 0.5) -> NDArray[np.int64]:
    """The part that each cell of a grid shows, (rows, columns).

    mask: (H, W), numbers of parts from 1, and 0 for none; a pixel that two cells share counts for each by its area.
    coverage: the share of its cell, from above 0 to 1, that the largest part must have; 0 stands where none does. Of
    parts of equal share the lowest number counts. Raises ValueError for a coverage or a mask that is none.
    """
    _check_grid(grid)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage {coverage}; expected a share above 0, at most 1")
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer) or mask.min(initial=0) < 0:
        raise ValueError(f"a mask of parts is an array (H, W) of numbers from 0, not {mask.dtype} {mask.shape}")
    rows, columns = (weights(old, new, "area") for old, new in zip(mask.shape, grid, strict=True))
    numbers = np.unique(mask[mask > 0])
    if not len(numbers):
        return np.zeros(grid, np.int64)
    shares = np.stack([rows @ (mask == number) @ columns.T for number in numbers])
    # shares that are equal but for rounding are equal
    shares = np.round(shares, 9)
    largest = shares.argmax(0)
    enough = shares.max(0) >= coverage
    chosen: NDArray[np.int64] = np.where(enough, numbers.astype(np.int64)[largest], 0)
    return chosen


def keys(names: Sequence[str], grid: Grid) -> tuple[str, ...]:
    """One key for each token, ``name/row/column``, image by image in reading order. Raises ValueError where two images
    have one name.
    """
    _check_grid(grid)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names stand more than once: {first_five(twice)}")
    return tuple(f"{name}/{row}/{column}" for name in names for row in range(grid[0]) for column in range(grid[1]))


def _differ(models: tuple[str, str], first: Grid, second: Grid) -> str:
    return (
        f"{models[0]} has tokens on a grid of {first[0]} x {first[1]}, {models[1]} on one of {second[0]} x "
        f"{second[1]}; name a rule by which tokens are resampled: {', '.join(RULES)}"
    )


def _check_rule(rule: str | None) -> None:
    if rule is not None and rule not in RULES:
        raise ValueError(f"unknown rule of resampling '{rule}'; allowed: {', '.join(RULES)}")


def _check_grid(grid: Grid) -> None:
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"a grid is two numbers, rows and columns, from 1, not {grid}")
