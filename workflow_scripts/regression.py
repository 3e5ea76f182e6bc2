"""Human dimensions predicted from every layer of a bundle by cross-validation, and choices predicted from these."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.human.dependence import best_of, covariance, known, selection_folds
from diffalign.human.folds import folds_of
from diffalign.human.odd_one_out import CHANCE, odd_one_out
from diffalign.human.regression import best_on_other_folds, cross_predicted, explained
from diffalign.human.triplets import Triplets
from diffalign.io import human_files, tables
from diffalign.io.atomic import write_arrays, write_json
from diffalign.io.combined_layers import layers_asked
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError
from diffalign.io.human_files import People
from diffalign.offenders import first_five
from diffalign.randomness import keyed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    "layer": "string",
    "dimension": "int64",
    "r2": "float64",
    "low": "float64",
    "high": "float64",
    "r2_within_folds": "float64",
    "alpha": "float64",
}


@dataclass(frozen=True)
class Settings:
    """Settings of predictions; docs/config.md."""

    folds: int
    fold_rule: str
    alphas: tuple[float, ...]
    distance: str
    ties: str
    seed: int


@dataclass(frozen=True)
class Outputs:
    """Outputs: a table with a row per layer and dimension, its recipe, and the predictions."""

    table: Path
    parquet: Path
    recipe: Path
    predictions: Path


def regression(
    layers: Iterable[tuple[str, Features]], people: People, settings: Settings, memory_mb: int, outputs: Outputs
) -> None:
    """Predict every dimension by every layer; write R², and the odd-one-out accuracy of the predictions.

    layers: names and features, rows in the order of the objects of the human choices. Raises StoreError where there are
    no dimensions.
    """
    if people.dimensions is None:
        raise StoreError(f"{people.triplets.where}: no dimensions; their file is named by datasets.*.dimensions")
    folds = folds_of(settings.fold_rule, people.names, people.listed, settings.folds, settings.seed)
    rows: list[dict[str, Any]] = []
    predictions, gained, named, kept, per_fold = [], [], [], [], []
    recipe: dict[str, Any] = {}
    for layer, features in layers:
        recipe = features.shared
        predicted = cross_predicted(features.values, people.dimensions, folds, settings.alphas)
        r2 = explained(people.dimensions, predicted, keyed(settings.seed, "bootstrap", "objects"))
        within = r2.within_folds
        alphas = np.median(predicted.alphas, axis=0)
        kept.append(predicted)
        per_fold.append(r2.per_fold)
        columns = zip(r2.values, r2.low, r2.high, within, alphas, strict=True)
        rows += [
            dict(zip(COLUMNS, (layer, dimension, *values), strict=True)) for dimension, values in enumerate(columns)
        ]
        choices = odd_one_out(predicted.values, people.triplets, settings.distance, memory_mb)
        gained.append(choices.credit(settings.ties).astype(np.float32))
        predictions.append(predicted.values.astype(np.float32))
        named.append(layer)
        logs.log.info("%s: median R² %.3f", layer, float(np.median(r2.values)))
    # the same for all layers, since it depends on the dimensions alone
    constant = [str(dimension) for dimension in np.flatnonzero(np.isnan(per_fold[0]).all(axis=0))]
    if constant:
        logs.log.warning(
            "r2_within_folds is undefined of dimensions that vary within no fold: %s", first_five(constant)
        )
    credit_of_layers = np.stack(gained)
    best = best_of(credit_of_layers, people.triplets, selection_folds(people.names, settings.seed))
    chosen = best_on_other_folds(np.stack(per_fold))
    spliced = explained(people.dimensions, chosen.predictions(kept), keyed(settings.seed, "bootstrap", "objects"))
    arrays: dict[str, Any] = {
        "predictions": np.stack(predictions),
        "names": people.names,
        "folds": folds,
        "layers": named,
    }
    write_arrays(outputs.predictions, arrays, compressed=True)
    write_json(
        outputs.recipe,
        {
            "format": 2,
            "bundle": recipe["bundle"],
            **asdict(settings),
            "chance": CHANCE,
            "layers": _choices(named, credit_of_layers, people.triplets, folds),
            "best": None if best is None else {**asdict(best), "layer": named[best.layer]},
            "best_r2": {
                "layers": [named[layer] for layer in chosen.layers],
                **{key: getattr(spliced, key).tolist() for key in ("values", "low", "high")},
            },
            "people": people.facts,
            "features": recipe,
        },
    )
    tables.write(tables.frame(rows, COLUMNS), outputs.table, outputs.parquet)


def _choices(
    layers: list[str], gained: NDArray[np.floating], triplets: Triplets, folds: NDArray[np.int64]
) -> dict[str, dict[str, float | int | None]]:
    """Odd-one-out accuracy of the predictions of each layer: on all triplets, and on those within one fold, whose
    predictions come from the same regression.
    """
    over = covariance(gained, triplets, known(triplets))
    bounds = over.interval()
    inside = (folds[triplets.objects] == folds[triplets.objects[:, :1]]).all(axis=1)
    return {
        layer: {
            "accuracy": float(over.means[i]),
            "low": float(bounds.low[i]),
            "high": float(bounds.high[i]),
            "accuracy_within_folds": float(gained[i][inside].mean()) if inside.any() else None,
            "choices_within_folds": int(inside.sum()),
        }
        for i, layer in enumerate(layers)
    }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "regression"):
        given, output = snakemake.input, snakemake.output
        people = human_files.read_people(Path(given.people))
        asked = snakemake.params.get("combined")
        regression(
            layers_asked(given.layers, people, snakemake.wildcards.get("combined"), asked),
            people,
            Settings(**snakemake.params.settings),
            snakemake.resources.memory_mb,
            Outputs(Path(output.table), Path(output.parquet), Path(output.recipe), Path(output.predictions)),
        )
