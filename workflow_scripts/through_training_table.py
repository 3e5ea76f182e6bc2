"""Alignment and quality of samples through training, over seeds and recipes."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffalign import logs
from diffalign.alignment.metrics import UNDEFINED
from diffalign.alignment.trainings import (
    PartialCorrelation,
    mean_over_trainings,
    paired_contrast,
    partial_spearman,
    undefined,
)
from diffalign.io import tables
from diffalign.io.headers import StoreError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# what a measure is of
ALIGNMENT, QUALITY = "alignment", "quality"
# what values of alignment are, the same for all rows of a metric; quality has no scale
CALIBRATED, RAW = "calibrated", "raw"
BOUNDS = ("low", "high")
POINTS = {
    **dict.fromkeys(("recipe", "model"), "string"),
    **dict.fromkeys(("seed", "step"), "int64"),
    **dict.fromkeys(("quantity", "measure", "scale"), "string"),
    "value": "float64",
    **dict.fromkeys(("layer", "reason"), "string"),
}
STEPS = {
    **dict.fromkeys(("recipe", "quantity", "measure", "scale"), "string"),
    "step": "int64",
    **dict.fromkeys(("mean", *BOUNDS), "float64"),
    "trainings": "int64",
    **dict.fromkeys(("gain", *(f"gain_{bound}" for bound in BOUNDS)), "float64"),
    "gain_trainings": "int64",
    **dict.fromkeys(("gain_from", "gain_to"), "float64"),
}
CONTRASTS = {
    **dict.fromkeys(("recipe", "other", "quantity", "measure", "scale"), "string"),
    "step": "int64",
    **dict.fromkeys(("difference", *BOUNDS), "float64"),
    "trainings": "int64",
}
CORRELATIONS = {
    **dict.fromkeys(("metric", "scale", "measure"), "string"),
    **dict.fromkeys(("rho", "p", *BOUNDS), "float64"),
    **dict.fromkeys(("trainings", "recipes", "steps"), "int64"),
    "reason": "string",
}
_QUALITY = ("model", "step", "measure", "value")


@dataclass(frozen=True)
class Tables:
    """Tables that are written, each as TSV and Parquet."""

    points: "pd.DataFrame"
    steps: "pd.DataFrame"
    contrasts: "pd.DataFrame"
    correlations: "pd.DataFrame"


def through_training_table(
    alignment: Path, quality: Path | None, measures: Sequence[str], seed: int, outputs: Mapping[str, Path]
) -> None:
    """Write four tables. alignment: of `training_alignment`. quality: columns model, step, measure, value at least;
    measures: those that count, all of them for none. outputs: ``{table}_tsv`` and ``{table}_parquet``.

    points: recipe, model, seed, step, quantity (alignment or quality), measure (a metric or a measure of quality),
    scale, value, layer, reason (why a value is missing). Alignment is that of the layer chosen on one half of the
    images, on the other half. scale: calibrated, or raw where no checkpoint has a calibrated score by this metric; it
    is the same for all rows of a metric, and empty for quality.

    steps: mean over trainings with its 95 % interval; gain over step 0 with its interval, over those trainings alone
    that have a value at both steps: gain_trainings, whose means are gain_from (step 0) and gain_to. contrasts:
    difference of two recipes at the same step, paired by seed. correlations: partial rank correlation of alignment and
    quality given step and recipe, over the steps after 0 at which every training has both; reason: why rho, p or the
    interval are missing.
    """
    made = summaries(tables.read_tsv(alignment), None if quality is None else _read_quality(quality), measures, seed)
    for name, table in vars(made).items():
        tables.write(table, outputs[f"{name}_tsv"], outputs[f"{name}_parquet"])


def _read_quality(path: Path) -> pd.DataFrame:
    quality = tables.read_tsv(path)
    missing = [column for column in _QUALITY if column not in quality]
    if missing:
        raise StoreError(f"{path}: lacks the columns {', '.join(missing)}; expected {', '.join(_QUALITY)} at least")
    return quality


def summaries(alignment: pd.DataFrame, quality: pd.DataFrame | None, measures: Sequence[str], seed: int) -> Tables:
    """The four tables. Raises ValueError for a measure that no row has and for two values of one checkpoint."""
    rows = list(_alignment_points(alignment))
    if quality is not None:
        rows += _quality_points(alignment, quality, measures)
    points = tables.frame(rows, POINTS)
    twice = points.duplicated(["model", "step", "quantity", "measure"])
    if twice.any():
        first = points[twice].iloc[0]
        raise ValueError(f"{first['model']} has two values of {first['measure']} at step {first['step']}")
    return Tables(
        points,
        tables.frame(_steps(points), STEPS),
        tables.frame(_contrasts(points), CONTRASTS),
        tables.frame(_correlations(points, seed), CORRELATIONS),
    )


def _alignment_points(alignment: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One value a checkpoint and metric: of the layer chosen on half, on the other half.

    Calibrated or raw is decided once a metric: raw and calibrated scores have neither a mean nor a difference.
    """
    chosen = alignment[alignment["chosen"]]
    has = chosen.groupby("metric")["second_half_calibrated"].count() > 0
    for each in chosen.to_dict("records"):
        scale = CALIBRATED if has[each["metric"]] else RAW
        value = each["second_half_calibrated" if scale == CALIBRATED else "second_half"]
        known = {key: each[key] for key in ("recipe", "model", "seed", "step", "layer")}
        yield {
            **known,
            "quantity": ALIGNMENT,
            "measure": each["metric"],
            "scale": scale,
            "value": value,
            "reason": _missing(value, each["second_half"]),
        }


