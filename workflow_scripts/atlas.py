"""An atlas of one model: every layer at every noise level against a reference, beside what controls reach."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import partial, series
from diffalign.io import control_sides, recipes, tables
from diffalign.io.control_sides import UNTRAINED, ControlSide
from diffalign.io.series_tables import IDENTITY, MEASURED, choose, rows, write_recipe
from diffalign.io.unlisted_sides import Search, UnlistedSide, read_side
from diffalign.noise import log_snr

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TRAINED = "trained"
SCORES = {
    **dict.fromkeys(("model", "source"), "string"),
    **dict.fromkeys(("level", "log_snr"), "float64"),
    **IDENTITY,
    **MEASURED,
    "warning": "string",
}
BEYOND = {
    **dict.fromkeys(("model", "bundle"), "string"),
    **dict.fromkeys(("level", "log_snr"), "float64"),
    "layer": "string",
    "depth": "int64",
    "given": "string",
    **dict.fromkeys(("share", "share_low", "share_high", "cka", "cka_low", "cka_high"), "float64"),
    **dict.fromkeys(("controls", "n"), "int64"),
    "reason": "string",
}


@dataclass(frozen=True)
class Level:
    """A noise level t, and where the features of the model at it and of its untrained twin lie: their manifests."""

    level: float
    trained: Path
    untrained: Path


@dataclass(frozen=True)
class Control:
    """What could be shared for other reasons: ``labels``, ``untrained``, or a bundle of its own and some layers of it.

    name: as it was typed. features: its manifest; None for labels and the twin.
    """

    name: str
    features: Path | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What an atlas is made of. reference: a manifest of features and a layer. manifest: of the images, with labels."""

    model: str
    levels: Sequence[Level]
    reference: tuple[Path, str]
    controls: Sequence[Control]
    manifest: Path


