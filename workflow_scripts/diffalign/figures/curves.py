"""Lines over depth with their intervals and thresholds, and nulls beside what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from diffalign.figures import grids, style


@dataclass(frozen=True)
class Curve:
    """One line over depth: a value a layer, its 95 % interval, and of its null the mean and the threshold, NaN where
    there is none. outlined: the interval is drawn as two lines, else as a band, so that two of them can be told apart.
    """

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    null_mean: NDArray[np.float64]
    threshold: NDArray[np.float64]
    label: str
    interval_label: str
    null_label: str
    threshold_label: str
    color: str
    width: float
    outlined: bool


def depth_curve(axes: Axes, positions: NDArray[np.float64], curves: Sequence[Curve], joined: bool) -> None:
    """Draw scores over the layers of one model, with their intervals, and the mean and the threshold of their nulls.

    positions: (L,), where layers stand. joined: whether layers follow each other; else they are points side by side,
    with bars of their intervals. The axis begins at 0 or below.
    """
    step = float(np.diff(positions).min()) if len(positions) > 1 else 1.0
    for number, curve in enumerate(curves):
        at = positions if joined else positions + step * (number - (len(curves) - 1) / 2) * 0.2
        lines = (
            (curve.values, "-", "os"[number % 2], curve.width, curve.label),
            (curve.threshold, "--", "_", style.THIN, curve.threshold_label),
            (curve.null_mean, ":", "_", style.LINE, curve.null_label),
        )
        for values, dashes, marker, width, label in lines:
            if not np.isfinite(values).any():
                continue
            is_score = values is curve.values
            look: dict[str, Any] = {"linestyle": dashes if joined else "none", "linewidth": width, "label": label}
            if is_score or not joined or np.isfinite(values).sum() == 1:
                look |= {"marker": marker, "markersize": 1.8 * curve.width if is_score else 4.0}
            axes.plot(at, values, color=curve.color, **look)
            if is_score:
                _interval(axes, at, curve, joined)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    grids.horizontal_lines(axes)


def _interval(axes: Axes, at: NDArray[np.float64], curve: Curve, joined: bool) -> None:
    if not np.isfinite(curve.low).any():
        return
    if not joined or len(at) == 1:
        axes.vlines(at, curve.low, curve.high, color=curve.color, linewidth=style.THIN, label=curve.interval_label)
    elif curve.outlined:
        for bound, label in ((curve.low, curve.interval_label), (curve.high, "_")):
            axes.plot(at, bound, color=curve.color, linewidth=0.4, label=label)
    else:
        axes.fill_between(
            at, curve.low, curve.high, color=curve.color, alpha=0.2, linewidth=0, label=curve.interval_label
        )


def band(axes: Axes, low: ArrayLike, high: ArrayLike, color: Any) -> None:
    """A band between two bounds a layer."""
    axes.fill_between(np.arange(len(np.asarray(low))), low, high, color=color, alpha=0.16, linewidth=0)


def chance_line(axes: Axes, chance: float) -> None:
    """A dotted line at chance."""
    axes.axhline(chance, color=style.QUIET, linewidth=style.THIN, linestyle=":", label="chance")


def null_histogram(
    axes: Axes, null: NDArray[np.float64], observed: float, threshold: float, threshold_label: str
) -> None:
    """Draw drawn values of a null (K,), the observed value as a line and the threshold dashed."""
    axes.hist(null, bins=15, color="0.75")
    _observed(axes, observed, threshold, threshold_label)


def null_density(
    axes: Axes, moments: tuple[float, float, float], observed: float, threshold: float, threshold_label: str
) -> None:
    """Draw the Pearson type III density with this mean, standard deviation and skewness, as `null_histogram` does."""
    from scipy.stats import pearson3

    mean, sd, skewness = moments
    at = np.linspace(mean - 4.5 * sd, mean + 6 * sd, 300)
    density = np.asarray(pearson3.pdf(at, skewness, loc=mean, scale=sd))
    axes.fill_between(at, density, color="0.75", linewidth=0)
    axes.set_ylim(bottom=0)
    _observed(axes, observed, threshold, threshold_label)


def _observed(axes: Axes, observed: float, threshold: float, threshold_label: str) -> None:
    axes.axvline(observed, color=style.BEST, linewidth=style.THICK, label="observed")
    axes.axvline(threshold, color="black", linewidth=style.THIN, linestyle="--", label=threshold_label)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=4)
