"""Linear read-outs: how much of edges, texture and shape of the final image the tokens of a layer hold already.

A read-out predicts, at every token, a map of the final image, averaged over the token's cell, by ridge regression.
It is trained on some samples and measured on others. All comes from sums over samples (`Moments`), so that tokens are
seen once and never kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import dealt, shuffled

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAPS = ("edges", "texture", "shape")
FOLDS = 4
# standard deviations of Gaussian windows, in pixels
_EDGE_SIGMA = 1.0
_TEXTURE_SIGMA = 2.0
# a channel whose variance is this share of its mean square is constant, to the rounding of float32
_CONSTANT = 1e-12
# what stands in the place of 0 below a fraction that is not used
_TINY = 1e-300
# numbers of the matrices that are factored at a time
_CHUNK = 2**24


def image_maps(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """`MAPS` of one image (H, W, 3) in [0, 1], (H, W, 3) float64, from its lightness L / 100 of CIELAB.

    - ``edges``: magnitude of the Sobel gradient after a Gaussian of σ = 1 pixel.
    - ``texture``: the local standard deviation, in a Gaussian window of σ = 2 pixels, of what that window takes away.
    - ``shape``: 1 on the side of Otsu's threshold (Otsu 1979) that fewer border pixels lie on, else 0; all 0 for an
      image of one lightness.

    Raises ValueError for another shape and for values that are NaN or infinite.
    """
    from skimage.color import rgb2lab
    from skimage.filters import gaussian, sobel, threshold_otsu

    if image.ndim != 3 or image.shape[2] != 3 or not np.isfinite(image).all():
        raise ValueError(f"an image of shape {image.shape}; expected finite values of (H, W, 3)")
    lightness = rgb2lab(np.asarray(image, np.float64))[..., 0] / 100
    edges = sobel(gaussian(lightness, _EDGE_SIGMA))
    fine = lightness - gaussian(lightness, _TEXTURE_SIGMA)
    texture = np.sqrt(gaussian(np.square(fine), _TEXTURE_SIGMA))
    shape = np.zeros_like(lightness)
    # one lightness has no threshold; rounding of the colour space is no difference
    if np.ptp(lightness) > 1e-6:
        bright = lightness > threshold_otsu(lightness)
        border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
        shape = (bright != (border.mean() > 0.5)).astype(np.float64)
    return np.stack([edges, texture, shape], axis=2)


def token_maps(
    images: NDArray[np.floating], grids: Collection[tuple[int, int]]
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """`MAPS` of images (N, H, W, 3), averaged over the cells of token grids: grid -> (N, T, 3) float64, row by row.

    A cell that ends between two pixels takes its part of them. Raises ValueError as `image_maps`, and for a grid that
    is finer than images.
    """
    from skimage.transform import resize_local_mean

    made: dict[tuple[int, int], list[NDArray[np.float64]]] = {grid: [] for grid in grids}
    for grid in made:
        if grid[0] > images.shape[1] or grid[1] > images.shape[2]:
            raise ValueError(f"a token grid of {grid[0]} x {grid[1]} is finer than images of shape {images.shape[1:3]}")
    for image in images:
        maps = image_maps(image)
        for grid, rows in made.items():
            cells = resize_local_mean(maps, grid, grid_mode=True, preserve_range=True, channel_axis=2)
            rows.append(cells.reshape(-1, len(MAPS)))
    return {grid: np.stack(rows) for grid, rows in made.items()}


def folds(names: Sequence[str], groups: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The fold (N,) of each sample, 0 to 3, keyed by name: all tokens of a sample are in one fold.

    Where there are four groups or more, such as classes, whole groups are dealt, so that a read-out is measured on
    classes that it has not seen; else samples are. Raises ValueError for fewer samples than folds.
    """
    if len(names) < FOLDS:
        raise ValueError(f"{len(names)} samples; read-outs need at least {FOLDS}, one a fold")
    different = sorted(set(groups))
    if len(different) < FOLDS:
        return dealt(names, FOLDS, seed, "readouts")
    fold_of = dict(zip(different, dealt(different, FOLDS, seed, "readouts").tolist(), strict=True))
    return np.array([fold_of[group] for group in groups], np.int64)


def exchanged(names: Sequence[str], seed: int) -> NDArray[np.intp]:
    """For each sample, the position (N,) of the one whose map it is given as a control: the next by the hash of its
    name, so never its own. Raises ValueError for a single sample.
    """
    if len(names) < 2:
        raise ValueError("a single sample has no other to exchange maps with")
    order = np.array(shuffled(names, seed, "readouts\x00maps"), np.intp)
    other = np.empty_like(order)
    other[order] = np.roll(order, -1)
    return other


