"""Trajectories by schedulers of diffusers, call by call as a pipeline makes them.

A scheduler makes one call of the model for each of its time steps. Some calls look ahead: the second order ones of Heun
(Karras et al. 2022, algorithm 1), and the second call of PNDM (Liu et al. 2022), whose estimate corrects the step
that led there. They stand at the level of the call after them, which is the one that the trajectory goes on from.
So of calls at one level the last is the state, and those before it belong to the step that leads to it: states have
noise levels that fall, and their number is that of distinct levels, and one.

States are in the scale that the model reads, after `scale_model_input`: α² + σ² = 1, or α + σ = 1 for flow matching.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.models import schedules
from diffalign.noise import NoiseLevel
from diffalign.randomness import keyed, one_each
from diffalign.sampling.trajectories import Around, Predict, State, check_finite


@dataclass(frozen=True)
class Call:
    """One call of the model. index: into the time steps of the scheduler. step: which step it is made for, from 0.

    is_state: whether the trajectory goes on from where it is made; else it looks ahead from the step.
    """

    index: int
    step: int
    level: NoiseLevel
    is_state: bool


@dataclass(frozen=True, eq=False)
class Timetable:
    """What a scheduler will do. scheduler: with its time steps set, and no step made. levels: of states, and t = 0."""

    scheduler: Any
    calls: tuple[Call, ...]
    levels: tuple[NoiseLevel, ...]


def timetable(scheduler: Any, clean: float, strength: float | None = None) -> Timetable:
    """The calls of a scheduler whose time steps are set.

    clean: the clock of the model at t = 0, where all schedulers end. strength: the t in (0, 1] that begins; the state
    whose t is nearest to it is the first, and steps before it are left out, as img2img pipelines do.
    Raises ValueError for noise levels that do not fall, and where fewer than two steps are left.
    """
    every = [schedules.level_of_call(scheduler, index) for index in range(len(scheduler.timesteps))]
    states = [i for i, level in enumerate(every) if i == len(every) - 1 or every[i + 1] != level]
    noises = [every[i].t for i in states]
    if any(a <= b for a, b in itertools.pairwise([*noises, 0.0])):
        raise ValueError(
            f"{type(scheduler).__name__} has noise levels t = {', '.join(f'{t:g}' for t in noises)} under its "
            "configuration; expected ones that fall"
        )
    first = 0 if strength is None else min(range(len(states)), key=lambda i: abs(noises[i] - strength))
    kept = states[first:]
    if type(scheduler).__name__ == "LMSDiscreteScheduler" and first > 0:
        # it takes as many past estimates as its index says, so that it must begin with the first
        cut = copy.deepcopy(scheduler)
        cut.timesteps, cut.sigmas = cut.timesteps[kept[0] :], cut.sigmas[kept[0] :]
        return timetable(cut, clean)
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} step of {type(scheduler).__name__} is left from t = {noises[first]:.3f} on; dynamics need at "
            "least 2, so ask for more steps or a higher strength"
        )
    calls = [Call(kept[0], 0, every[kept[0]], True)]
    # PNDM looks ahead in its first step wherever it begins, though its time steps say so for the very first alone
    warms_up = type(scheduler).__name__ == "PNDMScheduler" and first > 0
    for step, (before, here) in enumerate(itertools.pairwise(kept)):
        ahead = [here] if warms_up and step == 0 else range(before + 1, here)
        calls += [Call(index, step, every[index], False) for index in ahead]
        calls.append(Call(here, step + 1, every[here], True))
    return Timetable(scheduler, tuple(calls), (*(every[i] for i in kept), NoiseLevel(1.0, 0.0, clean)))


def generators(names: Sequence[str], model: str, seed: int | Sequence[int]) -> list[torch.Generator]:
    """What schedulers draw noise of their steps by, one a sample: keyed by (seed, model, name of the sample).

    seed: one for all samples, or one for each.
    """
    purpose = f"sampling\x00scheduler\x00{model}"
    seeds = [int(keyed(own, purpose, name).integers(2**63)) for own, name in one_each(seed, names)]
    return [torch.Generator().manual_seed(each) for each in seeds]


def from_noise(table: Timetable, noise: Tensor) -> Tensor:
    """The first latents, in the scale of the scheduler, of standard normal noise (B, C, H, W), as a pipeline's."""
    return noise * float(getattr(table.scheduler, "init_noise_sigma", 1.0))


def from_latents(table: Timetable, x_t: Tensor) -> Tensor:
    """The first latents, in the scale of the scheduler, of x_t (B, C, H, W) at the first level."""
    scheduler = _begun(table)
    return x_t / _scaled(scheduler, torch.ones_like(x_t), scheduler.timesteps[table.calls[0].index])


def scheduled(
    table: Timetable,
    predict: Predict,
    first: Tensor,
    conditioning: Mapping[str, Tensor],
    names: Sequence[str],
    drawing: Sequence[torch.Generator],
    around: Around = nullcontext,
) -> Iterator[State]:
    """Every state of a batch, one a level, the last at t = 0; `predict` may be guided.

    first: from `from_noise` or `from_latents`. drawing: from `generators`. around: entered around all calls of the
    model in a step, with the number of the step. Raises ValueError that names the step and the first five samples where
    latents become NaN or infinite.
    """
    scheduler, latents = _begun(table), first
    draws = "generator" in inspect.signature(scheduler.step).parameters
    drawn_by = {"generator": list(drawing)} if draws else {}
    for step, calls in itertools.groupby(table.calls, key=lambda call: call.step):
        states = []
        with around(step):
            for call in calls:
                timestep = scheduler.timesteps[call.index]
                x_t = _scaled(scheduler, latents, timestep)
                prediction = predict(x_t, call.level, conditioning)
                if call.is_state:
                    states.append(State(call.level, x_t, None, prediction))
                output = schedules.as_output(scheduler, prediction, call.level)
                latents = scheduler.step(output, timestep, latents, return_dict=False, **drawn_by)[0]
                check_finite([latents], names, call.step + 1, table.levels)
        yield from states
    yield State(table.levels[-1], latents, None, None)


def _begun(table: Timetable) -> Any:
    """A scheduler of its own for one batch, since it keeps what earlier calls gave."""
    scheduler = copy.deepcopy(table.scheduler)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(table.calls[0].index)
    return scheduler


def _scaled(scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
    """Latents as the model reads them; schedulers of flow matching have one scale."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    scaled: Tensor = scheduler.scale_model_input(latents, timestep)
    return scaled
