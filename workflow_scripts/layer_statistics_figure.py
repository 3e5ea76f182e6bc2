"""Statistics of activations over layers and noise levels, and alignment along the trajectory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import dynamics, grids, maps, series, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

ACTIVATIONS = ("model", "configuration", "layer", "depth", "step", "t", "measure", "mean", "seeds", "samples")
ALIGNMENT = (
    *("layer", "depth", "step", "t", "metric", "score", "calibrated", "maximum_p", "reference", "reference_layer"),
    *("n", "k"),
)
COLUMNS = 4
# positive values that span more than this have a logarithmic scale
_SPAN = 20.0


def layer_statistics_figure(
    activations: Path, alignment: Path | None, alpha: float, outputs: Sequence[Path], miniature: bool
) -> None:
    """Draw a map a measure of activations, and one a metric of alignment, of layers upwards over noise levels.

    activations: its values are means over samples and seeds. alignment: of features of states with those of a vision
    model of the final images; calibrated, or the score of a metric without a null. A dot marks the best layer of a step
    whose largest score over all layers has p at most alpha. Every map has its own scale: logarithmic where values are
    positive and span more than a factor of 20.
    """
    style.styled()
    table = tables.read(activations, ACTIVATIONS)
    measures = list(dict.fromkeys(map(str, table["measure"])))
    against = None if alignment is None else tables.read(alignment, ALIGNMENT)
    metrics = [] if against is None else list(dict.fromkeys(map(str, against["metric"])))
    count = table["depth"].nunique()
    figure, panels = grids.panels(len(measures) + len(metrics), COLUMNS, max(0.8, 0.1 * count) + 0.3)
    _, across = grids.grid_of_panels(len(panels), COLUMNS)
    width = style.PAGE / across - 0.55
    shown = [
        (dynamics.ACTIVATIONS.get(measure, measure), table[table["measure"] == measure], "mean") for measure in measures
    ]
    for metric in metrics:
        of_metric = _of(against, metric)
        calibrated = series.is_calibrated(of_metric)
        shown.append((series.value_name(metric, calibrated), of_metric, "calibrated" if calibrated else "score"))
    for i, (axes, (title, of, value)) in enumerate(zip(panels, shown, strict=True)):
        layers = _map(axes, of, value, width, alpha if i >= len(measures) else None)
        axes.set_title(style.wrapped(title, width))
        dynamics.noise_axis(axes, of["t"].to_numpy(), width, labelled=i + across >= len(panels), above=i < across)
        # alignment may be of other layers than statistics
        if i % across == 0 or layers != _layers(shown[i - 1][1]):
            grids.layer_ticks(axes, layers, "y", 8)
        else:
            axes.set_yticks([])
        if i % across == 0:
            axes.set_ylabel("layer")
    first = table.iloc[0]
    beside = "" if against is None else f" Alignment: states with final images in {series.reference_of(against)}."
    style.heading(
        figure,
        f"{dynamics.title_of(table)}: activations of layers over noise levels, mean of {first['seeds']} seeds of "
        f"{first['samples']} samples.{beside}",
    )
    style.save(figure, outputs, miniature)


def _of(table: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    assert table is not None
    return table[table["metric"] == metric]


def _layers(table: pd.DataFrame) -> list[str]:
    return table.drop_duplicates("depth").sort_values("depth")["layer"].astype(str).tolist()


def _map(axes: Axes, table: pd.DataFrame, value: str, width: float, alpha: float | None) -> list[str]:
    """One map; gives its layers by depth. alpha: of dots, None for none."""
    layers = _layers(table)
    t = table.drop_duplicates("step").sort_values("step")["t"]
    values = table.pivot(index="depth", columns="step", values=value).to_numpy(np.float64)
    edges = dynamics.edges(t)
    mesh = dynamics.noise_map(axes, edges, np.arange(len(layers) + 1) - 0.5, values, _norm(values), style.SCORES)
    maps.color_bar(mesh, axes, width)
    if alpha is not None:
        best = np.zeros(values.shape, bool)
        # of the largest of all layers, and NaN without a null
        p = table.groupby("step", sort=True)["maximum_p"].first().to_numpy(np.float64)
        found = np.flatnonzero((p <= alpha) & np.isfinite(values).any(axis=0))
        best[np.nanargmax(values[:, found], axis=0), found] = True
        dynamics.marked_cells(axes, edges, best)
    return layers


def _norm(values: NDArray[np.float64]) -> Normalize:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0, 1)
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > _SPAN * low:
        return LogNorm(low, high)
    return Normalize(min(0.0, low), high if high > min(0.0, low) else low + 1)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "layer_statistics_figure"):
        beside = dict(snakemake.input.items()).get("alignment")
        layer_statistics_figure(
            Path(snakemake.input.activations),
            None if beside is None else Path(beside),
            snakemake.params.alpha,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
