"""Random shifts and flips of token grids: what chance gives where neighbouring tokens are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import keyed


def grid_shifts(names: Sequence[str], grid: tuple[int, int], count: int, seed: int) -> NDArray[np.int32]:
    """(count, I T) numbers of tokens: draw p moves to token j what was at token `shifts[p, j]`.

    The T = rows x columns tokens of each of I images are turned around the edges of their grid by random rows and
    columns (as on a torus) and mirrored or not in both directions, each image by itself, so that values of a map stay
    next to each other; a permutation of single tokens would break what makes maps look alike by chance. Draws are keyed
    by (seed, image name). Raises ValueError for fewer than 2 places on the grid, fewer than 1 draw, and names that
    repeat.
    """
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
        down, right = draws.integers(0, (rows, columns), (count, 2)).T
        # -1 mirrors
        flip_rows, flip_columns = draws.choice((-1, 1), (count, 2)).T
        from_row = (flip_rows[:, None] * np.arange(rows) + down[:, None]) % rows
        from_column = (flip_columns[:, None] * np.arange(columns) + right[:, None]) % columns
        cells = from_row[:, :, None] * columns + from_column[:, None, :]
        made[:, number] = cells.reshape(count, tokens) + number * tokens
    return made.reshape(count, -1)
