"""Tokens of several layers and models in the colours of one space, before and after alignment, and their scores."""

from collections.abc import Sequence
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
from diffalign.shared_space.consistency import CELL_SAME_IMAGE, PART_OTHER_IMAGES

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

STAGES = {
    "before": "before: sets side by side as they are, each centred and of variance 1",
    "after": "after: affinities to the same landmarks in every set",
}
# what pictures show, of which the scores are drawn
_SPACE = "eigenvectors"
_COLUMNS = ("measure", "set_a", "set_b", "space", "stage", "score", "null_mean", "null_high", "p", "undefined")
# inches: names of images at the left, headings of blocks and of columns, between blocks, a row of scores, the largest
# picture and what lies between two
_LEFT, _HEADING, _TITLES, _APART, _ROW, _LARGEST, _GAP = 0.62, 0.2, 0.24, 0.14, 0.135, 1.2, 0.03
# so many sets fit twice beside each other
_BESIDE = 3
_MOST_PAIRS = 15
_PIXELS = 360
_HOLLOW: dict[str, Any] = {"marker": "o", "markersize": 3.4, "markerfacecolor": "white", "linestyle": ""}
_FILLED: dict[str, Any] = {"marker": "o", "markersize": 3.4, "linestyle": ""}


def shared_space_figure(
    eigenvectors: Path, scores: Path, images: Path, shown: int, outputs: Sequence[Path], miniature: bool
) -> None:
    """Draw a block before and a block after alignment, a row an image and a column a set; below them, the scores.

    Colours of a block are one space for all its sets: the same colour is the same place in the embedding by the joint
    normalized cut. eigenvectors, scores: of the rule shared_space. shown: at most so many images, the first ones.
    Scores are those of the rows of eigenvectors that have these colours: of parts, or without parts of cells. Raises
    StoreError that names the first five images without a file.
    """
    style.styled()
    space = read_space(eigenvectors)
    names = space.names[:shown]
    if absent := [name for name in names if not (images / f"{name}.png").is_file()]:
        raise StoreError(f"{images}: {len(absent)} images have no PNG file, first: {first_five(absent)}")
    # one set has no pair, and without parts no score at all
    table = tables.read(scores, _COLUMNS) if tables.has_rows(scores) else pd.DataFrame(columns=list(_COLUMNS))
    panels = _panels(table, space)
    count, beside = len(space.sets), len(space.sets) <= _BESIDE
    across = 1 + 2 * count if beside else 1 + count
    side = min(_LARGEST, (style.PAGE - _LEFT - _APART) / across - _GAP)
    block = _HEADING + _TITLES + len(names) * (side + _GAP) + _APART
    strip = max((len(rows) for _, rows in panels), default=0) * _ROW + 0.55 if panels else 0.0
    height = (1 if beside else 2) * block + strip + 0.5
    figure = plt.figure(figsize=(style.PAGE, height))
    tops = [height - 0.5, height - 0.5 - (0 if beside else block)]
    pictures = [_pixels(images / f"{name}.png") for name in names]
    _block(figure, space, "before", (_LEFT, tops[0], side), pictures, len(names))
    if beside:
        place = (_LEFT + (1 + count) * (side + _GAP) + _APART, tops[1], side)
        _block(figure, space, "after", place, None, len(names))
    else:
        _block(figure, space, "after", (_LEFT, tops[1], side), pictures, len(names))
    for top in sorted(set(tops)):
        _names(figure, names, (top, side))
    if panels:
        _strip(figure, panels, (tops[1] - block - 0.2, height))
    style.heading(
        figure,
        f"Tokens of {len(space.sets)} sets in one space, {space.grid[0]} x {space.grid[1]} cells an image, coloured by "
        f"one normalized cut of all tokens of all {len(space.names)} images before, and one after alignment. In a block "
        "the same colour is the same place in the embedding.",
    )
    style.save(figure, outputs, miniature)


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
        label = style.wrapped(name.replace("_", " "), _LEFT - 0.1, style.TINY)
        corner = ((_LEFT - 0.05) / style.PAGE, middle / figure.get_figheight())
        figure.text(*corner, label, ha="right", va="center", fontsize=style.TINY)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        pixels = image.convert("RGB")
        pixels.thumbnail((_PIXELS, _PIXELS))
        return np.asarray(pixels)


