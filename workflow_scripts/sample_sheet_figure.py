"""Samples of a model as pictures: a panel a checkpoint, a row a class, and held-out images beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import style
from diffalign.io import quality_files
from diffalign.io.manifest import Image, read_manifest
from diffalign.io.sample_files import Samples, read_samples
from diffalign.stimuli.squares import read_rgb

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# classes of a sheet, and inches of one picture
MOST_CLASSES = 10
SIDE = 0.24
# what class names take of the width, in inches
_NAMES = 0.55
_SHARE = "share_of_class"


def sample_sheet_figure(
    samples: Sequence[Path],
    quality: Sequence[Path],
    manifest: Path,
    pictures: Path,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw the first samples of every class by the first seed, from the same noise in every panel.

    samples: files of the checkpoints of one model, in order of steps. quality: the recipes of their quality, in the
    same order, or none. pictures: folder of PNG files of the held-out images.
    """
    style.styled()
    drawn = [read_samples(path) for path in samples]
    rows = read_manifest(manifest)
    classes = _classes(drawn[0].recipe["classes"])
    across = max(1, int((style.PAGE - _NAMES) / (len(drawn) + 1) / SIDE))
    panels = [(_title(each), _sheet(_first_of_seed(each, classes, across))) for each in drawn]
    for number, path in enumerate(quality):
        title, sheet = panels[number]
        share = quality_files.KIND.read_json(path)["measures"][_SHARE]
        panels[number] = f"{title}\n{share['value']:.0%} in their class", sheet
    panels.append(("held-out images", _sheet(_held_out(rows, classes, across, pictures))))
    height = SIDE * len(classes) + 0.6
    figure, grid = plt.subplots(1, len(panels), figsize=(style.PAGE, height), squeeze=False, layout="constrained")
    names = {row.label_index: row.label for row in rows}
    for axes, (title, sheet) in zip(grid[0], panels, strict=True):
        _draw(axes, sheet)
        axes.set_title(title, loc="left")
    middles = (np.arange(len(classes)) + 0.5) * panels[0][1].shape[0] / len(classes)
    grid[0, 0].set_yticks(middles, [names[label] for label in classes])
    name, sampler = drawn[0].recipe["model"]["name"], drawn[0].recipe["sampler"]
    style.heading(
        figure,
        f"Samples of {name}, class by class. All panels of samples begin with the same noise "
        f"({sampler['method'].capitalize()}, {sampler['steps']} steps, guidance {sampler['guidance']:g})",
    )
    style.save(figure, outputs, miniature)


def _classes(count: int) -> list[int]:
    """At most `MOST_CLASSES`, from the first to the last."""
    return [int(label) for label in np.unique(np.linspace(0, count - 1, min(count, MOST_CLASSES)).round())]


def _title(samples: Samples) -> str:
    step = samples.recipe["model"].get("step")
    return "samples" if step is None else f"step {step}"


def _first_of_seed(samples: Samples, classes: Sequence[int], across: int) -> list[list[NDArray[np.uint8]]]:
    """The first samples of each class, class by class."""
    _, images, labels = next(samples.by_seed())
    listed = list(images.values())
    return [[listed[row] for row in np.flatnonzero(labels == label)[:across]] for label in classes]


def _held_out(
    rows: Sequence[Image], classes: Sequence[int], across: int, pictures: Path
) -> list[list[NDArray[np.uint8]]]:
    """The first held-out images of each class, in order of name."""
    members = [[row.name for row in rows if row.label_index == label][:across] for label in classes]
    return [[np.asarray(read_rgb(pictures / f"{name}.png")[0]) for name in names] for names in members]


def _sheet(images: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """One picture of rows of pictures, with a white line between them; short rows end white."""
    side = images[0][0].shape[0]
    gap = max(1, side // 16)
    cell, across = side + gap, max(map(len, images))
    sheet = np.full((cell * len(images), cell * across, 3), 255, np.uint8)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            sheet[cell * i : cell * i + side, cell * j : cell * j + side] = image
    return sheet


def _draw(axes: Axes, sheet: NDArray[np.uint8]) -> None:
    tall, wide = sheet.shape[:2]
    axes.imshow(sheet, extent=(0, wide, tall, 0))
    axes.set_anchor("NW")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "sample_sheet_figure"):
        given: Any = snakemake.input
        sample_sheet_figure(
            [Path(path) for path in given.samples],
            [Path(path) for path in given.quality],
            Path(given.manifest),
            Path(given.images),
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
