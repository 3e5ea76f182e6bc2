"""Power spectra along a trajectory: frequency over noise levels, of a model and of its closed-form reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import dynamics, grids, maps, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = ("model", "configuration", "step", "t", "of", "domain", "frequency", "power", "floor")
_OF = (dynamics.STATE, dynamics.ESTIMATE, dynamics.ERROR)
# noise levels that are drawn as lines
_LINES = 6
_FEW = 4
# colours and lines end so far below the highest power, as a factor
_DEPTH = 1e-6
# inches of a panel, about
_WIDTH = 1.6
_NAMES = {of: symbol if of == dynamics.ERROR else f"power of {symbol}" for of, symbol in dynamics.SYMBOLS.items()}


def spectra_figure(
    spectra: Path, reference: Path | None, domain: str, outputs: Sequence[Path], miniature: bool
) -> None:
    """Draw radially averaged power of the state, of the estimate and of the estimate's error against the final image.

    spectra, reference: tables `spectra` of a model and of its reference in the same configuration. domain: ``latents``
    or ``images``. Maps have frequency upwards, which begins above 0, and one scale a column for both models. Below,
    power over frequency at 6 noise levels, the reference dashed in grey at the last of them. Where the table has a
    noise floor, the power of the noise in x_t/α, a line in the maps joins the frequencies at which it equals the power
    of the final image. Dotted lines are the noise in x_t beside its power, and the floor beside the error.
    """
    style.styled()
    drawn = {"model": tables.read(spectra, COLUMNS, domain=domain)}
    if reference is not None:
        drawn["reference"] = tables.read(reference, COLUMNS, domain=domain)
    titles = {key: str(table["model"].iloc[0]) for key, table in drawn.items()}
    found = {key: {of: _grid(table, of, "power") for of in _OF} for key, table in drawn.items()}
    floors = {key: _grid(table, dynamics.ESTIMATE, "floor") for key, table in drawn.items()}
    rows = len(drawn) + 1
    figure, panels = plt.subplots(
        rows,
        3,
        figsize=(style.PAGE, 1.45 * len(drawn) + 1.75),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": [1.0] * len(drawn) + [1.1]},
    )
    for column, of in enumerate(_OF):
        norm = _norm([each[of] for each in found.values()])
        for row, (key, each) in enumerate(found.items()):
            axes = panels[row, column]
            _map(axes, each[of], floors[key], each[dynamics.ESTIMATE], norm)
            last = row == len(drawn) - 1
            dynamics.noise_axis(axes, each[of].attrs["t"], _WIDTH, labelled=last, above=row == 0)
            axes.set_title(style.wrapped(f"{_NAMES[of]}, {titles[key]}", _WIDTH))
        other = found["reference"][of] if "reference" in found else None
        noise = None if of == dynamics.ESTIMATE else _grid(drawn["model"], of, "floor")
        _lines(panels[-1, column], found["model"][of], noise, other, norm)
        panels[-1, column].set_title(style.wrapped(f"{_NAMES[of]}, {titles['model']}", _WIDTH))
    for axes in panels[:-1, 0]:
        axes.set_ylabel("cycles per pixel")
    panels[-1, 0].set_ylabel("power")
    style.heading(figure, _heading(drawn, domain, bool(np.isfinite(floors["model"].to_numpy()).any())))
    grids.shared_legend(figure, [panels[-1, 2], panels[0, 0]], 5)
    style.save(figure, outputs, miniature)


def _grid(table: pd.DataFrame, of: str, value: str) -> pd.DataFrame:
    """(frequencies above 0, noise levels in order of steps). Columns are steps, with `t` in the attributes."""
    rows = table[(table["of"] == of) & (table["frequency"] > 0)]
    if rows.empty:
        raise ValueError(
            f"the spectra have no row of '{of}' above frequency 0; there is: {', '.join(set(table['of']))}"
        )
    grid = rows.pivot(index="frequency", columns="step", values=value)
    grid.attrs["t"] = rows.drop_duplicates("step").sort_values("step")["t"].tolist()
    return grid


def _norm(grids_of: Sequence[pd.DataFrame]) -> LogNorm:
    """One logarithmic scale of some maps, at most six decades deep."""
    values = np.concatenate([each.to_numpy(np.float64).ravel() for each in grids_of])
    positive = values[np.isfinite(values) & (values > 0)]
    high = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()) if positive.size else 0.1, high * _DEPTH)
    return LogNorm(low, high if high > low else 10 * low)


def _map(axes: Axes, power: pd.DataFrame, floor: pd.DataFrame, estimate: pd.DataFrame, norm: LogNorm) -> None:
    t = power.attrs["t"]
    frequencies = power.index.to_numpy(np.float64)
    values = power.to_numpy(np.float64)
    # powers of 0 have no logarithm: the darkest colour
    shown = np.where(values <= 0, float(norm.vmin or 0), values)
    mesh = dynamics.noise_map(axes, dynamics.edges(t), _frequency_edges(frequencies), shown, norm, style.SCORES)
    axes.set_yscale("log")
    _frequency_ticks(axes, "y", frequencies)
    crossing = _crossing(floor, estimate)
    if np.isfinite(crossing).any():
        axes.plot(t, crossing, color="white", linewidth=style.THICK + 0.8)
        axes.plot(
            t, crossing, color=style.COLORS[1], linewidth=style.THICK, label="noise floor = power of the final image"
        )
        axes.set_ylim(*_frequency_edges(frequencies)[[0, -1]])
    maps.color_bar(mesh, axes, _WIDTH)


def _crossing(floor: pd.DataFrame, estimate: pd.DataFrame) -> NDArray[np.float64]:
    """The frequency at which the floor rises above the power of the last estimate, of each step; NaN where it does not.

    Interpolated in the logarithms of frequency and power between the last frequency below and the next.
    """
    final = estimate.to_numpy(np.float64)[:, -1]
    frequencies = np.log(estimate.index.to_numpy(np.float64))
    found = np.full(floor.shape[1], np.nan)
    for step, noise in enumerate(floor.to_numpy(np.float64).T):
        known = np.isfinite(noise) & (noise > 0) & (final > 0)
        if not known.all():
            continue
        excess = np.log(final) - np.log(noise)
        falls = np.flatnonzero((excess[:-1] > 0) & (excess[1:] <= 0))
        if falls.size:
            i = int(falls[0])
            share = excess[i] / (excess[i] - excess[i + 1])
            found[step] = np.exp(frequencies[i] + share * (frequencies[i + 1] - frequencies[i]))
    return found


def _frequency_edges(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of rings that are named by their inner edge: each ends where the next begins, which is as far from it as
    the first ring is from 0.
    """
    return np.append(frequencies, frequencies[-1] + frequencies[0])


