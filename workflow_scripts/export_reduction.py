"""Accuracies of pooled and reduced tokens in the layout of the published code of diffusion models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.layouts import diffusion_alignment as layout

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# pooling -> the published word for it
POOLINGS = {"mean": "avg", "max": "max", "none": "none"}


def export_reduction(table: Path, modules: Mapping[str, str], source: str, model: str, folder: Path) -> None:
    """Write ``reduced_avg/results_avg_None.npy``, ``reduced_pca/results_pca_20.npy`` …: accuracies by the published
    rule of ties, by source, model and module.

    table: of the reduction. modules: alias -> module path. The published components are those of unpooled tokens, so
    those of pooled ones are left out.
    """
    make_empty(folder)
    found: dict[tuple[str, str], dict[str, float]] = {}
    # the word none would be read as an empty cell
    for row in pd.read_csv(table, sep="\t", keep_default_na=False).to_dict("records"):
        is_plain = row["reduction"] == "none"
        if not is_plain and row["pooling"] != "none":
            continue
        key = (POOLINGS[str(row["pooling"])], "None") if is_plain else ("pca", str(row["dimensions"]))
        found.setdefault(key, {})[modules[str(row["layer"])]] = round(float(row["published"]), 4)
    for (word, components), scores in found.items():
        path = folder / f"reduced_{word}" / f"results_{word}_{components}.npy"
        layout.write_pickled(path, {source: {model: scores}})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "export_reduction"):
        source, model, _ = snakemake.params.published
        export_reduction(
            Path(snakemake.input.table), snakemake.params.modules, source, model, Path(snakemake.output[0])
        )
