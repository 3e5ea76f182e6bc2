"""What figures of denoising dynamics share: their tables, the axis of noise levels and maps over it, samples as
pictures, and the names of measures.

Noise is to the left and the image to the right: t falls from 1 to 0. log-SNR stands above, since it is infinite at
both ends.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike, NDArray

from diffalign.figures import style
from diffalign.names import checkpoint_name

if TYPE_CHECKING:
    from diffalign.io.trajectory_files import Trajectories

Array = NDArray[np.float64]

# what a row of a table is of, and in which space it was measured
STATE, ESTIMATE, ERROR = "x_t", "x0", "error"
LATENTS, IMAGES = "latents", "images"
# as figures name them
SYMBOLS: Mapping[str, str] = {STATE: "$x_t$", ESTIMATE: "$\\hat{x}_0$", ERROR: "error of $\\hat{x}_0$"}
BAND, WAVELET, SLOPE = "band", "wavelet", "slope"
BANDS: Mapping[str, str] = {f"energy_{name}": name for name in ("low", "mid", "high", "corner")}
# of times, as figures name them, in the order in which they come
STATISTICS: Mapping[str, str] = {"half_rise": "half-rise", "emergence": "emergence", "stabilisation": "stabilisation"}
# measures of activations
ACTIVATIONS: Mapping[str, str] = {
    "norm": "norm of tokens",
    "energy": "spatial energy",
    "energy_low": "spatial energy, low",
    "energy_mid": "spatial energy, mid",
    "energy_high": "spatial energy, high",
    "energy_corner": "spatial energy, corner",
    "kurtosis": "excess kurtosis",
    "massive": "share of massive activations",
}
# log-SNR that stands above panels, in the order in which they are given room, and that room in inches
_LOG_SNR_TICKS = (0.0, -2.0, 2.0, -4.0, 4.0, -math.inf, math.inf)
_ROOM = 0.16


def title_of(table: pd.DataFrame) -> str:
    """``digits.sit, heun25``: the model and the configuration of a table."""
    first = table.iloc[0]
    return f"{first['model']}, {first['configuration']}"


def title_of_trajectories(trajectories: Trajectories) -> str:
    """``digits.sit, heun25, seed 0``."""
    recipe = trajectories.recipe
    model = checkpoint_name(recipe["model"]["name"], recipe["model"].get("step"))
    return f"{model}, {recipe['configuration']['name']}, seed {recipe['seed']}"


# --- measures -------------------------------------------------------------------------------------------------------


def label_of(measure: str, levels: int | None = None) -> str:
    """A measure as legends and titles name it. levels: of the wavelet, needed for ``wavelet_{i}`` alone."""
    from diffalign.dynamics.features import FEATURES

    if measure in BANDS:
        return f"{BANDS[measure]} band"
    if measure.startswith("wavelet_"):
        if levels is None:
            raise ValueError(f"the name of {measure} needs the number of levels of the wavelet")
        return wavelet_label(int(measure.removeprefix("wavelet_")), levels)
    if measure == SLOPE:
        return "spectral slope"
    return FEATURES[measure].label


def wavelet_label(part: int, levels: int) -> str:
    """Part 0 is the approximation; the others are details, from coarse (level `levels`) to fine (level 1)."""
    if part == 0:
        return "approximation"
    level = levels + 1 - part
    words = {levels: " (coarse)", 1: " (fine)"} if levels > 1 else {}
    return f"details {level}{words.get(level, '')}"


def unit_of(measure: str) -> str:
    """The unit of a feature; '' for one without a unit."""
    from diffalign.dynamics.features import FEATURES

    return "" if measure == SLOPE else FEATURES[measure].unit


def wavelet_levels(measures: Collection[str]) -> int:
    """The number of levels that the measures ``wavelet_0`` to ``wavelet_{levels}`` are of; 0 without any."""
    return max((int(each.removeprefix("wavelet_")) for each in measures if each.startswith("wavelet_")), default=0)


def ordered_measures(table: pd.DataFrame, kind: str) -> list[str]:
    """The measures of a kind: bands from low to corner, wavelets from coarse to fine, others as the table has them."""
    measures = list(dict.fromkeys(map(str, table.loc[table["kind"] == kind, "measure"])))
    if kind == BAND:
        return sorted(measures, key=list(BANDS).index)
    if kind == WAVELET:
        return sorted(measures, key=lambda measure: int(measure.removeprefix("wavelet_")))
    return measures


# --- the axis of noise levels ---------------------------------------------------------------------------------------


def t_of(log_snr: float) -> float:
    """The noise level t = σ/(α + σ) with a log-SNR, 2 ln(α/σ)."""
    if math.isinf(log_snr):
        return 0.0 if log_snr > 0 else 1.0
    return 1 / (1 + math.exp(log_snr / 2))


def log_snr_text(value: float) -> str:
    """``2.0``, ``−2.0``, ``∞``, ``−∞``."""
    text = f"{value:z.1f}" if math.isfinite(value) else ("∞" if value > 0 else "-∞")
    return text.replace("-", "−")


def noise_axis(axes: Axes, t: ArrayLike, width: float, labelled: bool = True, above: bool = False) -> None:
    """The axis of t, which falls to the right, over the range of these noise levels.

    width: of the panel in inches, about. labelled: with numbers and name. above: log-SNR at the top.
    """
    first, last = _range(t)
    axes.set_xlim(first, last)
    ticks = [tick for tick in (1.0, 0.75, 0.5, 0.25, 0.0) if last <= tick <= first]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks] if labelled else [""] * len(ticks))
    if labelled:
        axes.set_xlabel("noise level t")
    if above:
        top = axes.secondary_xaxis("top")
        ticks = []
        for value in _LOG_SNR_TICKS:
            at = t_of(value)
            if last <= at <= first and all(abs(at - t_of(tick)) * width >= _ROOM * (first - last) for tick in ticks):
                ticks.append(value)
        top.set_xticks([t_of(value) for value in ticks], [log_snr_text(value).removesuffix(".0") for value in ticks])
        top.tick_params(length=1.5)
        top.set_xlabel("log-SNR")
        top.spines["top"].set_visible(False)


def _range(t: ArrayLike) -> tuple[float, float]:
    values = np.asarray(t, np.float64)
    return float(values.max()), float(values.min())


def edges(t: ArrayLike) -> Array:
    """Edges (S + 1,) of cells around noise levels (S,): midway between neighbours, and the levels at the ends."""
    values = np.asarray(t, np.float64)
    return np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])


def window_edges(t_from: ArrayLike, t_to: ArrayLike) -> Array:
    """Edges (W + 1,) of windows of steps in their order: midway between the end of one and the start of the next."""
    first, last = np.asarray(t_from, np.float64), np.asarray(t_to, np.float64)
    return np.concatenate([first[:1], (last[:-1] + first[1:]) / 2, last[-1:]])


def noise_map(
    axes: Axes,
    across: NDArray[np.floating],
    upwards: NDArray[np.floating],
    values: NDArray[np.floating],
    norm: Normalize,
    color_map: str,
) -> QuadMesh:
    """Draw a map over noise levels, cells without a value grey.

    across: edges (S + 1,) in t. upwards: edges (R + 1,). values: (R, S). Cells are pixels in PDF files too, so that no
    seams show between them.
    """
    colors = plt.get_cmap(color_map).with_extremes(bad=style.MISSING)
    mesh = axes.pcolormesh(
        across, upwards, np.ma.masked_invalid(values), norm=norm, cmap=colors, rasterized=True, linewidth=0
    )
    # grey shows through where the mesh has no cell
    axes.set_facecolor(style.MISSING)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return mesh


def marked_cells(axes: Axes, across: Array, marked: NDArray[np.bool_], size: float = 1.6) -> None:
    """Dots in the cells of a map of layers (R, S) that are True; rows are 1 high and centred at whole numbers."""
    rows, columns = np.nonzero(marked)
    # a line without points lies in the corner of the figure, and breaks its layout
    if not len(rows):
        return
    middles = (across[1:] + across[:-1]) / 2
    axes.plot(
        *(middles[columns], rows, "o"),
        color="white",
        markeredgecolor="black",
        markeredgewidth=0.4,
        markersize=size,
        clip_on=False,
        zorder=3,
    )


# --- samples as pictures --------------------------------------------------------------------------------------------


def spread_steps(t: ArrayLike, count: int) -> list[int]:
    """At most `count` states, the first and the last among them, whose noise levels are nearest to an even spacing."""
    values = np.asarray(t, np.float64)
    wanted = np.linspace(values[0], values[-1], min(count, len(values)))
    return sorted({int(np.abs(values - each).argmin()) for each in wanted})


def pictures(trajectories: Trajectories, names: Sequence[str], *tensors: str) -> dict[str, dict[str, NDArray[Any]]]:
    """All states of some samples, name -> tensor -> array; memory of one chunk and these samples."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for chunk in trajectories.chunks(*tensors):
        for row, name in enumerate(chunk.names):
            if name in names:
                found[name] = {tensor: np.asarray(chunk.arrays[tensor][row]) for tensor in tensors}
    return {name: found[name] for name in names}


