"""The axis of noise levels of figures of models: log-SNR with t below it, noise to the right.

log-SNR is infinite where there is no noise or no image: these levels stand beyond the others, at a distance that means
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from diffalign.figures import style
from diffalign.figures.dynamics import log_snr_text
from diffalign.noise import log_snr

Array = NDArray[np.float64]
# inches between the middles of ticks that have room for their numbers
_ROOM = 0.24


def positions(t: ArrayLike) -> Array:
    """Where noise levels (S,) stand: -log-SNR, and those at 0 and 1 one step beyond the others, a step being the mean
    distance of the others, or 2.
    """
    values = np.array([-log_snr(each) for each in np.asarray(t, np.float64).tolist()])
    finite = np.unique(values[np.isfinite(values)])
    step = float(np.diff(finite).mean()) if len(finite) > 1 else 2.0
    first, last = (float(finite[0]), float(finite[-1])) if len(finite) else (step / 2, -step / 2)
    return np.where(values == -np.inf, first - step, np.where(values == np.inf, last + step, values))


def edges(at: Array) -> Array:
    """Edges (S + 1,) of cells around rising positions (S,): midway between neighbours, and as far beyond the ends."""
    if len(at) == 1:
        return np.array([at[0] - 1, at[0] + 1])
    middles = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middles[0]], middles, [2 * at[-1] - middles[-1]]])


def dress(axes: Axes, t: Sequence[float], width: float, names: Sequence[str] = (), labelled: bool = True) -> None:
    """Ticks at noise levels, rising in t: log-SNR with t below it, and below both what a level is called where that is
    not its t. width: of the panel in inches, about; levels without room have no numbers. labelled: with the name of
    the axis.
    """
    at = positions(t)
    borders = edges(at)
    axes.set_xlim(borders[0], borders[-1])
    per_inch = (borders[-1] - borders[0]) / width
    words, last = [], -math.inf
    for i, level in enumerate(t):
        lines = [log_snr_text(log_snr(level)).removesuffix(".0"), f"{level:.2g}"]
        if names and names[i] != f"t{level:g}":
            lines.append(names[i])
        has_room = at[i] - last >= _ROOM * per_inch
        words.append("\n".join(lines) if has_room else "")
        last = at[i] if has_room else last
    axes.set_xticks(at, words)
    if labelled:
        axes.set_xlabel("log-SNR, below it t = σ/(α + σ)")


def noise_map(
    axes: Axes, t: Sequence[float], values: NDArray[np.floating], limits: tuple[float, float], color_map: str
) -> QuadMesh:
    """Draw a map (R, S) over noise levels, rising in t, cells without a value grey; rows are 1 high and upwards."""
    colors = plt.get_cmap(color_map).with_extremes(bad=style.MISSING)
    upwards = np.arange(len(values) + 1) - 0.5
    mesh = axes.pcolormesh(
        edges(positions(t)),
        upwards,
        np.ma.masked_invalid(values),
        vmin=limits[0],
        vmax=limits[1],
        cmap=colors,
        rasterized=True,
        linewidth=0,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    return mesh


def framed_cell(axes: Axes, t: Sequence[float], row: int, column: int) -> None:
    """Draw a frame around a cell of a `noise_map`."""
    borders = edges(positions(t))
    for color, width in (("white", 1.8), ("black", 0.8)):
        place = (float(borders[column]), row - 0.5)
        frame = Rectangle(place, float(borders[column + 1] - borders[column]), 1, fill=False, edgecolor=color)
        frame.set(linewidth=width, clip_on=False, zorder=3)
        axes.add_patch(frame)
