"""Time the analysis of trajectories, and a loop over images with a plain call a measure, in one run: python
benchmarks/dynamics.py. Processor time is that of all threads of the process.

The loop measures every image for itself, one measure after the other: each call of scikit-image, PyWavelets or NumPy
begins with the image, as in a notebook. It is timed on some images and multiplied; their values are compared.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pywt
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from skimage import color, data, feature, filters, metrics, transform
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.dynamics.features import EDGE_HIGH, EDGE_LOW
from diffalign.dynamics.measures import Measuring
from diffalign.dynamics.spectra import Bands
from diffalign.io.trajectory_files import Chunk, read_trajectories, write_trajectories
from diffalign.noise import NoiseLevel
from image_dynamics import ESTIMATE, STATES, Series, measured

Image = NDArray[np.float32]
BANDS = Bands()
WAVELET, LEVELS = "db2", 3
# latents of 4 channels and an eighth of the side, as those of SD
CHANNELS, REDUCTION = 4, 8
# what ours read at another resolution, and the spectrum of the error, which is no measure: not compared
COARSE = ("shape_ssim", "shape_iou", "color_lightness", "color_a", "color_b", "color_spread", "color_distance")
NOT_COMPARED = (*COARSE, "saturation", "error")


def main() -> None:
    """Write trajectories of blurred and noised photographs, run both sides and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=8, help="samples of a chunk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--looped", type=int, default=24, help="images that the loop is timed on")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "0"
        # in a process of its own, so that peak memory is that of the analysis
        writer = multiprocessing.get_context("spawn").Process(
            target=write, args=(where, given.steps, given.samples, given.side, given.chunk)
        )
        writer.start()
        writer.join()
        read = read_trajectories(where)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        measuring = Measuring(BANDS, "hann", WAVELET, LEVELS)
        started, used = time.perf_counter(), time.process_time()
        series = measured({0: read}, measuring, None, given.threads)
        wall, ours = time.perf_counter() - started, time.process_time() - used
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        first = next(read.chunks("images", "x0_images"))
        theirs, worst = looped(first, series, given.looped)
    count = len(STATES) * given.samples * (given.steps + 1)
    print(
        f"{given.samples} samples, {given.steps} steps, {count} images of {given.side}², x_t and x0, and their latents"
    )
    print(
        f"ours: {wall:.1f} s on {given.threads} threads, {ours:.1f} s of processor time, {ours / count * 1e3:.1f} ms an"
    )
    print(f"image; {memory:.2f} GiB at the most, {before:.2f} before, with chunks of {given.chunk} samples")
    print(f"loop: {theirs * 1e3:.1f} ms of processor time an image, so {theirs * count:.0f} s")
    print(f"ratio {theirs * count / ours:.1f}; values differ by at most {worst[0]:.1e}, relative ({worst[1]})")


def sample_names(count: int) -> list[str]:
    """Of `count` samples."""
    return [f"sample_{n:05d}" for n in range(count)]


def write(folder: Path, steps: int, samples: int, side: int, size: int) -> None:
    """Write trajectories in chunks of so many samples."""
    levels = [NoiseLevel(1 - t, t, t) for t in np.linspace(1, 0, steps + 1)]
    groups = dict.fromkeys(sample_names(samples), "one")
    write_trajectories(folder, trajectories(steps, samples, side, size), groups, levels, {"seed": 0})


