"""CKNNA from clean to noisy images, for every pair of models, and how each model holds against the transforms."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from diffalign import logs
from diffalign.conditions import CLEAN, parse_condition
from diffalign.figures import grids, style
from diffalign.io.score_recipes import is_miniature, read_recipe

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Estimates = Mapping[str, Mapping[str, Any]]


def se_cknna_figure(recipes: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw two panels: left the scores of all pairs over the conditions, right every layer on clean images with itself
    on transformed ones.
    """
    style.styled()
    read = [read_recipe(path) for path in recipes]
    axis = Axis([name for recipe in read for name in recipe["conditions"]])
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE, 2.3), layout="constrained")
    for number, recipe in enumerate(read):
        of_pair: Estimates = {CLEAN: recipe["clean"], **recipe["conditions"]}
        draw_null(left, axis, of_pair, number)
        draw(left, axis, of_pair, pair_label(recipe), number, len(read))
    robust: dict[str, Estimates] = {}
    for recipe in read:
        for side, of_side in recipe["robustness"].items():
            robust[side_label(recipe, side)] = {CLEAN: {"value": 1.0}, **of_side["conditions"]}
    for number, (label, scores) in enumerate(robust.items()):
        draw(right, axis, scores, label, number, len(robust))
    seen = "both models on the same images" if read[0]["reference"] == "same" else "the second model on clean images"
    left.set_title(style.wrapped(f"Pairs of models: {seen}", 2.9))
    left.set_ylabel("CKNNA")
    right.set_title("Each model: transformed against clean images")
    right.set_ylabel("CKNNA with itself")
    for axes in (left, right):
        axis.dress(axes)
        # from 0 on, where nothing is shared, or below it
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), high)
        axes.axhline(0, color=style.QUIET, linewidth=style.THIN)
        legend_below(axes)
    first = read[0]
    style.heading(
        figure,
        f"{first['dataset']}: N = {first['n']}, k = {first['k']}. Bars: 95 % intervals over images. "
        "Dots: mean of the null.",
    )
    style.save(figure, outputs, any(is_miniature(recipe) for recipe in read), table(read))


