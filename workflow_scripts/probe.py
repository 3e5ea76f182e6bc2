"""Linear probes of every layer of a bundle, trained on human choices and tested on held-out objects."""

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffalign import logs
from diffalign.devices import choose_device
from diffalign.human.dependence import best_of, covariance, known, selection_folds
from diffalign.human.folds import folds_of
from diffalign.human.odd_one_out import CHANCE
from diffalign.human.probe import Plan, Probed, Schedule, grid, probe
from diffalign.human.triplets import distinct
from diffalign.io import human_files, tables
from diffalign.io.atomic import make_empty, write_json
from diffalign.io.combined_layers import layers_asked
from diffalign.io.feature_files import Features
from diffalign.io.human_files import People
from diffalign.io.training_checkpoints import TrainingCheckpoint
from diffalign.io.transform_files import write_transform

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    "layer": "string",
    **{f"{what}{bound}": "float64" for what in ("before", "after", "gain") for bound in ("", "_low", "_high")},
    "regularisation": "string",
    "learning_rate": "string",
    "choices": "int64",
    "distinct_triplets": "int64",
}


@dataclass(frozen=True)
class Outputs:
    """Outputs: a table with a row per layer, its recipe, and a folder with the transform of every layer and fold."""

    table: Path
    parquet: Path
    recipe: Path
    transforms: Path


def probe_layers(
    layers: Iterable[tuple[str, Features]],
    people: People,
    plan: Plan,
    distance: str,
    ties: str,
    seed: int,
    device: str,
    checkpoints: Path,
    outputs: Outputs,
) -> None:
    """Probe all layers at once and write accuracies before and after, gains, and the transforms.

    layers: names and features, rows in the order of the objects of the human choices. checkpoints: folder of this code
    from which a killed run resumes; its parent is removed at the end. Raises TripletError where a fold has no triplet,
    and ValueError for folds of one object.
    """
    folds = folds_of(plan.fold_rule, people.names, people.listed, plan.folds, seed)
    features = dict(layers)
    on = choose_device(device)
    values = {layer: each.values for layer, each in features.items()}

    def checkpoint_file(name: str) -> TrainingCheckpoint:
        return TrainingCheckpoint(checkpoints / name)

    probes = probe(values, people.names, people.triplets, plan, seed, on, distance, ties, checkpoint_file, folds)
    tested = next(iter(probes.values())).tested
    judged = people.triplets.taken(tested)
    credit_of = {
        what: np.stack([_credit(each, what) for each in probes.values()]) for what in ("before", "after", "gain")
    }
    over = {what: covariance(credit, judged, known(judged)) for what, credit in credit_of.items()}
    best = best_of(credit_of["after"], judged, selection_folds(people.names, seed))
    rows = []
    for i, (layer, each) in enumerate(probes.items()):
        row: dict[str, Any] = {"layer": layer, "choices": int(tested.sum())}
        row["distinct_triplets"] = distinct(people.triplets, tested)
        for what, bounds in over.items():
            interval = bounds.interval()
            row |= {what: bounds.means[i], f"{what}_low": interval.low[i], f"{what}_high": interval.high[i]}
        # one per fold
        row["regularisation"] = " ".join(f"{setting.regularisation:g}" for setting in each.chosen)
        row["learning_rate"] = " ".join(f"{setting.learning_rate:g}" for setting in each.chosen)
        rows.append(row)
        logs.log.info("%s: %.4f before, %.4f after", layer, row["before"], row["after"])
    make_empty(outputs.transforms)
    for layer, each in probes.items():
        for fold, transform in enumerate(each.transforms):
            write_transform(outputs.transforms / layer / f"fold{fold}.npz", transform)
    shared = next(iter(features.values())).shared
    write_json(
        outputs.recipe,
        {
            "format": 2,
            "bundle": shared["bundle"],
            "plan": asdict(plan),
            "distance": distance,
            "ties": ties,
            "seed": seed,
            "device": str(on),
            "chance": CHANCE,
            "layers": {
                layer: {"losses": each.losses.tolist(), "epochs": each.epochs.tolist()}
                for layer, each in probes.items()
            },
            "best": None if best is None else {**asdict(best), "layer": list(probes)[best.layer]},
            "people": people.facts,
            "features": shared,
        },
    )
    tables.write(tables.frame(rows, COLUMNS), outputs.table, outputs.parquet)
    if checkpoints.parent.exists():
        shutil.rmtree(checkpoints.parent)


def _credit(probed: Probed, what: str) -> Any:
    return {"before": probed.before, "after": probed.after, "gain": probed.after - probed.before}[what]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "probe"):
        torch.set_num_threads(snakemake.threads)
        params, output = snakemake.params, snakemake.output
        asked = dict(params.plan)
        parts = {key: asked.pop(key) for key in ("folds", "fold_rule", "inner", "pca")}
        settings = grid(asked.pop("regularisation"), asked.pop("learning_rate"))
        people = human_files.read_people(Path(snakemake.input.people))
        combined = snakemake.wildcards.get("combined")
        probe_layers(
            layers_asked(snakemake.input.layers, people, combined, params.get("combined")),
            people,
            Plan(**parts, settings=settings, schedule=Schedule(**asked)),
            params.distance,
            params.ties,
            params.seed,
            snakemake.resources.device,
            # folds of other code are not taken
            Path(params.checkpoints) / params.code,
            Outputs(Path(output.table), Path(output.parquet), Path(output.recipe), Path(output.transforms)),
        )