def trajectories(steps: int, samples: int, side: int, size: int) -> Iterator[Chunk]:
    """Photographs, turned and mirrored: x_t with more and more noise, x0 more and more blurred, last first."""
    pictures = [
        transform.resize(picture[: min(picture.shape[:2]), : min(picture.shape[:2])], (side, side), anti_aliasing=True)
        for picture in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    ]
    names = sample_names(samples)
    t = np.linspace(1, 0, steps + 1, dtype=np.float32)
    for at in range(0, samples, size):
        made: dict[str, list[NDArray[np.floating]]] = {key: [] for pair in STATES.values() for key in pair.values()}
        for n in range(at, min(at + size, samples)):
            draws = np.random.default_rng(n)
            picture = np.rot90(pictures[n % 4], n // 4).astype(np.float32)
            noise = draws.standard_normal(picture.shape, dtype=np.float32)
            noised = [(1 - each) * picture + each * noise for each in t]
            blurred = [filters.gaussian(picture, side / 32 * each, channel_axis=2) for each in t]
            for key, states in (("images", noised), ("x0_images", blurred)):
                made[key].append(np.clip(states, 0, 1).astype(np.float16))
            latents = draws.standard_normal((len(t), CHANNELS, side // REDUCTION, side // REDUCTION), dtype=np.float32)
            made["latents"].append(latents)
            made["x0"].append(latents)
        yield Chunk(tuple(names[at : at + size]), {key: np.stack(arrays) for key, arrays in made.items()})


def looped(chunk: Chunk, series: Series, count: int) -> tuple[float, tuple[float, str]]:
    """Processor seconds of the loop an image, and the largest relative difference of values that are defined alike."""
    worst, used = (0.0, ""), 0.0
    steps = chunk.arrays["images"].shape[1]
    chosen = np.linspace(0, steps - 2, -(-count // 2)).astype(int)
    for of, tensors in STATES.items():
        states = chunk.arrays[tensors["images"]][0]
        final = states[-1].astype(np.float32)
        for step in chosen:
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started = time.process_time()
                found = naive(states[step].astype(np.float32), final if of == ESTIMATE else None)
                used += time.process_time() - started
            for name, value in found.items():
                if name not in NOT_COMPARED:
                    mine = series.values[of, "images", name][0, 0, step]
                    worst = max(worst, (abs(mine - value) / max(abs(value), 1e-3), name))
    return used / (len(chosen) * len(STATES)), worst


def naive(image: Image, final: Image | None) -> dict[str, float]:
    """Every measure of one image, each by itself; final: of an estimate, which has features, too."""
    low, mid, high, corner = (band(image, n) for n in range(4))
    wavelets = [wavelet(image, n) for n in range(LEVELS + 1)]
    frequencies = {
        "energy_low": low,
        "energy_mid": mid,
        "energy_high": high,
        "energy_corner": corner,
        **{f"wavelet_{n}": energy for n, energy in enumerate(wavelets)},
        "slope": slope(image),
    }
    if final is None:
        return frequencies
    return {
        **frequencies,
        "error": float(rings(image - final).sum()),
        "edge_density": float(edges(image).mean()),
        "edge_sharpness": sharpness(image),
        "texture_contrast": cooccurrence(image, "contrast"),
        "texture_homogeneity": cooccurrence(image, "homogeneity"),
        "texture_entropy": entropy(image),
        "texture_energy": band(color.rgb2gray(image)[..., None], 1),
        "shape_ssim": ssim(coarse(image), coarse(final)),
        "shape_iou": overlap(image, final),
        "color_lightness": float(color.rgb2lab(image)[..., 0].mean()),
        "color_a": float(color.rgb2lab(image)[..., 1].mean()),
        "color_b": float(color.rgb2lab(image)[..., 2].mean()),
        "color_spread": math.sqrt(color.rgb2lab(image)[..., 1:].reshape(-1, 2).var(axis=0).sum()),
        "color_distance": float(np.mean([lab_distance(image, final, axis) for axis in range(3)])),
        "saturation": float(color.rgb2hsv(image)[..., 1].mean()),
        "ssim": ssim(color.rgb2gray(image), color.rgb2gray(final)),
        "psnr": min(metrics.peak_signal_noise_ratio(final, image, data_range=1), 20 * math.log10(255)),
    }


def over_channels(image: Image, measure: Callable[[Image], float]) -> float:
    """The mean of a measure of each channel."""
    return float(np.mean([measure(image[..., channel]) for channel in range(image.shape[2])]))


def radii(image: Image) -> NDArray[np.float64]:
    """|f| of all modes of an image, in cycles per pixel."""
    height, width = image.shape[:2]
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))


def band(image: Image, number: int) -> float:
    """The energy of one band."""
    edges = (-1, BANDS.low, BANDS.mid, 0.5, 1)
    inside = (radii(image) > edges[number]) & (radii(image) <= edges[number + 1])
    return over_channels(image, lambda each: float(np.square(np.abs(np.fft.fft2(each)[inside])).sum() / each.size**2))


def rings(image: Image) -> NDArray[np.float64]:
    """Power over radius under a Hann window."""
    side = min(image.shape[:2])
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) for n in image.shape[:2]))
    window /= np.sqrt(np.square(window).mean())
    centred = (image - image.mean(axis=(0, 1))) * window[..., None]
    power = np.square(np.abs(np.fft.fft2(centred, axes=(0, 1)))).mean(axis=2) / window.size
    ring = np.floor(radii(image) * side + 1e-9).astype(int)
    return np.array([power[ring == k].mean() for k in range(side // 2)])


def slope(image: Image) -> float:
    """Of log power on log frequency."""
    power = rings(image)[1:]
    return float(np.polyfit(np.log(np.arange(1, len(power) + 1)), np.log(power), 1)[0])


def wavelet(image: Image, number: int) -> float:
    """The energy of one sub-band."""

    def energy(channel: Image) -> float:
        found = pywt.wavedec2(channel, WAVELET, mode="periodization", level=LEVELS)[number]
        parts = found if isinstance(found, tuple) else (found,)
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts) / channel.size)

    return over_channels(image, energy)


def edges(image: Image) -> NDArray[np.bool_]:
    """Of Canny."""
    smooth = filters.gaussian(color.rgb2gray(image), 1, mode="nearest")
    return feature.canny(smooth, 0, EDGE_LOW, EDGE_HIGH, mode="nearest")


def sharpness(image: Image) -> float:
    """The root mean square slope."""
    smooth = filters.gaussian(color.rgb2gray(image), 1, mode="nearest")
    # over two pixels, and a mean of two directions
    return math.sqrt(np.square(filters.sobel(smooth)[1:-1, 1:-1]).mean() / 2)


def grey_levels(image: Image) -> NDArray[np.uint8]:
    """256 of them."""
    return np.rint(color.rgb2gray(image) * 255).astype(np.uint8)


def cooccurrence(image: Image, measure: str) -> float:
    """A property of the co-occurrence matrices of 32 levels."""
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    pairs = feature.graycomatrix(grey_levels(image) // 8, [1], angles, 32, symmetric=True, normed=True)
    return float(feature.graycoprops(pairs, measure).mean())


def entropy(image: Image) -> float:
    """Of uniform local binary patterns."""
    patterns = feature.local_binary_pattern(grey_levels(image), 8, 1, "nri_uniform")[1:-1, 1:-1]
    counts = np.unique(patterns, return_counts=True)[1]
    return float(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum())


def coarse(image: Image) -> Image:
    """Luminance without fine parts."""
    return filters.gaussian(color.rgb2gray(image), min(image.shape[:2]) / 32, mode="nearest")


def overlap(image: Image, final: Image) -> float:
    """Intersection over union of bright parts."""
    a, b = (coarse(each) > filters.threshold_otsu(coarse(each)) for each in (image, final))
    return float((a & b).sum() / max((a | b).sum(), 1))


def lab_distance(image: Image, final: Image, axis: int) -> float:
    """The earth mover's distance along an axis of Lab."""
    a, b = (color.rgb2lab(each)[..., axis].ravel() for each in (image, final))
    return float(wasserstein_distance(a, b))


def ssim(a: Image, b: Image) -> float:
    """Of luminances."""
    return float(metrics.structural_similarity(a, b, data_range=1))


if __name__ == "__main__":
    main()