def lightness(images: NDArray[Any]) -> Array:
    """The mean of red, green and blue (…, H, W) of images (…, H, W, 3), float64."""
    return np.asarray(np.mean(images, axis=-1, dtype=np.float64))


def signed_colors(values: Array, reach: float) -> NDArray[np.uint8]:
    """Signed values (…) as colours (…, 3): blue at -reach, white at 0, red at reach."""
    scaled = np.clip(values / (2 * (reach or 1.0)) + 0.5, 0, 1)
    return np.asarray(plt.get_cmap(style.SIGNED)(scaled, bytes=True))[..., :3]


def as_bytes(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Images in [0, 1] as bytes, rounded."""
    return np.rint(np.clip(np.asarray(images, np.float32), 0, 1) * 255).astype(np.uint8)


def mosaic(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> tuple[NDArray[np.uint8], int]:
    """One picture of rows of pictures of one size (H, W, 3) with white between them, and the width of that white."""
    tall, wide = rows[0][0].shape[:2]
    gap = max(1, wide // 16)
    sheet = np.full(((tall + gap) * len(rows) - gap, (wide + gap) * len(rows[0]) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = (tall + gap) * i, (wide + gap) * j
            sheet[top : top + tall, left : left + wide] = picture
    return sheet, gap


def bare(axes: Axes) -> None:
    """No ticks, no frame: a panel that is a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def band_passed(images: Array, low: float, mid: float) -> dict[str, Array]:
    """The parts of images (…, H, W) in the bands low, mid and high: band -> (…, H, W).

    low, mid: upper edges in cycles per pixel, which belong to the band below them; high is everything beyond, with the
    corner. The mean of an image is in no band, so the parts add up to the image less its mean. Parts are made of
    cosines (DCT-II), and so of the image with its mirror images around it: were it repeated, opposite edges would meet,
    and their steps would be in all bands.
    """
    from scipy.fft import dctn, idctn

    tall, wide = images.shape[-2:]
    # the cosine of number k has k / 2 cycles in a side
    radius = np.hypot(np.arange(tall)[:, None] / (2 * tall), np.arange(wide)[None, :] / (2 * wide))
    within = np.searchsorted(np.array([0, low, mid]) + 1e-9, radius)
    waves = dctn(images, axes=(-2, -1), norm="ortho")
    return {
        band: np.asarray(idctn(np.where(within == i, waves, 0), axes=(-2, -1), norm="ortho"))
        for i, band in enumerate(("low", "mid", "high"), 1)
    }
