"""Features of images at every step of a trajectory: edges, texture, shape, colour, and likeness to the final image.

Images are (N, H, W, 3) float32 in [0, 1], read as sRGB, with sides of at least 8 pixels that need not be equal. Edges,
texture and shape are of the luminance (scikit-image's ``rgb2gray``). Every image is measured for itself, so that
batches do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.dynamics import color, texture
from diffalign.dynamics.similarity import Windows, ssim
from diffalign.dynamics.spectra import BANDS, Bands, band_energies
from diffalign.offenders import first_five

Images = NDArray[np.float32]
Array = NDArray[np.float64]

_BANDS = Bands()
SMALLEST_SIDE = 8
# Pixels. Edges are looked for at the finest scale that is not the noise of single pixels.
EDGE_SIGMA = 1.0
# The Sobel filter of scipy, by which Canny's goes here, is 8 times the slope a pixel.
SOBEL_GAIN = 8
# After smoothing with σ = 1 it answers 2.5 h to a step of height h: edges begin at steps of 0.1 and go on to 0.04.
EDGE_HIGH, EDGE_LOW = 0.25, 0.1
# Contrast that counts as none: one of 256 grey levels.
LEAST_CONTRAST = 1 / 255
# Shape is what is left after smoothing with σ = side / 32, of the shorter side. Before, means over blocks take it to 64
# pixels or fewer: what is coarse needs no more of them.
SHAPE_SIGMA = 1 / 32
SHAPE_SIDE = 64
# A root mean square difference of one of 256 grey levels, which no display shows: 20 log10 255 = 48.13 dB. Identical
# images would have an infinite ratio.
LEAST_ERROR = LEAST_CONTRAST**2


@dataclass(frozen=True)
class Feature:
    """A feature of an image. label: for figures. kind: ``edges``, ``texture``, ``shape``, ``color`` or ``similarity``.

    blurred, noised: 1 where the feature of a photograph rises when it is blurred, or noised, step by step, -1 where it
    falls, 0 where there is no order. Of photographs with texture, and noise that is seldom cut off at 0 and 1: where it
    is, contrast is lost, and in an even sky noise makes patterns where there were none.
    """

    label: str
    kind: str
    unit: str
    blurred: int
    noised: int


FEATURES: Mapping[str, Feature] = {
    "edge_density": Feature("edge density", "edges", "share of pixels", -1, 1),
    "edge_sharpness": Feature("edge sharpness", "edges", "1/pixel", -1, 1),
    "texture_contrast": Feature("GLCM contrast", "texture", "levels²", -1, 1),
    "texture_homogeneity": Feature("GLCM homogeneity", "texture", "", 1, -1),
    "texture_entropy": Feature("LBP entropy", "texture", "bits", -1, -1),
    "texture_energy": Feature("mid-band energy", "texture", "luminance²", -1, 1),
    "shape_ssim": Feature("low-pass SSIM", "shape", "", -1, -1),
    "shape_iou": Feature("silhouette IoU", "shape", "", -1, -1),
    "color_lightness": Feature("lightness L*", "color", "Lab", 0, 0),
    "color_a": Feature("green to red a*", "color", "Lab", 0, 0),
    "color_b": Feature("blue to yellow b*", "color", "Lab", 0, 0),
    "color_spread": Feature("spread of colours", "color", "Lab", -1, 1),
    "color_distance": Feature("distance of colours", "color", "Lab", 1, 1),
    "saturation": Feature("saturation", "color", "", -1, 1),
    "ssim": Feature("SSIM", "similarity", "", -1, -1),
    "psnr": Feature("PSNR", "similarity", "dB", -1, -1),
    "learned_distance": Feature("learned distance", "similarity", "1 - cos", 1, 1),
}
# features of a model, which `features` does not run
OF_A_MODEL = ("learned_distance",)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One image as features read it. windows: of its luminance. low: of what is left below the scale of shape."""

    image: Images
    windows: Windows
    low: Windows
    colors: color.Colors

    @property
    def luminance(self) -> Images:
        return self.windows.image


