"""The most, median and least aligned images of one pair of representations, each with its neighbours under both."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from diffalign import figures, logs
from diffalign.alignment.per_image import PerImage, extremes, per_image
from diffalign.io import recipes, sides
from diffalign.io.headers import StoreError
from diffalign.offenders import first_five

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES_OF_A_KIND = 3
NEIGHBORS_SHOWN = 6
# pixels of a picture in the figure, at 200 dots an inch
_PIXELS = 170


def gallery_figure(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    images: Path,
    where: recipes.Where,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw one row an image: itself, its first neighbours under A and under B; those that both have are framed.

    images: folder of PNG files, one a name. Raises StoreError that names the first five images without a file.
    """
    figures.styled()
    setting = recipes.read_settings(settings)
    # nothing is drawn by a seed here
    a, b = sides.read_sides(*files, seed=0)
    found = per_image(a.lists.layer(layers[0]), b.lists.layer(layers[1]), setting.k)
    chosen = extremes(found.overlap, a.names, IMAGES_OF_A_KIND)
    rows = [(kind, i) for kind, members in chosen.items() for i in members]
    shown = min(NEIGHBORS_SHOWN, setting.k)
    check_files(a.names, found, rows, shown, images)

    columns = 2 * shown + 1
    # narrow columns set the image and both lists apart
    widths = [1.0, 0.18, *[1.0] * shown, 0.18, *[1.0] * shown]
    figure = plt.figure(figsize=(0.78 * sum(widths) + 0.95, 1.0 * len(rows) + 0.62))
    grid = figure.add_gridspec(
        len(rows), columns + 2, width_ratios=widths, left=0.95 / figure.get_figwidth(), right=0.995,
        top=1 - 0.57 / figure.get_figheight(), bottom=0.01, wspace=0.06, hspace=0.32,
    )  # fmt: skip
    headings = {
        0: "image",
        2: f"nearest under A = {a.lists.recipe['bundle']}, {layers[0]}",
        3 + shown: f"nearest under B = {b.lists.recipe['bundle']}, {layers[1]}",
    }
    for row, (kind, i) in enumerate(rows):
        lists = (
            (2, found.neighbors_a[i], found.is_shared_a[i]),
            (3 + shown, found.neighbors_b[i], found.is_shared_b[i]),
        )
        axes = picture(figure.add_subplot(grid[row, 0]), images, a.names[i], shared=False)
        title = f"{kind} aligned\n" if i == chosen[kind][0] else ""
        axes.text(
            -0.1, 0.5, f"{title}{found.shared[i]} of {setting.k} shared", transform=axes.transAxes, ha="right",
            va="center", fontsize=7,
        )  # fmt: skip
        drawn = {0: axes}
        for first, neighbors, is_shared in lists:
            for rank in range(shown):
                drawn[first + rank] = picture(
                    figure.add_subplot(grid[row, first + rank]), images, a.names[neighbors[rank]], bool(is_shared[rank])
                )
        if row == 0:
            for column, text in headings.items():
                drawn[column].set_title(text, loc="left", fontsize=8, pad=4)
    figure.suptitle(
        f"{where.dataset}, {where.condition}: N = {len(a.names)}, k = {setting.k}. Framed: among the k nearest of both",
        x=0.01, y=1 - 0.08 / figure.get_figheight(), ha="left", va="top", fontsize=10,
    )  # fmt: skip
    figures.save(figure, outputs, miniature)


def check_files(
    names: Sequence[str], found: PerImage, rows: Sequence[tuple[str, int]], shown: int, folder: Path
) -> None:
    """Raise StoreError where a picture that will be drawn has no file."""
    wanted = {i for _, i in rows}
    for _, i in rows:
        wanted |= {*found.neighbors_a[i, :shown].tolist(), *found.neighbors_b[i, :shown].tolist()}
    missing = sorted(names[i] for i in wanted if not (folder / f"{names[i]}.png").is_file())
    if missing:
        raise StoreError(f"{folder}: {len(missing)} images have no PNG file, first: {first_five(missing)}")


def picture(axes: Axes, folder: Path, name: str, shared: bool) -> Axes:
    """Draw one image with its name below, framed where it is shared."""
    with Image.open(folder / f"{name}.png") as image:
        pixels = image.convert("RGB")
        pixels.thumbnail((_PIXELS, _PIXELS))
    axes.imshow(pixels)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if shared:
        # around the picture, not over it
        axes.add_patch(
            Rectangle(
                (0, 0),
                1,
                1,
                transform=axes.transAxes,
                fill=False,
                edgecolor=figures.DEFAULT,
                linewidth=2.2,
                clip_on=False,
            )
        )
    lines = textwrap.wrap(name, 30)[:2]
    # as wide as the picture at most
    size = 4.5 * min(1.0, 18 / max(len(line) for line in lines))
    axes.set_xlabel("\n".join(lines), fontsize=size, labelpad=2.5)
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
