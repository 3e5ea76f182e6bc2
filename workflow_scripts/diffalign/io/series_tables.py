"""Tables of many bundles against one reference: their rows and columns, and the recipe beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffalign import __version__
from diffalign.alignment import grouped, series
from diffalign.alignment.groups import Exchanges
from diffalign.alignment.metrics import Settings, measure_grid
from diffalign.io.headers import FileKind
from diffalign.io.prepared_features import preparation_settings
from diffalign.io.recipes import Drawing, Where, drawing_recipe
from diffalign.io.score_recipes import is_miniature, leak
from diffalign.io.unlisted_sides import UnlistedSide

KIND = FileKind("a recipe of a series", 1)

# what a row is of, after what each table has of its own
IDENTITY = {
    **dict.fromkeys(("bundle", "layer"), "string"),
    "depth": "int64",
    **dict.fromkeys(("metric", "dataset", "condition", "reference", "reference_layer"), "string"),
    **dict.fromkeys(("n", "groups", "k"), "int64"),
}
# what a row has of the half of the images that does not choose, beside the score
SECOND_HALF = ("error", "low", "high", "p", "threshold", "calibrated")
# score, error and 95 % interval (over images) and null of a layer on all images; maximum_p: of the largest score among
# the layers of the bundle. first_half: score on the half of the images that chooses; second_half: on the other half,
# with error, interval and null. leak: what the bundle was given of its reference
MEASURED = {
    **dict.fromkeys(("score", "error", "low", "high"), "float64"),
    **dict.fromkeys(("null_mean", "null_sd", "z", "p", "threshold", "calibrated"), "float64"),
    "maximum_p": "float64",
    "chosen": "bool",
    "first_half": "float64",
    **dict.fromkeys(("second_half", *(f"second_half_{key}" for key in SECOND_HALF)), "float64"),
    "n_second_half": "int64",
    "groups_second_half": "int64",
    "leak": "string",
    "miniature": "bool",
}


def rows(
    metrics: Sequence[str],
    side: UnlistedSide,
    reference: UnlistedSide,
    where: Where,
    settings: Settings,
    drawn: series.Drawn,
    groups: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """A row a metric and layer of a bundle, with the columns of IDENTITY and MEASURED but ``chosen``, which depends on
    what is chosen from. The reference has one layer. Nulls, errors and halves take the groups of the data set as
    wholes. groups: (N,), in their place, groups within which images are relabelled, as `alignment.grouped` does.
    """
    memory = side.search.memory_mb * 2**20
    if groups is None:
        of = side.groups
        first, second = of.halves(drawn.seed)
        (of_all,), (of_second,) = (reference.of(keep) for keep in (None, second))
        counted, counted_second = of.count, of.at(second).count
        on_all = series.against(metrics, side.of(), of_all, settings, drawn, memory, of)
        on_second = series.against(metrics, side.of(second), of_second, settings, drawn, memory, of.at(second))
    else:
        both = grouped.Grouped(side.names, groups, side.of, reference.of)
        first, second = both.halves(drawn.seed)
        on_all = grouped.against(metrics, both, None, settings, drawn, memory)
        on_second = grouped.against(metrics, both, second, settings, drawn, memory)
        counted, counted_second = len(set(groups)), len({groups[image] for image in second})
    on_first = measure_grid(metrics, side.of(first), reference.of(first), settings, memory)
    for metric in metrics:
        for depth, layer in enumerate(side.layers):
            half = on_second[metric].row(depth)
            yield {
                "bundle": side.recipe["bundle"],
                "layer": layer,
                "depth": depth,
                "metric": metric,
                **asdict(where),
                "reference": reference.recipe["bundle"],
                "reference_layer": reference.layers[0],
                "n": len(side.names),
                "groups": counted,
                "k": settings.k,
                **on_all[metric].row(depth),
                "maximum_p": on_all[metric].maximum_p,
                "first_half": float(on_first[metric][depth, 0]),
                "second_half": half["score"],
                **{f"second_half_{key}": half[key] for key in SECOND_HALF},
                "n_second_half": len(second),
                "groups_second_half": counted_second,
                "leak": leak(side.recipe, reference.recipe),
                # random weights of the bundle, of its reference or of an autoencoder that they read
                "miniature": is_miniature({"a": side.recipe, "b": reference.recipe}),
            }


def choose(table: Sequence[dict[str, Any]], keys: Sequence[str]) -> None:
    """Fill ``chosen``: among the rows with equal keys, that with the largest score on the first half of the images."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in table:
        row["chosen"] = False
        group = tuple(row[key] for key in keys)
        # NaN is never larger
        if row["first_half"] > best.get(group, {"first_half": float("-inf")})["first_half"]:
            best[group] = row
    for row in best.values():
        row["chosen"] = True


def write_recipe(
    path: Path,
    metrics: Sequence[str],
    where: Where,
    settings: Settings,
    drawing: Drawing,
    reference: UnlistedSide,
    bundles: Mapping[str, Mapping[str, Any]],
    exchanges: Exchanges | None,
    **more: Any,
) -> None:
    """Write everything that the rows of a table depend on. bundles: bundle -> what the recipes of its layers share.
    exchanges: of the nulls, where they are of whole groups.
    """
    drawn = {key: value for key, value in drawing_recipe(drawing, exchanges).items() if key != "split_selection"}
    KIND.write_json(
        path,
        diffalign=__version__,
        metrics=list(metrics),
        **asdict(where),
        n=len(reference.names),
        **asdict(settings),
        preparation=preparation_settings(reference.search.preparation),
        calibration=drawn,
        **more,
        reference={**reference.recipe, "layers": dict(reference.modules)},
        bundles={bundle: dict(recipe) for bundle, recipe in bundles.items()},
    )
