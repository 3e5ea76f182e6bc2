"""Reconstruction with the Kullback-Leibler divergence of the posterior from a standard normal."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffalign.models import Trainable
from diffalign.specs import Training
from diffalign.training import draws
from diffalign.training.batches import Batch
from diffalign.training.objectives.objective import Objective


def reconstruction(network: Trainable, recipe: Training, seed: int) -> Objective:
    """Mean squared error of pixels, as the model reads them, and ``kl`` times the divergence of the posterior.

    The divergence of an image is in nats, summed over its latent (Kingma and Welling 2014, appendix B), and the mean
    over images is taken. Latents are sampled. Parts: ``error`` and ``divergence``.
    """

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        pixels = batch.tensors["pixels"]

        def drawn(shape: tuple[int, ...]) -> Tensor:
            return draws.normal(shape, seed, "training posterior", step).to(pixels)

        made, mean, log_variance = network.run(pixels, drawn)
        error = (made - pixels).square().mean()
        divergence = divergence_from_normal(mean, log_variance).mean()
        return {"loss": error + recipe.kl * divergence, "error": error, "divergence": divergence}

    return Objective(("error", "divergence"), measure)


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² - 1 - ln σ²) in nats, (B,), of (B, …) each."""
    each: Tensor = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return each.flatten(1).sum(dim=1)
