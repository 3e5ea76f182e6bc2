"""One colour space for all nodes of a graph: the same colour means the same place in the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.shared_space.affinity import check_rows

# shares of nodes at which a channel reaches 0 and 1, so that a few outliers do not take its range
_LOW, _HIGH = 0.02, 0.98
# spread of a component, as a share of the first one's, below which it is rounding
_FLAT = 1e-5


def rgb(coordinates: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Colours (N, 3) in [0, 1] of nodes at coordinates (N, k), as of `ncut.Ncut.coordinates`.

    The first three principal components are red, green and blue, each scaled so that 2 % of nodes lie at or below 0
    and 2 % at or above 1. Components beyond the rank are 1/2. The sign of a component is the one in which its cubes sum
    up to no less than 0. Nothing is drawn, and the order of nodes does not matter. Raises ValueError for nodes that are
    NaN or infinite, or fewer than 2.
    """
    check_rows(coordinates, "coordinates")
    if len(coordinates) < 2:
        raise ValueError("colours of 1 node; a colour is a place among at least 2")
    centred = coordinates.astype(np.float64) - coordinates.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    components = centred @ directions[:, ::-1][:, :3]
    components *= np.where(np.power(components, 3).sum(axis=0) < 0, -1.0, 1.0)
    made = np.full((len(coordinates), 3), 0.5, np.float32)
    least = _FLAT * np.sqrt(max(values[-1], 0) / len(coordinates))
    for channel, component in enumerate(components.T):
        low, high = np.quantile(component, (_LOW, _HIGH))
        if high - low <= least:
            # most nodes are alike in it; the others are what it shows
            low, high = component.min(), component.max()
        if high - low > least:
            made[:, channel] = np.clip((component - low) / (high - low), 0, 1)
    return made
