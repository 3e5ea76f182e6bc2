"""Odd-one-out accuracy of every layer of a bundle on human choices."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.alignment.intervals import LEVEL
from diffalign.human.ceilings import clustered
from diffalign.human.choices import closest_pairs
from diffalign.human.dependence import best_of, covariance, known, selection_folds
from diffalign.human.odd_one_out import CHANCE, Choices, likelihood, pair_similarities, per_category, per_object
from diffalign.human.reduction import principal_components
from diffalign.human.single_precision import odd_one_out_float32
from diffalign.human.triplets import Triplets
from diffalign.io import human_files, tables
from diffalign.io.atomic import write_arrays, write_json
from diffalign.io.combined_layers import layers_asked
from diffalign.io.feature_files import Features
from diffalign.io.human_files import People

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    "layer": "string",
    "accuracy": "float64",
    "low": "float64",
    "high": "float64",
    "low_triplets": "float64",
    "high_triplets": "float64",
    "low_people": "float64",
    "high_people": "float64",
    "error_triplets": "float64",
    "error_objects": "float64",
    "error_people": "float64",
    "error_both": "float64",
    "tie_rate": "float64",
    "fair": "float64",
    "published": "float64",
    "nll": "float64",
    "nll_fitted": "float64",
    "temperature": "float64",
    "choices": "int64",
}


@dataclass(frozen=True)
class Settings:
    """Settings of predictions; docs/config.md."""

    distance: str
    ties: str
    pca: int | None
    precision: str
    seed: int


@dataclass(frozen=True)
class Outputs:
    """Outputs: a table with a row per layer, its recipe, and the choices."""

    table: Path
    parquet: Path
    recipe: Path
    choices: Path


def odd_one_out(
    layers: Iterable[tuple[str, Features]],
    people: People,
    settings: Settings,
    memory_mb: int,
    outputs: Outputs,
) -> None:
    """Predict every choice by every layer and write accuracies, intervals and likelihoods.

    layers: names and features, rows in the order of the objects of the human choices.
    """
    triplets = people.triplets
    rows: list[dict[str, Any]] = []
    closest, gained, objects, categories = [], [], [], []
    recipe: dict[str, Any] = {}
    for layer, features in layers:
        recipe = features.shared
        values = features.values if settings.pca is None else principal_components(features.values, settings.pca)
        similarities, sizes = pair_similarities(values, triplets, settings.distance, memory_mb)
        if settings.precision == "float32":
            choices = odd_one_out_float32(values, triplets, settings.distance, memory_mb)
        else:
            choices = Choices(closest_pairs(triplets.objects, similarities, sizes))
        fit = likelihood(similarities)
        credit = choices.credit(settings.ties)
        gained.append(credit.astype(np.float32))
        closest.append(choices.closest)
        objects.append(per_object(credit, triplets)[0])
        categories.append(per_category(credit, triplets, people.members)[0])
        rows.append(
            {
                "layer": layer,
                "accuracy": credit.mean(),
                "tie_rate": choices.tie_rate,
                "fair": choices.credit("fair").mean(),
                "published": choices.credit("published").mean(),
                "nll": fit.nll,
                "nll_fitted": fit.fitted,
                "temperature": fit.temperature,
                "choices": len(triplets),
            }
        )
        logs.log.info("%s: %.4f", layer, rows[-1]["accuracy"])
    credit_of_layers = np.stack(gained)
    method = _add_intervals(rows, credit_of_layers, triplets, settings.seed)
    best = best_of(credit_of_layers, triplets, selection_folds(people.names, settings.seed))
    if best is None:
        logs.log.warning("every triplet shares a fold of objects with every other: no layer can be chosen apart")
    table = tables.frame(rows, COLUMNS)
    arrays: dict[str, Any] = {
        "closest": np.stack(closest),
        "objects": np.stack(objects),
        "categories": np.stack(categories),
        "names": np.array(people.names),
        "category_names": np.array(people.categories, dtype=str),
        "layers": np.array([row["layer"] for row in rows]),
    }
    write_arrays(outputs.choices, arrays, compressed=True)
    write_json(
        outputs.recipe,
        {
            "format": 2,
            "bundle": recipe["bundle"],
            "distance": settings.distance,
            "ties": settings.ties,
            "pca": settings.pca,
            "precision": settings.precision,
            "chance": CHANCE,
            "intervals": {"level": LEVEL, "over": known(triplets), "triplets": method, "seed": settings.seed},
            "best": None if best is None else {**asdict(best), "layer": rows[best.layer]["layer"]},
            "people": people.facts,
            "features": recipe,
        },
    )
    tables.write(table, outputs.table, outputs.parquet)


def _add_intervals(rows: list[dict[str, Any]], gained: NDArray[np.floating], triplets: Triplets, seed: int) -> str:
    """Add bounds and standard errors over objects, triplets, and people where they are known, to the rows of a table.

    Returns the method of the bounds over triplets.
    """
    over = clustered(gained, triplets.groups, seed)
    objects = covariance(gained, triplets).interval()
    main = covariance(gained, triplets, known(triplets)).interval()
    people = None if triplets.people is None else clustered(gained, triplets.people, seed)
    for i, row in enumerate(rows):
        row |= {"low": main.low[i], "high": main.high[i], "error_objects": objects.error[i]}
        row |= {"low_triplets": over.low[i], "high_triplets": over.high[i], "error_triplets": over.errors[i]}
        if people is not None:
            row |= {"low_people": people.low[i], "high_people": people.high[i], "error_people": people.errors[i]}
            row["error_both"] = main.error[i]
    return over.method


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        given, output = snakemake.input, snakemake.output
        people = human_files.read_people(Path(given.people))
        asked = snakemake.params.get("combined")
        layers = layers_asked(given.layers, people, snakemake.wildcards.get("combined"), asked)
        odd_one_out(
            layers,
            people,
            Settings(**snakemake.params.settings),
            snakemake.resources.memory_mb,
            Outputs(Path(output.table), Path(output.parquet), Path(output.recipe), Path(output.choices)),
        )
