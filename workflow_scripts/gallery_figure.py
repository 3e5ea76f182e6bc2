"""The most, median and least aligned images of one pair of representations, each with its neighbours under both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from diffalign import logs
from diffalign.alignment.per_image import PerImage, agreement, extremes, per_image
from diffalign.figures import style
from diffalign.io import recipes, sides
from diffalign.io.headers import StoreError
from diffalign.offenders import first_five

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES_OF_A_KIND = 3
# of a list at most; beyond them pictures would be too small to be seen
MOST_NEIGHBORS = 24
# inches of names, of the tallest picture, and of what stands above all
_NAMES, _TALLEST, _ABOVE = 0.95, 0.42, 0.42
# pixels of a picture in the figure
_PIXELS = style.DPI // 2


def gallery_figure(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    images: Path,
    where: recipes.Where,
    seed: int,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw two lines an image: itself with its name, its k nearest under A above those under B; those that both have
    are framed. Images whose overlap and whose agreement of whole lists are the same are chosen by lot.

    images: folder of PNG files, one a name. seed: of the lot. Raises StoreError that names the first five images
    without a file.
    """
    style.styled()
    setting = recipes.read_settings(settings)
    a, b = sides.read_sides(*files, seed=seed)
    lists = a.lists.layer(layers[0]), b.lists.layer(layers[1])
    nearest, agreed = per_image(*lists, setting.k), agreement(*lists)
    chosen = extremes(nearest.overlap, agreed, a.names, IMAGES_OF_A_KIND, seed)
    rows = [(kind, i) for kind, members in chosen.items() for i in members]
    shown = min(MOST_NEIGHBORS, setting.k)
    check_files(a.names, nearest, rows, shown, images)

    gap = 0.05
    side = min(_TALLEST, (style.PAGE - _NAMES - 3 * gap) / (shown + 2.3))
    tall = 2 * side + 2.5 * gap
    height = tall * len(rows) + _ABOVE
    figure = plt.figure(figsize=(style.PAGE, height))

    def place(left: float, top: float, wide: float) -> Axes:
        """A square at a place in inches, from the left and from above."""
        return figure.add_axes((left / style.PAGE, 1 - (top + wide) / height, wide / style.PAGE, wide / height))

    for row, (kind, i) in enumerate(rows):
        top = _ABOVE + row * tall
        title = f"{kind} aligned\n" if i == chosen[kind][0] else ""
        name = style.wrapped(a.names[i].replace("_", " "), _NAMES - 0.1, style.SMALL)
        figure.text(
            *((_NAMES - 0.06) / style.PAGE, 1 - (top + side) / height),
            f"{title}{name}\n{nearest.shared[i]:.3g} of {setting.k} shared\nagreement {agreed[i]:.3f}",
            ha="right",
            va="center",
            fontsize=style.SMALL,
            linespacing=1.15,
        )
        large = 2 * side + gap
        picture(place(_NAMES, top, large), images, a.names[i], shared=False)
        both = (nearest.neighbors_a[i], nearest.is_shared_a[i]), (nearest.neighbors_b[i], nearest.is_shared_b[i])
        for line, (neighbors, is_shared) in enumerate(both):
            upper, left = top + line * (side + gap), _NAMES + large + 0.12
            figure.text(*(left / style.PAGE, 1 - (upper + side / 2) / height, "AB"[line]), ha="center", va="center")
            for rank in range(shown):
                at = place(left + 0.1 + rank * (side + 0.6 * gap), upper, side)
                picture(at, images, a.names[neighbors[rank]], bool(is_shared[rank]))
    first = "" if shown == setting.k else f"the first {shown} of "
    style.heading(
        figure,
        f"{where.dataset}, {where.condition}: N = {len(a.names)}. Nearest, from near to far, {first}k = {setting.k} "
        f"under A = {a.lists.recipe['bundle']}, {layers[0]}, and under B = {b.lists.recipe['bundle']}, {layers[1]}. "
        "Framed: among the k nearest of both. Agreement: of whole lists.",
        below=0.05,
    )
    style.save(figure, outputs, miniature, table(a.names, nearest, agreed, chosen))


def table(
    names: Sequence[str], nearest: PerImage, agreed: NDArray[np.float64], chosen: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """One row a neighbour of every image that is shown, under A and under B, in order of rank, from 1."""
    rows = [
        {
            "kind": kind,
            "name": names[i],
            "shared": float(nearest.shared[i]),
            "overlap": float(nearest.overlap[i]),
            "agreement": float(agreed[i]),
            "under": side,
            "rank": rank + 1,
            "neighbor": names[neighbor],
            "is_shared": bool(is_shared),
        }
        for kind, members in chosen.items()
        for i in members
        for side, neighbors, flags in (
            ("a", nearest.neighbors_a[i], nearest.is_shared_a[i]),
            ("b", nearest.neighbors_b[i], nearest.is_shared_b[i]),
        )
        for rank, (neighbor, is_shared) in enumerate(zip(neighbors, flags, strict=True))
    ]
    return pd.DataFrame(rows)


def check_files(
    names: Sequence[str], nearest: PerImage, rows: Sequence[tuple[str, int]], shown: int, folder: Path
) -> None:
    """Raise StoreError where a picture that will be drawn has no file."""
    wanted = {i for _, i in rows}
    for _, i in rows:
        wanted |= {*nearest.neighbors_a[i, :shown].tolist(), *nearest.neighbors_b[i, :shown].tolist()}
    missing = sorted(names[i] for i in wanted if not (folder / f"{names[i]}.png").is_file())
    if missing:
        raise StoreError(f"{folder}: {len(missing)} images have no PNG file, first: {first_five(missing)}")


def picture(axes: Axes, folder: Path, name: str, shared: bool) -> Axes:
    """Draw one image, framed where it is shared."""
    with Image.open(folder / f"{name}.png") as image:
        pixels = image.convert("RGB")
        pixels.thumbnail((_PIXELS, _PIXELS))
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_axis_off()
    if shared:
        # around the picture, not over it
        axes.add_patch(
            Rectangle(
                *((0, 0), 1, 1),
                transform=axes.transAxes,
                fill=False,
                edgecolor=style.DEFAULT,
                linewidth=style.THICK,
                clip_on=False,
            )
        )
    return axes


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "gallery_figure"):
        gallery_figure(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.images),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.seed,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
