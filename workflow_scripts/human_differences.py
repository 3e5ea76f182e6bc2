"""Paired differences of odd-one-out accuracy between all bundles that are compared with people."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign import logs
from diffalign.human.dependence import (
    Selected,
    chosen_on_other_objects,
    covariance,
    holm,
    known,
    p_of_differences,
    selection_folds,
)
from diffalign.human.odd_one_out import Choices
from diffalign.human.triplets import distinct
from diffalign.io import human_files, tables
from diffalign.io.headers import StoreError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("dataset", "condition", "a", "b", "name_a", "name_b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("share_a", "share_b", "accuracy_a", "accuracy_b"), "float64"),
    **dict.fromkeys(("difference", "error", "low", "high", "p", "p_holm"), "float64"),
    **dict.fromkeys(("reason", "over"), "string"),
    **dict.fromkeys(("choices", "distinct_triplets"), "int64"),
    "miniature": "bool",
}


# why a pair has no p
NO_ERROR = "all choices differ alike, so that the difference has no error"


@dataclass(frozen=True)
class Place:
    """One data set under one condition. bundles: in order, with their files of predicted choices and their recipes."""

    dataset: str
    condition: str
    people: Path
    bundles: tuple[str, ...]
    choices: tuple[Path, ...]
    recipes: tuple[Path, ...]


def human_differences(
    places: Sequence[Place], bundles: Mapping[str, Mapping[str, Any]], seed: int, tsv: Path, parquet: Path
) -> None:
    """Write one row a pair of bundles of a place, as TSV and Parquet with the same rows.

    Columns: docs/human.md. bundles: name as typed and whether weights are random, of each. Raises StoreError where
    predicted choices are of other objects.
    """
    found = [row for place in places for row in rows(place, bundles, seed)]
    logs.log.info("%d pairs of bundles", len(found))
    tables.write(tables.frame(found, COLUMNS), tsv, parquet)


def rows(place: Place, bundles: Mapping[str, Mapping[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """The rows of one place. Every bundle counts by the layer that is best on other objects."""
    people = human_files.read_people(place.people)
    folds = selection_folds(people.names, seed)
    selected: list[Selected] = []
    layers: list[str] = []
    for choices, recipe in zip(place.choices, place.recipes, strict=True):
        ties = json.loads(recipe.read_text(encoding="utf-8"))["ties"]
        with np.load(choices, allow_pickle=False) as file:
            if tuple(file["names"].tolist()) != people.names or file["closest"].shape[1] != len(people.triplets):
                raise StoreError(f"{choices}: its choices are not those of {place.people}")
            gained = np.stack([Choices(closest).credit(ties).astype(np.float32) for closest in file["closest"]])
            names = file["layers"].tolist()
        selected.append(chosen_on_other_objects(gained, people.triplets, folds))
        layers.append(names[int(selected[-1].shares.argmax())])
    kept = np.logical_and.reduce([each.kept for each in selected])
    if not kept.any():
        logs.log.warning("%s: every triplet shares a fold of objects with every other; no differences", place.dataset)
        return
    part = people.triplets.taken(kept)
    over = covariance(np.stack([each.credit[kept] for each in selected]), part, known(part))
    pairs = list(combinations(range(len(selected)), 2))
    weights = np.zeros((len(pairs), len(selected)))
    for row, (i, j) in enumerate(pairs):
        weights[row, i], weights[row, j] = 1, -1
    interval = over.interval(weights)
    differences = weights @ over.means
    p = p_of_differences(interval, differences, over.freedom)
    adjusted = holm(p)
    for row, (i, j) in enumerate(pairs):
        a, b = place.bundles[i], place.bundles[j]
        yield {
            "dataset": place.dataset,
            "condition": place.condition,
            "a": a,
            "b": b,
            "name_a": bundles[a]["name"],
            "name_b": bundles[b]["name"],
            "layer_a": layers[i],
            "layer_b": layers[j],
            "share_a": selected[i].shares.max(),
            "share_b": selected[j].shares.max(),
            "accuracy_a": over.means[i],
            "accuracy_b": over.means[j],
            "difference": differences[row],
            "error": interval.error[row],
            "low": interval.low[row],
            "high": interval.high[row],
            "p": p[row],
            "p_holm": adjusted[row],
            "reason": "" if np.isfinite(p[row]) else NO_ERROR,
            "over": " and ".join(over.over),
            "choices": len(part),
            "distinct_triplets": distinct(part),
            "miniature": bundles[a]["miniature"] or bundles[b]["miniature"],
        }


def places_of(
    listed: Sequence[Sequence[str]], people: Sequence[str], choices: Sequence[str], recipes: Sequence[str]
) -> list[Place]:
    """Places from (dataset, condition, bundle) with the files of each, in the same order."""
    grouped: dict[tuple[str, str], list[tuple[str, Path, Path, Path]]] = {}
    for (dataset, condition, bundle), *files in zip(listed, people, choices, recipes, strict=True):
        of_people, of_choices, recipe = map(Path, files)
        grouped.setdefault((dataset, condition), []).append((bundle, of_people, of_choices, recipe))
    return [
        Place(
            *where,
            found[0][1],
            tuple(each[0] for each in found),
            tuple(each[2] for each in found),
            tuple(each[3] for each in found),
        )
        for where, found in grouped.items()
    ]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "human_differences"):
        given, params = snakemake.input, snakemake.params
        human_differences(
            places_of(params.places, given.people, given.choices, given.recipes),
            params.bundles,
            params.seed,
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
