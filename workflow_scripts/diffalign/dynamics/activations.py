"""Statistics of the tokens of a layer, sample by sample, and passes over stored states that give these tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffalign.dynamics.spectra import BANDS, NYQUIST, Bands, band_energies
from diffalign.offenders import first_five, flagged

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.models import Denoiser
    from diffalign.noise import NoiseLevel

# thirds of the way to the Nyquist frequency, in cycles per token: the lowest of a grid of n is 1/n, and grids are small
TOKEN_BANDS = Bands(low=NYQUIST / 3, mid=2 * NYQUIST / 3)
MEASURES = ("norm", "energy", *(f"energy_{band}" for band in BANDS), "kurtosis", "massive")
# of massive activations: larger than this, and than so many times the median
MASSIVE = 100.0
TIMES_MEDIAN = 1000.0
# numbers that are measured at a time, in float64
_BLOCK = 2**22


def token_grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of the grid that tokens of latents (height, width) lie on, row by row; None where unknown.

    Known are grids of square cells of whole positions of the latents, and square numbers of tokens of square latents.
    A grid has two tokens or more along each side.
    """
    for cell in range(1, min(height, width) // 2 + 1):
        if height % cell == 0 == width % cell and tokens == (height // cell) * (width // cell):
            return height // cell, width // cell
    side = round(tokens**0.5)
    return (side, side) if height == width and side * side == tokens and side > 1 else None


def statistics(tokens: Tensor, grid: tuple[int, int] | None, threads: int = 1) -> dict[str, NDArray[np.float64]]:
    """Statistics of the tokens (B, T, D) of one layer: measure -> (B,) float64, one value a sample.

    - ``norm``: the Euclidean norm of a token, mean over tokens.
    - ``energy``: the variance of a channel over tokens, mean over channels.
    - ``energy_low``, ``energy_mid``, ``energy_high``, ``energy_corner``: the same by frequency over the token grid,
      up to 1/6, 1/3 and 1/2 cycles per token, and beyond the Nyquist circle; they add up to ``energy``. Not there
      without a grid, and bands that no frequency of a grid lies in are left out.
    - ``kurtosis``: excess kurtosis over all entries, E(x - mean)⁴ / var² - 3; 0 where all entries are the same.
    - ``massive``: share of entries whose magnitude is above 100 and above 1000 times the median magnitude of the
      layer's entries for this sample, the criterion of Sun et al. (2024, Massive Activations in Large Language Models);
      the lower of the two medians of an even number.

    All but ``massive`` is in float64, on the device. threads: of the transforms. Raises ValueError for other
    shapes, and for a grid that tokens do not fill.
    """
    import torch

    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; expected (B, T, D)")
    if grid is not None and grid[0] * grid[1] != tokens.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens do not fill a grid of {grid[0]} x {grid[1]}")
    measured: dict[str, list[Tensor]] = {key: [] for key in ("norm", "energy", "kurtosis", "massive")}
    for samples in torch.split(tokens, max(1, _BLOCK // tokens[0].numel())):
        x = samples.double()
        measured["norm"].append(x.norm(dim=2).mean(dim=1))
        measured["energy"].append(x.var(dim=1, correction=0).mean(dim=1))
        entries = x.flatten(1)
        squares = (entries - entries.mean(dim=1, keepdim=True)).square()
        variance = squares.mean(dim=1)
        # below the rounding of float32, all entries are the same
        same = variance <= torch.finfo(torch.float32).eps ** 2 * entries.square().mean(dim=1)
        ratio = squares.square().mean(dim=1) / variance.square().clamp_min(torch.finfo(torch.float64).tiny)
        measured["kurtosis"].append(torch.where(same, torch.zeros_like(ratio), ratio - 3))
        magnitudes = samples.abs().float().flatten(1)
        least = (TIMES_MEDIAN * magnitudes.median(dim=1, keepdim=True).values).clamp_min(MASSIVE)
        measured["massive"].append((magnitudes > least).double().mean(dim=1))
    found = {key: np.asarray(torch.cat(values).cpu().numpy(), np.float64) for key, values in measured.items()}
    if grid is not None:
        found |= _by_frequency(tokens, grid, threads)
    return {key: found[key] for key in MEASURES if key in found}


def _by_frequency(tokens: Tensor, grid: tuple[int, int], threads: int) -> dict[str, NDArray[np.float64]]:
    """Spatial energy of the bands that the grid has frequencies in."""
    centred = (tokens - tokens.mean(dim=1, keepdim=True)).float().transpose(1, 2)
    maps = centred.reshape(*centred.shape[:2], *grid).cpu().numpy()
    energies = band_energies(maps, TOKEN_BANDS, "none", threads)
    radius = np.hypot(np.fft.fftfreq(grid[0])[:, None], np.fft.rfftfreq(grid[1])).ravel()[1:]
    edges = (0, TOKEN_BANDS.low, TOKEN_BANDS.mid, NYQUIST, np.inf)
    # as in `spectra`, a frequency on an edge belongs to the lower band
    there = np.histogram(radius - 1e-9, edges)[0] > 0
    return {f"energy_{band}": energies[:, i] for i, band in enumerate(BANDS) if there[i]}


@contextmanager
def replaying(
    denoiser: Denoiser, layers: Mapping[str, str]
) -> Iterator[Callable[[Tensor, NoiseLevel, Mapping[str, Tensor]], dict[str, Tensor]]]:
    """A function that runs the model once on states x_t and gives the tokens of every layer, alias -> (B, T, D).

    layers: alias -> module path. Tokens are on the device, without gradients; nothing is kept between calls. The
    function raises ValueError that names a layer which gives no tokens of every sample.
    """
    import torch

    from diffalign.extraction.taps import Taps

    with Taps(denoiser.module, layers, denoiser.tokens) as taps:

        def replay(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> dict[str, Tensor]:
            with torch.inference_mode():
                caught = taps.run(lambda: denoiser.run(x_t, level, conditioning))
            for alias, tokens in caught.items():
                if tokens.ndim != 3 or len(tokens) != len(x_t):
                    shape = tuple(tokens.shape)
                    raise ValueError(f"layer {alias}: gave tokens of shape {shape} for {len(x_t)} samples")
            return caught

        yield replay


def check_finite(tokens: Tensor, layer: str, step: int, names: Sequence[str]) -> None:
    """Raise ValueError that names layer, step and the first five samples whose tokens are NaN or infinite."""
    bad = ~tokens.flatten(1).isfinite().all(1)
    if bad.any():
        offenders = first_five(flagged(names, bad.tolist()))
        raise ValueError(f"layer {layer}, step {step}: activations are NaN or infinite for {offenders}")
