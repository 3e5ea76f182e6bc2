"""Alignment of a layer with the tokens of a teacher, the part of REPA's loss (Yu et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffalign.extraction.taps import Taps
from diffalign.models import Trainable
from diffalign.specs import Training
from diffalign.training import draws
from diffalign.training.batches import Batch


class TeacherAlignment:
    """The layer of a network that is aligned, and its projector to the width of the teacher.

    projector: three linear layers with SiLU between them, as published; ``projector`` of the recipe is the width of the
    inner two. Its weights are drawn apart from those of the network, which are then the same with and without it.
    """

    def __init__(self, network: Trainable, alias: str, path: str, recipe: Training, seed: int, example: Batch) -> None:
        """alias, path: of the layer, whose output is tokens (B, T, D). example: images of the training, whose
        ``teacher`` has T tokens each.

        Raises ValueError where there is no such layer, or it gives something else than tokens, or another number.
        """
        self._alias = alias
        self._taps = Taps(network.module, {alias: path}, lambda output: output)
        latents, labels = example.tensors["latents"], example.tensors["labels"]
        with torch.no_grad():
            _, tokens = self.seen(lambda: network.run(latents, latents.new_full((len(latents),), 0.5), labels))
        teacher = example.tensors["teacher"]
        if tokens.ndim != 3 or tokens.shape[:2] != teacher.shape[:2]:
            raise ValueError(
                f"training.teacher_layer: layer '{alias}' gives {tuple(tokens.shape[1:])} for an image, but the "
                f"teacher {recipe.teacher} has {teacher.shape[1]} tokens of {teacher.shape[2]} numbers; the numbers of "
                "tokens must be equal"
            )
        width = recipe.projector
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draws.number(seed, "training projector"))
            self.projector = nn.Sequential(
                *(nn.Linear(tokens.shape[2], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
                nn.Linear(width, teacher.shape[2]),
            )
        self.projector.to(latents.device)

    def seen(self, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """What a pass of the network gives, and the tokens of the layer in it, with gradients."""
        given: list[Any] = []
        caught = self._taps.record(lambda: given.append(run()))
        return given[0], caught[self._alias][0]

    def cosine(self, tokens: Tensor, teacher: Tensor) -> Tensor:
        """The mean cosine, a scalar, of projected tokens (B, T, D) and those of the teacher (B, T, D')."""
        cosines: Tensor = functional.cosine_similarity(self.projector(tokens), teacher, dim=-1)
        return cosines.mean()
