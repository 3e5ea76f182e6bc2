"""A ladder of nulls for one pair of layers: what rivals reach in the place of a layer, and what is left given them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import ladder as nulls
from diffalign.alignment import partial, series
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.groups import Exchanges, Groups
from diffalign.alignment.metrics import METRICS, UNDEFINED, Settings, measure_grid
from diffalign.alignment.settings import Preparation
from diffalign.io import control_sides, recipes, sides, tables
from diffalign.io.control_sides import LABELS, UNTRAINED
from diffalign.io.manifest import labels_of
from diffalign.io.score_recipes import is_miniature, leak
from diffalign.io.unlisted_sides import Search, UnlistedSide, read_side, searched

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Columns = Sequence[NDArray[np.floating]]
PAIR, RIVAL, LEFT = "pair", "rival", "left"
# rungs that are no controls: images, groups and images within their group exchanged; a layer at t = 1
CHANCE, GROUPS, WITHIN_GROUPS, NOISE = "chance", "groups", "within groups", "pure noise"
NOT_ABOVE = "the score is not significantly above chance"
_CELLS = {"mean": "null_mean", "sd": "null_sd", **{key: key for key in ("z", "p", "threshold", "calibrated")}}
COLUMNS = {
    **dict.fromkeys(("part", "rung", "given"), "string"),
    "cumulative": "bool",
    **dict.fromkeys(("replaced", "rival", "rival_layer"), "string"),
    **dict.fromkeys(("metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("n", "groups", "exchanged", "k"), "int64"),
    **dict.fromkeys(("score", "low", "high", *_CELLS.values(), "share", "share_low", "share_high"), "float64"),
    "controls": "int64",
    **dict.fromkeys(("method", "reason", "leak"), "string"),
    "miniature": "bool",
}


@dataclass(frozen=True)
class Inputs:
    """The files of a ladder. a, b: manifest of features, and layer. untrained, noise: ``a``, ``b`` -> manifest of the
    twin and of pure noise, where the side has them. controls: in the order of the rungs; (manifest, layer) of models,
    None for labels and the twins. manifest: of the images; None for a data set without one.
    """

    a: tuple[Path, str]
    b: tuple[Path, str]
    controls: Mapping[str, tuple[Path, str] | None]
    untrained: Mapping[str, Path] = field(default_factory=dict)
    noise: Mapping[str, Path] = field(default_factory=dict)
    manifest: Path | None = None


@dataclass(frozen=True)
class Asked:
    """What is measured. components: of each control, at most, that count as given. permutations: exchanges of
    residuals on each side.
    """

    metrics: Sequence[str]
    components: int
    permutations: int


def ladder(
    inputs: Inputs,
    asked: Asked,
    settings: tuple[Path, Path],
    where: recipes.Where,
    search: Search,
    outputs: tuple[Path, Path],
) -> None:
    """Write one table, TSV and Parquet with the same rows. settings: of scores and of nulls.

    part: ``pair``, the score of the pair; ``rival``, that of a control in the place of one layer; ``left``, what is
    left of the score given controls. rung: chance, groups, within groups, the controls, pure noise. given: controls
    that are given, joined by +; cumulative: all up to this rung, or this one by itself. replaced: ``a`` or ``b``;
    rival, rival_layer: what stands there. low, high: 95 % interval of the score over images. null_mean, null_sd, z, p,
    threshold, calibrated: of the pair and of rivals against chance (whole groups exchanged), of what is left against
    its own null. share: what is left of the score, with an interval where a regression gives it. exchanged: groups, or
    images, that the null can move. controls: dimensions that are given. method: ``permutations``, ``moments`` or
    ``refused`` of relabelled images, ``residuals`` of exchanged residuals, ``regression`` of squared covariance.
    Of linear kernels given labels alone, p is of the relabelling. reason: why a number is missing. leak, miniature: as
    in all tables.

    Where no image has a label, the rung of labels is left out. Raises StoreError for other images, and where some
    images have a label and others have none.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    first = inputs.a[0]
    a = read_side(first, search, [inputs.a[1]])
    b = read_side(inputs.b[0], search, [inputs.b[1]], like=a, where=first)
    pair = _Pair(a, b, asked, setting, drawing, where)
    columns: dict[str, Columns] = {}
    found = [*pair.score(), *pair.relabelled()]
    for rung, source in inputs.controls.items():
        if rung == UNTRAINED:
            twins = _of_sides(inputs.untrained, pair, search, first)
            found += (row for side, twin in twins.items() for row in pair.rival(rung, twin, side))
            columns[rung] = [rows for twin in twins.values() for rows in twin.rows.values()]
            continue
        if source is None:
            if inputs.manifest is None or not any(labels_of(inputs.manifest, a.names)):
                logs.log.info("no image has a label: there is no rung of labels")
                continue
            control = control_sides.of_labels(inputs.manifest, a, first, search)
        else:
            control = control_sides.of_model(source[0], [source[1]], a, first, search)
        columns[rung] = control.columns
        found += (row for side in "ab" for row in pair.rival(rung, control.side, side))
    noise = _of_sides(inputs.noise, pair, search, first)
    found += (row for side, rows in noise.items() for row in pair.rival(NOISE, rows, side))
    labels = [] if LABELS not in columns or inputs.manifest is None else labels_of(inputs.manifest, a.names)
    found += pair.left(columns, labels)
    tables.write(tables.frame(found, COLUMNS), *outputs)


