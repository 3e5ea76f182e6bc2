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
    """One line over depth: a value a layer, its 95 % interval and its threshold, NaN where there is none."""

    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    threshold: NDArray[np.float64]
    label: str
    threshold_label: str
    color: str
    width: float


def depth_curve(axes: Axes, layers: Sequence[str], curves: Sequence[Curve], chance: float | None) -> None:
    """Draw scores over the depth of one model, with bands of their intervals and dashed thresholds of their nulls."""
    positions = np.arange(len(layers))
    for curve in curves:
        band(axes, curve.low, curve.high, curve.color)
        axes.plot(
            positions,
            curve.values,
            marker="o",
            markersize=1.8 * curve.width,
            linewidth=curve.width,
            color=curve.color,
            label=curve.label,
        )
    for curve in curves:
        if np.isfinite(curve.threshold).any():
            axes.plot(
                *(positions, curve.threshold, "--"),
                color=curve.color,
                linewidth=style.THIN,
                label=curve.threshold_label,
            )
    if chance is not None:
        chance_line(axes, chance)
    grids.layer_ticks(axes, layers, "x", 20)
    grids.horizontal_lines(axes)


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
