"""How every figure looks: sizes of a paper's column and page, type, colours, and how it is saved with its table.

A figure is as wide as a column or a page of a paper and is printed at that size, so sizes of type are those on paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox

from diffalign.io import tables
from diffalign.io.atomic import replacing
from diffalign.logs import log

# widths in inches
COLUMN, PAGE = 3.25, 6.75
# sizes of type in points: text; labels of ticks and legends, the smallest that is still read
TEXT, SMALL = 7.0, 6.0
# widths of lines in points
THICK, LINE, THIN = 1.5, 1.0, 0.6
# dots an inch of PNG files
DPI = 300
MINIATURE_NOTE = "Miniature models with random weights: this shows the workflow, not a result."
MINIATURE_COLOR = "#b91c1c"
BEST, DEFAULT = "#c2410c", "#1d4ed8"
# colours of lines that are no data, of grids, of words in place of a panel, and of cells without a value
QUIET, GRID, WORDS, MISSING = "0.4", "0.92", "0.45", "0.8"
# Okabe and Ito's colours, told apart by all readers; yellow is too light for lines
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# maps whose lightness rises evenly, which readers with every kind of colour vision see: scores, calibrated scores
SCORES, CALIBRATED = "viridis", "magma"
# a map with a middle, for values whose sign says something
SIGNED = "RdBu_r"
# how the table of a figure is written, by the suffix of its path
TABLES = {".tsv": tables.write_tsv, ".parquet": tables.write_parquet}
_MARGIN = 0.04
_STYLE: Mapping[str, Any] = {
    "backend": "Agg",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "figure.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "axes.labelpad": 2.0,
    "axes.linewidth": THIN,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": THIN,
    "lines.linewidth": LINE,
    "lines.markersize": 3.0,
    "patch.linewidth": THIN,
    "hatch.linewidth": THIN,
    "xtick.major.width": THIN,
    "ytick.major.width": THIN,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "legend.labelspacing": 0.35,
    # letters are measured for the layout as they are drawn in PNG files
    "figure.dpi": DPI,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
    "savefig.dpi": DPI,
    # type 42 keeps letters as letters in a PDF and PostScript file, with their font
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "image.cmap": SCORES,
    "image.interpolation": "none",
}


def styled() -> None:
    """Set the style of every figure."""
    plt.rcParams.update(_STYLE)  # type: ignore[arg-type]


def look(number: int) -> dict[str, str]:
    """Colour and marker of a series by its number; a second round of colours has other markers."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number // len(COLORS) % len(MARKERS)],
    }


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours of so many curves in an order, as of a noise level: dark to light."""
    return [plt.get_cmap(SCORES)(x) for x in np.linspace(0.1, 0.85, count)]


def title_of(recipe: Mapping[str, Any]) -> str:
    """Data set, condition, number of images and of neighbours, and what one side was given of the other; of the recipe
    of a score, whether norms of rows count, since CKA of unit rows is another number than that of features as they are.
    """
    rows = ""
    if "preparation" in recipe:
        rows = ", unit rows" if recipe["preparation"]["normalize"] == "l2" else ", norms of rows kept"
    given = f". Not independent: {recipe['leak']}" if recipe.get("leak") else ""
    return f"{recipe['dataset']}, {recipe['condition']}: N = {recipe['n']}, k = {recipe['k']}{rows}{given}"


def p_text(p: float) -> str:
    """``p = 0.005``; ``p unknown`` for NaN. The far tail of a fitted distribution is not told apart."""
    if np.isnan(p):
        return "p unknown"
    if p < 0.001:
        return "p < 10⁻⁶" if p < 1e-6 else f"p = {p:.0e}"
    return f"p = {p:.3f}"


def wrapped(text: str, width: float, size: float = TEXT) -> str:
    """A text in lines of at most this width in inches, broken at blanks; a longer word stays whole. size: in points."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and text_width(longer, size) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


def text_width(text: str, size: float = TEXT) -> float:
    """The width in inches of one line of text, which may have formulas, at a size in points."""
    if not text.strip():
        return 0.0
    # from the advances of letters: their outlines would take a hundred times as long
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), is_math_text(text))
    return float(width) / 72


