"""What trainings, atlases, contrasts, trajectories and spaces show, in sentences: values, intervals, and over what."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffalign import logs
from diffalign.alignment.calibration import false_discovery_rates
from diffalign.io import tables
from diffalign.io.atomic import replacing
from diffalign.sample_quality import named

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("topic", "measure"), "string"),
    **dict.fromkeys(("value", "low", "high"), "float64"),
    **dict.fromkeys(("over", "sentence"), "string"),
}
# the level of a q-value at which a maximum exceeds chance, and above which a negative control is at chance
_ALPHA = 0.05
_LINEAR = "unbiased_cka"
# alignments that are no linear maps, as sentences call them
_ALIGNMENTS = {"rbf": "RBF affinities to landmarks", "half_shared": "the half-shared MLP"}
# measures of a space across models, as sentences begin
_CONSISTENCY = {
    "cell_same_image": "the nearest token of another model in the same image lies in the same cell",
    "part_other_images": "the nearest token of another model in other images is of the same part",
}


@dataclass(frozen=True)
class Finding:
    """A value with its 95 % interval, over what the interval generalises, and the sentence that says it."""

    topic: str
    measure: str
    value: float
    low: float
    high: float
    over: str
    sentence: str


@dataclass(frozen=True)
class Sources:
    """Of each atlas its two tables; tables over trainings (`through_training_table`), None without trainings.

    orders: the table order of every model and configuration (`image_dynamics`). references: checkpoint -> that of its
    Gaussian denoiser. spaces: name -> the table consistency of a shared space. pairs: of each pair of layers in one
    space, the tables scores and contrasts. families: the tables of `contrast`.
    """

    atlases: Sequence[tuple[Path, Path]]
    steps: Path | None = None
    contrasts: Path | None = None
    correlations: Path | None = None
    orders: Sequence[Path] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    spaces: Mapping[str, Path] = field(default_factory=dict)
    pairs: Sequence[tuple[Path, Path]] = ()
    families: Sequence[Path] = ()


def findings(
    sources: Sources,
    metrics: Sequence[str],
    reference: str | None,
    outputs: tuple[Path, Path, Path],
    towards: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the findings of a study as TSV, Parquet and text, one sentence a line.

    metrics: of the study; sentences are of each. reference: what checkpoints are compared with. towards: recipe -> the
    model that its trainings are aligned with, where that is the reference's: sentences on alignment say so.
    """
    made = [
        *_of_trainings(sources, metrics, str(reference), towards),
        *_of_atlases(sources.atlases, metrics),
        *_of_families(sources.families),
        *_of_trajectories(sources),
        *_of_spaces(sources.spaces),
        *_of_pairs(sources.pairs),
    ]
    tables.write(tables.frame([vars(each) for each in made], COLUMNS), outputs[0], outputs[1])
    with replacing(outputs[2]) as temporary:
        temporary.write_text("".join(f"{each.sentence}\n" for each in made), encoding="utf-8")


def _of_trainings(
    sources: Sources, metrics: Sequence[str], reference: str, towards: Mapping[str, str]
) -> Iterator[Finding]:
    if sources.steps is None or sources.contrasts is None or sources.correlations is None:
        return
    steps, contrasts, correlations = (
        tables.read_tsv(path) for path in (sources.steps, sources.contrasts, sources.correlations)
    )
    measures = [*metrics, *dict.fromkeys(steps.loc[steps["quantity"] == "quality", "measure"])]
    for measure in measures:
        of_measure = steps[steps["measure"] == measure]
        known = towards if measure in metrics else {}
        for recipe, rows in of_measure.groupby("recipe", sort=False):
            yield _with_aim(_gain(str(recipe), measure, rows, reference), [str(recipe)], known)
        for _, rows in contrasts[contrasts["measure"] == measure].groupby(["recipe", "other"], sort=False):
            last = rows.loc[rows["step"].idxmax()]
            yield _with_aim(_contrast(last), [last["recipe"], last["other"]], known)
    for row in correlations.to_dict("records"):
        yield _correlation(row)


def _with_aim(finding: Finding, recipes: Sequence[str], towards: Mapping[str, str]) -> Finding:
    """A finding that says which of these recipes are trained towards what they are compared with."""
    aims = [f"{recipe} is trained towards {towards[recipe]}" for recipe in recipes if recipe in towards]
    if not aims:
        return finding
    return replace(finding, sentence=f"{finding.sentence[:-1]}; {' and '.join(aims)}, the reference itself.")


