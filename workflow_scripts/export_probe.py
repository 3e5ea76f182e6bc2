"""Transforms of a probe, and its accuracies, in the layout of the published code of diffusion models."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffalign import logs
from diffalign.io.atomic import make_empty, replacing, write_text
from diffalign.io.feature_files import read_bundle
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.transform_files import read_transform

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = ("model", "probing", "module", "source", "l2_reg", "optim", "lr", "n_folds", "bias")


def export_probe(
    layers_json: Path, table: Path, recipe: Path, transforms: Path, source: str, model: str, text: bool, folder: Path
) -> None:
    """Write ``{source}/{model}/{module}/{folds}/{λ}/{optimizer}/{rate}/transform.npy`` of the last fold, as published,
    and ``probing_results.tsv``, a row a module, in the columns of probing_results.pkl but for the cross-entropy.

    Raises TransformError for transforms that are not square, as after PCA.
    """
    plan = json.loads(recipe.read_text(encoding="utf-8"))["plan"]
    probed = pd.read_csv(
        table,
        sep="\t",
        dtype={"regularisation": str, "learning_rate": str},
        keep_default_na=False,
        na_values=[""],
    ).set_index("layer")
    bundle, rows = read_bundle(layers_json), []
    make_empty(folder)
    optimizer, bias = plan["schedule"]["optimizer"], plan["schedule"]["bias"]
    for alias in bundle.digests:
        features = bundle.read(alias)
        module = layout.published_module(features.recipe["module"], text)
        last = plan["folds"] - 1
        transform = read_transform(transforms / alias / f"fold{last}.npz")
        penalty, rate = (str(probed.loc[alias, key]).split(" ") for key in ("regularisation", "learning_rate"))
        words = (source, model, module, plan["folds"], float(penalty[last]), optimizer, float(rate[last]))
        path = folder.joinpath(*map(str, words), "transform.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, layout.published_transform(transform, features.values), allow_pickle=False)
        accuracy = float(probed["after"][alias])
        settings: tuple[Any, ...] = (" ".join(penalty), optimizer, " ".join(rate), plan["folds"], bias)
        rows.append((model, accuracy, module, source, *settings))
    text_of = io.StringIO()
    csv.writer(text_of, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(folder / "probing_results.tsv", text_of.getvalue())


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "export_probe"):
        given = snakemake.input
        source, model, text = snakemake.params.published
        export_probe(
            Path(given.layers),
            Path(given.table),
            Path(given.recipe),
            Path(given.transforms),
            source,
            model,
            text,
            Path(snakemake.output[0]),
        )