def table(recipes: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a condition of every pair (a and b) and of every model with itself (b is empty), with 95 % intervals and
    the mean of the null.
    """
    rows = []
    for recipe in recipes:
        a, b = side_label(recipe, "a"), side_label(recipe, "b")
        drawn = [(a, b, {CLEAN: recipe["clean"], **recipe["conditions"]})]
        drawn += [(side_label(recipe, side), "", of["conditions"]) for side, of in recipe["robustness"].items()]
        for first, second, estimates in drawn:
            for condition, estimate in estimates.items():
                numbers = {key: estimate.get(key) for key in ("value", "low", "high", "null_mean")}
                facts = {key: recipe[key] for key in ("dataset", "n", "k")}
                rows.append(facts | {"a": first, "b": second, "condition": condition} | numbers)
    numbers_of = dict.fromkeys(("value", "low", "high", "null_mean"), "float64")
    # a model stands in several pairs, with itself it is the same
    return pd.DataFrame(rows).astype(numbers_of).drop_duplicates(["dataset", "a", "b", "condition"])


class Axis:
    """Where conditions stand: clean and noise at their standard deviations, the others to the right of them."""

    def __init__(self, conditions: Sequence[str]) -> None:
        words = list(dict.fromkeys([CLEAN, *conditions]))
        sigmas = {word: parse_condition(word).sigma for word in words}
        noise = sorted((word for word in words if word == CLEAN or sigmas[word]), key=lambda word: sigmas[word])
        self.others = [word for word in words if word not in noise]
        self.noise = noise
        step = max(sigmas[noise[-1]], 0.05) / max(1, len(noise) - 1)
        self.last = sigmas[noise[-1]]
        self.step = step
        self.at = {word: sigmas[word] for word in noise}
        self.at |= {word: self.last + (i + 1.5) * step for i, word in enumerate(self.others)}

    @property
    def width(self) -> int:
        """Ticks."""
        return len(self.at)

    def dress(self, axes: Axes) -> None:
        """Ticks, the line between noise and the others, the label."""
        labels = [f"{sigma:g}" if word != CLEAN else CLEAN for word, sigma in self.at.items() if word in self.noise]
        turned = [word.replace("_", " ") for word in self.others]
        axes.set_xticks(list(self.at.values()), [*labels, *turned])
        if len(self.others) > 1:
            for label in axes.get_xticklabels()[len(labels) :]:
                label.set(rotation=25, ha="right", rotation_mode="anchor")
        if self.others:
            axes.axvline(self.last + 0.75 * self.step, color=style.MISSING, linewidth=style.THIN)
        axes.set_xlabel("standard deviation of the noise\n(range of pixel values: 1)", loc="left")
        grids.horizontal_lines(axes)


def legend_below(axes: Axes) -> None:
    """A legend under the label of the horizontal axis, whatever height the axes will have."""
    figure = axes.figure.figure
    figure.draw_without_rendering()
    labels = axes.xaxis.get_tightbbox()
    under = 0.0 if labels is None else labels.y0 - axes.bbox.y0
    place = axes.transAxes + ScaledTranslation(0, under / figure.dpi, figure.dpi_scale_trans)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=place, borderaxespad=0.2)


def draw(axes: Axes, axis: Axis, scores: Estimates, label: str, number: int, count: int) -> None:
    """One line over the noise levels and a marker for every other condition, with bars of intervals."""
    # bars of several lines stand side by side
    aside = (number - (count - 1) / 2) * min(0.08, 0.4 / count) * axis.step
    for words, line in ((axis.noise, "-"), (axis.others, "none")):
        drawn = [word for word in words if word in scores and scores[word]["value"] is not None]
        values = [scores[word]["value"] for word in drawn]
        bounds = [[_reach(scores[word], bound) for word in drawn] for bound in ("low", "high")]
        axes.errorbar(
            [axis.at[word] + aside for word in drawn],
            values,
            bounds,
            linestyle=line,
            label=label if line == "-" else None,
            elinewidth=style.THIN,
            capsize=1.4,
            **style.look(number),  # type: ignore[arg-type]
        )


def draw_null(axes: Axes, axis: Axis, scores: Estimates, number: int) -> None:
    """Dots at the mean of the null of every condition, and a dotted line through them over the noise levels."""
    color = style.look(number)["color"]
    for words, line in ((axis.noise, ":"), (axis.others, "none")):
        drawn = [word for word in words if scores.get(word, {}).get("null_mean") is not None]
        means = [scores[word]["null_mean"] for word in drawn]
        axes.plot([axis.at[word] for word in drawn], means, color=color, linestyle=line, marker=".", markersize=2)


def _reach(estimate: Mapping[str, Any], bound: str) -> float:
    """From the value to a bound; 0 where there is none."""
    reached = estimate.get(bound)
    return 0.0 if reached is None or math.isnan(reached) else abs(float(reached) - float(estimate["value"]))


def pair_label(recipe: Mapping[str, Any]) -> str:
    """The pair with its SE-CKNNA and the change from clean."""
    pair = f"{side_label(recipe, 'a')} vs {side_label(recipe, 'b')}"
    mean = recipe["mean"]["value"]
    if mean is None:
        return f"{pair}: undefined"
    relative = recipe["relative_change"]
    change = ""
    if relative["value"] is not None:
        change = f", {100 * relative['value']:+.1f} %"
        if relative["low"] is not None:
            change += f" ({100 * relative['low']:+.1f} to {100 * relative['high']:+.1f})"
    null = recipe["null"]
    above = "" if null is None else f", null {null['mean']:.3f}"
    given = f"\nnot independent: {recipe['leak']}" if recipe.get("leak") else ""
    return f"{pair}:\nSE-CKNNA {mean:.3f}{change}{above}{given}"


def side_label(recipe: Mapping[str, Any], side: str) -> str:
    """A bundle and its layer."""
    return f"{recipe[side]['bundle']} {recipe[side]['layers'][0]['layer']}"


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "se_cknna_figure"):
        se_cknna_figure([Path(path) for path in snakemake.input.recipes], [Path(path) for path in snakemake.output])
