"""A ladder of nulls for one pair of layers: rivals beside the score of the pair, and what is left given each rung."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffalign import logs
from diffalign.alignment.metrics import METRICS
from diffalign.figures import grids, style

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# inches of a row, and of what stands above and below the panels of a metric
_ROW, _AROUND = 0.17, 0.5
# places of the rival of each side, and of shares given all rungs and one, above and below the line of a rung
_ASIDE = {"a": 0.17, "b": -0.17}
_SHARES = {True: 0.17, False: -0.17}
_COLORS = {"a": style.COLORS[0], "b": style.COLORS[1], True: "black", False: style.COLORS[2]}
_LABELS = {
    "a": "control in the place of a",
    "b": "control in the place of b",
    True: "given this rung and all above",
    False: "given this rung alone",
}
# shares beyond are drawn at the edge; the table has them
_LEAST, _MOST = -0.25, 1.25


def ladder_figure(table: Path, outputs: Sequence[Path], alpha: float) -> None:
    """Draw two panels a metric, with the rungs of the ladder from top to bottom.

    table: of `ladder`. Left: the score of the pair (band: 95 % interval), its null, and each control in the place of
    one layer. Right: the share of the score above chance that is left given the rungs; filled where it is significant
    at level alpha or its interval excludes 0, hollow where it is not.
    """
    style.styled()
    rows = pd.read_csv(table, sep="\t", keep_default_na=False, na_values=[""])
    metrics = list(dict.fromkeys(rows["metric"]))
    rungs = list(dict.fromkeys(rows.loc[rows["part"] != "pair", "rung"]))
    # those that only the right panel has stand first, pure noise last
    rungs = sorted(rungs, key=lambda rung: (rung == "pure noise", rung not in _free(rows)))
    height = len(metrics) * (_ROW * len(rungs) + _AROUND)
    figure, panels = plt.subplots(
        len(metrics),
        2,
        figsize=(style.PAGE, height + 0.6),
        squeeze=False,
        layout="constrained",
        sharey="row",
        width_ratios=[1.15, 1.0],
    )
    for (left, right), metric in zip(panels, metrics, strict=True):
        of_metric = rows[rows["metric"] == metric]
        _scores(left, of_metric, rungs)
        _left(right, of_metric, rungs, alpha)
        left.set_yticks(range(len(rungs)), rungs)
        left.set_ylim(len(rungs) - 0.5, -0.5)
        left.set_xlabel(METRICS[metric].label)
        right.set_xlabel("share of the score above chance that is left")
    style.heading(figure, _heading(rows))
    grids.shared_legend(figure, panels.ravel().tolist(), 3)
    style.save(figure, outputs, bool(rows["miniature"].any()))


def _free(rows: pd.DataFrame) -> set[str]:
    """The rungs without a control: images and groups that are exchanged."""
    return set(rows.loc[(rows["part"] == "left") & rows["given"].isna(), "rung"])


def _scores(axes: Axes, rows: pd.DataFrame, rungs: Sequence[str]) -> None:
    """The pair and its rivals."""
    (pair,) = (row for _, row in rows[rows["part"] == "pair"].iterrows())
    axes.axvspan(pair["low"], pair["high"], color="0.85", linewidth=0, zorder=0)
    axes.axvline(pair["score"], color="black", linewidth=style.THICK, label="the pair, with its 95 % interval")
    for side, aside in _ASIDE.items():
        rivals = rows[(rows["part"] == "rival") & (rows["replaced"] == side)]
        at = [rungs.index(rung) - aside for rung in rivals["rung"]]
        _points(axes, rivals, ("score", "low", "high"), at, {"color": _COLORS[side], "fmt": "os"[side == "b"]})
        if len(rivals):
            axes.plot([], [], "os"[side == "b"], color=_COLORS[side], label=_LABELS[side])
    nulls = rows[(rows["part"] == "left") & rows["null_mean"].notna() & (rows["cumulative"] | rows["given"].isna())]
    at = [rungs.index(rung) for rung in nulls["rung"]]
    axes.errorbar(
        nulls["null_mean"],
        at,
        xerr=2 * nulls["null_sd"],
        fmt="|",
        color=style.QUIET,
        elinewidth=style.THIN,
        label="null given this rung and all above (± 2 sd)",
    )
    axes.grid(axis="x")


def _left(axes: Axes, rows: pd.DataFrame, rungs: Sequence[str], alpha: float) -> None:
    """Shares that are left, with intervals, or with p at the right edge."""
    left = rows[(rows["part"] == "left") & rows["share"].notna()]
    for cumulative, aside in _SHARES.items():
        # what is exchanged without a control is drawn once
        is_free = left["given"].isna()
        shown = left[(left["cumulative"] == cumulative) & ~is_free | (is_free if cumulative else False)]
        held = shown.assign(**{key: shown[key].clip(_LEAST, _MOST) for key in ("share", "share_low", "share_high")})
        by_p = (shown["p"] <= alpha) & shown["share_low"].isna()
        is_left = by_p | (shown["share_low"] > 0)
        at = np.array([rungs.index(rung) - aside for rung in shown["rung"]])
        for chosen, face in ((is_left, _COLORS[cumulative]), (~is_left, "white")):
            look = {"color": _COLORS[cumulative], "fmt": "D" if cumulative else "v", "markerfacecolor": face}
            _points(axes, held[chosen], ("share", "share_low", "share_high"), at[chosen.to_numpy()], look)
        if len(shown):
            marker = "D" if cumulative else "v"
            axes.plot([], [], marker, color=_COLORS[cumulative], label=_LABELS[cumulative])
        if cumulative:
            for place, (_, row) in zip(at, shown.iterrows(), strict=True):
                if np.isfinite(row["p"]):
                    axes.text(
                        1.02,
                        place + aside,
                        style.p_text(row["p"]),
                        transform=axes.get_yaxis_transform(),
                        va="center",
                        fontsize=style.SMALL,
                        color=style.QUIET,
                    )
    axes.axvline(0, color=style.QUIET, linewidth=style.THIN, linestyle=":")
    axes.set_xlim(_LEAST - 0.05, _MOST + 0.05)
    axes.grid(axis="x")
    if left.empty:
        axes.text(
            0.5, 0.5, _reason(rows), ha="center", va="center", transform=axes.transAxes, color=style.WORDS, wrap=True
        )


def _reason(rows: pd.DataFrame) -> str:
    """Why nothing is drawn of what is left."""
    if not (rows["part"] == "left").any():
        return "no null and no regression"
    (pair,) = rows.loc[rows["part"] == "pair", "p"]
    return "the score is not above chance" if np.isfinite(pair) else "no null"


def _points(
    axes: Axes, rows: pd.DataFrame, columns: tuple[str, str, str], at: Sequence[float] | Any, look: dict[str, Any]
) -> None:
    """Points with their intervals, where they have one."""
    if rows.empty:
        return
    value, low, high = (rows[column].to_numpy(dtype=np.float64) for column in columns)
    reach = np.nan_to_num(np.maximum(np.stack([value - low, high - value]), 0))
    axes.errorbar(value, at, xerr=reach, markersize=3, elinewidth=style.THIN, linestyle="none", **look)


def _heading(rows: pd.DataFrame) -> str:
    """Both layers, the data set, and what one side was given of the other."""
    first = rows.iloc[0]
    leaks = "; ".join(dict.fromkeys(rows.loc[rows["part"] == "pair", "leak"].dropna()))
    facts = {key: first[key] for key in ("dataset", "condition", "n", "k")}
    groups = "" if first["groups"] == first["n"] else f", {first['groups']} groups"
    return (
        f"a: {first['a']}, {first['layer_a']}; b: {first['b']}, {first['layer_b']}. "
        f"{style.title_of({**facts, 'leak': leaks})}{groups}"
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "ladder_figure"):
        ladder_figure(Path(snakemake.input.table), [Path(path) for path in snakemake.output], snakemake.params.alpha)