def heading(figure: Figure, text: str, below: float | None = None, above: bool = False) -> None:
    """What a figure shows, above all panels, in as many lines as it takes.

    below: inches below the upper edge of a figure whose panels have places of their own; None where a layout gives it.
    above: panels have places of their own, and the heading stands above everything that is drawn.
    """
    left = 0.05
    place: dict[str, Any] = {} if below is None else {"y": 1 - below / figure.get_figheight(), "va": "top"}
    if above:
        figure.draw_without_rendering()
        place = {"y": (figure.get_tightbbox().y1 + 0.08) / figure.get_figheight(), "va": "bottom"}
    wide = wrapped(text, figure.get_figwidth() - 2 * left)
    if not place:
        # sizes of figures leave room for two lines
        figure.set_figheight(figure.get_figheight() + max(0, wide.count("\n") - 1) * TEXT * 1.2 / 72)
    figure.suptitle(wide, x=left / figure.get_figwidth(), ha="left", **place)


def legend_below(figure: Figure, entries: Mapping[str, Any], columns: int) -> None:
    """A legend below everything that is drawn, in at most so many columns as fit. entries: label -> handle.

    Panels keep the places that they have now.
    """
    place: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, _lowest(figure)),
        "bbox_transform": figure.transFigure,
        "borderaxespad": 0.0,
    }
    width = figure.get_figwidth()
    labels = [wrapped(label, width - 0.6, SMALL) for label in entries]
    for count in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(list(entries.values()), labels, ncols=count, **place)
        extent = legend.get_window_extent()
        if count == 1 or extent.width / figure.dpi <= width:
            return
        legend.remove()


def _lowest(figure: Figure) -> float:
    """How far down a figure reaches, less a margin, as a share of its height."""
    figure.draw_without_rendering()
    # laid out once, not again when it is saved
    figure.set_layout_engine(None)
    return float(figure.get_tightbbox().y0 - 0.08) / figure.get_figheight()


def save(figure: Figure, paths: Sequence[Path], miniature: bool, table: pd.DataFrame | None = None) -> None:
    """Write a figure in the format of each path's suffix; miniatures say so in the figure.

    It is as wide as a column or a page, and as high as what is drawn. Nothing is cut: where something reaches beyond
    the width, the file is wider, and the log says so. table: what is drawn, one row an element, for the paths that end
    in .tsv and .parquet. Raises ValueError for another width, and for a path of a table where none is given.
    """
    width = figure.get_figwidth()
    if width not in (COLUMN, PAGE):
        raise ValueError(f"a figure is {width:g} in wide; allowed: {COLUMN:g} (a column) and {PAGE:g} (a page)")
    figure.draw_without_rendering()
    # laid out once, not again for every format
    figure.set_layout_engine(None)
    if miniature:
        note = wrapped(MINIATURE_NOTE, figure.get_figwidth())
        low = float(figure.get_tightbbox().y0 - 0.08) / figure.get_figheight()
        figure.text(0.5, low, note, ha="center", va="top", color=MINIATURE_COLOR)
    box = page_box(figure)
    if box.width > width + _MARGIN:
        log.warning("%s is %.2f in wide, not %.2f: names in it are too long", paths[0].name, box.width, width)
    for path in paths:
        if path.suffix in TABLES:
            if table is None:
                raise ValueError(f"{path}: this figure comes without a table")
            TABLES[path.suffix](table, path)
            continue
        with replacing(path) as temporary:
            figure.savefig(temporary, bbox_inches=box, metadata=_undated(path))
    plt.close(figure)


def page_box(figure: Figure) -> Bbox:
    """What is saved of a figure, in inches: its whole width, and all that is drawn with a margin above and below."""
    drawn = figure.get_tightbbox()
    return Bbox.from_extents(
        min(0.0, drawn.x0), drawn.y0 - _MARGIN, max(figure.get_figwidth(), drawn.x1), drawn.y1 + _MARGIN
    )


def _undated(path: Path) -> dict[str, None] | None:
    """No date in a PDF, so that the same data gives the same file."""
    return {"CreationDate": None} if path.suffix == ".pdf" else None
