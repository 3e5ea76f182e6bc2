"""Odd-one-out accuracy over the layers of every model before and after a probe, on objects that it never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.figures import grids, style
from diffalign.figures.human import Results, curve, finish, panels, read_results, reference_lines, variants_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def probe_figure(results: Results, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw one panel a model: dashed before, solid after, one colour a variant. Of baselines, the best layer after."""
    style.styled()
    tables = results.tables
    figure, drawn = panels(len(results.by_model))
    for axes, (model, variants) in zip(drawn, results.by_model.items(), strict=True):
        for color, bundle, name in variants_of(variants):
            table = tables[bundle]
            for what, dashes in (("before", "--"), ("after", "-")):
                bounds = table[f"{what}_low"], table[f"{what}_high"]
                curve(axes, table[what], bounds, color, name if name == "_" else f"{name}, {what} the probe", dashes)
        grids.layer_ticks(axes, max((tables[bundle]["layer"].tolist() for bundle in variants), key=len), "x", 14)
        reference_lines(axes, results, "after, its best layer")
        axes.set_title(model)
    first = tables[next(iter(results.models))].iloc[0]
    title = (
        f"{first['choices']} choices on {first['distinct_triplets']} distinct triplets of objects left out in "
        f"{results.recipe['plan']['folds']} folds. Bands: 95 % intervals over objects and known people."
    )
    finish(figure, drawn, title, outputs, miniature)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "probe_figure"):
        given, params = snakemake.input, snakemake.params
        probe_figure(
            read_results(given.tables, given.recipes, params.models, params.baselines),
            [Path(path) for path in snakemake.output],
            params.miniature,
        )
