"""Denoisers in closed form: the exact posterior mean of a stationary Gaussian, frequency by frequency.

Latents x0 have a mean μ for each channel, and frequencies that are independent Gaussians with power S(f), a density as
in `diffalign.dynamics.spectra`: |F(f)|² / (H W). Of x_t = α x0 + σ ε, with white ε of variance 1, the posterior means
are those of the Wiener filter (Wiener 1949),

    x̂0(f) = μ + α S / (α² S + σ²) (x_t(f) - α μ),    ε̂(f) = σ / (α² S + σ²) (x_t(f) - α μ),

where μ stands at f = 0 alone. Nothing is learned but μ and S.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.protocol import Denoiser, Prediction
from diffalign.models.tokens import spatial_tokens
from diffalign.noise import NoiseLevel

# of power and that of the opposite frequency, which belong to one wave
_SYMMETRY = 1e-4


@dataclass(frozen=True)
class FittedArchitecture:
    """Channels and side of latents."""

    in_channels: int
    input_size: int


@dataclass(frozen=True)
class PowerLawArchitecture:
    """Channels of latents of any size, and the exponent of 1 / f^exponent."""

    in_channels: int
    exponent: float


class Filter(nn.Module):
    """Weighs the frequencies of maps (B, C, H, W) by gains (C, H, W // 2 + 1), and adds a shift (C, 1, 1)."""

    def forward(self, maps: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """Maps of the same shape and type."""
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(maps) * gain, s=maps.shape[-2:])
        return filtered + shift


class GaussianDenoiser(nn.Module, ABC):
    """Posterior means under a Gaussian; ``estimate`` gives x̂0, ``noise`` gives ε̂, maps (B, C, H, W) both."""

    def __init__(self) -> None:
        super().__init__()
        self.estimate = Filter()
        self.noise = Filter()

    @abstractmethod
    def prior(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Mean (C, 1, 1) and power (C, H, W // 2 + 1) of latents of this size."""

    def forward(self, x_t: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """x̂0 and ε̂ in the precision of x_t (B, C, H, W), exact also at α = 0 and σ = 0.

        Without noise x_t is α x0, whatever the prior holds possible, so that frequencies without power are kept there.
        """
        mean, power = (each.to(x_t) for each in self.prior(*x_t.shape[-2:]))
        variance = alpha**2 * power + sigma**2
        known = variance > 0
        safe = torch.where(known, variance, torch.ones_like(variance))
        of_image = torch.where(known, alpha * power / safe, torch.full_like(safe, 1 / alpha if alpha else 0.0))
        of_noise = torch.where(known, sigma / safe, torch.zeros_like(safe))
        centred = x_t - alpha * mean
        return self.estimate(centred, of_image, mean), self.noise(centred, of_noise, torch.zeros_like(mean))


class FittedGaussian(GaussianDenoiser):
    """With the mean (C,) and the power (C, S, S) of a checkpoint, over all frequencies in the order of `torch.fft`."""

    mean: Tensor
    power: Tensor

    def __init__(self, architecture: FittedArchitecture) -> None:
        super().__init__()
        channels, side = architecture.in_channels, architecture.input_size
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("power", torch.ones(channels, side, side))

    def prior(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Those of the checkpoint. Raises ValueError for latents of another size."""
        if (height, width) != tuple(self.power.shape[-2:]):
            side = self.power.shape[-1]
            raise ValueError(f"latents of {height} x {width}; the power is of {side} x {side}")
        return self.mean[:, None, None], self.power[..., : width // 2 + 1]


class PowerLaw(GaussianDenoiser):
    """With mean 0 and power 1 / |f|^exponent for latents of any size, in all channels, scaled to a variance.

    The frequency 0 has the power of the lowest one above it, f = 1 / side of the shorter side.
    """

    mean: Tensor

    def __init__(self, architecture: PowerLawArchitecture, variance: float) -> None:
        super().__init__()
        self.exponent, self.variance = architecture.exponent, variance
        self.register_buffer("mean", torch.zeros(architecture.in_channels), persistent=False)

    def prior(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """For latents of this size."""
        rows = torch.fft.fftfreq(height, dtype=torch.float64)
        radius = torch.hypot(rows[:, None], torch.fft.fftfreq(width, dtype=torch.float64))
        power = radius.clamp(min=1 / min(height, width)) ** -self.exponent
        power = power * (self.variance / power.mean())
        half = power[:, : width // 2 + 1].to(self.mean.device)
        return self.mean[:, None, None], half.expand(len(self.mean), -1, -1)


def gaussian_denoiser(
    net: GaussianDenoiser,
    channels: int,
    level: Callable[[str], NoiseLevel],
    device: torch.device,
    only_side: int | None = None,
) -> Denoiser:
    """A network of this module as a denoiser without conditioning; all positions are averaged."""
    net.eval().to(device)

    def run(x_t: Tensor, at: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Any:
        return net(x_t, at.alpha, at.sigma)

    def convert(output: Any, x_t: Tensor, at: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Prediction:
        return Prediction(*output)

    facts = {"tokens": "all", "pooling": "mean"}
    return Denoiser(net, level, run, convert, spatial_tokens, channels, facts, only_side=only_side)


def check_power(mean: Tensor, power: Tensor, place: str) -> None:
    """Raise CheckpointError for a mean (C,) and power (C, S, S) that no real latents have.

    Power is not negative, and the same at a frequency and the opposite one.
    """
    if mean.ndim != 1 or power.ndim != 3 or power.shape[1] != power.shape[2] or len(mean) != len(power):
        raise CheckpointError(
            f"{place}: mean {tuple(mean.shape)} and power {tuple(power.shape)}; expected (C,) and (C, S, S)"
        )
    if not (mean.isfinite().all() and power.isfinite().all() and (power >= 0).all()):
        raise CheckpointError(f"{place}: mean or power is NaN or infinite, or power is negative")
    unlike = (power - opposite(power)).abs().max()
    if unlike > _SYMMETRY * power.max():
        raise CheckpointError(f"{place}: power differs by {float(unlike):.3g} between opposite frequencies")


def opposite(power: Tensor) -> Tensor:
    """The same power (…, H, W) with -f in the place of f."""
    return power.flip((-2, -1)).roll((1, 1), (-2, -1))


def fitted(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The stationary Gaussian of latents: mean (C,) and power (C, H, W), float64.

    batches: (B, C, H, W) each, all of one size. The mean is over images and positions. The power is the mean
    periodogram of latents less that mean, without a window, as the latents of a diffusion model have none: the power at
    f = 0 is H W times the variance of the means of images. Raises ValueError for no latents, several sizes, and a
    result that is NaN or infinite.
    """
    count, sums, squares = 0, torch.zeros(()), torch.zeros(())
    size: torch.Size | None = None
    for batch in batches:
        if size is not None and batch.shape[1:] != size:
            raise ValueError(f"latents of shapes {tuple(size)} and {tuple(batch.shape[1:])}; expected one")
        size = batch.shape[1:]
        latents = batch.double()
        sums = sums + latents.mean((-2, -1)).sum(0)
        squares = squares + torch.fft.fft2(latents).abs().square().sum(0)
        count += len(batch)
    if size is None or not count:
        raise ValueError("no latents, so they have no mean and no power")
    positions = size[-2] * size[-1]
    mean, power = sums / count, squares / (count * positions)
    # the mean of all images is at f = 0 alone; rounding may leave less than nothing there
    power[:, 0, 0] = (power[:, 0, 0] - positions * mean.square()).clamp(min=0)
    power = (power + opposite(power)) / 2
    if not (mean.isfinite().all() and power.isfinite().all()):
        raise ValueError("latents have a mean or a power that is NaN or infinite")
    return mean, power


def state_of(mean: Tensor, power: Tensor) -> dict[str, Tensor]:
    """The state dict of a `FittedGaussian`: float32 tensors ``mean`` (C,) and ``power`` (C, S, S), and nothing else."""
    return {"mean": mean.float().contiguous(), "power": power.float().contiguous()}
