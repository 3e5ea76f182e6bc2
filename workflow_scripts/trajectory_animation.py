"""Samples on their way from noise to image, as an animation: states above estimates of the image."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from diffalign import logs
from diffalign.figures import dynamics, style
from diffalign.io.atomic import replacing
from diffalign.io.trajectory_files import Trajectories, first_of_groups, read_trajectories

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# dots an inch on a screen
_DPI = 110
# how long a state and the result are shown, in milliseconds
_STEP, _RESULT = 140, 2500
# of 256 colours of a frame: for estimates, which are smooth, for states, and for text
_ESTIMATE, _STATE, _TEXT = 128, 96, 32


def trajectory_animation(trajectories: Path, count: int, output: Path, miniature: bool) -> None:
    """Write a GIF with a frame a state, from noise to image, which begins again after a pause at the result.

    trajectories: folder of one seed, of which `count` samples are shown, each of another group where there are so many.
    """
    style.styled()
    first, *others = _frames(read_trajectories(trajectories), count, miniature)
    durations = [_STEP] * len(others) + [_RESULT]
    with replacing(output) as temporary:
        # the temporary name says no format
        first.save(
            temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False
        )


def _frames(read: Trajectories, count: int, miniature: bool) -> Iterator[Image.Image]:
    names = first_of_groups(read.names, read.groups, count)
    drawn = dynamics.pictures(read, names, "images", "x0_images")
    sheets = {
        tensor: np.stack([dynamics.as_bytes(drawn[name][tensor]) for name in names], axis=1)
        for tensor in ("images", "x0_images")
    }
    width = style.PAGE if len(names) > 3 else style.COLUMN
    cell = (width - 0.4) / len(names)
    figure = Figure(figsize=(width, 2 * cell + (0.85 if miniature else 0.6)), layout="constrained", dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1)
    shown = []
    for axes, (tensor, symbol) in zip(
        panels, (("images", dynamics.STATE), ("x0_images", dynamics.ESTIMATE)), strict=True
    ):
        shown.append(axes.imshow(dynamics.mosaic([list(sheets[tensor][0])])[0]))
        dynamics.bare(axes)
        axes.set_ylabel(dynamics.SYMBOLS[symbol], rotation=0, ha="right", va="center")
    if miniature:
        note = style.wrapped(style.MINIATURE_NOTE, width - 0.2)
        figure.supxlabel(note, color=style.MINIATURE_COLOR, fontsize=style.TEXT)
    for step, level in enumerate(read.levels):
        for image, tensor in zip(shown, sheets, strict=True):
            image.set_data(dynamics.mosaic([list(sheets[tensor][step])])[0])
        panels[0].set_title(
            f"{dynamics.title_of_trajectories(read)}\nstate {step} of {len(read.levels) - 1}: t = {level.t:.3f}, "
            f"log-SNR {dynamics.log_snr_text(level.log_snr)}"
        )
        canvas.draw()  # type: ignore[no-untyped-call]
        if step == 0:
            # laid out once, so that nothing moves from frame to frame
            figure.set_layout_engine(None)
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        palette = _palette(sheets["x0_images"][step], sheets["images"][step])
        yield Image.fromarray(pixels[..., :3].copy()).quantize(palette=palette, dither=Image.Dither.NONE)


def _palette(estimates: NDArray[np.uint8], states: NDArray[np.uint8]) -> Image.Image:
    """The colours of a frame. estimates, states: (samples, H, W, 3). Noise alone would take nearly all of them."""
    colors: list[int] = []
    for images, count in ((estimates, _ESTIMATE), (states, _STATE)):
        chosen = Image.fromarray(images.reshape(-1, images.shape[2], 3)).quantize(count, Image.Quantize.MEDIANCUT)
        colors += (chosen.getpalette() or [])[: 3 * count]
    red = np.array(to_rgb(style.MINIATURE_COLOR))
    for share in np.linspace(0, 1, _TEXT // 2):
        colors += [round(255 * share)] * 3 + np.rint(255 * (red + share * (1 - red))).astype(int).tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors)
    return palette


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "trajectory_animation"):
        trajectory_animation(
            Path(snakemake.input.trajectories),
            snakemake.params.samples,
            Path(snakemake.output[0]),
            snakemake.params.miniature,
        )
