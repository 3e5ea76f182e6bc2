"""What transforms into one space are worth on images that they were not fitted to, and what one gains on another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.io import tables
from diffalign.io.feature_files import layer_path
from diffalign.io.headers import StoreError
from diffalign.io.shared_transform_files import RECIPE, Layers, SharedTransform, read_layers, read_shared_transform
from diffalign.offenders import first_five
from diffalign.shared_space.contrasts import (
    BEST_LINEAR,
    METRICS,
    Drawing,
    Estimate,
    Images,
    Measured,
    compare,
    measure,
    measure_fitted,
    over_seeds,
)
from diffalign.shared_space.transforms import SEEDED, UNALIGNED, Settings, run_name

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FIT, HELD_OUT = "fit", "held_out"
SCORES = {
    **dict.fromkeys(("a", "b", "method"), "string"),
    **dict.fromkeys(("seed", "seeds"), "Int64"),
    **dict.fromkeys(("images", "metric"), "string"),
    **dict.fromkeys(("n", "groups"), "int64"),
    **dict.fromkeys(("score", "low", "high", "null_mean", "p"), "float64"),
    "reason": "string",
}
CONTRASTS = {
    **dict.fromkeys(("a", "b", "method", "reference", "against", "metric"), "string"),
    **dict.fromkeys(("n", "groups"), "int64"),
    **dict.fromkeys(("difference", "low", "high"), "float64"),
    "reason": "string",
}


def shared_scores(
    transforms: Sequence[Path],
    features: tuple[Path, Path],
    manifest: Path | None,
    fitted_recipe: Path,
    settings: Settings,
    outputs: Mapping[str, Path],
) -> None:
    """Write the scores of every method on fitted and on held-out images, and differences on held-out images.

    transforms: all files of `shared_transforms`. features, manifest: those that it had. fitted_recipe: its recipe.
    outputs: ``scores_tsv``, ``scores_parquet``, ``contrasts_tsv``, ``contrasts_parquet``, ``recipe``.

    scores: a row a method, images (``fit``, ``held_out``) and metric, and for trained methods a row a seed and one of
    the mean over seeds, whose seed is missing; seeds: how many it is of, missing where nothing is trained. Fitted
    images have neither null nor interval. contrasts: every method less ``padded``, and less the best linear method,
    which folds of the fitted images chose; against: the method that it is. n, groups: how many images there are, and
    groups of them, of which each may be one. reason: why an interval or p is missing on held-out images. What intervals
    and p-values hold over says `diffalign.shared_space.contrasts`.

    Raises StoreError for transforms of other settings, images or features, and where images of one group are both
    fitted and held out.
    """
    layers = read_layers(features, manifest)
    recipe = RECIPE.read_json(fitted_recipe)
    for side, path, facts in zip("ab", features, layers.facts, strict=True):
        if recipe[side]["sha256"] != facts["sha256"]:
            raise StoreError(f"{path}: has changed since {fitted_recipe} was written; delete it and rerun")
    runs = read_runs(transforms, settings, layers, features[0])
    is_fit = np.isin(layers.names, runs[0].names)
    inner, outer = layers.part(np.flatnonzero(is_fit)), layers.part(np.flatnonzero(~is_fit))
    if both := sorted(set(inner.groups) & set(outer.groups)):
        raise StoreError(
            f"{transforms[0]}: of {len(both)} groups some images were fitted and others are held out, first: "
            f"{first_five(both)}; delete it and rerun"
        )
    fit_labels, labels = inner.labels, outer.labels
    # a share of images may have one label where all have several
    if labels is not None and fit_labels is not None and min(len(set(labels)), len(set(fit_labels))) < 2:
        labels = fit_labels = None
    images, fit_images = Images(outer.names, labels, outer.groups), Images(inner.names, fit_labels, inner.groups)
    counts = {
        part: {"n": len(of.names), "groups": of.units.count} for part, of in ((FIT, fit_images), (HELD_OUT, images))
    }
    drawing = Drawing(settings.permutations, settings.bootstrap, settings.seed, settings.penalties, settings.k)
    metrics = [metric for metric in METRICS if labels is not None or metric != "own_label"]
    measured: dict[str, list[Measured]] = {}
    on_fitted: dict[str, list[Mapping[str, float]]] = {}
    widths: dict[str, int] = {}
    for run in logs.progress(runs, len(runs), "transforms"):
        inside, outside = (
            (run.pair.first.apply(of.values[0]), run.pair.second.apply(of.values[1])) for of in (inner, outer)
        )
        made = measure(inside, outside, fit_images, images, run.seed, drawing)
        measured.setdefault(run.method, []).append(made)
        on_fitted.setdefault(run.method, []).append(measure_fitted(inside, fit_images, made.prediction, drawing))
        widths[run_name(run.method, run.seed)] = inside[0].shape[1]
    pair = dict(zip("ab", layers.titles, strict=True))
    scores: list[dict[str, Any]] = []
    for method, of in measured.items():
        fits = {metric: [Estimate(each[metric]) for each in on_fitted[method]] for metric in metrics}
        outs = {metric: [each.estimates[metric] for each in of] for metric in metrics}
        if method in SEEDED:
            for metric in metrics:
                fits[metric].append(Estimate(float(np.mean([each.score for each in fits[metric]]))))
                outs[metric].append(over_seeds(metric, of, images, drawing))
        of_seeds = [(run.seed, None if run.seed is None else 1) for run in of]
        of_seeds += [(None, len(of))] if method in SEEDED else []
        for part, found in ((FIT, fits), (HELD_OUT, outs)):
            scores += (
                {**pair, "method": method, "images": part, "metric": metric, "seed": seed, "seeds": number}
                | counts[part]
                | asdict(estimate)
                for metric in metrics
                for (seed, number), estimate in zip(of_seeds, found[metric], strict=True)
            )
    tables.write(tables.frame(scores, SCORES), outputs["scores_tsv"], outputs["scores_parquet"])
    contrasts = [
        {**pair, "method": method, "reference": reference, "against": other, "metric": metric}
        | counts[HELD_OUT]
        | asdict(compare(metric, measured[method], measured[other], images, drawing))
        for reference, other in references(recipe)
        for method in measured
        if method not in (other, UNALIGNED)
        for metric in metrics
    ]
    tables.write(tables.frame(contrasts, CONTRASTS), outputs["contrasts_tsv"], outputs["contrasts_parquet"])
    RECIPE.write_json(
        outputs["recipe"],
        settings=asdict(settings),
        images={part: of["n"] for part, of in counts.items()},
        groups={part: of["groups"] for part, of in counts.items()},
        exchanged=images.units.exchanges.scheme,
        dimensions=widths,
        selection=recipe["selection"],
        chosen=recipe["chosen"],
        undefined=sorted({row["metric"] + " of " + row["method"] for row in scores if np.isnan(row["score"])}),
        holds_over=(
            f"{'images' if images.units.alone else 'groups of images'} of this data set that nothing was fitted to, "
            "given the transforms; means also over seeds"
        ),
        a=layers.facts[0],
        b=layers.facts[1],
    )


def references(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What methods are compared with: a name of the reference, and the method that it is."""
    selection = recipe["selection"]
    best = [] if selection is None or not selection["best"] else [(BEST_LINEAR, selection["best"])]
    return [(UNALIGNED, UNALIGNED), *best]


