"""Odd-one-out accuracy over the layers of every model, between chance and what people can be predicted by."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.figures import grids, style
from diffalign.figures.human import (
    Results,
    ceiling_band,
    curve,
    finish,
    panels,
    read_results,
    reference_lines,
    variants_of,
)

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def odd_one_out_figure(results: Results, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw one panel a model, one curve a variant."""
    style.styled()
    tables, recipe = results.tables, results.recipe
    figure, drawn = panels(len(results.by_model))
    for axes, (model, variants) in zip(drawn, results.by_model.items(), strict=True):
        for color, bundle, label in variants_of(variants):
            table = tables[bundle]
            curve(axes, table["accuracy"], (table["low"], table["high"]), color, label)
        grids.layer_ticks(axes, max((tables[bundle]["layer"].tolist() for bundle in variants), key=len), "x", 14)
        reference_lines(axes, results)
        ceiling_band(axes, results)
        axes.set_title(model)
    choices = recipe["people"]["choices"]
    title = (
        f"{choices['choices']} choices on {choices['distinct_triplets']} distinct triplets, {recipe['distance']}. "
        f"Bands: 95 % intervals over {' and '.join(recipe['intervals']['over'])}."
    )
    finish(figure, drawn, title, outputs, miniature)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "odd_one_out_figure"):
        given, params = snakemake.input, snakemake.params
        odd_one_out_figure(
            read_results(given.tables, given.recipes, params.models, params.baselines),
            [Path(path) for path in snakemake.output],
            params.miniature,
        )