def _gain(recipe: str, measure: str, rows: pd.DataFrame, reference: str) -> Finding:
    """What a recipe gains from step 0 to its last step; what it has at its last step, where step 0 is not measured."""
    last = rows.sort_values("step").iloc[-1]
    what = f"{aligned(measure, last['scale'])} with {reference}" if last["quantity"] == "alignment" else named(measure)
    if math.isnan(last["gain"]):
        over = counted(last["trainings"], "training")
        sentence = (
            f"{recipe}: {what} is {last['mean']:.3f} {interval(last['low'], last['high'])} at step {last['step']} over "
            f"{over}; there is no value at step 0 beside it, so nothing is said of its gain."
        )
        return Finding("last step", measure, last["mean"], last["low"], last["high"], over, sentence)
    over = counted(last["gain_trainings"], "training")
    change = direction(last["gain_low"], last["gain_high"], ("rises", "falls", "is not shown to change"))
    sentence = (
        f"{recipe}: {what} {change} from {last['gain_from']:.3f} at step 0 to {last['gain_to']:.3f} at step "
        f"{last['step']}: {signed(last['gain'])} {interval(last['gain_low'], last['gain_high'])} over {over}."
    )
    return Finding("training", measure, last["gain"], last["gain_low"], last["gain_high"], over, sentence)


def _contrast(row: "pd.Series[Any]") -> Finding:
    change = direction(row["low"], row["high"], ("raises", "lowers", "is not shown to change"))
    what = aligned(row["measure"], row["scale"]) if row["quantity"] == "alignment" else named(row["measure"])
    over = f"{counted(row['trainings'], 'pair')} of trainings"
    sentence = (
        f"{row['recipe']} beside {row['other']} {change} {what} at step {row['step']}: {signed(row['difference'])} "
        f"{interval(row['low'], row['high'])} over {over} with one seed."
    )
    return Finding("recipes", row["measure"], row["difference"], row["low"], row["high"], over, sentence)


def _correlation(row: Mapping[Any, Any]) -> Finding:
    over = counted(row["trainings"], "training")
    where = "At the same step"
    if row["recipes"] > 1:
        where, over = f"{where} and in the same recipe", f"{over} of {row['recipes']} recipes"
    both = f"{where}, {aligned(row['metric'], row['scale'])} and {named(row['measure'])} have"
    bounds = "" if math.isnan(row["low"]) else f" {interval(row['low'], row['high'])}"
    p = "" if math.isnan(row["p"]) else f", p = {row['p']:.2g}"
    why = f"; {row['reason']}" if isinstance(row["reason"], str) else ""
    sentence = f"{both} the rank correlation {signed(row['rho'])}{bounds} over {over}{p}{why}."
    if math.isnan(row["rho"]):
        sentence = f"{both} no rank correlation over {over}, because {row['reason']}."
    return Finding("quality", f"{row['metric']}, {row['measure']}", row["rho"], row["low"], row["high"], over, sentence)


def _of_atlases(atlases: Sequence[tuple[Path, Path]], metrics: Sequence[str]) -> Iterator[Finding]:
    read = [tuple(tables.read_tsv(path) for path in pair) for pair in atlases]
    of_metrics = [[scores[scores["metric"] == metric] for metric in metrics] for scores, _ in read]
    # one p each atlas and metric, so that a model that was searched for the best layer counts once
    floors, maxima = (
        false_discovery_rates(np.array([p_of(each) for of_atlas in of_metrics for each in of_atlas], np.float64))
        for p_of in (_floor_p, _maximum_p)
    )
    at = 0
    for (scores, beyond), of_atlas in zip(read, of_metrics, strict=True):
        for metric, each in zip(metrics, of_atlas, strict=True):
            yield from _of_atlas(each, metric, _Corrected(maxima, at), _Corrected(floors, at))
            at += 1
            # a share is of linear covariance, so it is told where the metric of that is highest
            if metric == (_LINEAR if _LINEAR in metrics else metrics[0]):
                yield from _beyond(scores[scores["metric"] == metric], beyond)


@dataclass(frozen=True, eq=False)
class _Corrected:
    """One of several q-values (T,), NaN where no test was made."""

    all: NDArray[np.float64]
    at: int

    @property
    def q(self) -> float:
        return float(self.all[self.at])

    def __str__(self) -> str:
        return f"q = {self.q:.2g} over {counted(int((~np.isnan(self.all)).sum()), 'test')}"


