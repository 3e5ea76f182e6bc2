"""Tokens of several layers and models in the colours of one space, before and after alignment, and their scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from diffalign import logs
from diffalign.figures import style
from diffalign.io import tables
from diffalign.io.headers import StoreError
from diffalign.io.space_files import SpaceFile, read_space
from diffalign.offenders import first_five
from diffalign.shared_space.consistency import CELL_SAME_IMAGE, PART_OTHER_IMAGES, PART_SAME_IMAGE
from diffalign.shared_space.stages import AFTER, BEFORE, EIGENVECTORS, OWN, POSITIONS

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

STAGES = {
    BEFORE: "before: sets side by side as they are, each centred and of variance 1",
    AFTER: "after: affinities to the same landmarks in every set",
}
_SCORES = ("measure", "set_a", "set_b", "space", "stage", "score", "null_mean", "null_high", "p", "undefined")
_EDGES = ("set", "other", "stage", "correlation", "null_mean", "null_high")
# inches: names of images at the left, headings of blocks and of columns, between blocks, a row of scores, the largest
# picture and what lies between two
_LEFT, _HEADING, _TITLES, _APART, _ROW, _LARGEST, _GAP = 0.62, 0.2, 0.24, 0.14, 0.135, 1.2, 0.03
# so many sets fit twice beside each other
_BESIDE = 3
# inches of a panel of scores above it, of all that is above and below it, and beside it
_TITLE, _AROUND, _BETWEEN = 0.26, 0.66, 0.22
_MOST_PAIRS = 15
_PIXELS = 360
_OF_PARTS = "share, mean over parts"
_MARKER: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3.4}
_LOOKS: dict[str, dict[str, Any]] = {
    BEFORE: {**_MARKER, "color": style.DEFAULT, "markerfacecolor": "white"},
    AFTER: {**_MARKER, "color": style.BEST},
    OWN: {**_MARKER, "color": "black", "marker": "D", "markersize": 2.8},
}
_WORDS = {OWN: "of each set by itself"}
_PLACE: dict[str, Any] = {"color": style.QUIET, "linewidth": style.THIN, "linestyle": (0, (4, 2))}


def shared_space_figure(
    eigenvectors: Path,
    scores: Path,
    edges: Path,
    images: Path,
    shown: int,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw a block before and a block after alignment, a row an image and a column a set; below them, the scores.

    Colours of a block are one space for all its sets: the same colour is the same place in the embedding by the joint
    normalized cut. eigenvectors, scores, edges: of the rule shared_space. shown: how many images at most, the first.
    Scores are those of the rows of eigenvectors that have these colours: of parts, or without parts of cells. Raises
    StoreError that names the first five images without a file.
    """
    style.styled()
    space = read_space(eigenvectors)
    names = space.names[:shown]
    if absent := [name for name in names if not (images / f"{name}.png").is_file()]:
        raise StoreError(f"{images}: {len(absent)} images have no PNG file, first: {first_five(absent)}")
    # one set has no pair, and without parts no score at all
    table = tables.read(scores, _SCORES) if tables.has_rows(scores) else pd.DataFrame(columns=list(_SCORES))
    columns = _columns(table, tables.read(edges, _EDGES), space)
    count, beside = len(space.sets), len(space.sets) <= _BESIDE
    across = 1 + 2 * count if beside else 1 + count
    side = min(_LARGEST, (style.PAGE - _LEFT - _APART) / across - _GAP)
    block = _HEADING + _TITLES + len(names) * (side + _GAP) + _APART
    height = (1 if beside else 2) * block + _height(columns) + 0.5
    figure = plt.figure(figsize=(style.PAGE, height))
    tops = [height - 0.5, height - 0.5 - (0 if beside else block)]
    pictures = [_pixels(images / f"{name}.png") for name in names]
    _block(figure, space, BEFORE, (_LEFT, tops[0], side), pictures, len(names))
    if beside:
        place = (_LEFT + (1 + count) * (side + _GAP) + _APART, tops[1], side)
        _block(figure, space, AFTER, place, None, len(names))
    else:
        _block(figure, space, AFTER, (_LEFT, tops[1], side), pictures, len(names))
    for top in sorted(set(tops)):
        _names(figure, names, (top, side))
    if columns:
        _strip(figure, columns, tops[1] - block)
    style.heading(
        figure,
        f"Tokens of {len(space.sets)} sets in one space, {space.grid[0]} x {space.grid[1]} cells an image, coloured by "
        f"one normalized cut of all tokens of {_images(len(space.names))} before, and one after alignment. In a block "
        "the same colour is the same place in the embedding.",
        below=0.05,
    )
    style.save(figure, outputs, miniature)


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _block(
    figure: Figure,
    space: SpaceFile,
    stage: str,
    place: tuple[float, float, float],
    pictures: Sequence[NDArray[np.uint8]] | None,
    rows: int,
) -> None:
    """One block of pictures. place: its left and upper edge and the side of a picture, in inches. pictures: the images
    themselves, in the first column, or None. rows: how many images.
    """
    left, top, side = place
    height, step = figure.get_figheight(), side + _GAP
    heading = STAGES[stage] if len(space.sets) > _BESIDE else stage
    at = left if len(space.sets) <= _BESIDE and pictures is None else 0.05
    figure.text(at / style.PAGE, top / height, heading, ha="left", va="top", fontweight="bold")
    titles = [(model, layer) for model, layer in zip(space.models, space.layers, strict=True)]
    columns: list[Sequence[NDArray[Any]]] = [
        [row.reshape(*space.grid, 3) for row in each] for each in space.stages[stage].rgb
    ]
    if pictures is not None:
        titles, columns = [("image", ""), *titles], [pictures, *columns]
    first = top - _HEADING - _TITLES
    for column, (title, cells) in enumerate(zip(titles, columns, strict=True)):
        x = (left + column * step + side / 2) / style.PAGE
        text = f"{style.wrapped(title[0], side, style.SMALL)}\n{title[1]}".strip()
        figure.text(x, (first + 0.03) / height, text, ha="center", va="bottom", fontsize=style.SMALL, linespacing=1.0)
        for row, pixels in enumerate(cells[:rows]):
            bottom = first - (row + 1) * step + _GAP
            corner = ((left + column * step) / style.PAGE, bottom / height)
            axes = figure.add_axes((*corner, side / style.PAGE, side / height))
            # cells are squares of one colour: nothing is smoothed between them
            axes.imshow(pixels, interpolation="antialiased" if title[0] == "image" else "nearest", aspect="auto")
            axes.set_axis_off()


