"""Layers over noise levels, feature by feature: which go with its change, which hold its map, which make it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from diffalign import logs
from diffalign.dynamics.features import FEATURES
from diffalign.figures import dynamics, grids, maps, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_CELL = ("model", "configuration", "layer", "depth")
# columns of the tables that are drawn
TABLES: Mapping[str, tuple[str, ...]] = {
    "associations": (*_CELL, "step", "t", "activation", "feature", "rho", "p_family"),
    "readouts": (*_CELL, "step", "t", "map", "r2", "low", "shuffled"),
    "contributions": (*_CELL, "part", "window", "t_from", "t_to", "method", "measure", "low", "high", "size"),
}
# correlations are marked below this p of the whole grid
_LEVEL = 0.05
_PARTS = {"layer": "the layer", "attention": "attention", "mlp": "the MLP"}


@dataclass(frozen=True, eq=False)
class Grid:
    """A map of layers over noise levels. across: edges (cells + 1,) in t. layers: (R,), by depth. values, marked:
    (R, cells).
    """

    across: NDArray[np.float64]
    layers: tuple[str, ...]
    values: NDArray[np.float64]
    marked: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Column:
    """Maps of one kind, of every feature that has one. shared: they have one scale in all rows."""

    title: str
    grids: Mapping[str, Grid]
    shared: bool


def layer_steps_figure(
    found: Mapping[str, Path],
    features: Sequence[str],
    activation: str,
    method: str | None,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw a row a feature, and in it layers over noise levels: the correlation of its change with an activation
    measure, R² of the read-out of a map of its kind, and how it changes in the final image without a layer, or without
    a part of the layer, in a window of steps.

    found: the tables ``associations``, ``readouts`` and ``contributions``, or some of them; those without rows, as of
    tokens that lie on no grid, have no column. features: names of features or bands. activation: what is correlated.
    method: of removal, None without contributions. Dots mark correlations whose family-wise p over the grid is below
    0.05, read-outs whose interval lies above the mean of shuffled maps, and removals whose mean change has an interval
    without 0; the latter two cell by cell. Changes are root mean squares over samples in standard deviations of the
    feature. Correlations and R² have one scale in all rows, changes one in each. Raises ValueError for other tables,
    StoreError for an activation or a method without rows, ValueError for a feature without any.
    """
    if not found or not set(found) <= set(TABLES):
        raise ValueError(f"tables {', '.join(found) or 'none'}; expected some of {', '.join(TABLES)}")
    style.styled()
    chosen: dict[str, dict[str, Any]] = {
        "associations": {"activation": activation},
        "contributions": {"method": method},
    }
    read = {
        name: tables.read(found[name], TABLES[name], **chosen.get(name, {}))
        for name in TABLES
        if name in found and tables.has_rows(found[name])
    }
    columns = _columns(read, features, activation)
    for feature in features:
        if not any(feature in column.grids for column in columns):
            raise ValueError(f"no table has a row of the feature '{feature}'")
    layers = max((grid.layers for column in columns for grid in column.grids.values()), key=len)
    columns = [
        replace(column, grids={name: _aligned(grid, layers) for name, grid in column.grids.items()})
        for column in columns
    ]
    tall = max(0.8, 0.1 * len(layers))
    size = (style.PAGE, len(features) * (tall + 0.2) + 1.2)
    figure, panels = plt.subplots(len(features), len(columns), figsize=size, squeeze=False, layout="constrained")
    width = (style.PAGE - 0.6) / len(columns) - 0.3
    for i, feature in enumerate(features):
        changes = [column.grids[feature] for column in columns if not column.shared and feature in column.grids]
        for j, column in enumerate(columns):
            norm = _norm(list(column.grids.values()) if column.shared else changes)
            axes = panels[i, j]
            drawn = [row for row, name in enumerate(features) if name in column.grids]
            if feature not in column.grids:
                grids.in_place(axes, "no map")
            else:
                # one scale a column, at its first map, or one a row, at its last
                scale = i == drawn[0] if column.shared else j == len(columns) - 1
                _map(axes, column.grids[feature], norm, column.shared, width if scale else None)
                across = column.grids[feature].across
                dynamics.noise_axis(axes, across, width, labelled=i == drawn[-1], above=i == drawn[0])
                if j == 0:
                    grids.layer_ticks(axes, column.grids[feature].layers, "y", 8)
                else:
                    axes.set_yticks([])
            if i == 0:
                axes.set_title(style.wrapped(column.title, width))
        panels[i, 0].set_ylabel(style.wrapped(dynamics.label_of(feature), tall))
    style.heading(figure, _heading(read, columns, features))
    style.save(figure, outputs, miniature)


