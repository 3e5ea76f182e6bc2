"""The didactic study of a shared space as pictures: the points of both sets, and affinities before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import style
from diffalign.io import tables

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# a row of panels: its words, the case, and the methods whose affinities it shows
Row = tuple[str, str, Sequence[str]]
_FITS = ("unaligned", "rbf", "rbf_auto")
CASES: Sequence[Row] = (
    ("shift, rotation,\nisotropic scale", "isotropic", _FITS),
    ("the last five\nas landmarks", "landmarks", ("unaligned", "rbf_last", "rbf_auto_last")),
    ("farthest points\nas landmarks", "landmarks", ("unaligned", "rbf_farthest", "rbf_auto_farthest")),
    ("k-means++\nlandmarks", "landmarks", ("unaligned", "rbf_kmeans", "rbf_auto_kmeans")),
    ("two outliers", "outliers", _FITS),
    ("scales 1/4 and 4", "anisotropic", _FITS),
    ("scale 1/1000", "strongly_anisotropic", _FITS),
    ("random network,\n4 layers", "network_4", _FITS),
    ("random network,\n12 layers", "network_12", _FITS),
    ("12 layers, float32\nof torch.cdist", "network_12", ("unaligned", "rbf_cdist", "rbf_auto_cdist")),
)
_TARGETS = ("labels", "index", "permuted_index", "random_10", "random_3")
_WORDS: Mapping[str, str] = {
    "unaligned": "before",
    "rbf": "γ = 1",
    "rbf_auto": "auto-scaled",
    "half_shared_labels": "learned: clusters",
    "half_shared_index": "learned: number",
    "half_shared_permuted_index": "learned: permuted",
    "half_shared_random_10": "learned: random of 10",
    "half_shared_random_3": "learned: random of 3",
}
FIGURES = ("cases", "targets")
_TINY = 1e-3


def didactic_alignment_figure(arrays: Path, seeds: Path, figure: str, outputs: Sequence[Path]) -> None:
    """Draw one of FIGURES, of the first seed: ``cases``, a row each, or ``targets`` of half-shared encoders.

    arrays, seeds: what the script `didactic_alignment` wrote. Points have the colour of their cluster; affinities are
    of both sets together, the first set first, sorted by cluster. Raises ValueError for another figure.
    """
    if figure not in FIGURES:
        raise ValueError(f"unknown figure '{figure}'; allowed: {', '.join(FIGURES)}")
    style.styled()
    with np.load(arrays) as file:
        drawn = {name: file[name] for name in file.files}
    table = tables.read(seeds, ("case", "method", "seed", "own_cluster", "own_index"))
    scores = table[table["seed"] == table["seed"].iloc[0]].set_index(["case", "method"]).sort_index()
    if figure == "cases":
        _cases(drawn, scores, outputs)
    else:
        _targets(drawn, scores, outputs)


def _cases(drawn: Mapping[str, NDArray[Any]], scores: pd.DataFrame, outputs: Sequence[Path]) -> None:
    made, panels = plt.subplots(
        len(CASES), 5, figsize=(style.PAGE, 1.13 * len(CASES)), layout="constrained", squeeze=False
    )
    image = None
    for axes, (words, case, methods) in zip(panels, CASES, strict=True):
        _points(list(axes[:2]), drawn, case, methods[-1])
        axes[0].set_ylabel(words)
        for panel, method in zip(axes[2:], methods, strict=True):
            image = _affinity(panel, drawn, scores, case, method)
    for panel, words in zip(panels[0, 2:], ("before", "γ = 1", "auto-scaled"), strict=True):
        panel.set_title(f"{words}\n{panel.get_title(loc='left')}", fontsize=style.SMALL)
    for panel, words in zip(panels[0, :2], ("first set", "second set"), strict=True):
        panel.set_title(words, fontsize=style.SMALL)
    _finish(made, panels, image, outputs, "Sets of the same points, and the affinity of both sets together")


def _targets(drawn: Mapping[str, NDArray[Any]], scores: pd.DataFrame, outputs: Sequence[Path]) -> None:
    case = "anisotropic"
    made, panels = plt.subplots(2, 5, figsize=(style.PAGE, 3.2), layout="constrained", squeeze=False)
    _points(list(panels[0, :2]), drawn, case, "unaligned")
    for panel, words in zip(panels[0, :2], ("first set", "second set"), strict=True):
        panel.set_title(words, fontsize=style.SMALL)
    image = None
    shown = [*_FITS, *(f"half_shared_{target}" for target in _TARGETS)]
    for panel, method in zip([*panels[0, 2:], *panels[1]], shown, strict=True):
        image = _affinity(panel, drawn, scores, case, method)
        panel.set_title(f"{_WORDS[method]}\n{panel.get_title(loc='left')}", fontsize=style.SMALL)
    _finish(made, panels, image, outputs, "Half-shared encoders that learn one of five targets, scales 1/4 and 4")


def _points(axes: Sequence[Axes], drawn: Mapping[str, NDArray[Any]], case: str, method: str) -> None:
    """Both sets with axes of their own; landmarks are ringed."""
    clusters = drawn["clusters"]
    landmarks = drawn.get(f"landmarks/{case}/{method}")
    for panel, whole in zip(axes, drawn[f"points/{case}"].astype(np.float64), strict=True):
        # a set that is tiny beside its distance from the origin is drawn about its mean, so that its ticks can be read
        tiny = np.ptp(whole, axis=0).max() < _TINY * np.abs(whole.mean(axis=0)).max()
        points = whole - whole.mean(axis=0) if tiny else whole
        for cluster in np.unique(clusters):
            own = points[clusters == cluster]
            panel.scatter(own[:, 0], own[:, 1], s=7, color=style.COLORS[cluster], linewidths=0, alpha=0.8)
        if landmarks is not None:
            ringed = points[landmarks]
            panel.scatter(
                ringed[:, 0], ringed[:, 1], s=20, facecolors="none", edgecolors="black", linewidths=style.THIN
            )
        panel.set_box_aspect(1)
        panel.margins(0.12)
        panel.locator_params(nbins=3)
        panel.tick_params(labelsize=style.SMALL)
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_offset_text().set_fontsize(style.SMALL)


def _affinity(
    panel: Axes, drawn: Mapping[str, NDArray[Any]], scores: pd.DataFrame, case: str, method: str
) -> AxesImage:
    """One affinity map, with a line between the sets, and their scores as its title."""
    affinity = drawn[f"affinity/{case}/{method}"]
    image = panel.imshow(affinity, vmin=0, vmax=1, cmap=style.SCORES)
    half = len(affinity) / 2
    for line in (panel.axhline, panel.axvline):
        line(half - 0.5, color="white", linewidth=style.THIN)
    panel.set_xticks([0, half], ["0", f"{half:.0f}"], fontsize=style.SMALL)
    panel.set_yticks([0, half], ["0", f"{half:.0f}"], fontsize=style.SMALL)
    cluster, index = scores.loc[(case, method), ["own_cluster", "own_index"]]
    # wider than the panel: from the numbers of its axis on
    panel.set_title(f"{cluster:.2f} clusters, {index:.2f} points", fontsize=style.SMALL, x=-0.15)
    return image


def _finish(made: Any, panels: NDArray[Any], image: AxesImage | None, outputs: Sequence[Path], words: str) -> None:
    bar = made.colorbar(image, ax=panels[:, 2:], location="bottom", shrink=0.5, aspect=40, pad=0.01)
    bar.set_label("affinity", fontsize=style.SMALL)
    bar.outline.set_visible(False)
    style.heading(
        made,
        f"{words} (rows and columns 0–29: first set, 30–59: second, sorted by cluster). Titles: share of points whose "
        "nearest point of the other set has their cluster, and is their partner. One seed; intervals are in the table.",
    )
    style.save(made, outputs, miniature=False)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "didactic_alignment_figure"):
        didactic_alignment_figure(
            Path(snakemake.input.arrays),
            Path(snakemake.input.seeds),
            snakemake.params.figure,
            [Path(path) for path in snakemake.output],
        )
