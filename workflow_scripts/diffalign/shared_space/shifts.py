"""Random shifts and flips of token grids: what chance gives where neighbouring tokens are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import keyed

BORDERS = ("torus", "mirror")


def grid_shifts(
    names: Sequence[str], grid: tuple[int, int], count: int, seed: int, border: str = "torus"
) -> NDArray[np.int32]:
    """(count, I T) numbers of tokens: draw p moves to token j what was at token `shifts[p, j]`.

    The T = rows x columns tokens of each of I images are shifted by random rows and columns and mirrored or not in both
    directions, each image by itself, so that values of a map stay next to each other; a permutation of single tokens
    would break what makes maps look alike by chance. Draws are keyed by (seed, image name).

    border: what a shift brings in at an edge. ``torus``: what left at the opposite edge, so that every token stays, and
    stays once; but what meets there did not lie together, and chance comes out a little too small. ``mirror``: the map
    mirrored at the edge, which is as smooth as the map, but has some tokens twice and others not at all.

    Raises ValueError for another border, fewer than 2 places on the grid, fewer than 1 draw, and names that repeat.
    """
    if border not in BORDERS:
        raise ValueError(f"unknown border '{border}'; allowed: {', '.join(BORDERS)}")
    rows, columns = grid
    if count < 1 or rows * columns < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"{count} shifts of grids of {rows} x {columns} tokens, of {len(names)} images of which "
            f"{len(set(names))} differ; expected 1 shift or more, 2 tokens or more, and each image once"
        )
    tokens = rows * columns
    made = np.empty((count, len(names), tokens), np.int32)
    for number, name in enumerate(names):
        draws = keyed(seed, "grid_shift", name)
        from_row, from_column = (_sources(draws, size, count, border) for size in grid)
        cells = from_row[:, :, None] * columns + from_column[:, None, :]
        made[:, number] = cells.reshape(count, tokens) + number * tokens
    return made.reshape(count, -1)


def _sources(draws: np.random.Generator, size: int, count: int, border: str) -> NDArray[np.int64]:
    """Where each place along one side comes from, (count, size)."""
    period = size if border == "torus" else 2 * size
    # -1 mirrors
    directions = draws.choice((-1, 1), (count, 1))
    places = (directions * np.arange(size) + draws.integers(0, period, (count, 1))) % period
    return np.where(places < size, places, period - 1 - places)
