"""Colours of images in CIE Lab and their saturation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Larger images are averaged over blocks before: means and distributions of colours are those of areas, for which
# thousands of them are enough, and the conversion to Lab would cost more than all other features together.
LARGEST_SIDE = 64


@dataclass(frozen=True, eq=False)
class Colors:
    """Colours of one image. sorted: (3, P) float32, values of L, a and b in ascending order, each for itself.

    mean: of L (0 to 100), a and b. spread: root mean square distance of (a, b) to their mean. saturation: in [0, 1].
    """

    sorted: NDArray[np.float32]
    mean: tuple[float, float, float]
    spread: float
    saturation: float


def colors(image: NDArray[np.float32]) -> Colors:
    """Colours of an image (H, W, 3) in [0, 1], read as sRGB.

    Images whose shorter side has more than 64 pixels are averaged over square blocks, the smallest that take it to 64
    or fewer; pixels beyond the last whole block are left out. saturation: that of HSV, (max - min) / max, weighted by
    max, which is Σ (max - min) / Σ max: the colours of dark pixels have little weight. It is 0 for a black image.
    """
    from skimage.color import rgb2lab

    small = blocks(image, -(-min(image.shape[:2]) // LARGEST_SIDE))
    lab = np.ascontiguousarray(rgb2lab(small).reshape(-1, 3).T)
    lightness, a, b = (float(value) for value in lab.mean(axis=1, dtype=np.float64))
    red, green, blue = (small[..., channel] for channel in range(3))
    largest = np.maximum(np.maximum(red, green), blue)
    chroma = largest - np.minimum(np.minimum(red, green), blue)
    value = float(largest.sum(dtype=np.float64))
    return Colors(
        np.sort(lab, axis=1),
        (lightness, a, b),
        float(np.sqrt(lab[1:].var(axis=1, dtype=np.float64).sum())),
        float(chroma.sum(dtype=np.float64)) / value if value > 0 else 0.0,
    )


def blocks(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means over blocks of side x side pixels, (H // side, W // side, …) float32."""
    height, width = image.shape[0] // side * side, image.shape[1] // side * side
    # rows before columns, which do not lie beside each other; a mean over axes of a few values is slow
    rows = image[0:height:side, :width].copy()
    for row in range(1, side):
        rows += image[row:height:side, :width]
    total = rows[:, ::side].copy()
    for column in range(1, side):
        total += rows[:, column::side]
    total /= side**2
    return total


def distance(a: Colors, b: Colors) -> float:
    """How far the colours of a are from those of b: the mean over L, a and b of the earth mover's distance.

    Along one axis the least work to move one distribution onto another of as many values is the mean of |x - y| over
    both in ascending order (Rubner et al. 2000 define the distance; this case is that of ``scipy.stats``'
    ``wasserstein_distance``). In units of Lab. Where pixels are does not count.
    """
    return float(np.abs(a.sorted - b.sorted).mean(dtype=np.float64))
