"""SiT (Ma et al. 2024), under the names of its published state dict."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffalign.models.networks.latent_transformers import Architecture, LatentTransformer


@dataclass(frozen=True)
class SiTArchitecture(Architecture):
    """learn_sigma: whether the model also predicts a variance, in as many channels again. qk_norm: whether queries and
    keys are normalised.
    """

    learn_sigma: bool
    qk_norm: bool = False


class SiT(LatentTransformer):
    """All stages are tokens (B, T, D)."""

    def __init__(self, architecture: SiTArchitecture) -> None:
        channels = architecture.in_channels * (2 if architecture.learn_sigma else 1)
        super().__init__(architecture, channels, qk_norm=architecture.qk_norm)

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, C, H, W), without the variance."""
        predicted: Tensor = super().forward(latents, t, labels)
        return predicted[:, : self.architecture.in_channels]
