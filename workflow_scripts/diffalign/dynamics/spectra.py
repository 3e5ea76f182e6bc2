"""Frequencies of images and latents: power over radius, energies of bands and wavelets, slopes.

Images are arrays (N, C, H, W) of any real type. Frequencies are in cycles per pixel. Power is a density,
|F(f)|² / (H W): white noise of variance v has power v at every frequency, with and without a window. Energies are mean
squares, over pixels and channels, so that they do not depend on size. The mean of each channel is taken out before the
window is applied, and its square is counted at frequency 0, where the window would smear it over its neighbours.

Transforms are in float32 for images below float64, which is several times as fast and keeps energies to 1e-6; all sums
are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five, flagged

Array = NDArray[np.float64]

BANDS = ("low", "mid", "high", "corner")
WINDOWS = ("none", "hann")
NYQUIST = 0.5
# a line through two points has no standard error; with the mean, these are the rings of 8 x 8 pixels
FEWEST_FREQUENCIES = 3
SMALLEST_SIDE_OF_SLOPES = 2 * (FEWEST_FREQUENCIES + 1)
# values of images that one transform takes in: what fits a processor's cache
_BLOCK = 2**19
# frequencies this close to an edge are on it
_TIE = 1e-9
# powers below this share of the largest are rounding of float64
_ROUNDING = float(np.finfo(np.float64).eps) ** 2


@dataclass(frozen=True)
class Bands:
    """Upper edges of the bands ``low`` and ``mid``, in cycles per pixel; an edge belongs to the lower band.

    ``high`` ends at the Nyquist frequency 0.5, and ``corner`` is what lies beyond this circle, up to √0.5 on a
    diagonal. Raises ValueError for edges that do not ascend between 0 and 0.5.
    """

    low: float = 0.0625
    mid: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.low < self.mid < NYQUIST:
            raise ValueError(f"bands end at low = {self.low:g} and mid = {self.mid:g}; expected 0 < low < mid < 0.5")


def rapsd(images: NDArray[np.floating], window: str = "hann", threads: int = 1) -> tuple[Array, Array]:
    """The radially averaged power spectral density: frequencies (K,) and power (N, K), a mean over channels.

    Ring k is the mean over all modes with k ≤ side |f| < k + 1, where side is the shorter one, and is named by its
    inner edge, k / side, as the radius cut to a whole number does. Rings reach to the Nyquist circle, K = side // 2;
    the corner beyond it is a band of `band_energies`. Modes of a ring lie up to a whole ring further out than its name,
    so that steep spectra seem a little flatter: a field with power 1/f² has slope -1.95 at 256².

    window: ``none``, or ``hann``, periodic, along both axes, which keeps the edges of an image, where it meets itself,
    from adding power at all frequencies (Harris 1978). Power is divided by the mean square of the window.
    threads: no result depends on it. Raises ValueError for another window or shape, and that names the positions of
    images that are NaN or infinite.
    """
    grid = _Grid.of(images, window)
    rings = grid.rings()
    sums = _summed(grid, rings, grid.ring_count + 1, images, threads)
    return grid.frequencies, sums[:, :-1] / grid.modes(rings)[:-1]


def band_energies(
    images: NDArray[np.floating], bands: Bands, window: str = "hann", threads: int = 1
) -> NDArray[np.float64]:
    """The energy (N, 4) of `BANDS`, a mean over channels; ``low`` holds the mean of the image.

    Their sum is the mean square of the image: Parseval's theorem. Under a window it is the square of the mean, and the
    mean square of what remains of the image, windowed, over that of the window. threads and errors: as `rapsd`.
    """
    grid = _Grid.of(images, window)
    return _summed(grid, grid.bands(bands), len(BANDS), images, threads) / grid.pixels


def error_spectrum(
    images: NDArray[np.floating], final: NDArray[np.floating], window: str = "hann", threads: int = 1
) -> tuple[Array, Array]:
    """`rapsd` of what images (N, C, H, W) still lack of the final ones, of the same shape and order.

    Raises ValueError for other shapes, and as `rapsd`.
    """
    if images.shape != final.shape:
        raise ValueError(f"images {images.shape} and final images {final.shape} differ in shape")
    precision = np.result_type(images, final, np.float32)
    return rapsd(np.subtract(images, final, dtype=precision), window, threads)


def noise_floor(levels: Sequence[NoiseLevel], of: str) -> Array:
    """The power (S+1,), at every frequency, that the noise of the schedule alone has in latents: white noise is flat.

    of: ``x_t``, where it is σ²; or ``error``, of x_t / α, the estimate that knows nothing but the schedule, less the
    image: (σ / α)², and NaN where α is 0, since x_t then holds no image. Raises ValueError for another word.
    """
    if of == "x_t":
        return np.array([level.sigma**2 for level in levels], np.float64)
    if of == "error":
        ratios = [level.sigma / level.alpha if level.alpha else math.nan for level in levels]
        return np.square(np.array(ratios, np.float64))
    raise ValueError(f"no noise floor of '{of}'; allowed: x_t, error")


def slope(frequencies: Array, power: Array) -> tuple[Array, Array]:
    """The spectral slope (N,) and its standard error (N,): least squares of log power on log frequency.

    frequencies: (K,). power: (N, K). The line is over 0 < f ≤ 0.5, every ring alike: the mean of the image and the
    corner are left out. The error is that of ordinary least squares, √(RSS / (K' - 2) / Σ(x - mean)²), of K' rings; it
    holds that rings scatter alike about a line. Powers below the rounding of float64 beside the largest are raised to
    it, so that the spectrum of a constant image is flat and has slope 0.

    Raises ValueError for fewer than three such frequencies, and for power that is negative, NaN or infinite.
    """
    chosen = (frequencies > 0) & (frequencies <= NYQUIST + _TIE)
    if chosen.sum() < FEWEST_FREQUENCIES:
        raise ValueError(
            f"{int(chosen.sum())} frequencies above 0 and up to 0.5; a slope needs {FEWEST_FREQUENCIES}, so sides of "
            f"at least {SMALLEST_SIDE_OF_SLOPES} pixels"
        )
    if power.ndim != 2 or power.shape[1] != len(frequencies):
        raise ValueError(f"power has shape {power.shape}; expected (N, {len(frequencies)})")
    _check_finite(np.where(power >= 0, power, np.nan))
    largest = power.max(axis=1, keepdims=True)
    y = np.log(np.maximum(power, np.where(largest > 0, _ROUNDING * largest, 1.0)))[:, chosen]
    x = np.log(frequencies[chosen])
    x = x - x.mean()
    spread = float(np.square(x).sum())
    value = y @ x / spread
    rest = y - y.mean(axis=1, keepdims=True) - value[:, None] * x
    return value, np.sqrt(np.square(rest).sum(axis=1) / (len(x) - 2) / spread)


def wavelet_energies(
    images: NDArray[np.floating], wavelet: str = "db2", levels: int = 3, threads: int = 1
) -> NDArray[np.float64]:
    """The energy (N, levels + 1) of wavelet sub-bands, a mean over channels: the approximation, then details from
    coarse to fine, the three orientations of a level together.

    The transform is periodic (PyWavelets, mode ``periodization``) and the wavelet orthogonal, so that energies add up
    to the mean square of the image (Mallat 2009, section 7.7). threads: no result depends on it.

    Raises ValueError for another shape, a wavelet that is unknown or not orthogonal, levels below 1 or sides that
    2^levels does not divide, and that names the positions of images that are NaN or infinite.
    """
    import pywt

    _check_shape(images)
    # the filters of dmey are cut off, which makes them orthogonal to 0.2 % only
    orthogonal = [name for name in pywt.wavelist(kind="discrete") if pywt.Wavelet(name).orthogonal and name != "dmey"]
    if wavelet not in orthogonal:
        raise ValueError(f"no orthogonal wavelet '{wavelet}'; allowed: {', '.join(orthogonal)}")
    sides = images.shape[2:]
    most = most_levels(*sides)
    if not 1 <= levels <= most:
        raise ValueError(
            f"{levels} wavelet levels of images of {sides[0]} x {sides[1]}: expected at least 1, and sides that "
            f"2^levels divides, so " + (f"at most {most}" if most else "none")
        )
    # one level a call: PyWavelets warns of sides that are shorter than the filter, at which energies still add up
    filters, pixels = pywt.Wavelet(wavelet), math.prod(sides)

    def measured(block: NDArray[np.floating]) -> Array:
        approximation: NDArray[np.floating] = block.astype(_precision(block), copy=False)
        details: list[Array] = []
        for _ in range(levels):
            approximation, parts = pywt.dwt2(approximation, filters, mode="periodization", axes=(-2, -1))
            details.append(sum((_energy(part) for part in parts), np.zeros(len(block))))
        return np.stack([_energy(approximation), *reversed(details)], axis=1) / pixels

    return _joined(measured, images, threads)


def most_levels(height: int, width: int) -> int:
    """The largest number of wavelet levels that images of this size have: both sides can be halved so often."""
    common = math.gcd(height, width)
    return (common & -common).bit_length() - 1


def _energy(coefficients: NDArray[np.floating]) -> Array:
    """The sum of squares (N,) over positions, a mean over channels, in float64."""
    flat = coefficients.reshape(*coefficients.shape[:2], -1)
    return np.asarray(np.einsum("ncp,ncp->n", flat, flat, dtype=np.float64) / flat.shape[1], np.float64)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The frequencies of images of one size, of the half plane that a transform of real numbers gives.

    radius: |f| (H, W // 2 + 1). weight: 1, or 2 of a mode whose conjugate is left out. window: (H, W), mean square 1.
    """

    radius: Array
    weight: Array
    window: Array | None
    side: int
    pixels: int

    @classmethod
    def of(cls, images: NDArray[np.floating], window: str) -> _Grid:
        _check_shape(images)
        height, width = images.shape[2:]
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
        columns = np.full(radius.shape[1], 2.0)
        columns[0] = 1
        if width % 2 == 0:
            columns[-1] = 1
        weight = np.broadcast_to(columns, radius.shape)
        return cls(radius, weight, _window(window, height, width), min(height, width), height * width)

    @property
    def ring_count(self) -> int:
        return self.side // 2

    @property
    def frequencies(self) -> Array:
        return np.arange(self.ring_count) / self.side

    def rings(self) -> NDArray[np.intp]:
        """The ring of every mode, flat; `ring_count` beyond the last."""
        rings = np.floor(self.radius * self.side + _TIE).astype(np.intp)
        return np.minimum(rings, self.ring_count).ravel()

    def bands(self, bands: Bands) -> NDArray[np.intp]:
        """The band of every mode, flat, by its place in `BANDS`."""
        edges = np.array([bands.low, bands.mid, NYQUIST]) + _TIE
        return np.searchsorted(edges, self.radius.ravel())

    def modes(self, groups: NDArray[np.intp]) -> Array:
        """How many modes each group has."""
        return np.asarray(np.bincount(groups, self.weight.ravel()), np.float64)

    def power(self, block: NDArray[np.floating]) -> NDArray[np.floating]:
        """The power of each image over modes, times their weight, flat: (n, modes)."""
        from scipy.fft import rfft2

        precision = _precision(block)
        means = block.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
        values = np.subtract(block, means.astype(precision), dtype=precision)
        if self.window is not None:
            values *= self.window.astype(precision)
        modes = rfft2(values, overwrite_x=True)
        power = (np.square(modes.real) + np.square(modes.imag)).mean(axis=1) / precision(self.pixels)
        power[:, 0, 0] += np.square(means).mean(axis=(1, 2, 3)) * self.pixels
        power *= self.weight.astype(precision)
        return np.asarray(power.reshape(len(block), -1))


def _precision(images: NDArray[np.floating]) -> type[np.float32 | np.float64]:
    return np.float64 if images.dtype == np.float64 else np.float32


def _window(name: str, height: int, width: int) -> Array | None:
    from scipy.signal.windows import hann

    if name not in WINDOWS:
        raise ValueError(f"unknown window '{name}'; allowed: {', '.join(WINDOWS)}")
    if name == "none":
        return None
    window = np.outer(hann(height, sym=False), hann(width, sym=False))
    return np.asarray(window / np.sqrt(np.square(window).mean()), np.float64)


def _summed(grid: _Grid, groups: NDArray[np.intp], count: int, images: NDArray[np.floating], threads: int) -> Array:
    """Sums of the power of the modes of each group, (N, count)."""

    def measured(block: NDArray[np.floating]) -> Array:
        return np.stack([np.bincount(groups, image, count) for image in grid.power(block)])

    return _joined(measured, images, threads)


def _joined(measured: Callable[[NDArray[np.floating]], Array], images: NDArray[np.floating], threads: int) -> Array:
    """What is measured of images, block by block in threads. Raises ValueError for what is not finite."""
    size = max(1, _BLOCK // math.prod(images.shape[1:]))
    blocks = [images[first : first + size] for first in range(0, len(images), size)]
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(measured, blocks))
    else:
        parts = [measured(block) for block in blocks]
    joined = np.concatenate(parts)
    _check_finite(joined)
    return joined


def _check_shape(images: NDArray[np.floating]) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images have shape {images.shape}; expected (N, C, H, W), none of them 0")


def _check_finite(measures: Array) -> None:
    """Raise ValueError that names the first five images whose measures are NaN or infinite."""
    bad = ~np.asarray(np.isfinite(measures).all(axis=1))
    if bad.any():
        positions = flagged(map(str, range(len(measures))), bad.tolist())
        raise ValueError(f"values are NaN or infinite in {len(positions)} images, at positions {first_five(positions)}")
