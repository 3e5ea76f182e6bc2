"""Edges of images, cell by cell of a token grid, and how eigenvectors follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five
from diffalign.shared_space.consistency import OverImages, over_images

Array = NDArray[np.float64]

# differences of correlations that are rounding
_EQUAL = 1e-9


@dataclass(frozen=True, eq=False)
class EdgeCorrelation:
    """The largest |Spearman's ρ| over eigenvectors of one with the edges, over the cells of all images.

    value: in [0, 1]. column: which eigenvector, from 0. null: (P,), the largest under each shift. per_image: (I,) ρ of
    this eigenvector within each image, with the sign that it has over all; NaN where one of both is constant there.
    """

    value: float
    column: int
    null: Array
    per_image: Array

    @property
    def p(self) -> float:
        """Share of the shifts, no shift among them, with at least this value, the largest over eigenvectors too."""
        return float((1 + (self.null >= self.value - _EQUAL).sum()) / (1 + len(self.null)))


def cell_edges(pixels: NDArray[np.uint8], grid: tuple[int, int]) -> Array:
    """The mean magnitude of Sobel's gradient of grey values in [0, 1] in each cell, (rows, columns).

    pixels: (H, W, 3). Cells are of equal area; where the side is no multiple of the grid, pixels count in each cell by
    the part that lies there. Raises ValueError for an image with fewer pixels than cells in a direction.
    """
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.transform import resize_local_mean

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.shape[0] < grid[0] or pixels.shape[1] < grid[1]:
        raise ValueError(f"an image of shape {pixels.shape} has no {grid[0]} x {grid[1]} cells; expected (H, W, 3)")
    magnitude = sobel(rgb2gray(pixels))
    return np.asarray(resize_local_mean(magnitude, grid, grid_mode=True, preserve_range=True), np.float64)


def edge_correlation(
    vectors: NDArray[np.floating[Any]], edges: NDArray[np.floating[Any]], shifts: NDArray[np.int32]
) -> EdgeCorrelation:
    """How far one of the eigenvectors follows the edges.

    vectors: (I, T, k), of I images and T cells. edges: (I, T). shifts: of `shifts.grid_shifts`, with the border
    ``mirror``; under chance the edges of each image are shifted and mirrored on their grid, so that neighbouring cells
    stay alike, and the largest value over eigenvectors is taken, as for the edges as they are. Of smooth maps without
    any relation on two grids of 14 x 14, 4 % had p ≤ 0.05, and 16 % with the border ``torus``. Ranks are over
    all images, before shifts; ties share them.

    Raises ValueError for other shapes, NaN, and edges or eigenvectors that are all constant.
    """
    from scipy.stats import rankdata

    images, tokens = edges.shape
    if vectors.ndim != 3 or vectors.shape[:2] != edges.shape or shifts.shape[1] != images * tokens:
        raise ValueError(
            f"eigenvectors {vectors.shape}, edges {edges.shape} and shifts {shifts.shape} are not of the same tokens"
        )
    bad = [str(i) for i in range(images) if not (np.isfinite(vectors[i]).all() and np.isfinite(edges[i]).all())]
    if bad:
        raise ValueError(f"eigenvectors or edges are NaN or infinite in images {first_five(bad)}")
    ranked = _standardised(rankdata(vectors.reshape(images * tokens, -1), axis=0))
    of_edges = _standardised(rankdata(edges.reshape(-1))[:, None])[:, 0]
    if not of_edges.any() or not ranked.any():
        what = "edges" if ranked.any() else "eigenvectors"
        raise ValueError(f"{what} are the same at all {images * tokens} cells, so nothing can be ranked")
    found = ranked.T @ of_edges
    column = int(np.argmax(np.abs(found)))
    null = np.empty(len(shifts))
    step = max(1, 2**24 // (images * tokens))
    for begin in range(0, len(shifts), step):
        # a shift may have a cell twice, so means and lengths change
        drawn = _standardised(of_edges[shifts[begin : begin + step]].T)
        null[begin : begin + step] = np.abs(drawn.T @ ranked).max(axis=1)
    sign = np.sign(found[column])
    per_image = sign * np.array([_spearman(vectors[i, :, column], edges[i]) for i in range(images)])
    return EdgeCorrelation(float(abs(found[column])), column, null, per_image)


def edge_contrast(first: EdgeCorrelation, second: EdgeCorrelation, groups: Sequence[str] | None = None) -> OverImages:
    """Whether one set follows edges more than another: the mean over images of the difference of ρ, first - second.

    Images where either is NaN are left out. Eigenvectors were chosen on these images. groups: as of
    `consistency.over_images`, which says where there is no interval and no p.
    """
    return over_images(first.per_image - second.per_image, groups)


def _standardised(ranks: Array) -> Array:
    """Columns with mean 0 and length 1, those that are constant 0."""
    centred = ranks - ranks.mean(axis=0)
    lengths = np.sqrt(np.square(centred).sum(axis=0))
    return np.asarray(centred / np.where(lengths > _EQUAL, lengths, np.inf), np.float64)


def _spearman(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> float:
    from scipy.stats import rankdata

    a, b = (_standardised(rankdata(each)[:, None])[:, 0] for each in (x, y))
    return float(a @ b) if a.any() and b.any() else np.nan
