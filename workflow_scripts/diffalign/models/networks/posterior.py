"""The latent of an autoencoder as a module of its own, so that it can be tapped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffalign.randomness import normal
from diffalign.specs import Model


class Posterior(nn.Module):
    """The moments of a diagonal Gaussian -> its mode, or a sample of it, as ``posterior`` of the model says."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def forward(self, moments: Tensor, names: Sequence[str]) -> Tensor:
        """(B, 2C, H, W), mean and log-variance, of the images of these names -> unnormalised latents (B, C, H, W).

        The log-variance is clamped to [-30, 20], as in latent-diffusion.
        """
        mean, log_variance = moments.chunk(2, dim=1)
        if self._model.posterior == "mode":
            return mean
        return mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * draws(mean, self._model, names)


def draws(mean: Tensor, model: Model, names: Sequence[str]) -> Tensor:
    """Standard normal draws of the shape of `mean` (B, C, H, W), one an image, keyed as `model` says."""
    made = [normal(tuple(mean.shape[1:]), model.noise_key, name, "posterior") for name in names]
    return torch.stack([torch.from_numpy(draw) for draw in made]).to(mean)
