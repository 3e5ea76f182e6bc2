"""The most, median and least aligned images of one pair of representations, each with its neighbours under both."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from diffalign import logs
from diffalign.alignment.per_image import PerImage, extremes, per_image
from diffalign.figures import style
from diffalign.io import recipes, sides
from diffalign.io.headers import StoreError
from diffalign.offenders import first_five

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES_OF_A_KIND = 3
NEIGHBORS_SHOWN = 6
# pixels of a picture in the figure, whose side is half an inch
_PIXELS = style.DPI // 2


def gallery_figure(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    images: Path,
    where: recipes.Where,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw one row an image: itself with its name, its first neighbours under A and B; those that both have are framed.

    images: folder of PNG files, one a name. Raises StoreError that names the first five images without a file.
    """
    style.styled()
    setting = recipes.read_settings(settings)
    # nothing is drawn by a seed here
    a, b = sides.read_sides(*files, seed=0)
    nearest = per_image(a.lists.layer(layers[0]), b.lists.layer(layers[1]), setting.k)
    chosen = extremes(nearest.overlap, a.names, IMAGES_OF_A_KIND)
    rows = [(kind, i) for kind, members in chosen.items() for i in members]
    shown = min(NEIGHBORS_SHOWN, setting.k)
    check_files(a.names, nearest, rows, shown, images)

    # narrow columns set the image and both lists apart
    widths = [1.0, 0.18, *[1.0] * shown, 0.18, *[1.0] * shown]
    left, above, side = 0.82, 0.36, (style.PAGE - 0.82) / (sum(widths) * 1.04)
    figure = plt.figure(figsize=(style.PAGE, 1.05 * side * len(rows) + above))
    grid = figure.add_gridspec(
        *(len(rows), len(widths)),
        width_ratios=widths,
        left=left / style.PAGE,
        right=0.998,
        top=1 - above / figure.get_figheight(),
        bottom=0.005,
        wspace=0.04,
        hspace=0.05,
    )
    headings = {
        0: "image",
        2: f"nearest under A = {a.lists.recipe['bundle']}, {layers[0]}",
        3 + shown: f"nearest under B = {b.lists.recipe['bundle']}, {layers[1]}",
    }
    for row, (kind, i) in enumerate(rows):
        lists = (
            (2, nearest.neighbors_a[i], nearest.is_shared_a[i]),
            (3 + shown, nearest.neighbors_b[i], nearest.is_shared_b[i]),
        )
        axes = picture(figure.add_subplot(grid[row, 0]), images, a.names[i], shared=False)
        title = f"{kind} aligned\n" if i == chosen[kind][0] else ""
        label = f"{title}{textwrap.fill(a.names[i], 16)}\n{nearest.shared[i]} of {setting.k} shared"
        axes.text(
            *(-0.08, 0.5, label),
            transform=axes.transAxes,
            ha="right",
            va="center",
            fontsize=style.SMALL,
            linespacing=1.3,
        )
        drawn = {0: axes}
        for first, neighbors, is_shared in lists:
            for rank in range(shown):
                drawn[first + rank] = picture(
                    figure.add_subplot(grid[row, first + rank]), images, a.names[neighbors[rank]], bool(is_shared[rank])
                )
        if row == 0:
            for column, text in headings.items():
                drawn[column].set_title(text)
    style.heading(
        figure,
        f"{where.dataset}, {where.condition}: N = {len(a.names)}, k = {setting.k}. "
        "Framed: among the k nearest of both.",
    )
    style.save(figure, outputs, miniature)


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
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
