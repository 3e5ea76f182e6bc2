"""How far the order of models against one reference is the same under other choices, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_COLUMNS = ("metric", "dataset", "condition", "reference", "layer", "models", "over", "value", "tau_b")
_AXES = {"k": "neighbours k", "n": "images N", "metric": "metric", "preparation": "preparation", "halves": "halves"}


def rank_stability_figure(table: Path, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw Kendall's τ-b with the order of the study under every alternative, one marker a metric. table: of orders."""
    style.styled()
    rows = tables.read(table, _COLUMNS)
    rows["value"] = rows["value"].astype(str)
    metrics = list(dict.fromkeys(rows["metric"]))
    kinds = [over for over in _AXES if (rows["over"] == over).any()]
    values = {over: list(dict.fromkeys(rows.loc[rows["over"] == over, "value"])) for over in kinds}
    figure, panels = plt.subplots(
        1,
        len(kinds),
        figsize=(style.PAGE, 2.4),
        squeeze=False,
        sharey=True,
        layout="constrained",
        width_ratios=[1 + len(values[over]) for over in kinds],
    )
    for axes, over in zip(panels[0], kinds, strict=True):
        for number, metric in enumerate(metrics):
            points = rows[(rows["over"] == over) & (rows["metric"] == metric)]
            # markers of metrics side by side
            shift = 0.6 * ((number + 0.5) / len(metrics) - 0.5)
            at = [values[over].index(value) + shift for value in points["value"]]
            look: dict[str, Any] = style.look(number)
            axes.plot(at, points["tau_b"], **look, linestyle="none", markersize=2.8, label=METRICS[metric].label)
        shown = [METRICS[value].label if over == "metric" else value for value in values[over]]
        axes.set_xticks(range(len(shown)), shown, rotation=90)
        axes.set_xlim(-0.6, len(shown) - 0.4)
        axes.set_title(_AXES[over])
        grids.horizontal_lines(axes)
    panels[0, 0].set_ylabel("Kendall's τ-b")
    panels[0, 0].set_ylim(min(0.0, float(rows["tau_b"].min())) - 0.05, 1.05)
    first = rows.iloc[0]
    style.heading(
        figure,
        f"{first['dataset']}, {first['condition']}: the order of {first['models']} models beside {first['reference']}, "
        f"{first['layer']}",
    )
    grids.shared_legend(figure, panels[0], 6)
    style.save(figure, outputs, miniature)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "rank_stability_figure"):
        rank_stability_figure(
            Path(snakemake.input.table), [Path(path) for path in snakemake.output], snakemake.params.miniature
        )