def _chosen(scores: pd.DataFrame) -> pd.DataFrame:
    """The maximum of a model: one row, or none where no score is defined."""
    return scores[(scores["source"] == "trained") & scores["chosen"]]


def _floor(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of pure noise that have a p."""
    return scores[(scores["source"] == "trained") & (scores["level"] == 1) & scores["maximum_p"].notna()]


def _floor_p(scores: pd.DataFrame) -> float:
    """The p of the best layer at pure noise, of one atlas and metric."""
    floor = _floor(scores)
    return float(floor["maximum_p"].iloc[0]) if len(floor) and len(_chosen(scores)) else math.nan


def _maximum_p(scores: pd.DataFrame) -> float:
    """The p of the maximum on the half of the images that did not choose it."""
    chosen = _chosen(scores)
    return float(chosen["second_half_p"].iloc[0]) if len(chosen) else math.nan


def _of_atlas(scores: pd.DataFrame, metric: str, of_maximum: _Corrected, of_floor: _Corrected) -> Iterator[Finding]:
    """The maximum of a model, the twin at the same place, and the floor of pure noise."""
    chosen = _chosen(scores)
    if chosen.empty:
        return
    best = chosen.iloc[0]
    twin = scores[
        (scores["source"] == "untrained") & (scores["level"] == best["level"]) & (scores["layer"] == best["layer"])
    ].iloc[0]
    low, high = float(best["second_half_low"]), float(best["second_half_high"])
    images = f"{best['n_second_half']} images"
    if best["groups_second_half"] < best["n_second_half"]:
        images += f" in {best['groups_second_half']} groups"
    exceeds = "exceeds" if of_maximum.q <= _ALPHA else "is not shown to exceed"
    chance = "" if math.isnan(of_maximum.q) else f"; it {exceeds} chance ({of_maximum})"
    yield Finding(
        "atlas",
        metric,
        best["second_half"],
        low,
        high,
        images,
        f"{best['model']}: {metric} is highest at {best['layer']}, t = {best['level']:g}, chosen on one "
        f"half of the images; on the other it is {best['second_half']:.3f} {interval(low, high)} over {images}, of the "
        f"untrained twin there {twin['second_half']:.3f}{chance}.{_given(best)}",
    )
    floor = _floor(scores)
    if len(floor):
        p = float(floor["maximum_p"].iloc[0])
        # of many atlases and metrics some controls fail by chance
        if of_floor.q <= _ALPHA:
            verdict = "above chance: noise is shared, or the null is wrong"
        elif p <= _ALPHA:
            verdict = "above chance by itself, not among as many controls"
        else:
            verdict = "at chance, as it must"
        yield Finding(
            "floor",
            metric,
            p,
            math.nan,
            math.nan,
            f"{floor['n'].iloc[0]} images",
            f"{best['model']}: at t = 1, where it sees noise alone, the best layer lies {verdict} ({metric}, "
            f"p = {p:.2g}, {of_floor}).",
        )


def _given(row: pd.Series) -> str:
    """What the model was given of the reference, as a sentence of its own; nothing where nothing is known."""
    return f" Both are not independent: {row['leak']}." if isinstance(row["leak"], str) else ""


def _beyond(scores: pd.DataFrame, beyond: pd.DataFrame) -> Iterator[Finding]:
    """What is left beyond all controls at the maximum of a model."""
    chosen = scores[(scores["source"] == "trained") & scores["chosen"]]
    if chosen.empty:
        return
    best = chosen.iloc[0]
    place = beyond[(beyond["level"] == best["level"]) & (beyond["layer"] == best["layer"])]
    row = place.loc[place["given"].str.count(r"\+").idxmax()]
    low, high, images = row["share_low"], row["share_high"], f"{row['n']} images"
    where = f"{best['model']}, {best['layer']}, t = {best['level']:g}"
    if isinstance(row["reason"], str):
        sentence = f"{where}: the share of covariance is not measured ({row['reason']})"
    elif math.isnan(row["share"]):
        sentence = f"{where}: no covariance is shown to be shared over {images}, so there is no share of it"
    else:
        shown = direction(low, high, ("is left", "is left, negative,", "is not shown to be left"))
        sentence = f"{where}: of the shared covariance, {row['share']:.3f} {interval(low, high)} over {images} {shown}"
    sentence = f"{sentence} beyond {' + '.join(row['given'].split('+'))}."
    yield Finding("controls", "share beyond controls", row["share"], low, high, images, sentence)


def _of_families(families: Sequence[Path]) -> Iterator[Finding]:
    """How many contrasts of each family differ after correction, and the clearest of them."""
    for path in families:
        for (family, metric), rows in tables.read_tsv(path).groupby(["family", "metric"], sort=False):
            known = rows[rows["error"] > 0]
            if known.empty:
                continue
            clearest = known.iloc[int(np.argmax((known["difference"].abs() / known["error"]).to_numpy()))]
            over = counted(clearest["n"], "image")
            if clearest["groups"] != clearest["n"]:
                over = f"{counted(clearest['groups'], 'group')} of {over}"
            differ, low, high = int(known["differs"].sum()), clearest["band_low"], clearest["band_high"]
            sentence = (
                f"{family}, {metric}: {differ} of {len(known)} contrasts differ from 0 after correction over "
                f"them; the clearest, {clearest['contrast'].replace('_', ' ')}, is {signed(clearest['difference'])}, "
                f"band {interval(low, high)} over {over}."
            )
            yield Finding("contrasts", str(metric), clearest["difference"], low, high, over, sentence)


def _of_trajectories(sources: Sources) -> Iterator[Finding]:
    """Whether low frequencies emerge before high ones, beside the Gaussian denoiser; and the order of features."""
    orders = [tables.read_tsv(path) for path in sources.orders]
    by_name = {f"{rows['model'].iloc[0]}/{rows['configuration'].iloc[0]}": rows for rows in orders if len(rows)}
    for name, rows in by_name.items():
        model, configuration = name.split("/")
        if model in sources.references.values():
            continue
        where = f"{model}, {configuration}"
        reference = sources.references.get(model)
        beside = by_name.get(f"{reference}/{configuration}")
        yield from _of_bands(where, rows, reference, beside)
        yield from _of_features(where, rows)


def _of_bands(where: str, rows: pd.DataFrame, reference: str | None, beside: pd.DataFrame | None) -> Iterator[Finding]:
    contrast = _low_and_high(rows)
    if contrast is None:
        return
    over = f"{counted(contrast['seeds'], 'seed')} of noise"
    shown = direction(contrast["low"], contrast["high"], ("before", "after", "neither shown before nor after"))
    sentence = (
        f"{where}: low frequencies of the estimated image emerge {shown} high ones: t differs by "
        f"{signed(contrast['difference'])} {interval(contrast['low'], contrast['high'])} over {over}"
    )
    known = None if beside is None else _low_and_high(beside)
    if known is not None:
        sentence += (
            f"; for {reference}, which knows a spectrum alone, by {signed(known['difference'])} "
            f"{interval(known['low'], known['high'])}"
        )
    value = (contrast["difference"], contrast["low"], contrast["high"])
    yield Finding("dynamics", "emergence, low less high", *value, over, f"{sentence}.")


def _low_and_high(rows: pd.DataFrame) -> Mapping[Any, Any] | None:
    """The contrast of emergence of the lowest and the highest band, of decoded images."""
    found = rows[
        (rows["domain"] == "images")
        & (rows["statistic"] == "emergence")
        & (rows["first"] == "energy_low")
        & (rows["second"] == "energy_high")
    ]
    return found.iloc[0].to_dict() if len(found) else None


def _of_features(where: str, rows: pd.DataFrame) -> Iterator[Finding]:
    found = rows[(rows["family"] == "features") & rows["kendalls_w"].notna()]
    for row in found.to_dict("records"):
        over = f"{row['seeds'] * row['samples']} samples"
        listed = [measure.replace("_", " ") for measure in re.split("[<=]", row["measures"])]
        sentence = (
            f"{where}: of {len(listed)} features, {', '.join(listed[:3])} settle first on average and "
            f"{', '.join(listed[-3:])} last; samples agree on the order by Kendall's W = {row['kendalls_w']:.3f} over "
            f"{over}, p = {row['p']:.2g}."
        )
        yield Finding("dynamics", "order of features", row["kendalls_w"], math.nan, math.nan, over, sentence)


def _of_spaces(spaces: Mapping[str, Path]) -> Iterator[Finding]:
    """How consistent cells and parts are across models before and after alignment, in the space that pictures show."""
    for space, path in spaces.items():
        table = tables.read_tsv(path)
        table = table[(table["space"] == "eigenvectors") & table["score"].notna()]
        models = [table[key].str.rpartition("_")[0] for key in ("set_a", "set_b")]
        table = table[models[0] != models[1]]
        for measure, words in _CONSISTENCY.items():
            stages = dict(list(table[table["measure"] == measure].groupby("stage")))
            if not {"before", "after", "after_minus_before"} <= set(stages):
                continue
            before, after = (float(stages[stage]["score"].mean()) for stage in ("before", "after"))
            gains = stages["after_minus_before"]
            known = gains[gains["low"].notna()]
            over = f"{counted(len(gains), 'pair')} of layers"
            gain = signed(after - before)
            sentence = (
                f"Space {space}: {words} for {before:.3f} of tokens before alignment and {after:.3f} after it, "
                f"{gain} on average over {over}"
            )
            if len(known):
                units = _units(int(known["images"].iloc[0]), int(known["groups"].iloc[0]), "images")
                among = "them" if len(known) == len(gains) else f"{len(known)} that have one"
                rises = int((known["low"] > 0).sum())
                sentence += f"; its 95 % interval over {units} lies above 0 in {rises} of {among}"
            sentence += "."
            yield Finding("shared space", measure, after - before, math.nan, math.nan, over, sentence)


def _of_pairs(pairs: Sequence[tuple[Path, Path]]) -> Iterator[Finding]:
    """Whether alignments that are no linear maps pair held-out images better than the best linear one."""
    for scores_path, contrasts_path in pairs:
        scores, contrasts = (tables.read_tsv(path) for path in (scores_path, contrasts_path))
        scores = scores[(scores["metric"] == "own_index") & (scores["images"] == "held_out") & scores["seed"].isna()]
        shares = scores.set_index("method")
        gains = contrasts[(contrasts["metric"] == "own_index") & (contrasts["reference"] == "best_linear")]
        for row in gains[gains["method"].isin(_ALIGNMENTS)].to_dict("records"):
            method, best = row["method"], row["against"]
            shown = direction(row["low"], row["high"], ("more than", "fewer than", "not shown to differ from"))
            over = _units(row["n"], row["groups"], "held-out images")
            # exchanging whole groups leaves some images in place, so that chance is not 1 / n
            chance = 1 / row["n"] if row["groups"] == row["n"] else shares.loc[method, "null_mean"]
            own, linear = shares.loc[method, "score"], shares.loc[best, "score"]
            sentence = (
                f"{row['a']} and {row['b']} in one space: with {_ALIGNMENTS[method]}, {own:.3f} of {over} are paired, "
                f"{shown} with {best}, the best linear map, {linear:.3f}: "
                f"{signed(row['difference'])} {interval(row['low'], row['high'])}"
                f"{'' if math.isnan(chance) else f'; chance is {chance:.3f}'}."
            )
            value = (row["difference"], row["low"], row["high"])
            yield Finding("shared space", f"own image, {method}", *value, over, sentence)


def _units(count: int, groups: int, what: str) -> str:
    """``10 images``, or the groups that they come in."""
    return f"{count} {what}" if groups == count else f"{count} {what} in {groups} groups"


def direction(low: float, high: float, words: tuple[str, str, str]) -> str:
    """The word for an interval above 0, below 0, or around it; the last, too, where there is no interval."""
    return words[0] if low > 0 else words[1] if high < 0 else words[2]


def aligned(metric: str, scale: str) -> str:
    """What trainings are measured by. scale: of the table, calibrated or raw."""
    return f"calibrated {metric}" if scale == "calibrated" else metric


def interval(low: float, high: float) -> str:
    """``[0.012, 0.034]``, or that there is none."""
    return "(no interval)" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def counted(count: int, word: str) -> str:
    """``1 training``, ``3 trainings``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def signed(value: float) -> str:
    """``+0.031``."""
    return f"{value:+.3f}"


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "findings"):
        given = dict(snakemake.input.items())
        scores, beyond = given.get("scores", ()), given.get("beyond", ())
        of_trainings = {key: Path(given[key]) for key in ("steps", "contrasts", "correlations") if key in given}
        findings(
            Sources(
                [(Path(a), Path(b)) for a, b in zip(scores, beyond, strict=True)],
                **of_trainings,
                orders=[Path(path) for path in given.get("orders", ())],
                references=snakemake.params.references,
                spaces=dict(zip(snakemake.params.spaces, map(Path, given.get("spaces", ())), strict=True)),
                pairs=[
                    (Path(a), Path(b))
                    for a, b in zip(given.get("pair_scores", ()), given.get("pair_contrasts", ()), strict=True)
                ],
                families=[Path(path) for path in given.get("families", ())],
            ),
            snakemake.params.metrics,
            snakemake.params.reference,
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet), Path(snakemake.output.text)),
            snakemake.params.towards,
        )
