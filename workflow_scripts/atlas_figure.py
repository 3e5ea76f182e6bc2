"""An atlas of one model: layer x noise level maps of it and of its untrained twin, and what is left beyond controls."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.figures import grids, maps, noise_axis, series, style

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TRAINED, UNTRAINED = "trained", "untrained"
_LABELS = {TRAINED: "trained", UNTRAINED: "untrained twin"}


def atlas_figure(scores: Path, beyond: Path, metric: str, outputs: Sequence[Path]) -> None:
    """Draw maps of the calibrated score (of the score, where a metric has no null) on one scale, and of the share of
    squared covariance beyond all controls; below, profiles over noise levels.

    scores, beyond: TSV of `atlas`. Noise levels to the right, by log-SNR with t below it; layers upwards. The frame
    is the layer and level that half of the images chose. Profiles are measured on the other half, for the layer that
    each level chose; controls without levels are lines. Panels without a defined score say why.
    """
    style.styled()
    table = series.read(scores, metric=metric)
    shares = series.read(beyond)
    levels = sorted(table["level"].dropna().unique().tolist())
    labels = table[table["source"] == TRAINED].drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    figure = plt.figure(figsize=(style.PAGE, 2.9 + max(0.9, 0.12 * len(labels))), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[max(0.9, 0.12 * len(labels)), 1.3])
    tops = [figure.add_subplot(grid[0, i]) for i in range(3)]
    _maps(tops, table, shares, levels, labels, metric)
    profile, left = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2])
    _profile(profile, table, levels, metric)
    chosen = _chosen(table, TRAINED)
    if chosen is None:
        grids.in_place(left, "no layer is chosen")
        noise = "pure noise is the only level" if levels == [1.0] else grids.undefined(metric)
        about = f"{table['model'].iloc[0]} on {series.title_of(table)}. Alignment with {series.reference_of(table)}."
        style.heading(figure, f"{about} Nothing is chosen: {noise}.")
    else:
        _shares(left, shares, levels, chosen["layer"], _controls(table))
        style.heading(figure, _heading(table, shares, chosen, metric))
    grids.shared_legend(figure, [profile, left], 5)
    style.save(figure, outputs, bool(table["miniature"].any()))


def _chosen(table: pd.DataFrame, source: str) -> pd.Series | None:
    """The row that half of the images chose of a source; None where no score below t = 1 is defined."""
    rows = table[(table["source"] == source) & table["chosen"]]
    return None if rows.empty else rows.iloc[0]


def _grid(rows: pd.DataFrame, value: str, levels: list[float]) -> pd.DataFrame:
    """(layers, levels)."""
    return rows.pivot_table(index="depth", columns="level", values=value, dropna=False).reindex(columns=levels)


def _maps(
    panels: Sequence[Axes],
    table: pd.DataFrame,
    shares: pd.DataFrame,
    levels: list[float],
    labels: Sequence[str],
    metric: str,
) -> None:
    value = "calibrated" if series.is_calibrated(table) else "score"
    grids_of = {source: _grid(table[table["source"] == source], value, levels).to_numpy() for source in _LABELS}
    defined = np.concatenate([each[np.isfinite(each)] for each in grids_of.values()])
    limits = (float(defined.min(initial=0)), maps.scale_end(max(defined.tolist(), default=0.0)))
    for axes, (source, values) in zip(panels, grids_of.items(), strict=False):
        title = f"{_LABELS[source]}: {series.value_name(metric, value == 'calibrated')}"
        axes.set_title(style.wrapped(title, 1.6), pad=5)
        if np.isnan(values).all():
            scored = bool(table.loc[table["source"] == source, "score"].notna().any())
            grids.undefined_in_place(axes, grids.undefined(metric, scored), 1.6)
            continue
        image = noise_axis.noise_map(axes, levels, values, limits, style.CALIBRATED)
        best = _chosen(table, source)
        if best is not None:
            noise_axis.framed_cell(axes, levels, int(best["depth"]), levels.index(best["level"]))
        maps.color_bar(image, axes, 1.7)
    given = _all_controls(shares)
    values = _grid(shares[shares["given"] == given], "share", levels).to_numpy()
    image = noise_axis.noise_map(panels[2], levels, np.clip(values, 0, None), (0, 1), style.SCORES)
    panels[2].set_title("share beyond all controls", pad=5)
    maps.color_bar(image, panels[2], 1.7)
    drawn = [axes for axes in panels if axes.axison]
    for axes in drawn:
        noise_axis.dress(axes, levels, 1.6)
        grids.layer_ticks(axes, labels, "y", 16)
    drawn[0].set_ylabel("layer")


def _controls(table: pd.DataFrame) -> list[str]:
    """The controls that have no levels, in the order of the study."""
    return [source for source in dict.fromkeys(table["source"]) if source not in _LABELS]


def _color(source: str, controls: Sequence[str]) -> str:
    """The colour of the twin or of a control, in every panel."""
    others = [color for color in style.COLORS[2:] if color != "#000000"]
    return style.look(1)["color"] if source == UNTRAINED else others[controls.index(source) % len(others)]


def _profile(axes: Axes, table: pd.DataFrame, levels: list[float], metric: str) -> None:
    """The layer that each level chose on half of the images, on the other half, with bands over these images."""
    if table["second_half"].isna().all():
        grids.undefined_in_place(axes, grids.undefined(metric), 3.6)
        return
    places = dict(zip(levels, noise_axis.positions(levels).tolist(), strict=True))
    borders = noise_axis.edges(noise_axis.positions(levels))
    for i, source in enumerate(_LABELS):
        rows = table[(table["source"] == source) & table["first_half"].notna()]
        best = rows.loc[rows.groupby("level")["first_half"].idxmax()]
        # lines have gaps where no layer has a score
        values, low, high = series.second_half(best.set_index("level").reindex(levels))
        at = [places[level] for level in levels]
        look: dict[str, Any] = {**style.look(i)}
        axes.fill_between(at, low, high, color=look["color"], alpha=0.16, linewidth=0)
        axes.plot(at, values, label=_LABELS[source] + ("" if np.isfinite(values).any() else ": undefined"), **look)
    controls = _controls(table)
    for i, source in enumerate(controls):
        values, _, _ = series.second_half(table[(table["source"] == source) & table["chosen"]])
        dashes = ((0, (5, 2)), (0, (2, 1.5)), (0, (5, 2, 1, 2)))[i % 3]
        look = {"color": _color(source, controls), "linestyle": dashes}
        if np.isfinite(values).any():
            axes.axhline(float(values[0]), label=f"{source} alone", **look)
        else:
            axes.plot([], [], label=f"{source} alone: undefined", **look)
    floor = table[(table["source"] == TRAINED) & (table["level"] == 1)]
    if not floor.empty:
        axes.axvspan(borders[-2], borders[-1], color=style.GRID, linewidth=0, zorder=0)
        axes.text(
            places[1.0],
            0.97,
            f"pure noise\n{style.p_text(float(floor['maximum_p'].iloc[0]))}"
            + ("\nabove its null" if floor["warning"].notna().any() else ""),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=style.SMALL,
            color=style.QUIET,
            # lines of controls pass below the words
            bbox={"facecolor": style.GRID, "edgecolor": "none", "pad": 0.5},
        )
    noise_axis.dress(axes, levels, 3.6)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.15)
    axes.set_ylabel(series.value_name(metric, series.is_calibrated(table)))
    grids.horizontal_lines(axes)


def _shares(axes: Axes, shares: pd.DataFrame, levels: list[float], layer: str, controls: Sequence[str]) -> None:
    """The share of the chosen layer beyond each control and all of them, with 95 % intervals over images."""
    of_layer = shares[shares["layer"] == layer]
    kinds = list(dict.fromkeys(of_layer["given"]))
    everything = _all_controls(shares)
    positions = noise_axis.positions(levels)
    places = dict(zip(levels, positions.tolist(), strict=True))
    aside = 0.2 * float(np.diff(positions).min()) if len(positions) > 1 else 0.2
    offsets = np.linspace(-aside, aside, len(kinds)) if len(kinds) > 1 else [0.0]
    for given, offset in zip(kinds, offsets, strict=True):
        rows = of_layer[(of_layer["given"] == given) & of_layer["share"].notna()].sort_values("level")
        at = np.array([places[level] for level in rows["level"]]) + offset
        color = "black" if given == everything else _color(given, controls)
        label = "beyond all controls" if given == everything else f"beyond {given}"
        reach = np.abs(rows[["share_low", "share_high"]].to_numpy().T - rows["share"].to_numpy())
        axes.errorbar(
            at, rows["share"], reach, color=color, fmt="o", markersize=2.2, elinewidth=style.THIN, label=label
        )
    axes.axhline(0, color=style.QUIET, linewidth=style.THIN, linestyle=":")
    axes.set_ylim(-0.15, 1.3)
    axes.set_title(f"share beyond controls, {layer}")
    noise_axis.dress(axes, levels, 1.6)
    grids.horizontal_lines(axes)


def _all_controls(shares: pd.DataFrame) -> str:
    """The value of ``given`` that names all controls: the longest."""
    return max(map(str, dict.fromkeys(shares["given"])), key=lambda given: given.count("+"))


def _heading(table: pd.DataFrame, shares: pd.DataFrame, chosen: pd.Series, metric: str) -> str:
    """Where the model is most alike, as half of the images chose; its twin and the share beyond controls there."""
    (value,), (low,), (high,) = series.second_half(table.loc[[chosen.name]])
    there = (table["layer"] == chosen["layer"]) & (table["level"] == chosen["level"])
    (twin,), (twin_low,), (twin_high,) = series.second_half(table[there & (table["source"] == UNTRAINED)])
    share = shares[
        (shares["given"] == _all_controls(shares))
        & (shares["layer"] == chosen["layer"])
        & (shares["level"] == chosen["level"])
    ].iloc[0]
    beyond = (
        "share beyond all controls " + series.bracketed(share["share"], share["share_low"], share["share_high"])
        if np.isfinite(share["share"])
        else "no share beyond controls is defined there"
    )
    found = [
        series.bracketed(*each) if np.isfinite(each[0]) else "undefined"
        for each in ((value, low, high), (twin, twin_low, twin_high))
    ]
    return (
        f"{chosen['model']} on {series.title_of(table)}. Most alike with {series.reference_of(table)} at "
        f"{chosen['layer']} and t = {chosen['level']:g}, chosen on half of the images. On the other half: "
        f"{series.value_name(metric, series.is_calibrated(table))} {found[0]}, untrained "
        f"{found[1]}; {beyond}."
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "atlas_figure"):
        atlas_figure(
            Path(snakemake.input.scores),
            Path(snakemake.input.beyond),
            snakemake.wildcards.metric,
            [Path(path) for path in snakemake.output],
        )
