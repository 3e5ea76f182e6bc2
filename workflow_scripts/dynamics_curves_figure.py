"""Bands, wavelets and features of the estimate of the image along a trajectory, beside a closed-form reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from diffalign import logs
from diffalign.figures import dynamics, grids, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

CURVES = (
    "model",
    "configuration",
    "step",
    "t",
    "of",
    "domain",
    "kind",
    "measure",
    "mean",
    "low",
    "high",
    "seeds",
    "samples",
)
TIMES = ("domain", "kind", "measure", "statistic", "t", "low", "high")
COLUMNS, HEIGHT = 4, 1.1
# how times are marked on a curve
MARKS: dict[str, dict[str, Any]] = {
    "half_rise": {"marker": "o", "markerfacecolor": "white", "markersize": 3.2},
    "emergence": {"marker": "o", "markersize": 3.2},
    "stabilisation": {"marker": "D", "markersize": 3.0},
}
_MODEL = style.COLORS[0]
# inches from a panel to the name of its vertical axis
_LABEL = 0.36
# relative energies beyond are cut off: early estimates can have many times the final energy
_HIGHEST = 2.0


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis. relative: each is divided by its final value."""

    title: str
    unit: str
    domain: str
    measures: tuple[str, ...]
    labels: tuple[str, ...]
    colors: tuple[Any, ...]
    relative: bool


def dynamics_curves_figure(
    curves: Path, times: Path, reference: Path | None, outputs: Sequence[Path], miniature: bool
) -> None:
    """Draw every band, wavelet level, slope and feature of the estimate over noise levels, a small panel a feature.

    curves, times: tables of a model. reference: the curves of its reference in the same configuration, dashed. Bands
    around curves are 95 % intervals over seeds. Energies of bands and wavelets are relative to their means in the
    final image, intervals with them, and cut off at twice these. Marks stand on the curves at the mean time of
    half-rise, emergence or stabilisation over samples, with its interval over seeds.
    """
    style.styled()
    table = tables.read(curves, CURVES, of=dynamics.ESTIMATE)
    marks = tables.read(times, TIMES)
    other = None if reference is None else tables.read(reference, CURVES, of=dynamics.ESTIMATE)
    shown = panels_of(table)
    figure, axes_of = grids.panels(len(shown), COLUMNS, HEIGHT)
    rows, across = grids.grid_of_panels(len(shown), COLUMNS)
    t = table["t"].to_numpy(np.float64)
    width = style.PAGE / across - 0.5
    for i, (axes, panel) in enumerate(zip(axes_of, shown, strict=True)):
        _panel(axes, panel, table, marks, other)
        dynamics.noise_axis(axes, t, width, labelled=i + across >= len(shown), above=i < across)
        if i // across < rows - 1:
            # below it the row ends early: numbers without a name
            axes.set_xlabel("")
        axes.set_title(panel.title)
        axes.set_ylabel(panel.unit)
        # at one distance from all panels, which takes less time than to align what is laid out
        axes.yaxis.set_label_coords(-_LABEL / width, 0.5)
    first = table.iloc[0]
    beside = "" if other is None else f" Dashed: {other['model'].iloc[0]}."
    made = f"{first['seeds']} x {first['samples']} samples; bands: 95 % over {first['seeds']} seeds"
    if first["seeds"] == 1:
        made = f"{first['samples']} samples of one seed, which has no interval"
    style.heading(
        figure,
        f"{dynamics.title_of(table)}: the estimate {dynamics.SYMBOLS[dynamics.ESTIMATE]} of the image from noise to "
        f"image, mean of {made}."
        f"{beside} Energies are relative to those of the final image.",
    )
    _legend(figure, shown, marks, other)
    style.save(figure, outputs, miniature)


