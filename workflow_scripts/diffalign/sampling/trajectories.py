"""The probability-flow ODE of a denoiser and its SDE, from noise to latents, one state after the other.

All paths are one ODE. With y = x_t / (α + σ) and t = σ/(α + σ), noisy latents x_t = α x0 + σ ε become
y = (1 - t) x0 + t ε, the linear path of flow matching, whatever the schedule is. The ODE of a path is
dx_t/dτ = α' E[x0 | x_t] + σ' E[ε | x_t] (Song et al. 2021, equation 13; Lipman et al. 2023; Albergo et al. 2023). A
factor c(τ) changes it to that of the path (cα, cσ), because x_t = α E[x0 | x_t] + σ E[ε | x_t]. So

    dy/dt = E[ε | x_t] - E[x0 | x_t],

which has no pole at t = 0 or t = 1, and needs only the two estimates that every denoiser gives. An Euler step in (y, t)
from t to s is x_s = α_s x0 + σ_s eps, the deterministic step of DDIM (Song, Meng and Ermon 2021, equation 12, η = 0):
y_s = y_t + (s - t)(eps - x0) = (1 - s) x0 + s eps. Heun's method in (y, t) is of second order.

The SDE that runs the forward process backwards (Song et al. 2021, equation 6) has the same marginals. Its step from t
to s integrates the linear part exactly and holds the estimates: with ρ = (σ_s/α_s) / (σ_t/α_t),

    x_s = α_s x0 + σ_s (ρ eps + sqrt(1 - ρ²) z),    z standard normal,

the posterior of the forward process (Ho et al. 2020, equation 7; Song, Meng and Ermon 2021, equations 12 and 16 with
η = 1), in α and σ alone, so that it holds on every path. It is of first order; the step to t = 0 is without noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.models import Denoiser, Prediction
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five, flagged
from diffalign.specs import SAMPLERS

CLASS_TOKENS = "class_tokens"
_BISECTIONS = 40

# the estimates of a denoiser of x_t (B, C, H, W) at a noise level under conditioning, as `Denoiser.predict`
Predict = Callable[[Tensor, NoiseLevel, Mapping[str, Tensor]], Prediction]
# of a step: standard normals, one tensor for latents and one for class tokens where there are any
StepNoise = Callable[[int], Sequence[Tensor]]
# of a step: entered around every call of the model that belongs to it
Around = Callable[[int], AbstractContextManager[object]]


@dataclass(frozen=True)
class State:
    """Where a trajectory is. latents: x_t (B, C, H, W). class_tokens: (B, D) at the same level, for a model that has
    them. prediction: what the sampler was told there; None at t = 0, where it asks nothing.
    """

    level: NoiseLevel
    latents: Tensor
    class_tokens: Tensor | None
    prediction: Prediction | None


def guided(predict: Predict, null: Mapping[str, Tensor], scale: float) -> Predict:
    """Estimates under classifier-free guidance: eps = eps_null + scale (eps_conditional - eps_null), x0 likewise.

    null: the conditioning that stands for none, one row an image. scale: 1 is the conditional model, whose null is then
    not run; 0 is the model without conditioning. It is 1 + w in Ho and Salimans (2022, equation 6). x0 is linear in eps
    at a given x_t, so guidance of one is guidance of the other, and of the velocity. All channels are guided.
    """
    if scale == 1:
        return predict

    def both(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Prediction:
        # class tokens are a part of the state, not of the condition
        state = {key: value for key, value in conditioning.items() if key == CLASS_TOKENS}
        return _mixed(predict(x_t, level, {**null, **state}), predict(x_t, level, conditioning), scale)

    return both


def _mixed(null: Prediction, conditional: Prediction, scale: float) -> Prediction:
    tokens = None
    if null.class_tokens is not None and conditional.class_tokens is not None:
        tokens = _mixed(null.class_tokens, conditional.class_tokens, scale)
    x0, eps = (a + scale * (b - a) for a, b in ((null.x0, conditional.x0), (null.eps, conditional.eps)))
    return Prediction(x0, eps, tokens)


def first_level(denoiser: Denoiser, latents: Tensor, conditioning: Mapping[str, Tensor]) -> float:
    """The t in [0, 1] at which a denoiser can begin.

    1 where its prediction at t = 1 says something of the image, as a velocity does. Noise that a model predicts there
    does not: it begins at the noisiest level of its schedule, the smallest t at which its clock is that of t = 1.
    latents: some that the model reads, with their conditioning, to ask it once.
    """
    last = denoiser.level("t1")
    try:
        denoiser.predict(latents, last, conditioning)
    except ValueError:
        if last.alpha != 0:
            raise
    else:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if denoiser.level(f"t{middle!r}").timestep == last.timestep:
            high = middle
        else:
            low = middle
    return high


def levels(denoiser: Denoiser, steps: int, first: float = 1.0) -> list[NoiseLevel]:
    """The noise levels of `steps` steps, equally far from each other in t, from `first` to 0; one more than steps.

    Levels of a model with discrete steps are those of its steps that are nearest; the last is without noise for all.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps; expected at least 1")
    noisy = [denoiser.level(f"t{first * (1 - number / steps)!r}") for number in range(steps)]
    return [*noisy, NoiseLevel(1.0, 0.0, denoiser.level("t0").timestep)]


