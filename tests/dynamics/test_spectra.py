"""Frequencies: known spectra, Parseval's theorem, slopes, and what is refused."""

import math

import numpy as np
import pytest
import pywt

from diffalign.dynamics.spectra import (
    Bands,
    band_energies,
    error_spectrum,
    most_levels,
    noise_floor,
    rapsd,
    slope,
    wavelet_energies,
)
from diffalign.noise import NoiseLevel

SHAPES = ((3, 4, 8, 8), (2, 3, 28, 28), (2, 1, 9, 13), (2, 3, 64, 32))


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def power_field(side: int, exponent: float, seed: int) -> np.ndarray:
    """A real field (side, side) whose power is 1/f^exponent."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = np.inf
    return np.fft.ifft2(np.fft.fft2(normal((side, side), seed)) * frequency ** (-exponent / 2)).real


def wave(side: int, rows: int, columns: int, amplitude: float = 1.0) -> np.ndarray:
    """An image (1, 1, side, side) of a single frequency, with energy amplitude² / 2."""
    y, x = np.mgrid[:side, :side] / side
    return amplitude * np.cos(2 * np.pi * (rows * y + columns * x) + 0.3)[None, None]


@pytest.mark.parametrize(("window", "expected"), [("none", -1.95), ("hann", -1.94)])
def test_the_slope_of_a_field_with_power_one_over_f_squared(window: str, expected: float) -> None:
    fields = np.stack([power_field(256, 2, seed) for seed in range(20)])[:, None]
    values, _ = slope(*rapsd(fields, window))
    error = values.std(ddof=1) / math.sqrt(20)
    assert error < 0.015
    # the known answer has two digits
    assert abs(values.mean() - expected) < 3 * error + 0.005


def test_slopes_of_exact_power_laws_and_their_errors() -> None:
    frequencies = np.arange(1, 33) / 64
    powers = np.stack([frequencies**-1.5, 7 * frequencies**-3.0])
    values, errors = slope(frequencies, powers)
    assert values == pytest.approx([-1.5, -3])
    assert errors == pytest.approx([0, 0], abs=1e-12)
    # scipy has the same line, one at a time
    from scipy.stats import linregress

    noisy = powers * np.exp(normal(powers.shape))
    found = slope(frequencies, noisy)
    for row, value, error in zip(noisy, *found, strict=True):
        line = linregress(np.log(frequencies), np.log(row))
        assert (value, error) == pytest.approx((line.slope, line.stderr))


def test_slopes_leave_out_the_mean_and_the_corner() -> None:
    inside = np.arange(1, 33) / 64
    frequencies = np.array([0, *inside, 0.6, 0.7])
    power = np.array([[1e9, *inside**-2.0, 1e6, 1e6]])
    assert slope(frequencies, power)[0] == pytest.approx([-2])


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("window", ["none", "hann"])
def test_images_of_one_colour_have_finite_measures(value: float, window: str) -> None:
    images = np.full((2, 3, 64, 64), value, np.float32)
    images[1, 0] = 0.7
    energies = band_energies(images, Bands(), window)
    assert energies[:, 0] == pytest.approx(np.square(images).mean(axis=(1, 2, 3)))
    assert energies[:, 1:] == pytest.approx(np.zeros((2, 3)), abs=1e-20)
    values, errors = slope(*rapsd(images, window))
    assert [*values, *errors] == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert np.isfinite(wavelet_energies(images)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bands_add_up_to_the_energy(shape: tuple[int, ...], dtype: type) -> None:
    images = (0.4 + normal(shape)).astype(dtype)
    energy = np.square(images.astype(np.float64)).mean(axis=(1, 2, 3))
    assert band_energies(images, Bands(), "none").sum(axis=1) == pytest.approx(energy, rel=1e-6)


def test_windowed_bands_add_up_to_the_windowed_energy() -> None:
    images = 0.4 + normal((3, 2, 24, 16))
    means = images.mean(axis=(2, 3), keepdims=True)
    hann = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) for n in (24, 16)))
    rest = np.square((images - means) * hann).mean(axis=(2, 3), keepdims=True) / np.square(hann).mean()
    energy = (np.square(means) + rest).mean(axis=(1, 2, 3))
    assert band_energies(images, Bands(), "hann").sum(axis=1) == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "columns", "band"),
    [
        (1, 0, "low"),
        (0, 4, "low"),
        (3, 4, "mid"),
        (16, 0, "mid"),
        (17, 0, "high"),
        (0, 32, "high"),
        (20, 30, "corner"),
        (24, -24, "corner"),
    ],
)
def test_a_wave_lies_in_the_band_of_its_frequency(rows: int, columns: int, band: str) -> None:
    images = np.concatenate([wave(64, rows, columns), wave(64, rows, columns, 3.0)])
    energies = dict(zip(("low", "mid", "high", "corner"), band_energies(images, Bands(), "none").T, strict=True))
    # a wave at the Nyquist frequency is a row of equal values of either sign
    share = 1.0 if (rows, columns) == (0, 32) else 0.5
    expected = share * (math.cos(0.3) ** 2 if share == 1 else 1)
    assert energies.pop(band) == pytest.approx([expected, 9 * expected])
    assert np.stack(list(energies.values())) == pytest.approx(np.zeros((3, 2)), abs=1e-12)


def test_edges_of_bands_are_in_cycles_per_pixel() -> None:
    # the same structure at twice the size has half the frequency, and sides need not be powers of 2
    edges = Bands(low=5 / 28, mid=10 / 28)
    assert band_energies(wave(28, 3, 4), edges, "none")[0, 0] == pytest.approx(0.5)
    assert band_energies(wave(28, 8, 6), edges, "none")[0, 1] == pytest.approx(0.5)
    assert band_energies(wave(14, 3, 4), edges, "none")[0, 1] == pytest.approx(0.5)


def test_a_ring_has_the_mean_power_of_its_modes() -> None:
    # 12 modes have 5 ≤ 64 |f| < 6 and a whole radius 5: (5, 0), (3, 4), (4, 3) and their mirror images
    frequencies, power = rapsd(wave(64, 3, 4), "none")
    assert frequencies == pytest.approx(np.arange(32) / 64)
    radius = np.hypot(*np.meshgrid(np.arange(-32, 32), np.arange(-32, 32)))
    modes = int(((radius >= 5) & (radius < 6)).sum())
    # the wave is two modes of power HW amplitude² / 4
    assert power[0, 5] == pytest.approx(2 * 64**2 / 4 / modes)
    assert np.delete(power[0], 5) == pytest.approx(np.zeros(31), abs=1e-12)


@pytest.mark.parametrize("window", ["none", "hann"])
def test_white_noise_has_its_variance_at_all_frequencies(window: str) -> None:
    _, power = rapsd(0.3 * normal((40, 4, 32, 32)), window)
    # 20 modes of ring 2 and 160 draws: a standard error of 2.5 %
    assert power.mean(axis=0)[2:] == pytest.approx(np.full(14, 0.09), rel=0.08)


def test_the_noise_floor_is_the_power_of_what_the_schedule_adds() -> None:
    levels = [NoiseLevel(0, 1, 1), NoiseLevel(0.7, 0.3, 0.3), NoiseLevel(1, 0, 0)]
    assert noise_floor(levels, "x_t") == pytest.approx([1, 0.09, 0])
    assert noise_floor(levels, "error") == pytest.approx([math.nan, 9 / 49, 0], nan_ok=True)
    clean, noise = normal((40, 2, 32, 32)), normal((40, 2, 32, 32), 1)
    _, power = error_spectrum((0.7 * clean + 0.3 * noise) / 0.7, clean, "none")
    assert power.mean() == pytest.approx(9 / 49, rel=0.05)
    with pytest.raises(ValueError, match="no noise floor of 'x0'; allowed: x_t, error"):
        noise_floor(levels, "x0")


def test_a_window_keeps_edges_from_adding_power() -> None:
    # a ramp meets itself with a step, whose power falls as 1/f²
    ramp = np.linspace(0, 1, 64)[None, None, None].repeat(64, axis=2)
    without, windowed = (band_energies(ramp, Bands(), window)[0, 2] for window in ("none", "hann"))
    assert windowed < 0.01 * without


def test_the_error_is_the_spectrum_of_what_is_missing() -> None:
    final = normal((2, 1, 32, 32))
    missing = np.concatenate([wave(32, 0, 6), wave(32, 6, 0, 2.0)])
    _, power = error_spectrum((final - missing).astype(np.float32), final, "none")
    assert power == pytest.approx(rapsd(missing, "none")[1], abs=1e-4)
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\) and final images \(2, 1, 32, 32\) differ"):
        error_spectrum(missing[:1], final)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "coif1"])
@pytest.mark.parametrize(("shape", "levels"), [((3, 4, 8, 8), 3), ((2, 3, 28, 28), 2), ((2, 1, 64, 32), 4)])
def test_wavelets_add_up_to_the_energy(shape: tuple[int, ...], levels: int, wavelet: str, dtype: type) -> None:
    images = (0.4 + normal(shape)).astype(dtype)
    energy = np.square(images.astype(np.float64)).mean(axis=(1, 2, 3))
    energies = wavelet_energies(images, wavelet, levels)
    assert energies.shape == (len(images), levels + 1)
    assert energies.sum(axis=1) == pytest.approx(energy, rel=1e-6)


def test_wavelet_bands_are_the_approximation_and_details_from_coarse_to_fine() -> None:
    image = normal((2, 3, 32, 32))
    approximation, *details = pywt.wavedec2(image, "db2", mode="periodization", level=3, axes=(-2, -1))
    parts = [np.square(approximation), *(sum(np.square(part) for part in three) for three in details)]
    expected = np.stack([part.sum(axis=(2, 3)).mean(axis=1) / 32**2 for part in parts], axis=1)
    assert wavelet_energies(image, "db2", 3) == pytest.approx(expected)
    # a checkerboard is the finest there is, a constant the coarsest
    checkerboard = np.indices((32, 32)).sum(axis=0)[None, None] % 2 - 0.5
    assert wavelet_energies(checkerboard, "haar", 2) == pytest.approx(np.array([[0, 0, 0.25]]))
    assert wavelet_energies(np.ones((1, 1, 32, 32)), "haar", 2) == pytest.approx(np.array([[1, 0, 0]]))


def test_nothing_depends_on_threads_or_on_other_images() -> None:
    # of this size, several images are a block
    images = 0.2 + normal((30, 3, 64, 64)).astype(np.float32)
    for measure in (rapsd, lambda each, **more: (band_energies(each, Bands(), **more),)):
        one, two = (measure(images, threads=threads)[-1] for threads in (1, 2))
        assert np.array_equal(one, two)
        assert np.array_equal(measure(images[17:18])[-1][0], one[17])
    assert np.array_equal(wavelet_energies(images, threads=1), wavelet_energies(images, threads=2))
    assert np.array_equal(wavelet_energies(images[17:18])[0], wavelet_energies(images)[17])


def test_lower_precision_changes_no_spectrum_that_can_be_seen() -> None:
    # power falls by ten orders of magnitude
    steep = power_field(64, 6, 0)[None, None]
    images = (0.5 + 0.1 * steep / steep.std()).astype(np.float32)
    single, double = (rapsd(each, "hann")[1] for each in (images, images.astype(np.float64)))
    assert single == pytest.approx(double, rel=1e-4)


def test_what_cannot_be_measured_is_refused() -> None:
    images = normal((3, 1, 24, 24))
    for edges in ((0.0, 0.25), (0.25, 0.0625), (0.1, 0.5)):
        with pytest.raises(ValueError, match="expected 0 < low < mid < 0.5"):
            Bands(*edges)
    with pytest.raises(ValueError, match="unknown window 'hamming'; allowed: none, hann"):
        rapsd(images, "hamming")
    with pytest.raises(ValueError, match=r"shape \(24, 24\); expected \(N, C, H, W\)"):
        rapsd(images[0, 0])
    with pytest.raises(ValueError, match=r"shape \(0, 1, 24, 24\)"):
        band_energies(images[:0], Bands())
    with pytest.raises(ValueError, match=r"4 wavelet levels of images of 24 x 24.*at most 3"):
        wavelet_energies(images, levels=4)
    with pytest.raises(ValueError, match=r"25 x 24.*so none"):
        wavelet_energies(normal((1, 1, 25, 24)), levels=1)
    assert [most_levels(24, 24), most_levels(25, 24), most_levels(64, 32), most_levels(4, 4)] == [3, 0, 5, 2]
    with pytest.raises(ValueError, match="0 wavelet levels"):
        wavelet_energies(images, levels=0)
    for wavelet in ("bior2.2", "dmey", "db99"):
        with pytest.raises(ValueError, match=f"no orthogonal wavelet '{wavelet}'; allowed: .*db2.*haar"):
            wavelet_energies(images, wavelet)
    with pytest.raises(
        ValueError, match="2 frequencies above 0 and up to 0.5; a slope needs 3, so sides of at least 8"
    ):
        slope(*rapsd(normal((1, 1, 6, 6))))
    with pytest.raises(ValueError, match=r"power has shape \(1, 4\); expected \(N, 5\)"):
        slope(np.arange(5) / 10, np.ones((1, 4)))
    with pytest.raises(ValueError, match="infinite in 1 images, at positions 1"):
        slope(np.arange(5) / 10, np.array([np.ones(5), -np.ones(5)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_that_are_not_finite_are_named(bad: float) -> None:
    images = normal((9, 2, 16, 16)).astype(np.float32)
    images[[2, 7], 1, 3, 4] = bad
    for measure in (rapsd, wavelet_energies, lambda each: band_energies(each, Bands())):
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="NaN or infinite in 2 .*positions 2, 7"):
            measure(images)
