"""The wavelet pyramid of one sample at several noise levels of its way from noise to image."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pywt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from diffalign import logs
from diffalign.figures import dynamics, style
from diffalign.io.trajectory_files import first_of_groups, read_trajectories

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = 5
# of the absolute coefficients of a level over the noise levels that are drawn; colours end there
_REACH = 0.995


def wavelet_figure(trajectories: Path, wavelet: str, levels: int, outputs: Sequence[Path], miniature: bool) -> None:
    """Draw the estimate of the image of one sample and the wavelet coefficients of its lightness, at 5 noise levels.

    trajectories: folder of one seed, of which the first sample of the first group is drawn. The coefficients are laid
    out as a pyramid (Mallat 1989): the approximation top left in grey; to its right, below and diagonally from it the
    details of each level, whose lightness changes to the right, downwards and both. wavelet: a name of PyWavelets,
    whose mode is periodization. Raises ValueError for sides that 2^levels does not divide.
    """
    style.styled()
    read = read_trajectories(trajectories)
    (name,) = first_of_groups(read.names, read.groups, 1)
    steps = dynamics.spread_steps([level.t for level in read.levels], COLUMNS)
    images = dynamics.pictures(read, [name], "x0_images")[name]["x0_images"][steps]
    parts = _coefficients(dynamics.lightness(images), wavelet, levels)
    reach = [float(np.quantile(np.abs(each), _REACH)) for each in parts[1:]]
    cell = (style.PAGE - 0.6) / len(steps)
    figure, grid = plt.subplots(
        2, len(steps), figsize=(style.PAGE, 2 * cell + 0.6), squeeze=False, layout="constrained"
    )
    for i, step in enumerate(steps):
        level = read.levels[step]
        grid[0, i].imshow(dynamics.as_bytes(images[i]), extent=(0, 1, 1, 0))
        grid[0, i].set_title(f"t = {level.t:.2f}, log-SNR {dynamics.log_snr_text(level.log_snr)}")
        _pyramid(grid[1, i], [each[:, i] for each in parts], reach)
    for axes in grid.ravel():
        dynamics.bare(axes)
    grid[0, 0].set_ylabel(dynamics.SYMBOLS[dynamics.ESTIMATE])
    grid[1, 0].set_ylabel(f"{wavelet}, {levels} levels")
    scales = ", ".join(f"±{each:.2g} at level {levels - i}" for i, each in enumerate(reach))
    group = read.groups[read.names.index(name)]
    of = "" if name.startswith(group) else f" ({group})"
    style.heading(
        figure,
        f"{dynamics.title_of_trajectories(read)}, sample {name}{of}: the estimate of the image and its "
        f"wavelet pyramid. Approximation in grey, details red above and blue below 0; colours end at {scales}.",
    )
    style.save(figure, outputs, miniature)


def _coefficients(values: NDArray[np.float64], wavelet: str, levels: int) -> list[NDArray[np.float64]]:
    """The approximation (1, S, h, w), then details (3, S, h, w) of each level from coarse to fine: changes to the
    right, downwards, both. values: (S, H, W).
    """
    sides = values.shape[-2:]
    if any(side % 2**levels for side in sides):
        raise ValueError(f"{levels} levels of wavelets need sides that {2**levels} divides; these are {sides}")
    approximation, details = values, []
    # one level a call: PyWavelets warns of sides that are shorter than the filter
    for _ in range(levels):
        # details by the orientation of their edges
        approximation, (flat, upright, both) = pywt.dwt2(approximation, wavelet, mode="periodization", axes=(-2, -1))
        details.append(np.stack([upright, flat, both]))
    return [approximation[None], *reversed(details)]


def _pyramid(axes: Axes, parts: Sequence[NDArray[np.float64]], reach: Sequence[float]) -> None:
    """One pyramid. parts: the approximation (1, h, w), then details (3, h, w) of each level. reach: of each level."""
    (low, *details) = parts
    span = float(np.ptp(low[0])) or 1.0
    picture = dynamics.as_bytes(np.repeat(((low[0] - low[0].min()) / span)[..., None], 3, axis=-1))
    lines = []
    for level, end in zip(details, reach, strict=True):
        to_right, downwards, both = (dynamics.signed_colors(each, end) for each in level)
        lines.append(picture.shape[:2])
        picture = np.vstack([np.hstack([picture, to_right]), np.hstack([downwards, both])])
    tall, wide = picture.shape[:2]
    axes.imshow(picture, extent=(0, wide, tall, 0))
    for height, width in lines:
        axes.plot((0, 2 * width), (height, height), color="black", linewidth=0.4)
        axes.plot((width, width), (0, 2 * height), color="black", linewidth=0.4)
    axes.set_xlim(0, wide)
    axes.set_ylim(tall, 0)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "wavelet_figure"):
        wavelet_figure(
            Path(snakemake.input.trajectories),
            snakemake.params.wavelet,
            snakemake.params.levels,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
