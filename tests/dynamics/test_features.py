"""Features of images: known answers, order under blur and noise, images without anything, and bad input."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage import color as skimage_color
from skimage import data, feature, filters, metrics, transform

from diffalign.dynamics import color, texture
from diffalign.dynamics.features import FEATURES, OF_A_MODEL, SMALLEST_SIDE, features, learned_distance
from diffalign.dynamics.spectra import Bands, band_energies

Image = NDArray[np.float32]
SIDE = 128
BLURS = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
NOISES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
# bounds of each feature
RANGES = {
    "edge_density": (0, 1),
    "edge_sharpness": (0, np.inf),
    "texture_contrast": (0, 31**2),
    "texture_homogeneity": (0, 1),
    "texture_entropy": (0, np.log2(59)),
    "texture_energy": (0, 1),
    "shape_ssim": (-1, 1),
    "shape_iou": (0, 1),
    "color_lightness": (0, 100),
    "color_a": (-128, 128),
    "color_b": (-128, 128),
    "color_spread": (0, 128),
    "color_distance": (0, 255),
    "saturation": (0, 1),
    "ssim": (-1, 1),
    "psnr": (0, 48.131),
}


def photograph(side: int = SIDE, name: str = "astronaut") -> Image:
    """With room for noise above white and below black: cutting it off there would take contrast from edges."""
    whole = getattr(data, name)()
    square = whole[: min(whole.shape[:2]), : min(whole.shape[:2])]
    return (0.2 + 0.6 * transform.resize(square, (side, side), anti_aliasing=True)).astype(np.float32)


def blurred(image: Image) -> Image:
    """Sharp first."""
    made = [filters.gaussian(image, sigma, channel_axis=2, mode="nearest") if sigma else image for sigma in BLURS]
    return np.stack(made).astype(np.float32)


def noised(image: Image) -> Image:
    """Clean first; the same noise, stronger and stronger."""
    noise = np.random.default_rng(3).standard_normal(image.shape)
    return np.stack([np.clip(image + sigma * noise, 0, 1) for sigma in NOISES]).astype(np.float32)


def plain(*rgb: float, side: int = 32) -> Image:
    return np.broadcast_to(np.array(rgb, np.float32), (side, side, 3)).copy()


def one(image: Image, final: Image | None = None) -> dict[str, float]:
    found = features(image[None], image if final is None else final)
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
@pytest.mark.parametrize(("direction", "worse"), [("blurred", blurred), ("noised", noised)])
def test_a_photograph_that_is_made_worse_step_by_step_has_the_stated_order(
    name: str, direction: str, worse: Callable[[Image], Image]
) -> None:
    image = photograph(name=name)
    found = features(worse(image), image)
    assert list(found) == [each for each in FEATURES if each not in OF_A_MODEL]
    for measure, values in found.items():
        sign = getattr(FEATURES[measure], direction)
        if sign:
            assert (sign * np.diff(values) > 0).all(), (measure, values)


def test_blur_leaves_mean_colours_nearly_alone() -> None:
    image = photograph()
    found = features(blurred(image), image)
    for measure in ("color_lightness", "color_a", "color_b"):
        assert np.ptp(found[measure]) < 2.5, measure


@pytest.mark.parametrize("rgb", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0.2, 0.7, 0.1)])
@pytest.mark.parametrize("side", [SMALLEST_SIDE, 32, 200])
def test_images_of_one_colour_have_finite_features(rgb: tuple[float, float, float], side: int) -> None:
    image = plain(*rgb, side=side)
    found = one(image)
    assert all(np.isfinite(value) for value in found.values())
    nothing = ("edge_density", "edge_sharpness", "texture_contrast", "texture_entropy", "color_spread")
    assert all(found[name] == pytest.approx(0, abs=1e-4) for name in nothing)
    assert found["texture_energy"] == pytest.approx(0, abs=1e-9)
    alike = ("texture_homogeneity", "shape_ssim", "shape_iou", "ssim")
    assert all(found[name] == pytest.approx(1) for name in alike)
    assert found["color_distance"] == 0
    # beside a photograph, and a photograph beside it
    picture = photograph(side)
    for a, b in ((image, picture), (picture, image)):
        assert all(np.isfinite(value) for value in one(a, b).values())


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (32, 32), (28, 28), (64, 300), (130, 257)])
def test_features_of_all_sizes_lie_in_their_ranges(size: tuple[int, int]) -> None:
    draws = np.random.default_rng(0)
    images = np.stack([draws.random((*size, 3)), draws.integers(0, 2, (*size, 3))]).astype(np.float32)
    found = features(images, images[::-1])
    assert found.keys() == RANGES.keys()
    for name, values in found.items():
        low, high = RANGES[name]
        assert ((values >= low) & (values <= high)).all(), (name, values)


def test_every_image_is_measured_for_itself() -> None:
    images = noised(photograph(40))
    together = features(images, images[0])
    for row, image in enumerate(images):
        alone = features(image[None], images[:1])
        assert all(alone[name][0] == together[name][row] for name in together)


def test_images_are_compared_each_with_its_own_final_image_or_with_one() -> None:
    images, other = noised(photograph(32)), photograph(32, "coffee")
    finals = np.stack([images[0], other] + [images[0]] * (len(images) - 2))
    found, to_first = features(images, finals), features(images, images[0])
    to_other = features(images, other)
    for name in found:
        expected = to_first[name].copy()
        expected[1] = to_other[name][1]
        np.testing.assert_array_equal(found[name], expected)
    assert found["ssim"][1] != to_first["ssim"][1]


@pytest.mark.parametrize(("height", "edges"), [(0.12, True), (0.08, False)])
def test_a_step_of_a_tenth_is_an_edge(height: float, edges: bool) -> None:
    image = plain(0.4, 0.4, 0.4)
    image[:, 16:] += height
    found = one(image)
    # one column of 32, without the border
    assert found["edge_density"] == (pytest.approx(30 / 1024, rel=0.1) if edges else 0)


def test_sharpness_is_the_root_mean_square_slope() -> None:
    def sharpness(image: Image) -> float:
        return one(image)["edge_sharpness"]

    ramp = np.repeat((0.01 * np.arange(64, dtype=np.float32))[:, None, None], 3, axis=2).repeat(64, axis=1)
    # less at both ends, where the image is taken to go on as it is
    assert sharpness(ramp) == pytest.approx(0.01, rel=0.03)
    step = plain(0, 0, 0, side=64)
    step[:, 32:] = 1
    x = np.arange(-8, 8)
    kernel = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    smooth = np.convolve((x >= 0).astype(float), kernel / kernel.sum(), "valid")
    slopes = (smooth[2:] - smooth[:-2]) / 2
    assert sharpness(step) == pytest.approx(np.sqrt(np.square(slopes).sum() / 62), rel=1e-4)
    assert sharpness(step / 2) == pytest.approx(sharpness(step) / 2, rel=1e-5)
    image = photograph(40)
    smooth_image = filters.gaussian(skimage_color.rgb2gray(image), 1, mode="nearest")
    both = [ndimage.sobel(smooth_image, axis)[1:-1, 1:-1] / 8 for axis in (0, 1)]
    assert sharpness(image) == pytest.approx(np.sqrt(np.square(both).sum(axis=0).mean()), rel=1e-5)


def test_texture_is_that_of_scikit_image() -> None:
    grey = texture.eight_bit(skimage_color.rgb2gray(noised(photograph())[1]).astype(np.float32))
    contrast, homogeneity = texture.cooccurrence(grey)
    pairs = feature.graycomatrix(grey // 8, [1], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], 32, True, True)
    assert contrast == pytest.approx(feature.graycoprops(pairs, "contrast").mean())
    assert homogeneity == pytest.approx(feature.graycoprops(pairs, "homogeneity").mean())
    theirs = feature.local_binary_pattern(grey, 8, 1, "nri_uniform")[1:-1, 1:-1].astype(int)
    shares = np.bincount(theirs.ravel()) / theirs.size
    shares = shares[shares > 0]
    assert texture.pattern_entropy(grey) == pytest.approx(-(shares * np.log2(shares)).sum(), abs=2e-3)


@pytest.mark.parametrize("kind", ["noise", "photograph", "few levels"])
def test_binary_patterns_are_those_of_scikit_image_but_for_its_rounding(kind: str) -> None:
    draws = np.random.default_rng(5)
    grey = {
        "noise": draws.integers(0, 256, (60, 70)).astype(np.uint8),
        "photograph": texture.eight_bit(skimage_color.rgb2gray(photograph()).astype(np.float32)),
        "few levels": draws.integers(0, 3, (60, 70)).astype(np.uint8),
    }[kind]
    theirs = feature.local_binary_pattern(grey, 8, 1, "default")[1:-1, 1:-1].astype(np.uint8)
    differ = texture.patterns(grey) != theirs
    # scikit-image decides by rounding whether the mean of equal levels is as large as these
    assert differ.mean() < (0.002 if kind != "few levels" else 0.25)
    for row, column in np.argwhere(differ):
        around = grey[row : row + 3, column : column + 3].astype(int)
        bits = np.unpackbits(texture.patterns(grey)[row, column] ^ theirs[row, column], bitorder="little")
        assert not bits[::2].any()
        for corner in np.flatnonzero(bits[1::2]):
            down, right = ((0, 2), (0, 0), (2, 0), (2, 2))[corner]
            sides = around[1, right] + around[down, 1] - 2 * around[1, 1]
            assert sides == 0
            assert around[down, right] == around[1, 1]


def test_turned_and_mirrored_images_have_the_same_texture_and_edges() -> None:
    image = photograph(64)
    measures = ("texture_contrast", "texture_homogeneity", "texture_entropy", "edge_sharpness")
    turned, mirrored = np.rot90(image).copy(), image[:, ::-1].copy()
    for other, name in itertools.product((turned, mirrored), measures):
        assert one(other)[name] == pytest.approx(one(image)[name], rel=1e-4), name


def test_energy_of_texture_is_that_of_the_middle_band() -> None:
    image = photograph(64)
    luminance = skimage_color.rgb2gray(image)[None, None]
    for bands in (Bands(), Bands(0.1, 0.2)):
        energy = features(image[None], image, bands)["texture_energy"]
        assert energy == pytest.approx(band_energies(luminance, bands, "none")[:, 1], rel=1e-6)
    # a wave of eight cycles in 64 pixels, in the middle band, and one of two
    waves = [0.5 + 0.25 * np.sin(2 * np.pi * cycles * np.arange(64) / 64) for cycles in (8, 2)]
    found = [one(np.repeat(np.tile(wave, (64, 1))[..., None], 3, axis=2).astype(np.float32)) for wave in waves]
    assert found[0]["texture_energy"] == pytest.approx(0.25**2 / 2, rel=0.01)
    assert found[1]["texture_energy"] < 0.01 * found[0]["texture_energy"]


def test_colours_are_those_of_lab() -> None:
    image = photograph(64)
    lab = skimage_color.rgb2lab(image)
    found = one(image)
    for axis, name in enumerate(("color_lightness", "color_a", "color_b")):
        assert found[name] == pytest.approx(lab[..., axis].mean(), abs=1e-3)
    assert found["color_spread"] == pytest.approx(np.sqrt(lab[..., 1:].reshape(-1, 2).var(axis=0).sum()), rel=1e-4)
    hsv = skimage_color.rgb2hsv(image)
    assert found["saturation"] == pytest.approx((hsv[..., 1] * hsv[..., 2]).sum() / hsv[..., 2].sum(), rel=1e-4)
    assert one(plain(1, 0, 0))["saturation"] == 1
    assert one(plain(0, 0, 0))["saturation"] == 0
    assert one(plain(0.5, 0.5, 0.5))["color_lightness"] == pytest.approx(53.39, abs=0.01)


def test_distance_of_colours_is_the_earth_movers() -> None:
    a, b = photograph(48), photograph(48, "coffee")
    lab = [skimage_color.rgb2lab(image).reshape(-1, 3) for image in (a, b)]
    expected = np.mean([wasserstein_distance(lab[0][:, axis], lab[1][:, axis]) for axis in range(3)])
    assert one(a, b)["color_distance"] == pytest.approx(expected, rel=1e-4)
    assert one(b, a)["color_distance"] == pytest.approx(expected, rel=1e-4)
    # where pixels are does not count
    assert one(a[::-1].copy(), a)["color_distance"] == 0


def test_large_images_have_the_colours_of_their_blocks() -> None:
    small = np.random.default_rng(0).random((50, 55, 3)).astype(np.float32)
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    a, b = color.colors(small), color.colors(large)
    assert b.mean == pytest.approx(a.mean, abs=1e-3)
    assert b.spread == pytest.approx(a.spread, rel=1e-4)
    np.testing.assert_allclose(b.sorted, a.sorted, atol=1e-3)
    # what is left over beyond the last whole block
    assert color.blocks(np.pad(large, ((0, 2), (0, 1), (0, 0))), 3) == pytest.approx(small, abs=1e-6)


def test_similarity_is_that_of_scikit_image() -> None:
    a, b = noised(photograph())[2], photograph()
    found = one(a, b)
    grey = [skimage_color.rgb2gray(image) for image in (a, b)]
    assert found["ssim"] == pytest.approx(metrics.structural_similarity(*grey, data_range=1.0), abs=1e-5)
    small = [each[:9, 20:50] for each in grey]
    expected = metrics.structural_similarity(*small, data_range=1.0)
    assert one(a[:9, 20:50], b[:9, 20:50])["ssim"] == pytest.approx(expected, abs=1e-5)
    assert found["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-3)
    # identical images, and images closer than a grey level, have the most that is given
    assert one(b)["psnr"] == one(np.clip(b + 0.001, 0, 1), b)["psnr"] == pytest.approx(20 * np.log10(255))
    assert one(b)["ssim"] == pytest.approx(1)


def test_silhouettes_overlap_as_squares_do() -> None:
    def square(at: int, inside: float, outside: float) -> Image:
        image = plain(outside, outside, outside, side=64)
        image[at : at + 24, at : at + 24] = inside
        return image

    assert one(square(8, 0.9, 0.1))["shape_iou"] == 1
    # 16² of 2 x 24² - 16², after smoothing
    expected = 256 / (2 * 576 - 256)
    assert one(square(8, 0.9, 0.1), square(16, 0.9, 0.1))["shape_iou"] == pytest.approx(expected, abs=0.02)
    # the silhouette is the smaller part of the final image, dark as well as bright
    assert one(square(8, 0.1, 0.9), square(16, 0.1, 0.9))["shape_iou"] == pytest.approx(expected, abs=0.02)
    # and of the same brightness in the other
    assert one(square(8, 0.9, 0.1), square(8, 0.1, 0.9))["shape_iou"] < 0.1


def test_shape_does_not_see_fine_texture() -> None:
    image = photograph()
    rough = np.clip(image + 0.1 * np.random.default_rng(0).standard_normal(image.shape), 0, 1).astype(np.float32)
    found = one(rough, image)
    assert found["shape_ssim"] > 0.97
    assert found["shape_iou"] > 0.9
    assert found["ssim"] < 0.7


def test_learned_distance_is_one_minus_cosine() -> None:
    a = np.array([[1, 0], [2, 2], [0, 0], [0, 0], [1, 1]], np.float32)
    b = np.array([[3, 0], [0, 1], [1, 1], [0, 0], [-1, -1]], np.float32)
    np.testing.assert_allclose(learned_distance(a, b), [0, 1 - np.sqrt(1 / 2), 1, 0, 2], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], r"no images to measure"),
        (lambda x: x[..., :1], r"images have shape \(3, 16, 16, 1\); expected \(N, H, W, 3\)"),
        (lambda x: x[:, :7], r"images of 7 x 16 pixels; features need 8 x 8"),
        (lambda x: np.where(np.arange(3)[:, None, None, None] == 1, np.nan, x), r"not in \[0, 1\], or NaN, in rows 1$"),
        (
            lambda x: np.where(np.arange(3)[:, None, None, None] > 0, np.inf, x),
            r"not in \[0, 1\], or NaN, in rows 1, 2",
        ),
        (lambda x: x - 0.5, r"not in \[0, 1\], or NaN, in rows 0, 1, 2"),
    ],
)
def test_bad_images_are_named(change: Callable[[Image], Image], message: str) -> None:
    images = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        features(change(images), images)
    # and as final images
    if len(changed := change(images)) == 3:
        with pytest.raises(ValueError, match="final images"):
            features(images, changed)


def test_final_images_of_another_size_or_number_are_refused() -> None:
    images = np.zeros((3, 16, 16, 3), np.float32)
    for final in (images[:2], images[:, :, :15], images[0, :15]):
        with pytest.raises(ValueError, match="expected one for all"):
            features(images, final)


def test_bad_features_of_a_model_are_named() -> None:
    values = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(2, 2\)"):
        learned_distance(values, values[:2])
    values[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in rows 1"):
        learned_distance(values, np.ones((3, 2)))
