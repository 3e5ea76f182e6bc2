"""Samples on their way from noise to image: states, estimates of the image, and the bands of these estimates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import dynamics, style
from diffalign.io.trajectory_files import first_of_groups, read_trajectories

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# noise levels of a sheet at least; of smaller pictures more stand beside each other
COLUMNS = 8
# inches of all pictures upwards, if they can be so small, and of a picture that its noise level still fits above
_TALLEST, _SMALLEST = 8.4, 0.42
# what names of rows, to the left, and ends of scales, to the right, take of the width, in inches
_WORDS = 0.85
_BANDS = ("low", "mid", "high")
# of the absolute values of a band in the final images; colours end there
_REACH = 0.995


def trajectory_sheet_figure(
    trajectories: Path, bands: Mapping[str, float], count: int, outputs: Sequence[Path], miniature: bool
) -> None:
    """Draw `count` samples of one seed, each of another group where there are so many, at 8 to 14 noise levels: a page
    holds four samples at most.

    trajectories: folder of one seed. bands: ``low`` and ``mid``, the upper edges of these bands in cycles per pixel;
    the high band is drawn with the corner. Bands are those of the lightness (mean of red, green and blue) of the
    estimate, less its mean, which is in no band. The colours of a band have one scale in the whole figure, which ends
    at the 99.5 % quantile of its absolute values in the final images.
    """
    style.styled()
    read = read_trajectories(trajectories)
    names = first_of_groups(read.names, read.groups, count)
    rows = 2 + len(_BANDS)
    cell = min((style.PAGE - _WORDS) / COLUMNS, max(_SMALLEST, _TALLEST / (rows * len(names))))
    steps = dynamics.spread_steps([level.t for level in read.levels], int((style.PAGE - _WORDS) / cell + 1e-9))
    drawn = dynamics.pictures(read, names, "images", "x0_images")
    passed = {
        name: dynamics.band_passed(dynamics.lightness(drawn[name]["x0_images"][steps]), bands["low"], bands["mid"])
        for name in names
    }
    reach = {band: float(np.quantile([np.abs(passed[name][band][-1]) for name in names], _REACH)) for band in _BANDS}
    size = (style.PAGE, len(names) * (rows * cell + 0.05) + 0.6)
    figure, grid = plt.subplots(len(names), 1, figsize=size, squeeze=False, layout="constrained")
    groups = dict(zip(read.names, read.groups, strict=True))
    for axes, name in zip(grid[:, 0], names, strict=True):
        sheet = [list(dynamics.as_bytes(drawn[name][tensor][steps])) for tensor in ("images", "x0_images")]
        sheet += [[dynamics.signed_colors(each, reach[band]) for each in passed[name][band]] for band in _BANDS]
        _draw(axes, sheet, [f"±{reach[band]:.2g}" for band in _BANDS])
        caption = name if name.startswith(groups[name]) else f"{name}: {groups[name]}"
        axes.set_ylabel(style.wrapped(caption, rows * cell, style.SMALL), fontsize=style.SMALL)
    levels = [read.levels[step] for step in steps]
    titles = [f"t = {level.t:.2f}\n{dynamics.log_snr_text(level.log_snr)}" for level in levels]
    _column_titles(grid[0, 0], titles)
    style.heading(
        figure,
        f"{dynamics.title_of_trajectories(read)}: states {dynamics.SYMBOLS[dynamics.STATE]} and estimates "
        f"{dynamics.SYMBOLS[dynamics.ESTIMATE]} of the image, with the bands of the estimate's lightness (low to "
        f"{bands['low']:g}, mid to {bands['mid']:g} cycles per pixel, high beyond): red above 0, blue below. The scale "
        "of a band, to the right, is the same in all pictures. Below t: log-SNR.",
    )
    style.save(figure, outputs, miniature)


def _draw(axes: Axes, sheet: list[list[NDArray[np.uint8]]], reaches: Sequence[str]) -> None:
    """One sample: a row a kind of picture, named to the left; ends of the scales of bands to the right."""
    picture, gap = dynamics.mosaic(sheet)
    axes.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0))
    dynamics.bare(axes)
    tall = sheet[0][0].shape[0]
    middles = np.arange(len(sheet)) * (tall + gap) + tall / 2
    words = [dynamics.SYMBOLS[dynamics.STATE], dynamics.SYMBOLS[dynamics.ESTIMATE], *_BANDS]
    axes.set_yticks(middles, words)
    right = axes.secondary_yaxis("right")
    right.set_yticks(middles[-len(reaches) :], reaches)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)


def _column_titles(axes: Axes, titles: Sequence[str]) -> None:
    left, right = axes.get_xlim()
    width = (right - left) / len(titles)
    top = axes.secondary_xaxis("top")
    top.set_xticks((np.arange(len(titles)) + 0.5) * width, titles)
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "trajectory_sheet_figure"):
        trajectory_sheet_figure(
            Path(snakemake.input.trajectories),
            snakemake.params.bands,
            snakemake.params.samples,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