def trajectory(
    predict: Predict,
    at: Sequence[NoiseLevel],
    noise: Tensor,
    conditioning: Mapping[str, Tensor],
    names: Sequence[str],
    sampler: str,
    class_noise: Tensor | None = None,
    step_noise: StepNoise | None = None,
    around: Around = nullcontext,
) -> Iterator[State]:
    """Every state from noise to latents, one a level, the last without noise.

    at: noise levels, t falling to 0. noise: (B, C, H, W), standard normal; the first state is sqrt(α² + σ²) noise, the
    distribution of x_t for latents of unit variance, and exact where α is 0. class_noise: (B, D), for a model that
    denoises class tokens beside latents. All else, and what is raised, is as in `onwards`.
    """
    _check_levels(at)
    scale = math.hypot(at[0].alpha, at[0].sigma)
    first = [scale * each for each in (noise, class_noise) if each is not None]
    yield from onwards(predict, at, first, conditioning, names, sampler, step_noise, around)


def onwards(
    predict: Predict,
    at: Sequence[NoiseLevel],
    first: Sequence[Tensor],
    conditioning: Mapping[str, Tensor],
    names: Sequence[str],
    sampler: str,
    step_noise: StepNoise | None = None,
    around: Around = nullcontext,
) -> Iterator[State]:
    """Every state from a given one on, one a level, the last without noise.

    at: noise levels, t falling to 0. first: x_t (B, C, H, W) at the first of them, and class tokens (B, D) for a model
    that denoises them. names: of the images, for errors.
    sampler: ``euler`` and ``sde`` ask the model once a step. ``heun`` asks it twice, but once in the last step: at
    t = 0 there is no noise to estimate (Karras et al. 2022, algorithm 1). step_noise: of ``sde``, by the number of the
    step, 0 for the first. around: entered around all calls of the model in a step, with the number of the step.
    Raises ValueError for another sampler or order of levels, and that names the step, its noise level and the first
    five images where latents become NaN or infinite.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler '{sampler}'; allowed: {', '.join(SAMPLERS)}")
    if sampler == "sde" and step_noise is None:
        raise ValueError("sampler 'sde' needs the noise of its steps")
    _check_levels(at)
    parts = list(first)

    def ask(state: Sequence[Tensor], level: NoiseLevel) -> Prediction:
        tokens = {CLASS_TOKENS: state[1]} if len(state) > 1 else {}
        return predict(state[0], level, {**conditioning, **tokens})

    for step, (here, there) in enumerate(itertools.pairwise(at)):
        with around(step):
            prediction = ask(parts, here)
            estimates = _estimates(prediction, len(parts))
            if step_noise is not None and sampler == "sde":
                # the last step has none
                drawn = step_noise(step) if there.sigma > 0 else [torch.zeros_like(part) for part in parts]
                reached = [_diffused(*pair, here, there) for pair in zip(estimates, drawn, strict=True)]
            else:
                slopes = _slopes(estimates)
                reached = _moved(parts, slopes, here, there)
                if sampler == "heun" and there.sigma > 0:
                    ahead = _slopes(_estimates(ask(reached, there), len(parts)))
                    mean = [(a + b) / 2 for a, b in zip(slopes, ahead, strict=True)]
                    reached = _moved(parts, mean, here, there)
        yield State(here, parts[0], parts[1] if len(parts) > 1 else None, prediction)
        parts = reached
        check_finite(parts, names, step + 1, at)
    yield State(at[-1], parts[0], parts[1] if len(parts) > 1 else None, None)


def check_finite(parts: Sequence[Tensor], names: Sequence[str], number: int, at: Sequence[NoiseLevel]) -> None:
    """Raise ValueError that names the step and the first five images where what it gave is NaN or infinite.

    parts: (B, …) each, what step `number`, counted from 1, gave. at: all noise levels.
    """
    bad = ~torch.stack([part.flatten(1).isfinite().all(1) for part in parts]).all(0)
    if bad.any():
        raise ValueError(
            f"latents are NaN or infinite after step {number} of {len(at) - 1}, from t = {at[number - 1].t:.3f} to "
            f"{at[number].t:.3f}, for {first_five(flagged(names, bad.tolist()))}"
        )


def _check_levels(at: Sequence[NoiseLevel]) -> None:
    if len(at) < 2 or at[-1].t != 0 or any(a.t <= b.t for a, b in itertools.pairwise(at)):
        raise ValueError(f"noise levels t = {', '.join(f'{each.t:g}' for each in at)}; expected ones that fall to 0")


def _estimates(prediction: Prediction, parts: int) -> list[tuple[Tensor, Tensor]]:
    """(x0, eps) of latents, and of class tokens where there are any."""
    estimates = [(prediction.x0, prediction.eps)]
    if parts > 1:
        assert prediction.class_tokens is not None  # the model reads them
        estimates.append((prediction.class_tokens.x0, prediction.class_tokens.eps))
    return estimates


def _slopes(estimates: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Dy/dt = eps - x0."""
    return [eps - x0 for x0, eps in estimates]


def _moved(parts: Sequence[Tensor], slopes: Sequence[Tensor], here: NoiseLevel, there: NoiseLevel) -> list[Tensor]:
    """x_s of x_t: y moves by (s - t) times its slope."""
    into, out_of = there.alpha + there.sigma, here.alpha + here.sigma
    return [into * (part / out_of + (there.t - here.t) * slope) for part, slope in zip(parts, slopes, strict=True)]


def _diffused(estimates: tuple[Tensor, Tensor], noise: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """x_s of x_t by the step of the SDE."""
    x0, eps = estimates
    kept = there.sigma * here.alpha / (there.alpha * here.sigma)
    return there.alpha * x0 + there.sigma * (kept * eps + math.sqrt(1 - kept**2) * noise)
