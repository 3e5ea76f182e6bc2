"""Texture of the luminance: co-occurrence of grey levels, and local binary patterns."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

# grey levels of co-occurrence matrices: pairs fill 32² cells even in images of 32² pixels
GREY_LEVELS = 32
# one pixel apart: the finest texture; all four directions, so that a turned image has the same texture
DISTANCE = 1
ANGLES = (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
# neighbours of local binary patterns, on a circle of radius 1
NEIGHBORS = 8
# their diagonal ones lie between pixels, at √½ as scikit-image rounds it, in parts of 100,000
_DIAGONAL, _WHOLE = 70711, 100_000


def eight_bit(luminance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Luminance in [0, 1] rounded to 256 grey levels, so that texture below one of them is none."""
    return np.asarray(np.rint(luminance * np.float32(255)), np.uint8)


def cooccurrence(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """Contrast and homogeneity of the co-occurrence of grey levels (Haralick et al. 1973), means over four directions.

    grey: (H, W), 256 levels, which are read as 32. contrast: Σ p(i, j) (i - j)² in levels², from 0 to 961.
    homogeneity: Σ p(i, j) / (1 + (i - j)²) in (0, 1], 1 where all neighbours are alike.
    """
    from skimage.feature import graycomatrix, graycoprops

    levels = grey // np.uint8(256 // GREY_LEVELS)
    pairs = graycomatrix(levels, [DISTANCE], ANGLES, GREY_LEVELS, symmetric=True, normed=True)
    return float(graycoprops(pairs, "contrast").mean()), float(graycoprops(pairs, "homogeneity").mean())


def pattern_entropy(grey: NDArray[np.uint8]) -> float:
    """The entropy in bits of uniform local binary patterns (Ojala et al. 2002): P = 8 neighbours at radius R = 1.

    Bins are the 58 patterns with at most two changes around the circle, and one for all others, so it is at most 5.88.
    Of an image without texture it is 0. Of white noise it is below that of photographs, since a good part of its
    patterns fall in the one bin. grey: (H, W), 256 levels; pixels at the border have no pattern.
    """
    counts = np.bincount(patterns(grey).ravel(), minlength=2**NEIGHBORS)
    uniform = _changes() <= 2
    counts = np.append(counts[uniform], counts[~uniform].sum())
    share = counts[counts > 0] / counts.sum()
    # 0 in place of -0
    return float(abs(-(share * np.log2(share)).sum()))


def patterns(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Local binary patterns (H - 2, W - 2): bit n is set where the n-th neighbour is not darker than the pixel.

    Those of ``skimage.feature.local_binary_pattern``, which goes from pixel to pixel; here neighbours are compared as
    whole images, about ten times as fast, and in whole numbers, so that equal neighbours are equal.
    """
    height, width = grey.shape
    signed = grey.astype(np.int32)
    center = signed[1:-1, 1:-1]

    def step(down: int, right: int) -> NDArray[np.int32]:
        moved = signed[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        return np.asarray(moved - center)

    # anticlockwise from the right, as scikit-image has them
    straight = [step(0, 1), step(-1, 0), step(0, -1), step(1, 0)]
    corners = [step(-1, 1), step(-1, -1), step(1, -1), step(1, 1)]
    found = np.zeros(center.shape, np.uint8)
    for quarter, (side, corner) in enumerate(zip(straight, corners, strict=True)):
        found |= (side >= 0).view(np.uint8) << np.uint8(2 * quarter)
        # bilinear between the pixel, two sides and the corner, over the weight that all terms share
        between = (side + straight[(quarter + 1) % 4]) * (_WHOLE - _DIAGONAL) + corner * _DIAGONAL
        found |= (between >= 0).view(np.uint8) << np.uint8(2 * quarter + 1)
    return found


@cache
def _changes() -> NDArray[np.int64]:
    """How often neighbours differ around the circle, of every pattern."""
    bits = np.arange(2**NEIGHBORS)[:, None] >> np.arange(NEIGHBORS) & 1
    return np.asarray(np.abs(bits - np.roll(bits, 1, axis=1)).sum(axis=1))