def _names(figure: Figure, names: Sequence[str], place: tuple[float, float]) -> None:
    """Names of images left of a block. place: its upper edge and the side of a picture, in inches."""
    first, side = place[0] - _HEADING - _TITLES, place[1]
    for row, name in enumerate(names):
        middle = first - row * (side + _GAP) - side / 2
        label = style.wrapped(name.replace("_", " "), _LEFT - 0.1, style.SMALL)
        corner = ((_LEFT - 0.05) / style.PAGE, middle / figure.get_figheight())
        figure.text(*corner, label, ha="right", va="center", fontsize=style.SMALL)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        pixels = image.convert("RGB")
        pixels.thumbnail((_PIXELS, _PIXELS))
        return np.asarray(pixels)


@dataclass(frozen=True, eq=False)
class Panel:
    """Rows of scores. rows: label -> stage -> (score, mean and 95 % quantile under chance). by_place: what the place of
    a cell alone gives, NaN where that is not known. labelled: whether labels are written, or are those of the panel
    before.
    """

    title: str
    unit: str
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]]
    by_place: float = math.nan
    labelled: bool = True


def _columns(scores: pd.DataFrame, edges: pd.DataFrame, space: SpaceFile) -> list[list[Panel]]:
    """Panels below and beside each other: sets to the left, pairs of sets to the right."""
    own = scores[(scores["space"] == EIGENVECTORS) & (scores["undefined"].fillna("") == "")]
    other = own[own["measure"] == PART_OTHER_IMAGES]
    within = {name: other[(other["set_a"] == name) & (other["set_b"] == name)] for name in space.sets}
    place = scores.loc[(scores["space"] == POSITIONS) & (scores["measure"] == PART_OTHER_IMAGES), "score"]
    by_place = float(place.iloc[0]) if len(place) else math.nan
    of_edges = edges[(edges["other"].fillna("") == "") & (edges["stage"] == OWN) & edges["correlation"].notna()]
    left = [
        Panel(
            "same part: nearest token in other images",
            _OF_PARTS,
            {_label(space, name): _stages(table, "score") for name, table in within.items() if len(table)},
            by_place,
        ),
        Panel(
            "edges: the eigenvector of the set's own cut that follows them most",
            "|Spearman's ρ|",
            {
                _label(space, name): _stages(of_edges[of_edges["set"] == name], "correlation")
                for name in space.sets
                if name in set(of_edges["set"])
            },
        ),
    ]
    pairs = [
        ("same part: nearest token in other images of another set", PART_OTHER_IMAGES, _OF_PARTS, by_place),
        ("same part: nearest token in the same image of another set", PART_SAME_IMAGE, _OF_PARTS, math.nan),
        (
            "same cell: nearest token in the same image of another set",
            CELL_SAME_IMAGE,
            "share of cells",
            math.nan,
        ),
    ]
    right = [
        Panel(title, unit, rows, alone)
        for title, measure, unit, alone in pairs
        if (rows := _pairs(own[own["measure"] == measure], space))
    ]
    # cells are what is left to compare where there are no parts; pairs are labelled once
    right = right if len(right) == 1 else [panel for panel in right if panel.unit == _OF_PARTS]
    right = [replace(panel, labelled=not number) for number, panel in enumerate(right)]
    columns = [[panel for panel in left if panel.rows], *([panel] for panel in right)]
    return [column for column in columns if column]