def _panels(table: pd.DataFrame, space: SpaceFile) -> list[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """Titles of panels and their rows, each a label and its scores before and after."""
    own = table[table["space"] == _SPACE]
    of_parts = own[(own["measure"] == PART_OTHER_IMAGES) & (own["undefined"].fillna("") == "")]
    if of_parts.empty:
        title = "nearest token of the other set, same image, is at the same cell"
        found = [(title, _pairs(own[own["measure"] == CELL_SAME_IMAGE], space))]
    else:
        within = of_parts[of_parts["set_a"] == of_parts["set_b"]]
        rows = [(_label(space, name), within[within["set_a"] == name]) for name in space.sets]
        found = [
            ("nearest token of other images is of the same part", rows),
            ("nearest token of other images, in another set", _pairs(of_parts, space)),
        ]
    return [(title, rows) for title, rows in found if rows]


def _pairs(table: pd.DataFrame, space: SpaceFile) -> list[tuple[str, pd.DataFrame]]:
    """Pairs of sets, those of different models first, at most `_MOST_PAIRS`."""
    model_of = dict(zip(space.sets, space.models, strict=True))
    pairs = [
        (a, b)
        for a, b in dict.fromkeys(zip(table["set_a"], table["set_b"], strict=True))
        if a != b
    ]
    pairs.sort(key=lambda pair: model_of[pair[0]] == model_of[pair[1]])
    return [
        (f"{_label(space, a)} – {_label(space, b)}", table[(table["set_a"] == a) & (table["set_b"] == b)])
        for a, b in pairs[:_MOST_PAIRS]
    ]


def _label(space: SpaceFile, name: str) -> str:
    number = space.sets.index(name)
    return f"{space.models[number]} {space.layers[number]}"


def _strip(figure: Figure, panels: Sequence[tuple[str, Any]], place: tuple[float, float]) -> None:
    """Scores below the pictures. place: the upper edge of the panels, and the height of the figure, in inches."""
    top, height = place
    # names of pairs are twice as long as those of sets
    widths = [max(style.text_width(label, style.TINY) for label, _ in rows) + 0.08 for _, rows in panels]
    free = (style.PAGE - sum(widths) - 0.15 * len(panels)) / len(panels)
    left = 0.0
    for (title, rows), width in zip(panels, widths, strict=True):
        left += width
        tall = len(rows) * _ROW
        axes = figure.add_axes((left / style.PAGE, (top - tall) / height, free / style.PAGE, tall / height))
        _scores(axes, rows)
        axes.set_title(style.wrapped(title, free + width, style.SMALL), fontsize=style.SMALL, x=0.05 / free - width / free)
        left += free + 0.15
    entries = {
        "before": Line2D([], [], color=style.DEFAULT, **_HOLLOW),
        "after": Line2D([], [], color=style.BEST, **_FILLED),
        "chance before and after: mean to 95 %, grids shifted": Line2D([], [], color=style.MISSING, linewidth=3),
    }
    style.legend_below(figure, entries, 3)


def _scores(axes: Axes, rows: Sequence[tuple[str, pd.DataFrame]]) -> None:
    for at, (_, scores) in enumerate(rows):
        of = scores.set_index("stage")
        for stage, offset in (("before", -0.17), ("after", 0.17)):
            ends = of.loc[stage, ["null_mean", "null_high"]].to_numpy(np.float64)
            axes.plot(ends, (at + offset,) * 2, color=style.MISSING, linewidth=3, solid_capstyle="butt", zorder=1)
        before, after = (float(of.loc[stage, "score"]) for stage in STAGES)
        axes.plot((before, after), (at, at), color=style.QUIET, linewidth=style.THIN, zorder=2)
        axes.plot(before, at, color=style.DEFAULT, zorder=3, clip_on=False, **_HOLLOW)
        axes.plot(after, at, color=style.BEST, zorder=4, clip_on=False, **_FILLED)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=style.TINY)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    of_parts = set(rows[0][1]["measure"]) == {PART_OTHER_IMAGES}
    axes.set_xlabel("share, mean over parts" if of_parts else "share of cells", fontsize=style.SMALL)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_space_figure"):
        shared_space_figure(
            Path(snakemake.input.eigenvectors),
            Path(snakemake.input.consistency),
            Path(snakemake.input.images),
            snakemake.params.shown,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