class Moments:
    """Sums over the samples of each fold of tokens x (T, D), maps y (T, M) and their products, in float64.

    They take folds x (D² + T D) x 8 bytes, `size`, whatever the number of samples is.
    """

    def __init__(self, tokens: int, width: int, maps: int, device: torch.device) -> None:
        import torch

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(FOLDS, *shape, dtype=torch.float64, device=device)

        self.count = zeros()
        self.x, self.y = zeros(tokens, width), zeros(tokens, maps)
        self.xx, self.xy, self.yy = zeros(width, width), zeros(width, maps), zeros(maps)

    @staticmethod
    def size(tokens: int, width: int) -> int:
        """Bytes of the moments of a layer, but for what a few maps take."""
        return 8 * FOLDS * width * (width + tokens)

    def add(self, tokens: Tensor, maps: Tensor, fold: NDArray[np.int64]) -> None:
        """Add samples: tokens (B, T, D), maps (B, T, M) of the same samples, and the fold of each."""
        for i in np.unique(fold).tolist():
            chosen = [position for position, of in enumerate(fold.tolist()) if of == i]
            x, y = tokens[chosen].double(), maps[chosen].double()
            self.count[i] += len(chosen)
            self.x[i] += x.sum(dim=0)
            self.y[i] += y.sum(dim=0)
            flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
            self.xx[i] += flat_x.T @ flat_x
            self.xy[i] += flat_x.T @ flat_y
            self.yy[i] += flat_y.square().sum(dim=0)

    def held_out(self, penalties: Sequence[float]) -> NDArray[np.float64]:
        """R² (M,) on held-out samples, 1 - Σ(y - ŷ)² / Σ(y - mean)² over all folds, tokens and samples.

        Means are those of the training samples at the same token, and are taken from tokens too: a read-out that knows
        nothing but the mean map has R² 0. Channels are divided by their standard deviation over training tokens, and
        those that are constant are left out. The penalty, which is added to sums of squares of these channels, is
        chosen for each fold and map among the training folds alone: by the error on each of them of the fit to the
        others. Ties go to the first. NaN for a map that is its training mean everywhere.

        Raises ValueError for penalties of 0 or less, and for a fold without samples.
        """
        import torch

        if not len(penalties) or min(penalties) <= 0:
            raise ValueError(f"penalties {list(penalties)}: each must be above 0")
        if (self.count == 0).any():
            raise ValueError("a fold has no samples, so nothing is held out in it")
        pairs = list(itertools.combinations(range(FOLDS), 2))
        left_out = [*pairs, *((fold,) for fold in range(FOLDS))]
        size = max(1, _CHUNK // (len(penalties) * self.xx.shape[1] ** 2))
        parts = [self._left(left_out[at : at + size], penalties) for at in range(0, len(left_out), size)]
        left, around_mean = (torch.cat([part[i] for part in parts]).cpu() for i in (0, 1))
        residual = total = torch.zeros(self.yy.shape[1], dtype=torch.float64)
        for fold in range(FOLDS):
            judged = [(i, pair[pair[0] == fold]) for i, pair in enumerate(pairs) if fold in pair]
            chosen = torch.stack([left[i, judge] for i, judge in judged]).sum(dim=0).argmin(dim=0)
            of_fold = left[len(pairs) + fold, fold]
            residual = residual + of_fold.gather(0, chosen[None])[0]
            total = total + around_mean[len(pairs) + fold, fold]
        r2 = torch.where(total > 0, 1 - residual / total.clamp_min(_TINY), torch.full_like(total, torch.nan))
        return np.asarray(r2.numpy(), np.float64)

    def _left(self, left_out: Sequence[Sequence[int]], penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Of read-outs that are each trained without some folds, the sums of squares that they leave of maps in every
        fold, of each penalty (K, F, P, M), and those that training means leave, (K, F, M).
        """
        import torch

        kept = torch.ones(len(left_out), FOLDS, dtype=torch.float64)
        for row, without in enumerate(left_out):
            kept[row, list(without)] = 0
        kept = kept.to(self.count)
        count, x, y = (torch.tensordot(kept, sums, 1) for sums in (self.count, self.x, self.y))
        count = count[:, None, None]
        xx = torch.tensordot(kept, self.xx, 1)
        squares = xx.diagonal(dim1=1, dim2=2).clone()
        xx -= x.mT @ x / count
        xy = torch.tensordot(kept, self.xy, 1) - x.mT @ y / count
        spread = xx.diagonal(dim1=1, dim2=2).clamp_min(0)
        varies = spread > _CONSTANT * squares
        tokens = count[:, 0] * x.shape[1]
        scale = torch.where(varies, (spread.clamp_min(_TINY) / tokens).rsqrt(), torch.zeros_like(spread))[..., None]
        added = torch.tensor(penalties, dtype=xx.dtype, device=xx.device)[:, None, None]
        gram = (scale * xx * scale.mT)[:, None] + added * torch.eye(xx.shape[1], dtype=xx.dtype, device=xx.device)
        solved = torch.cholesky_solve((scale * xy)[:, None], torch.linalg.cholesky(gram))
        # of channels as they are, (K, 1, P, D, M)
        weights = (scale[:, None] * solved)[:, None]
        mean_x, mean_y = x / count, y / count
        of_means = (mean_x[:, None, None] @ weights).expand(-1, FOLDS, -1, -1, -1)
        of_sums = self.x[:, None] @ weights
        held, mean_y = self.count[:, None, None], mean_y[:, None]
        # Σ ŷ², Σ ŷ y and Σ y², each less training means
        predicted = (weights * (self.xx[:, None] @ weights)).sum(dim=3)
        predicted += (held[..., None] * of_means.square() - 2 * of_means * of_sums).sum(dim=3)
        both = (weights * self.xy[:, None]).sum(dim=3)
        both += ((held * mean_y)[:, :, None] * of_means - of_sums * mean_y[:, :, None]).sum(dim=3)
        both -= (of_means * self.y[:, None]).sum(dim=3)
        around_mean = self.yy + (held * mean_y.square() - 2 * mean_y * self.y).sum(dim=2)
        # a map that does not vary leaves rounding
        around_mean = around_mean * (around_mean > _CONSTANT * self.yy)
        return predicted - 2 * both + around_mean[:, :, None], around_mean