def read_runs(paths: Sequence[Path], settings: Settings, layers: Layers, where: Path) -> list[SharedTransform]:
    """All transforms, in the order of the settings. where: the file of features, for messages.

    Raises StoreError where one is missing, repeated or unknown, and where they were fitted to other images.
    """
    found = {path: read_shared_transform(path) for path in paths}
    by_run = {(each.method, each.seed): each for each in found.values()}
    wanted = [run_name(*run) for run in settings.runs]
    if len(by_run) < len(found) or by_run.keys() != set(settings.runs):
        there = ", ".join(run_name(each.method, each.seed) for each in found.values())
        raise StoreError(f"{paths[0].parent}: transforms are of {there}; expected {', '.join(wanted)}")
    first = next(iter(found.values()))
    for path, each in found.items():
        if each.names != first.names or not set(each.names) < set(layers.names):
            raise StoreError(f"{path}: was fitted to other images than {paths[0]}, or to some that {where} lacks")
    return [by_run[run] for run in settings.runs]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_scores"), threadpool_limits(snakemake.threads):
        given, layers = snakemake.input, snakemake.params.layers
        shared_scores(
            [Path(path) for path in given.transforms],
            (layer_path(Path(given.a), layers[0]), layer_path(Path(given.b), layers[1])),
            Path(manifest) if (manifest := given.get("manifest")) else None,
            Path(given.recipe),
            Settings.of(snakemake.params.settings),
            {key: Path(path) for key, path in snakemake.output.items()},
        )