def atlas(
    inputs: Inputs,
    metrics: Sequence[str],
    components: int,
    settings: tuple[Path, Path],
    where: recipes.Where,
    search: Search,
    outputs: Mapping[str, Path],
) -> None:
    """Write two tables. components: of each control, at most, that count as given; settings: of scores and nulls.

    scores: model, source (trained, untrained, or the name of a control), level (t; empty for controls), log_snr, the
    columns of `series_tables`, and warning, where pure noise (t = 1) lies above its null. chosen: the layer and level
    with the largest score of a source on the first half of the images, below t = 1.

    beyond: model, bundle, level, log_snr, layer, depth; given: the controls, joined by +, once all of them and once
    each by itself; share of squared covariance beyond them and unbiased CKA of residuals, with 95 % intervals over
    images (`alignment.partial`); controls: their dimensions.

    outputs: ``scores_tsv``, ``scores_parquet``, ``beyond_tsv``, ``beyond_parquet``, ``recipe``. Raises StoreError for
    other images and for images without a label where labels are a control.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    drawn = series.Drawn(drawing.permutations, drawing.alpha, drawing.seed)
    reference = read_side(inputs.reference[0], search, [inputs.reference[1]])
    own = {control.name: _read_control(control, inputs, reference, search) for control in inputs.controls}
    made_of: dict[str, Mapping[str, Any]] = {}
    measured: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []

    def add(side: UnlistedSide, source: str, level: float) -> None:
        place = {"model": inputs.model, "source": source, "level": level, "log_snr": log_snr(level)}
        measured.extend({**place, **row} for row in rows(metrics, side, reference, where, setting, drawn))

    for name, control in own.items():
        if control is not None:
            add(control.side, name, math.nan)
    for level in logs.progress(inputs.levels, len(inputs.levels), "noise levels"):
        sides = {
            source: read_side(path, search, like=reference, where=inputs.reference[0])
            for source, path in ((TRAINED, level.trained), (UNTRAINED, level.untrained))
        }
        for source, side in sides.items():
            made_of[side.recipe["bundle"]] = side.recipe
            add(side, source, level.level)
        shares += ({"model": inputs.model, **row} for row in _shares(sides, reference, own, components, level.level))
    warn(measured, drawing.alpha)
    # at t = 1 there is no image
    choose([row for row in measured if row["level"] != 1], ["source", "metric"])
    tables.write(
        tables.frame(({"chosen": False, **row} for row in measured), SCORES),
        outputs["scores_tsv"],
        outputs["scores_parquet"],
    )
    tables.write(tables.frame(shares, BEYOND), outputs["beyond_tsv"], outputs["beyond_parquet"])
    exchanges = reference.groups.exchanges
    given = {"controls": list(own), "components": components}
    write_recipe(outputs["recipe"], metrics, where, setting, drawing, reference, made_of, exchanges, **given)


def warn(measured: Sequence[dict[str, Any]], alpha: float) -> None:
    """Fill ``warning`` of rows at t = 1 whose bundle has a layer above its null, p at most alpha, and log it.

    There is no image in pure noise, so that such a score is of noise that both sides share, or the null is wrong. With
    this level one test in 1 / alpha warns by chance.
    """
    for row in measured:
        if row["level"] == 1 and row["maximum_p"] <= alpha:
            row["warning"] = f"pure noise above its null, p = {row['maximum_p']:.2g}"
    for source, metric, told in dict.fromkeys(
        (row["source"], row["metric"], row["warning"]) for row in measured if "warning" in row
    ):
        logs.log.warning("%s, %s: %s: noise is shared, or the null is wrong", source, metric, told)


def _read_control(control: Control, inputs: Inputs, reference: UnlistedSide, search: Search) -> ControlSide | None:
    """A control; None for the twin, which has levels."""
    if control.name == UNTRAINED:
        return None
    if control.features is not None:
        return control_sides.of_model(control.features, control.layers, reference, inputs.reference[0], search)
    return control_sides.of_labels(inputs.manifest, reference, inputs.reference[0], search)


def _shares(
    sides: Mapping[str, UnlistedSide],
    reference: UnlistedSide,
    own: Mapping[str, ControlSide | None],
    components: int,
    level: float,
) -> Iterator[dict[str, Any]]:
    """What each layer of the model shares with the reference beyond all controls, and beyond each by itself.

    Where controls are too many for the images, the row says so.
    """
    (other,) = reference.rows.values()
    names, model = reference.names, sides[TRAINED]
    fixed = {
        name: [control_sides.given(name, columns, components) for columns in control.columns]
        for name, control in own.items()
        if control is not None
    }
    spans: dict[str, partial.Controls | str] = {}
    for depth, (layer, features) in enumerate(model.rows.items()):
        columns = {
            name: fixed.get(name) or [control_sides.given(name, sides[UNTRAINED].rows[layer], components)]
            for name in own
        }
        chosen = {"+".join(own): list(own), **{name: [name] for name in own}}
        for given, members in chosen.items():
            if given not in spans or UNTRAINED in members:
                spans[given] = _span([values for name in members for values in columns[name]], names)
            span = spans[given]
            found = None if isinstance(span, str) else partial.beyond(features, other, span, reference.groups)
            share, cka = (partial.UNDEFINED,) * 2 if found is None else (found.share, found.cka)
            yield {
                "bundle": model.recipe["bundle"],
                "level": level,
                "log_snr": log_snr(level),
                "layer": layer,
                "depth": depth,
                "given": given,
                "share": share.value,
                "share_low": share.low,
                "share_high": share.high,
                "cka": cka.value,
                "cka_low": cka.low,
                "cka_high": cka.high,
                "controls": 0 if found is None else found.controls,
                "n": len(names),
                "reason": span if isinstance(span, str) else None,
            }


def _span(columns: Sequence[NDArray[np.floating]], names: Sequence[str]) -> partial.Controls | str:
    """The span of controls, or why there is none."""
    try:
        return partial.controls(columns, names)
    except ValueError as error:
        return str(error)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "atlas"), threadpool_limits(snakemake.threads):
        given, params = dict(snakemake.input.items()), snakemake.params
        where = dict(snakemake.wildcards.items())
        features = iter(given.get("controls", []))
        atlas(
            Inputs(
                where["a"],
                [
                    Level(level, Path(trained), Path(untrained))
                    for level, trained, untrained in zip(
                        params.levels, given["trained"], given["untrained"], strict=True
                    )
                ],
                (Path(given["reference"]), params.reference_layer),
                [
                    Control(name) if layers is None else Control(name, Path(next(features)), tuple(layers))
                    for name, layers in params.controls.items()
                ],
                Path(given["manifest"]),
            ),
            params.metrics,
            params.components,
            (Path(given["settings"]), Path(given["calibration"])),
            recipes.Where(where["dataset"], where["condition"]),
            Search.of_job(snakemake, params.k),
            {key: Path(path) for key, path in snakemake.output.items()},
        )
