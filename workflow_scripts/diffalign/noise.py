"""Noise levels: one definition for all schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class NoiseLevel:
    """Where on its way from image to noise a latent is.

    x = alpha * z + sigma * ε. timestep: the model's input, in its own clock. strength: the published img2img strength
    that was asked for, in per cent, or None.
    """

    alpha: float
    sigma: float
    timestep: float
    strength: int | None = None

    @property
    def t(self) -> float:
        """σ/(α + σ) in [0, 1]: 0 is clean, 1 is noise, equal t means equal log-SNR on every schedule."""
        return self.sigma / (self.alpha + self.sigma)

    @property
    def log_snr(self) -> float:
        """2 ln(α/σ); infinite at the ends."""
        if self.sigma == 0:
            return math.inf
        return -math.inf if self.alpha == 0 else 2 * math.log(self.alpha / self.sigma)

    def facts(self) -> dict[str, float | int | str | None]:
        """What the recipe records; an infinite log-SNR as text, since JSON has no infinity."""
        log_snr = self.log_snr
        return {**asdict(self), "t": self.t, "log_snr": log_snr if math.isfinite(log_snr) else str(log_snr)}


def log_snr(t: float) -> float:
    """2 ln(α/σ) at the noise level t = σ/(α + σ): infinite at 0, minus infinity at 1; NaN for NaN. Raises ValueError
    outside of [0, 1].
    """
    if math.isnan(t):
        return math.nan
    if not 0 <= t <= 1:
        raise ValueError(f"t = {t} is outside [0, 1]")
    if t in (0, 1):
        return math.inf if t == 0 else -math.inf
    return 2 * math.log((1 - t) / t)


def linear(t: float) -> tuple[float, float]:
    """(α, σ) = (1 - t, t), the linear path of flow matching."""
    if not 0 <= t <= 1:
        raise ValueError(f"t = {t} is outside [0, 1]")
    return 1 - t, t


def on_path(path: str, t: float) -> tuple[float, float, float]:
    """α, σ and the path's own time τ at the noise level t = σ/(α + σ).

    ``linear``: (1 - τ, τ), where τ is t. ``cosine``: (cos(πτ/2), sin(πτ/2)). Raises ValueError for another path.
    """
    if path == "linear":
        return *linear(t), t
    if path == "cosine":
        alpha, sigma = linear(t)
        length = math.hypot(alpha, sigma)
        return alpha / length, sigma / length, 2 / math.pi * math.atan2(sigma, alpha)
    raise ValueError(f"unknown path '{path}'; allowed: linear, cosine")


def path_slopes(path: str, alpha: float, sigma: float) -> tuple[float, float]:
    """The derivatives of α and σ by the path's own time τ, where α and σ are these.

    ``linear``: (-1, 1). ``cosine``: π/2 (-σ, α). Raises ValueError for another path.
    """
    if path == "linear":
        return -1.0, 1.0
    if path == "cosine":
        return -math.pi / 2 * sigma, math.pi / 2 * alpha
    raise ValueError(f"unknown path '{path}'; allowed: linear, cosine")


def nearest_step(alphas_cumprod: Sequence[float], t: float) -> NoiseLevel:
    """The step of a discrete schedule, given by its ᾱ (α = √ᾱ, σ = √(1 - ᾱ)), whose σ/(α + σ) is nearest to t."""
    if not 0 <= t <= 1:
        raise ValueError(f"t = {t} is outside [0, 1]")
    levels = [NoiseLevel(math.sqrt(kept), math.sqrt(1 - kept), step) for step, kept in enumerate(alphas_cumprod)]
    return min(levels, key=lambda level: abs(level.t - t))
