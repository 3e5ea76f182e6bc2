"""The learning rate of each step."""

from __future__ import annotations

import math

from diffalign.specs import Training

SCHEDULES = ("cosine", "constant")


def learning_rate(recipe: Training, step: int) -> float:
    """The learning rate with which step `step`, from 1 to ``steps``, is made.

    It rises linearly in the first ``warmup`` steps, to the full rate at the last of them. After that it is constant, or
    falls along half a cosine (Loshchilov and Hutter 2017, without restarts), which reaches 0 one step after the last.
    Raises ValueError for another schedule.
    """
    if recipe.schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule '{recipe.schedule}'; allowed: {', '.join(SCHEDULES)}")
    if step <= recipe.warmup:
        return recipe.learning_rate * step / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    passed = (step - 1 - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))


def average_decay(recipe: Training, step: int) -> float:
    """How much of the average of weights is kept after step `step`: ``ema``, less in the first steps.

    min(ema, step / (9 + step)), so that the average forgets the weights that training begins with; a step counts from
    1, as an update does in TensorFlow's ExponentialMovingAverage, whose decay is min(decay, (1 + n) / (10 + n)) with n
    updates before.
    """
    return min(recipe.ema, step / (9 + step))