def _of_sides(files: Mapping[str, Path], pair: "_Pair", search: Search, first: Path) -> dict[str, UnlistedSide]:
    """The layer of a side of the pair, of other bundles: side -> it."""
    return {
        side: read_side(path, search, pair.sides[side].layers, like=pair.sides["a"], where=first)
        for side, path in files.items()
    }


class _Pair:
    """The two layers, and the rows that are made of them."""

    def __init__(
        self,
        a: UnlistedSide,
        b: UnlistedSide,
        asked: Asked,
        setting: Settings,
        drawing: recipes.Drawing,
        where: recipes.Where,
    ) -> None:
        self.sides = {"a": a, "b": b}
        self.asked, self.setting, self.drawing = asked, setting, drawing
        self.groups = a.groups
        self.memory = a.search.memory_mb * 2**20
        self.facts = {
            **asdict(where),
            "a": a.recipe["bundle"],
            "b": b.recipe["bundle"],
            "layer_a": a.layers[0],
            "layer_b": b.layers[0],
            "n": len(a.names),
            "groups": self.groups.count,
            "k": setting.k,
        }
        self.layers = ([layer.held() for layer in a.of()], [layer.held() for layer in b.of()])
        self.scores = measure_grid(asked.metrics, self.layers[0], self.layers[1], setting, self.memory)
        # metric -> mean of the null of single images, above which shares are taken; NaN for scores that are not above
        self.chance: dict[str, float] = {}
        # metric -> why there is no share; empty for scores that are above
        self.no_share: dict[str, str] = {}

    def score(self) -> Iterator[dict[str, Any]]:
        """The pair itself, against chance."""
        for metric, row in self._against(self.sides["a"], self.sides["b"]):
            yield {**self._row(PAIR, "", metric), **row, **self._given_of(self.sides["a"], self.sides["b"])}

    def rival(self, rung: str, other: UnlistedSide, side: str) -> Iterator[dict[str, Any]]:
        """Every layer of a control in the place of a side."""
        both = {**self.sides, side: other}
        for metric, row in self._against(both["a"], both["b"]):
            yield {
                **self._row(RIVAL, rung, metric),
                "replaced": side,
                "rival": other.recipe["bundle"],
                "rival_layer": other.layers[0],
                **row,
                **self._given_of(both["a"], both["b"]),
            }

    def relabelled(self) -> Iterator[dict[str, Any]]:
        """What is left of the score where images, groups, and images within groups are relabelled."""
        for rung, exchanges in self._exchanges().items():
            for metric, cell in self._calibrated(exchanges).items():
                if rung == CHANCE:
                    is_above = cell["p"] <= self.drawing.alpha
                    self.chance[metric] = cell["null_mean"] if is_above else np.nan
                    no_p = cell["reason"] or METRICS[metric].undefined or UNDEFINED
                    self.no_share[metric] = "" if is_above else no_p if np.isnan(cell["p"]) else NOT_ABOVE
                score = float(self.scores[metric][0, 0])
                share = self._share(metric, score, cell["null_mean"])
                yield {
                    **self._row(LEFT, rung, metric),
                    "exchanged": exchanges.moved,
                    "score": score,
                    **cell,
                    "share": share,
                    "reason": self._reason(metric, share, cell["reason"]),
                    **self._given_of(self.sides["a"], self.sides["b"]),
                }

    def left(self, columns: Mapping[str, Columns], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What is left given each control by itself, and all up to each, in the order of the rungs."""
        of = {
            rung: [control_sides.given(rung, values, self.asked.components) for values in listed]
            for rung, listed in columns.items()
        }
        names, before = self.sides["a"].names, list(of)
        known: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for i, rung in enumerate(before):
            for cumulative, members in ((True, tuple(before[: i + 1])), (False, (rung,))):
                if members not in known:
                    given = [values for member in members for values in of[member]]
                    known[members] = list(self._given(members, given, labels if LABELS in members else None, names))
                for row in known[members]:
                    facts = {"rung": rung, "given": "+".join(members), "cumulative": cumulative}
                    yield {**self._row(LEFT, rung, row["metric"]), **row, **facts}

    def _given(
        self, members: tuple[str, ...], columns: Columns, labels: Sequence[str] | None, names: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """The rows of one set of controls. labels: of the images, where they are among the controls."""
        leaks = self._given_of(self.sides["a"], self.sides["b"])
        exchanges = self.groups.exchanges if labels is None else self.groups.exchanges_within(labels)
        wanted = [name for name in self.asked.metrics if name in nulls.LINEAR or METRICS[name].uses_k]
        reason, span = "", None
        try:
            span = partial.controls(list(columns), list(names))
        except ValueError as error:
            reason = str(error)
        rows = {name: {"metric": name, "score": float(self.scores[name][0, 0]), **leaks} for name in wanted}
        for row in rows.values():
            row.update({"controls": 0, "method": "refused", "reason": reason} if span is None else {})
        if members == (LABELS,):
            # the relabelling within classes, which residuals of class means would be
            for name, cell in self._calibrated(exchanges).items():
                if name in rows:
                    share = self._share(name, rows[name]["score"], cell["null_mean"])
                    if span is None or name not in nulls.LINEAR:
                        # a regression gives the share of linear kernels
                        cell["reason"] = self._reason(name, share, cell["reason"])
                    rows[name].update({"exchanged": exchanges.moved, **cell, "share": share})
        elif span is not None:
            self._exchange_residuals(rows, span, exchanges)
        if span is not None:
            self._regress(rows, span)
        yield from rows.values()

    def _exchange_residuals(
        self, rows: Mapping[str, dict[str, Any]], span: partial.Controls, exchanges: Exchanges
    ) -> None:
        """Fill in the conditional nulls of metrics on lists."""
        a, b = (side.rows[side.layers[0]] for side in self.sides.values())
        names = nulls.on_lists(list(rows))
        draws = self.asked.permutations
        refusal = nulls.refusal(len(a), [a.shape[1], b.shape[1]], draws)
        if refusal is not None:
            for name in names:
                rows[name].update({"controls": span.count - span.freedom - 1, "method": "refused", "reason": refusal})
            return
        # the neighbours of moved rows are by cosine, whatever the norms of rows
        search = replace(self.sides["a"].search, preparation=replace(self._preparation, normalize=None))
        groups = [self.groups.members[code] for code in self.groups.codes]
        found = nulls.conditional(
            names,
            (a, b),
            span,
            exchanges,
            self.setting,
            draws,
            self.drawing.alpha,
            self.drawing.seed,
            lambda values: searched(values, groups, search),
        )
        for name, null in found.items():
            share = self._share(name, null.score, null.mean)
            rows[name].update(
                {
                    "exchanged": exchanges.moved,
                    "null_mean": null.mean,
                    "null_sd": null.sd,
                    "z": (null.score - null.mean) / null.sd if null.sd > 0 else np.nan,
                    "p": null.p,
                    "share": share,
                    "controls": span.count - span.freedom - 1,
                    "method": "residuals",
                    "reason": self._reason(name, share, null.reason),
                }
            )

    def _regress(self, rows: Mapping[str, dict[str, Any]], span: partial.Controls) -> None:
        """Fill in the share of squared covariance beyond controls, of linear kernels."""
        a, b = (side.rows[side.layers[0]] for side in self.sides.values())
        names = [name for name in rows if name in nulls.LINEAR]
        if not names:
            return
        found = partial.beyond(a, b, span, self.groups)
        share = {"share": found.share.value, "share_low": found.share.low, "share_high": found.share.high}
        for name in names:
            rows[name].update({**share, "controls": found.controls, "method": "regression"})
            if not np.isfinite(found.share.value):
                rows[name]["reason"] = "the layers do not share significant covariance"

    @property
    def _preparation(self) -> Preparation:
        return self.sides["a"].search.preparation

    def _exchanges(self) -> dict[str, Exchanges]:
        """What is relabelled, of what the data set allows."""
        alone = Groups.of(self.sides["a"].names).exchanges
        if self.groups.alone:
            return {CHANCE: alone}
        return {CHANCE: alone, GROUPS: self.groups.exchanges, WITHIN_GROUPS: self.groups.exchanges_inside}

    def _calibrated(self, exchanges: Exchanges) -> dict[str, dict[str, Any]]:
        """The null of every metric that has one, with its method and the reason where there is no p."""
        how = (self.drawing.permutations, self.drawing.alpha, self.drawing.seed)
        a, b = self.layers
        found = calibrate(self.scores, a, b, self.setting, *how, exchanges=exchanges, memory=self.memory)
        return {
            name: {
                **{column: float(getattr(null, key)[0, 0]) for key, column in _CELLS.items()},
                "method": null.method,
                "reason": null.reason,
            }
            for name, null in found.items()
        }

    def _against(self, a: UnlistedSide, b: UnlistedSide) -> Iterator[tuple[str, dict[str, Any]]]:
        """Scores of two layers with intervals over images and the null of whole groups, per metric."""
        drawn = series.Drawn(self.drawing.permutations, self.drawing.alpha, self.drawing.seed)
        (other,) = b.of()
        found = series.against(self.asked.metrics, a.of(), other, self.setting, drawn, self.memory, self.groups)
        for metric, measured in found.items():
            row = measured.row(0)
            null = measured.null
            yield (
                metric,
                {
                    "exchanged": self.groups.exchanges.moved,
                    "score": row["score"],
                    "low": row["low"],
                    "high": row["high"],
                    **{column: row[column] for column in _CELLS.values()},
                    "method": "none" if null is None else null.method,
                    "reason": None if null is None else null.reason,
                },
            )

    def _share(self, metric: str, score: float, mean: float) -> float:
        """What is left of a score above chance; NaN where it is not significantly above."""
        return nulls.Conditional(score, mean, np.nan, np.nan).share(self.chance[metric])

    def _reason(self, metric: str, share: float, reason: str | None) -> str | None:
        """Why a number is missing, and why the share of the score above chance is, where it is."""
        no_share = self.no_share[metric] if np.isnan(share) else ""
        return "; ".join(dict.fromkeys(each for each in (reason, no_share) if each)) or None

    def _row(self, part: str, rung: str, metric: str) -> dict[str, Any]:
        return {
            "part": part,
            "rung": rung,
            "given": "",
            "cumulative": False,
            **dict.fromkeys(("replaced", "rival", "rival_layer"), ""),
            "metric": metric,
            **self.facts,
            "exchanged": 0,
            "controls": 0,
        }

    def _given_of(self, a: UnlistedSide, b: UnlistedSide) -> dict[str, Any]:
        """What one side was given of the other, and whether one is a miniature."""
        return {"leak": leak(a.recipe, b.recipe), "miniature": is_miniature({"a": a.recipe, "b": b.recipe})}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "ladder"), threadpool_limits(snakemake.threads):
        given, params = dict(snakemake.input.items()), snakemake.params
        features = iter(given.get("controls", []))
        ladder(
            Inputs(
                (Path(given["a"]), params.layer_a),
                (Path(given["b"]), params.layer_b),
                {
                    name: None if layer is None else (Path(next(features)), layer)
                    for name, layer in params.controls.items()
                },
                **{
                    kind: {side: Path(path) for side in "ab" if (path := given.get(f"{kind}_{side}"))}
                    for kind in ("untrained", "noise")
                },
                manifest=sides.manifest_of(given),
            ),
            Asked(params.metrics, params.components, params.permutations),
            (Path(given["settings"]), Path(given["calibration"])),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            Search.of_job(snakemake, params.k),
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
        )