def panels_of(table: pd.DataFrame) -> list[Panel]:
    """Panels in their order: bands, wavelets and slope of each space, then one a feature."""
    found: list[Panel] = []
    domains = [each for each in (dynamics.LATENTS, dynamics.IMAGES) if each in set(table["domain"])]
    for domain in domains:
        of_domain = table[table["domain"] == domain]
        bands = dynamics.ordered_measures(of_domain, dynamics.BAND)
        if bands:
            found.append(
                Panel(
                    *(f"bands, {domain}", "relative energy", domain, tuple(bands)),
                    tuple(dynamics.label_of(band) for band in bands),
                    tuple(style.COLORS[list(dynamics.BANDS).index(band)] for band in bands),
                    relative=True,
                )
            )
        wavelets = dynamics.ordered_measures(of_domain, dynamics.WAVELET)
        # latents are smaller than images and may have fewer levels
        levels = dynamics.wavelet_levels(wavelets)
        if wavelets:
            found.append(
                Panel(
                    *(f"wavelets, {domain}", "relative energy", domain, tuple(wavelets)),
                    tuple(f"wavelets: {dynamics.label_of(each, levels)}" for each in wavelets),
                    tuple(style.shades(levels + 1)[int(each.removeprefix("wavelet_"))] for each in wavelets),
                    relative=True,
                )
            )
    for domain in domains:
        of_domain = table[(table["domain"] == domain) & ~table["kind"].isin((dynamics.BAND, dynamics.WAVELET))]
        for measure in dict.fromkeys(map(str, of_domain["measure"])):
            label = dynamics.label_of(measure)
            title = f"{label}, {domain}" if measure == dynamics.SLOPE else label
            found.append(Panel(title, dynamics.unit_of(measure), domain, (measure,), ("",), (_MODEL,), relative=False))
    return found


def _panel(axes: Axes, panel: Panel, table: pd.DataFrame, times: pd.DataFrame, other: pd.DataFrame | None) -> None:
    highest = 0.0
    for measure, color in zip(panel.measures, panel.colors, strict=True):
        rows = _of(table, panel.domain, measure).sort_values("step")
        scale = float(rows["mean"].iloc[-1]) if panel.relative else 1.0
        if scale == 0:
            # a band without energy in the final image has no relative energy
            continue
        t, mean = rows["t"].to_numpy(np.float64), rows["mean"].to_numpy(np.float64) / scale
        axes.fill_between(t, rows["low"] / scale, rows["high"] / scale, color=color, alpha=0.2, linewidth=0)
        axes.plot(t, mean, color=color)
        highest = max(highest, float(mean.max()))
        if other is not None:
            beside = _of(other, panel.domain, measure).sort_values("step")
            final = float(beside["mean"].iloc[-1]) if panel.relative and len(beside) else 1.0
            if len(beside) and final:
                dashed = color if len(panel.measures) > 1 else style.QUIET
                axes.plot(beside["t"], beside["mean"] / final, color=dashed, linestyle="--", linewidth=style.THIN)
        for each in _of(times, panel.domain, measure).to_dict("records"):
            if each["statistic"] in MARKS and np.isfinite(each["t"]):
                # t falls along the trajectory
                at = float(np.interp(each["t"], t[::-1], mean[::-1]))
                if np.isfinite(each["low"]) and np.isfinite(each["high"]):
                    ends = np.clip((each["low"], each["high"]), t.min(), t.max())
                    axes.plot(ends, (at, at), color=color, linewidth=style.THIN)
                axes.plot(each["t"], at, color=color, zorder=3, markeredgewidth=style.THIN, **MARKS[each["statistic"]])
    if panel.relative:
        axes.set_ylim(0, min(_HIGHEST, max(1.15, 1.05 * highest)))
        axes.axhline(1, color=style.QUIET, linewidth=0.4, zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    grids.horizontal_lines(axes)


def _of(table: pd.DataFrame, domain: str, measure: str) -> pd.DataFrame:
    return table[(table["domain"] == domain) & (table["measure"] == measure)]


def _legend(figure: Any, shown: Sequence[Panel], times: pd.DataFrame, other: pd.DataFrame | None) -> None:
    entries: dict[str, Any] = {}
    for panel in shown:
        for label, color in zip(panel.labels, panel.colors, strict=True):
            if label:
                entries.setdefault(label, Line2D([], [], color=color))
    if any(not panel.relative for panel in shown):
        entries["slope or feature"] = Line2D([], [], color=_MODEL)
    if other is not None:
        entries["reference"] = Line2D([], [], color=style.QUIET, linestyle="--", linewidth=style.THIN)
    for statistic, mark in MARKS.items():
        if statistic in set(times["statistic"]):
            entries[dynamics.STATISTICS[statistic]] = Line2D(
                [], [], color="black", linestyle="", markeredgewidth=style.THIN, **mark
            )
    style.legend_below(figure, entries, 5)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "dynamics_curves_figure"):
        beside = dict(snakemake.input.items()).get("reference")
        dynamics_curves_figure(
            Path(snakemake.input.curves),
            Path(snakemake.input.times),
            None if beside is None else Path(beside),
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
