"""One table of models and people: odd-one-out accuracy of every layer, and what regression and probes add to it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# as odd_one_out.py writes them
_OF_CHOICES = (
    *("accuracy", "low", "high", "low_people", "high_people"),
    *("low_triplets", "high_triplets", "error_triplets", "error_objects", "error_people", "error_both"),
    *("tie_rate", "fair", "published", "nll", "nll_fitted", "temperature"),
)
_OF_PROBES = ("before", "after", "gain")
_BOUNDS = ("", "_low", "_high")
_OF_BEST = {"best": "accuracy", "best_low": "low", "best_high": "high", "best_error": "error", "best_share": "share"}
COLUMNS = {
    **dict.fromkeys(("dataset", "condition", "model", "bundle", "name", "noise"), "string"),
    "t": "float64",
    **dict.fromkeys(("conditioning", "layer"), "string"),
    "depth": "float64",
    **dict.fromkeys(("is_best", "is_default", "is_baseline"), "bool"),
    **dict.fromkeys((*_OF_CHOICES, "chance", "leave_one_out", "majority"), "float64"),
    **dict.fromkeys(_OF_BEST, "float64"),
    "best_layer": "string",
    **dict.fromkeys(("choices", "distinct_triplets"), "int64"),
    **dict.fromkeys(("distance", "ties", "precision"), "string"),
    "pca": "Int64",
    **dict.fromkeys(("r2", "predicted", "predicted_low", "predicted_high"), "float64"),
    **{f"{what}{bound}": "float64" for what in _OF_PROBES for bound in _BOUNDS},
    **dict.fromkeys(("probe_choices", "probe_distinct_triplets"), "Int64"),
    "miniature": "bool",
}


@dataclass(frozen=True)
class Bundle:
    """What is known of a bundle beside its results: the name as typed, its default layer, whether it is a baseline."""

    name: str
    default_layer: str
    is_baseline: bool
    miniature: bool


@dataclass(frozen=True)
class Results:
    """The files of one analysis of a bundle."""

    table: Path
    recipe: Path


@dataclass(frozen=True)
class Place:
    """Where a bundle was compared with people. results: analysis -> its files."""

    dataset: str
    condition: str
    bundle: str
    results: Mapping[str, Results]


def human_table(places: Sequence[Place], bundles: Mapping[str, Bundle], tsv: Path, parquet: Path) -> None:
    """Write one row a layer, as TSV and Parquet with the same rows; what was not asked for is empty.

    Columns: docs/human.md. Every place has results of ``odd_one_out``; ``regression`` and ``probe`` may be absent.
    """
    layers = [row for place in places for row in rows(place, bundles[place.bundle])]
    logs.log.info("%d layers of %d bundles", len(layers), len(places))
    tables.write(tables.frame(layers, COLUMNS), tsv, parquet)


def rows(place: Place, about: Bundle) -> Iterator[dict[str, Any]]:
    """The rows of one bundle, in order of depth."""
    table = tables.read_tsv(place.results["odd_one_out"].table).set_index("layer")
    recipe = json.loads(place.results["odd_one_out"].recipe.read_text(encoding="utf-8"))
    made, choices = recipe["features"], recipe["people"]["choices"]
    beside: dict[str, dict[str, Any]] = {layer: {} for layer in table.index}
    for analysis, read in _READ.items():
        for layer, values in read(place.results[analysis]).items() if analysis in place.results else ():
            beside[layer] |= values
    shared = {
        **{key: getattr(place, key) for key in ("dataset", "condition", "bundle")},
        "model": made["model"]["name"],
        "name": about.name,
        "noise": made["noise"],
        "t": made.get("noise_level", {}).get("t"),
        "conditioning": made["conditioning"],
        "is_baseline": about.is_baseline,
        "chance": recipe["chance"],
        **{key: (choices["ceilings"] or {}).get(key) for key in ("leave_one_out", "majority")},
        "choices": choices["choices"],
        "distinct_triplets": choices["distinct_triplets"],
        **{key: recipe[key] for key in ("distance", "ties", "precision", "pca")},
        "miniature": about.miniature,
    }
    best = table["accuracy"].idxmax()
    elsewhere = recipe["best"] or {}
    shared |= {key: elsewhere.get(name) for key, name in _OF_BEST.items()} | {"best_layer": elsewhere.get("layer")}
    for i, (layer, values) in enumerate(table.to_dict("index").items()):
        yield {
            **shared,
            "layer": layer,
            "depth": i / max(1, len(table) - 1),
            "is_best": layer == best,
            "is_default": layer == about.default_layer,
            **{key: values[key] for key in _OF_CHOICES},
            **beside[str(layer)],
        }


def _regression(results: Results) -> Mapping[Any, Mapping[Any, float]]:
    """By layer: mean R² over dimensions, and the odd-one-out accuracy of the predicted dimensions."""
    means = tables.read_tsv(results.table).groupby("layer")["r2"].mean()
    by_layer = json.loads(results.recipe.read_text(encoding="utf-8"))["layers"]
    keys = {"predicted": "accuracy", "predicted_low": "low", "predicted_high": "high"}
    return {
        layer: {"r2": means[layer], **{to: each[key] for to, key in keys.items()}} for layer, each in by_layer.items()
    }


def _probe(results: Results) -> Mapping[Any, Mapping[Any, float]]:
    """By layer: accuracy before and after, and the gain, on objects left out."""
    table = tables.read_tsv(results.table).set_index("layer")
    named = {"choices": "probe_choices", "distinct_triplets": "probe_distinct_triplets"}
    kept = [*(f"{what}{bound}" for what in _OF_PROBES for bound in _BOUNDS), *named.values()]
    return table.rename(columns=named)[kept].to_dict("index")


_READ = {"regression": _regression, "probe": _probe}


def places_of(listed: Sequence[Sequence[str]], inputs: Mapping[str, Sequence[str]]) -> list[Place]:
    """The places (dataset, condition, bundle) with their files, which inputs list in the same order."""
    analyses = [name for name in inputs if not name.endswith("_recipes")]
    files = {name: list(zip(inputs[name], inputs[f"{name}_recipes"], strict=True)) for name in analyses}
    return [
        Place(dataset, condition, bundle, {name: Results(*map(Path, files[name][row])) for name in analyses})
        for row, (dataset, condition, bundle) in enumerate(listed)
    ]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "human_table"):
        human_table(
            places_of(snakemake.params.places, dict(snakemake.input.items())),
            {bundle: Bundle(**about) for bundle, about in snakemake.params.bundles.items()},
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