def _missing(value: float, score: float) -> str:
    """Why a checkpoint has no value of alignment; '' where it has one."""
    if not math.isnan(value):
        return ""
    if math.isnan(score):
        return UNDEFINED
    return "the score has no threshold, so no calibrated score, which other checkpoints have"


def _quality_points(
    alignment: pd.DataFrame, quality: pd.DataFrame, measures: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for measure in measures:
        if measure not in set(quality["measure"]):
            raise ValueError(f"no row of the quality of samples has the measure '{measure}'")
    wanted = quality[quality["measure"].isin(measures)] if measures else quality
    trainings = alignment[["recipe", "model", "seed"]].drop_duplicates()
    # of the given table neither the order of rows nor that of measures counts
    ordered = wanted[list(_QUALITY)].sort_values(["measure", "step", "model"])
    joined = trainings.merge(ordered, on="model")
    for each in joined.assign(quantity=QUALITY, scale="", layer="", reason="").to_dict("records"):
        yield {str(key): value for key, value in each.items()}


def _steps(points: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (recipe, quantity, measure), of_measure in points.groupby(["recipe", "quantity", "measure"], sort=False):
        at = {step: _by_training(rows, "model") for step, rows in of_measure.groupby("step")}
        for step, values in at.items():
            if not values:
                continue
            mean = mean_over_trainings(np.array(list(values.values())))
            yield {
                "recipe": recipe,
                "quantity": quantity,
                "measure": measure,
                "scale": of_measure["scale"].iloc[0],
                "step": step,
                "mean": mean.value,
                "low": mean.low,
                "high": mean.high,
                "trainings": mean.trainings,
                **_gain(at.get(0, {}), values),
            }


def _gain(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """What trainings gain that have a value at step 0 and at a later one. before, after: training -> value."""
    paired = sorted(before.keys() & after.keys())
    if not paired:
        return {"gain_trainings": 0}
    first, last = (np.array([values[name] for name in paired]) for values in (before, after))
    gain = mean_over_trainings(last - first)
    return {
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_trainings": gain.trainings,
        "gain_from": float(first.mean()),
        "gain_to": float(last.mean()),
    }


def _by_training(rows: pd.DataFrame, key: str) -> dict[Any, float]:
    """Value of each training, in order of its key; those without a value are left out."""
    defined = rows[np.isfinite(rows["value"])].sort_values(key)
    return dict(zip(defined[key], defined["value"], strict=True))


def _contrasts(points: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of every two recipes, the later one of the study less the earlier one."""
    for (quantity, measure, step), rows in points.groupby(["quantity", "measure", "step"], sort=False):
        of_recipe = {recipe: _by_training(each, "seed") for recipe, each in rows.groupby("recipe", sort=False)}
        for other, recipe in itertools.combinations(of_recipe, 2):
            if of_recipe[recipe].keys() & of_recipe[other].keys():
                contrast = paired_contrast(of_recipe[recipe], of_recipe[other])
                yield {
                    "recipe": recipe,
                    "other": other,
                    "quantity": quantity,
                    "measure": measure,
                    "scale": rows["scale"].iloc[0],
                    "step": step,
                    "difference": contrast.value,
                    "low": contrast.low,
                    "high": contrast.high,
                    "trainings": contrast.trainings,
                }


def _correlations(points: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    grids = {
        (quantity, measure): rows[rows["step"] > 0].pivot(index="model", columns="step", values="value")
        for (quantity, measure), rows in points.groupby(["quantity", "measure"], sort=False)
    }
    trainings = points.drop_duplicates("model").set_index("model")[["recipe", "seed"]]
    scale_of = points.drop_duplicates("measure").set_index("measure")["scale"]
    for (_, metric), aligned in ((key, grid) for key, grid in grids.items() if key[0] == ALIGNMENT):
        for (_, measure), good in ((key, grid) for key, grid in grids.items() if key[0] == QUALITY):
            # of a single training there is nothing to correlate
            if len(aligned.index.intersection(good.index)) > 1:
                found = _correlation(aligned, good, trainings, seed)
                yield {"metric": metric, "scale": scale_of[str(metric)], "measure": measure, **asdict(found)}


def _correlation(aligned: pd.DataFrame, good: pd.DataFrame, trainings: pd.DataFrame, seed: int) -> PartialCorrelation:
    """Of one metric and one measure of quality, a row a training and a column a step after 0. trainings: their recipes
    and seeds, by name.
    """
    steps = [step for step in aligned if step in good]
    x, y = aligned[steps], good.reindex(aligned.index)[steps]
    whole = (x.notna() & y.notna()).all()
    recipes, seeds = (trainings.loc[x.index, key].tolist() for key in ("recipe", "seed"))
    if not whole.any():
        reason = "every step after 0 lacks one of them in some training"
        return undefined(reason, trainings=len(x), recipes=len(set(recipes)), steps=0)
    return partial_spearman(x.loc[:, whole].to_numpy(), y.loc[:, whole].to_numpy(), seed, recipes, seeds)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "through_training_table"):
        beside = dict(snakemake.input.items()).get("quality")
        through_training_table(
            Path(snakemake.input.alignment),
            None if beside is None else Path(beside),
            snakemake.params.measures,
            snakemake.params.seed,
            {key: Path(path) for key, path in snakemake.output.items()},
        )