@dataclass(frozen=True, eq=False)
class _Final:
    """What images are compared with. silhouette: of ``seen.low``; bright: whether it is the brighter part."""

    seen: _Seen
    silhouette: NDArray[np.bool_]
    bright: bool


def features(images: Images, final: Images, bands: Bands = _BANDS) -> dict[str, Array]:
    """Every feature of `FEATURES` but those of a model: name -> (N,) float64, all finite.

    images: (N, H, W, 3). final: what they are compared with, one for all (H, W, 3) or one for each (N, H, W, 3).
    bands: of ``texture_energy``.

    Of the image alone:

    - edge_density: share of pixels on edges of Canny (1986), σ = 1 pixel. A step of 0.1 is an edge, one of 0.05 is not.
    - edge_sharpness: root mean square slope of the luminance (Sobel filter after smoothing with σ = 1), in luminance a
      pixel: the focus measure Tenengrad (Pertuz et al. 2013), its root, by the pixel.
    - texture_contrast, texture_homogeneity: `diffalign.dynamics.texture.cooccurrence`.
    - texture_entropy: `diffalign.dynamics.texture.pattern_entropy`.
    - texture_energy: energy of the luminance in the middle band, without a window
      (`diffalign.dynamics.spectra.band_energies`).
    - color_lightness, color_a, color_b: means in Lab. color_spread, saturation: `diffalign.dynamics.color.colors`.

    Against the final image:

    - shape_ssim: SSIM (below) of luminances without what is finer than σ = shorter side / 32.
    - shape_iou: intersection over union of silhouettes: the pixels of the same low-pass luminance on one side of the
      threshold of Otsu (1979), each image with its own. The side is that which is smaller in the final image. Two empty
      silhouettes have 1.
    - color_distance: `diffalign.dynamics.color.distance`.
    - ssim: structural similarity of luminances (Wang et al. 2004), in uniform windows of 7 pixels as in scikit-image,
      for a data range of 1; in [-1, 1].
    - psnr: 10 log10 of 1 over the mean square difference of all channels, which counts as 1/255² where it is less: at
      most 48.13 dB.

    Raises ValueError for no images, sides of less than 8 pixels, other shapes, and for values that are not in [0, 1],
    with the rows of the first five such images.
    """
    _check(images, final)
    one = _final(final) if final.ndim == 3 else None
    all_seen = [_seen(image) for image in images]
    rows = [_of_image(seen, one or _final(final[row])) for row, seen in enumerate(all_seen)]
    made = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    luminances = np.stack([seen.luminance for seen in all_seen])
    made["texture_energy"] = band_energies(luminances[:, None], bands, "none")[:, BANDS.index("mid")]
    return {name: made[name] for name in FEATURES if name in made}


