"""What figures of models and people share: panels by model, chance, and what people can be predicted by."""

from __future__ import annotations

import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes


def by_model(bundles: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Model -> its bundles and the names that were typed for them, in the order given."""
    found: dict[str, dict[str, str]] = {}
    for bundle, name in bundles.items():
        found.setdefault(re.split("[-_]", bundle)[0], {})[bundle] = name
    return found


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours of so many curves, in order of a noise level or another variant."""
    return [plt.get_cmap("viridis")(x) for x in np.linspace(0.1, 0.85, count)]


def chance_line(axes: Axes, chance: float) -> None:
    """A dotted line at chance."""
    axes.axhline(chance, color="0.4", linewidth=0.8, linestyle=":", label="chance")


def ceiling_band(axes: Axes, ceilings: Mapping[str, float] | None) -> None:
    """A band between the two ceilings of people; nothing where no triplet was judged twice."""
    if ceilings is not None:
        label = "people, of these triplets: leave-one-out to majority"
        axes.axhspan(ceilings["leave_one_out"], ceilings["majority"], color="0.85", linewidth=0, label=label)