def _pairs(table: pd.DataFrame, space: SpaceFile) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Pairs of sets, those of different models first, at most `_MOST_PAIRS`."""
    model_of = dict(zip(space.sets, space.models, strict=True))
    pairs = [(a, b) for a, b in dict.fromkeys(zip(table["set_a"], table["set_b"], strict=True)) if a != b]
    pairs.sort(key=lambda pair: model_of[pair[0]] == model_of[pair[1]])
    return {
        f"{_label(space, a)} – {_label(space, b)}": _stages(
            table[(table["set_a"] == a) & (table["set_b"] == b)], "score"
        )
        for a, b in pairs[:_MOST_PAIRS]
    }


def _stages(table: pd.DataFrame, value: str) -> dict[str, tuple[float, float, float]]:
    columns = [table[name] for name in ("stage", value, "null_mean", "null_high")]
    return {
        str(stage): (float(score), float(mean), float(high))
        for stage, score, mean, high in zip(*columns, strict=True)
        if stage in _LOOKS
    }


def _label(space: SpaceFile, name: str) -> str:
    number = space.sets.index(name)
    return f"{space.models[number]} {space.layers[number]}"


def _height(columns: Sequence[Sequence[Panel]]) -> float:
    """Inches that the strip of scores takes, titles and axes with it."""
    return max((sum(len(panel.rows) * _ROW + _AROUND for panel in column) for column in columns), default=0.0)


def _strip(figure: Figure, columns: Sequence[Sequence[Panel]], top: float) -> None:
    """Scores below the pictures. top: the upper edge of the strip, in inches."""
    height = figure.get_figheight()
    widths = [
        max(style.text_width(label, style.SMALL) for panel in column for label in panel.rows) + 0.1
        if column[0].labelled
        else 0.0
        for column in columns
    ]
    free = min((style.PAGE - sum(widths) - _BETWEEN * len(columns)) / len(columns), style.COLUMN)
    left = 0.0
    for column, width in zip(columns, widths, strict=True):
        left += width
        upper = top
        for panel in column:
            tall = len(panel.rows) * _ROW
            lower = upper - _TITLE - tall
            axes = figure.add_axes((left / style.PAGE, lower / height, free / style.PAGE, tall / height))
            _scores(axes, panel)
            title = style.wrapped(panel.title, free + max(0.0, width - 0.05), style.SMALL)
            figure.text(
                (left - max(0.0, width - 0.05)) / style.PAGE, (lower + tall + 0.04) / height, title,
                ha="left", va="bottom", fontsize=style.SMALL, linespacing=1.0,
            )  # fmt: skip
            upper -= tall + _AROUND
        left += free + _BETWEEN
    drawn = [panel for column in columns for panel in column]
    stages = {stage for panel in drawn for of in panel.rows.values() for stage in of}
    entries = {stage: Line2D([], [], **look) for stage, look in _LOOKS.items() if stage in stages}
    entries |= {"chance, grids shifted: mean to 95 %": Line2D([], [], color=style.MISSING, linewidth=3)}
    if any(math.isfinite(panel.by_place) for panel in drawn):
        entries |= {"at the same cell of other images": Line2D([], [], **_PLACE)}
    style.legend_below(figure, {_WORDS.get(key, key): entry for key, entry in entries.items()}, 5)


def _scores(axes: Axes, panel: Panel) -> None:
    for at, of in enumerate(panel.rows.values()):
        offsets = (-0.17, 0.17) if len(of) > 1 else (0.0,)
        for (_, mean, high), offset in zip(of.values(), offsets, strict=True):
            axes.plot(
                (mean, high), (at + offset,) * 2, color=style.MISSING, linewidth=3, solid_capstyle="butt", zorder=1
            )
        axes.plot(
            [score for score, _, _ in of.values()], [at] * len(of), color=style.QUIET, linewidth=style.THIN, zorder=2
        )
        for stage, (score, _, _) in of.items():
            axes.plot(score, at, zorder=3, clip_on=False, **_LOOKS[stage])
    if math.isfinite(panel.by_place):
        axes.axvline(panel.by_place, zorder=1, **_PLACE)
    axes.set_yticks(range(len(panel.rows)), list(panel.rows) if panel.labelled else [], fontsize=style.SMALL)
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(panel.unit, fontsize=style.SMALL)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_space_figure"):
        shared_space_figure(
            Path(snakemake.input.eigenvectors),
            Path(snakemake.input.consistency),
            Path(snakemake.input.edges),
            Path(snakemake.input.images),
            snakemake.params.shown,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
