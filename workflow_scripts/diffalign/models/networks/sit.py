"""SiT (Ma et al. 2024), under the names of its published state dict."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffalign.models.networks.latent_transformers import Architecture, LatentTransformer


@dataclass(frozen=True)
class SiTArchitecture(Architecture):
    """learn_sigma: whether the model also predicts a variance, in as many channels again."""

    learn_sigma: bool


class SiT(LatentTransformer):
    """All stages are tokens (B, T, D)."""

    def __init__(self, architecture: SiTArchitecture) -> None:
        super().__init__(architecture, architecture.in_channels * (2 if architecture.learn_sigma else 1))

    def forward(self, latents: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, C, H, W), without the variance."""
        predicted: Tensor = super().forward(latents, t, labels)
        return predicted[:, : self.architecture.in_channels]
