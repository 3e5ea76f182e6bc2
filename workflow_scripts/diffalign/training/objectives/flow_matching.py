"""Flow matching (Lipman et al. 2023) on the path of the model, conditioned on classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffalign.models import Trainable
from diffalign.specs import Training
from diffalign.training import draws
from diffalign.training.batches import Batch
from diffalign.training.objectives.alignment import TeacherAlignment
from diffalign.training.objectives.objective import Objective

TIMES = ("uniform", "lognormal")


def flow_matching(
    network: Trainable, recipe: Training, path: str, seed: int, aligned: TeacherAlignment | None = None
) -> Objective:
    """Mean squared error of the velocity dx_t/dτ = α' x0 + σ' ε, at a time of its own for each image.

    The share ``label_dropout`` of labels is replaced by the null label (Ho and Salimans 2022). With a teacher,
    ``teacher_weight`` times one minus the mean cosine of its tokens and the projected ones is added, which is REPA's
    loss but for a constant (Yu et al. 2025). Parts: ``velocity``, and with a teacher ``cosine``.
    """

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        clean = batch.tensors["latents"]
        count = len(clean)
        noise = draws.normal(tuple(clean.shape), seed, "training noise", step).to(clean)
        tau = times(recipe.times, count, seed, step).to(clean)
        alpha, sigma, d_alpha, d_sigma = (each.view(-1, 1, 1, 1) for each in path_at(path, tau))
        dropped = draws.uniform((count,), seed, "training label dropout", step) < recipe.label_dropout
        assert network.classes is not None  # the family is conditioned on labels
        labels = torch.where(dropped.to(clean.device), network.classes, batch.tensors["labels"])
        x_t, target = alpha * clean + sigma * noise, d_alpha * clean + d_sigma * noise
        if aligned is None:
            velocity = (network.run(x_t, tau, labels) - target).square().mean()
            return {"loss": velocity, "velocity": velocity}
        predicted, tokens = aligned.seen(lambda: network.run(x_t, tau, labels))
        velocity = (predicted - target).square().mean()
        cosine = aligned.cosine(tokens, batch.tensors["teacher"])
        return {"loss": velocity + recipe.teacher_weight * (1 - cosine), "velocity": velocity, "cosine": cosine}

    if aligned is None:
        return Objective(("velocity",), measure)
    return Objective(("velocity", "cosine"), measure, aligned.projector)


def times(kind: str, count: int, seed: int, step: int) -> Tensor:
    """Times τ (B,) in (0, 1), float32: uniform, or the logistic of a standard normal (Esser et al. 2024).

    Raises ValueError for another kind.
    """
    if kind == "uniform":
        return draws.uniform((count,), seed, "training times", step)
    if kind == "lognormal":
        return draws.normal((count,), seed, "training times", step).sigmoid()
    raise ValueError(f"unknown times '{kind}'; allowed: {', '.join(TIMES)}")


def path_at(path: str, tau: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """α, σ and their derivatives by τ, (B,) each, of `diffalign.noise.on_path`. Raises ValueError for another path."""
    if path == "linear":
        ones = torch.ones_like(tau)
        return 1 - tau, tau, -ones, ones
    if path == "cosine":
        angle = torch.pi / 2 * tau
        alpha, sigma = angle.cos(), angle.sin()
        return alpha, sigma, -torch.pi / 2 * sigma, torch.pi / 2 * alpha
    raise ValueError(f"unknown path '{path}'; allowed: linear, cosine")