def _columns(read: Mapping[str, pd.DataFrame], features: Sequence[str], activation: str) -> list[Column]:
    columns = []
    if "associations" in read:
        table = read["associations"]
        of = {name: table[table["feature"] == name] for name in features}
        columns.append(
            Column(
                f"|ρ| with {dynamics.ACTIVATIONS.get(activation, activation)}",
                {
                    name: _by_step(rows, rows["rho"].abs(), rows["p_family"] < _LEVEL)
                    for name, rows in of.items()
                    if len(rows)
                },
                shared=True,
            )
        )
    if "readouts" in read:
        table = read["readouts"]
        kinds = {name: FEATURES[name].kind for name in features if name in FEATURES}
        of = {name: table[table["map"] == kind] for name, kind in kinds.items()}
        columns.append(
            Column(
                "R² of the read-out of maps",
                {
                    name: _by_step(rows, rows["r2"], rows["low"] > rows["shuffled"])
                    for name, rows in of.items()
                    if len(rows)
                },
                shared=True,
            )
        )
    if "contributions" in read:
        table = read["contributions"]
        for part in [part for part in _PARTS if part in set(table["part"])]:
            rows_of = {name: table[(table["part"] == part) & (table["measure"] == name)] for name in features}
            columns.append(
                Column(
                    f"change without {_PARTS[part]} (sd)",
                    {name: _by_window(rows) for name, rows in rows_of.items() if len(rows)},
                    shared=False,
                )
            )
    return columns


def _by_step(rows: pd.DataFrame, values: pd.Series, marked: pd.Series) -> Grid:
    steps = rows.drop_duplicates("step").sort_values("step")
    return _grid(rows, values, marked, "step", dynamics.edges(steps["t"]))


def _by_window(rows: pd.DataFrame) -> Grid:
    windows = rows.drop_duplicates("window").sort_values("window")
    marked = (rows["low"] > 0) | (rows["high"] < 0)
    return _grid(rows, rows["size"], marked, "window", dynamics.window_edges(windows["t_from"], windows["t_to"]))


def _grid(rows: pd.DataFrame, values: pd.Series, marked: pd.Series, across: str, edges: NDArray[np.float64]) -> Grid:
    cells = rows.assign(shown=values, marked=marked.astype(np.float64))
    layers = cells.drop_duplicates("depth").sort_values("depth")["layer"]
    shown, dots = (cells.pivot(index="depth", columns=across, values=key).to_numpy() for key in ("shown", "marked"))
    return Grid(edges, tuple(map(str, layers)), shown.astype(np.float64), dots == 1)


def _aligned(grid: Grid, layers: tuple[str, ...]) -> Grid:
    """The grid with a row for each of these layers, undefined for those that it lacks. Raises ValueError for others."""
    if unknown := set(grid.layers) - set(layers):
        raise ValueError(f"layers {', '.join(sorted(unknown))} are not among {', '.join(layers)}")
    rows = [grid.layers.index(layer) if layer in grid.layers else -1 for layer in layers]
    values = np.vstack([grid.values, np.full((1, grid.values.shape[1]), np.nan)])[rows]
    marked = np.vstack([grid.marked, np.zeros((1, grid.marked.shape[1]), bool)])[rows]
    return Grid(grid.across, layers, values, marked)


def _norm(shown: Sequence[Grid]) -> Normalize:
    """A scale that begins at 0."""
    values = np.concatenate([grid.values.ravel() for grid in shown])
    high = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    return Normalize(0, high if high > 0 else 1.0)


def _map(axes: Axes, grid: Grid, norm: Normalize, shared: bool, width: float | None) -> None:
    """One map. width: of the panel in inches, for a scale beside it; None draws none."""
    upwards = np.arange(len(grid.layers) + 1) - 0.5
    colors = style.SCORES if shared else style.CALIBRATED
    mesh = dynamics.noise_map(axes, grid.across, upwards, grid.values, norm, colors)
    dynamics.marked_cells(axes, grid.across, grid.marked)
    if width is not None:
        maps.color_bar(mesh, axes, width)


def _heading(read: Mapping[str, pd.DataFrame], columns: Sequence[Column], features: Sequence[str]) -> str:
    """What is drawn, and the layer with the largest mean over noise levels: of correlations, read-outs and removal."""
    # the first part that is removed stands for all
    kinds = {column.title.split(" ")[0]: column for column in reversed(columns)}
    words = []
    for feature in features:
        best = [
            f"{kind} {grid.layers[int(np.nansum(grid.values, axis=1).argmax())]}"
            for kind, column in reversed(kinds.items())
            for grid in [column.grids.get(feature)]
            if grid is not None and np.isfinite(grid.values).any()
        ]
        words.append(f"{dynamics.label_of(feature)}: {', '.join(best) or 'undefined'}")
    return (
        f"{dynamics.title_of(next(iter(read.values())))}: layers over noise levels. The layer with the largest mean "
        f"over them – {'; '.join(words)}. Dots: beyond chance, of correlations family-wise, else cell by cell."
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_steps_figure"):
        params = snakemake.params
        layer_steps_figure(
            {name: Path(path) for name, path in snakemake.input.items()},
            params.features,
            params.activation,
            params.method,
            [Path(path) for path in snakemake.output],
            params.miniature,
        )