def _frequency_ticks(axes: Axes, which: str, frequencies: NDArray[np.float64]) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if frequencies[0] <= tick <= frequencies[-1] * 1.02]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def _lines(
    axes: Axes, power: pd.DataFrame, floor: pd.DataFrame | None, reference: pd.DataFrame | None, norm: LogNorm
) -> None:
    """Power over frequency at some noise levels, from dark (noise) to light (image)."""
    t = power.attrs["t"]
    steps = dynamics.spread_steps(t, _LINES)
    # latents of four positions a side have one frequency, of which no line is seen
    dot = "o" if len(power.index) < _FEW else ""
    for step, color in zip(steps, style.shades(len(steps)), strict=True):
        axes.plot(power.index, power.iloc[:, step], color=color, marker=dot, markersize=3, label=f"t = {t[step]:.2f}")
        if floor is not None and np.isfinite(floor.iloc[:, step]).any() and t[step] > 0:
            axes.plot(power.index, floor.iloc[:, step], color=color, linestyle=":", linewidth=style.THIN)
    if reference is not None:
        last = reference.iloc[:, -1]
        axes.plot(
            last.index, last, color=style.QUIET, linestyle="--", marker=dot, markersize=3, label="reference, t = 0"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _frequency_ticks(axes, "x", power.index.to_numpy(np.float64))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(float(norm.vmin or 0) / 2, float(norm.vmax or 1) * 2)
    axes.set_xlabel("frequency (cycles per pixel)")
    grids.horizontal_lines(axes)


def _heading(drawn: Mapping[str, pd.DataFrame], domain: str, has_floor: bool) -> str:
    words = {"latents": "latents", "images": "decoded images (the mean of red, green and blue)"}
    beside = f", beside {drawn['reference']['model'].iloc[0]}" if "reference" in drawn else ""
    floor = (
        " Orange: where the noise of the schedule has the power of the final image, which is stronger to the right. "
        "Dotted: this noise."
        if has_floor
        else ""
    )
    return (
        f"{dynamics.title_of(drawn['model'])}{beside}: radially averaged power of {words.get(domain, domain)}, from "
        f"noise to image.{floor}"
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "spectra_figure"):
        beside = dict(snakemake.input.items()).get("reference")
        spectra_figure(
            Path(snakemake.input.spectra),
            None if beside is None else Path(beside),
            snakemake.params.domain,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