def learned_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> Array:
    """1 - cos of the features of a model, row by row: (N, D) and (N, D) -> (N,) in [0, 2].

    Rows without length are at distance 1 from all others and at 0 from each other. Raises ValueError for other shapes
    and for features that are NaN or infinite.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"features of a model have shapes {a.shape} and {b.shape}; expected (N, D) of both")
    x, y = a.astype(np.float64), b.astype(np.float64)
    bad = np.asarray(~(np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)))
    if bad.any():
        raise ValueError(f"features of a model are NaN or infinite in rows {_rows(bad)}")
    lengths = [np.linalg.norm(each, axis=1) for each in (x, y)]
    whole = lengths[0] * lengths[1]
    cosine = np.divide((x * y).sum(axis=1), whole, out=np.zeros(len(x)), where=whole > 0)
    cosine[(lengths[0] == 0) & (lengths[1] == 0)] = 1
    return np.asarray(1 - np.clip(cosine, -1, 1))


def _check(images: Images, final: Images) -> None:
    for what, given in (("images", images), ("final images", final if final.ndim == 4 else final[None])):
        if given.ndim != 4 or given.shape[3] != 3:
            raise ValueError(f"{what} have shape {given.shape}; expected (N, H, W, 3)")
        if not len(given):
            raise ValueError(f"no {what} to measure")
        if min(given.shape[1:3]) < SMALLEST_SIDE:
            raise ValueError(
                f"{what} of {given.shape[1]} x {given.shape[2]} pixels; features need {SMALLEST_SIDE} x {SMALLEST_SIDE}"
            )
        # NaN is in no range
        bad = np.array([not (image.min() >= 0 and image.max() <= 1) for image in given], bool)
        if bad.any():
            raise ValueError(f"{what} hold values that are not in [0, 1], or NaN, in rows {_rows(bad)}")
    if final.shape not in (images.shape, images.shape[1:]):
        one, each = images.shape[1:], images.shape
        raise ValueError(f"final images have shape {final.shape}; expected one for all {one} or one for each {each}")


def _rows(bad: NDArray[np.bool_]) -> str:
    return first_five([str(row) for row in np.flatnonzero(bad)])


def _seen(image: Images) -> _Seen:
    from skimage.color import rgb2gray
    from skimage.filters import gaussian

    luminance = np.asarray(rgb2gray(image), np.float32)
    reduced = color.blocks(luminance, -(-min(luminance.shape) // SHAPE_SIDE))
    low = gaussian(reduced, SHAPE_SIGMA * min(reduced.shape), mode="nearest")
    return _Seen(image, Windows.of(luminance), Windows.of(low), color.colors(image))


def _final(image: Images) -> _Final:
    seen = _seen(image)
    bright = _brighter(seen.low.image)
    smaller = bool(bright.mean() <= 1 / 2)
    return _Final(seen, bright if smaller else ~bright, smaller)


def _brighter(low: Images) -> NDArray[np.bool_]:
    """The pixels that are brighter than Otsu's threshold; none where all are within one grey level."""
    from skimage.filters import threshold_otsu

    if np.ptp(low) < LEAST_CONTRAST:
        return np.zeros(low.shape, bool)
    return np.asarray(low > threshold_otsu(low))


def _of_image(seen: _Seen, final: _Final) -> dict[str, float]:
    """Features of one image but the energy of a band."""
    grey = texture.eight_bit(seen.luminance)
    contrast, homogeneity = texture.cooccurrence(grey)
    density, sharpness = _edges(seen.luminance)
    lightness, a, b = seen.colors.mean
    return {
        "edge_density": density,
        "edge_sharpness": sharpness,
        "texture_contrast": contrast,
        "texture_homogeneity": homogeneity,
        "texture_entropy": texture.pattern_entropy(grey),
        "shape_ssim": ssim(seen.low, final.seen.low),
        "shape_iou": _overlap(seen.low.image, final),
        "color_lightness": lightness,
        "color_a": a,
        "color_b": b,
        "color_spread": seen.colors.spread,
        "color_distance": color.distance(seen.colors, final.seen.colors),
        "saturation": seen.colors.saturation,
        "ssim": ssim(seen.windows, final.seen.windows),
        "psnr": _psnr(seen.image, final.seen.image),
    }


def _edges(luminance: Images) -> tuple[float, float]:
    """Density and sharpness of edges."""
    from skimage.feature import canny
    from skimage.filters import gaussian

    smooth = gaussian(luminance, EDGE_SIGMA, mode="nearest")
    # it is smooth already
    edges = canny(smooth, 0, EDGE_LOW, EDGE_HIGH, mode="nearest")
    return float(edges.mean()), float(np.sqrt(np.mean([_square_slope(smooth), _square_slope(smooth.T)]) * 2))


def _square_slope(image: Images) -> float:
    """The mean square, within the border, of the Sobel filter along the first axis, by the pixel."""
    differences = image[2:] - image[:-2]
    slopes = differences[:, :-2] + 2 * differences[:, 1:-1] + differences[:, 2:]
    return float(np.square(slopes).mean(dtype=np.float64)) / SOBEL_GAIN**2


def _overlap(low: Images, final: _Final) -> float:
    bright = _brighter(low)
    silhouette = bright if final.bright else ~bright
    union = np.count_nonzero(silhouette | final.silhouette)
    return np.count_nonzero(silhouette & final.silhouette) / union if union else 1.0


def _psnr(a: Images, b: Images) -> float:
    difference = (a - b).ravel()
    error = float(np.dot(difference, difference)) / difference.size
    return float(-10 * np.log10(max(error, LEAST_ERROR)))
