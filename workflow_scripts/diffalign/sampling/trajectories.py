"""The probability-flow ODE of a denoiser, from noise to latents, one state after the other.

All paths are one ODE. With y = x_t / (α + σ) and t = σ/(α + σ), noisy latents x_t = α x0 + σ ε become
y = (1 - t) x0 + t ε, the linear path of flow matching, whatever the schedule is. The ODE of a path is
dx_t/dτ = α' E[x0 | x_t] + σ' E[ε | x_t] (Song et al. 2021, equation 13; Lipman et al. 2023; Albergo et al. 2023). A
factor c(τ) changes it to that of the path (cα, cσ), because x_t = α E[x0 | x_t] + σ E[ε | x_t]. So

    dy/dt = E[ε | x_t] - E[x0 | x_t],

which has no pole at t = 0 or t = 1, and needs only the two estimates that every denoiser gives. An Euler step in (y, t)
from t to s is x_s = α_s x0 + σ_s eps, the deterministic step of DDIM (Song, Meng and Ermon 2021, equation 12, η = 0):
y_s = y_t + (s - t)(eps - x0) = (1 - s) x0 + s eps. Heun's method in (y, t) is of second order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.models import Denoiser, Prediction
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five, flagged

SAMPLERS = ("euler", "heun")
CLASS_TOKENS = "class_tokens"
_BISECTIONS = 40

# the estimates of a denoiser of x_t (B, C, H, W) at a noise level under conditioning, as `Denoiser.predict`
Predict = Callable[[Tensor, NoiseLevel, Mapping[str, Tensor]], Prediction]


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
) -> Iterator[State]:
    """Every state from noise to latents, one a level, the last without noise.

    at: noise levels, t falling to 0. noise: (B, C, H, W), standard normal; the first state is sqrt(α² + σ²) noise, the
    distribution of x_t for latents of unit variance, and exact where α is 0. names: of the images, for errors.
    class_noise: (B, D), for a model that denoises class tokens beside latents.
    sampler: ``euler`` asks the model once a step. ``heun`` asks it twice, but once in the last step: at t = 0 there is
    no noise to estimate (Karras et al. 2022, algorithm 1).
    Raises ValueError for another sampler or order of levels, and that names the step, its noise level and the first
    five images where latents become NaN or infinite.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler '{sampler}'; allowed: {', '.join(SAMPLERS)}")
    if len(at) < 2 or at[-1].t != 0 or any(a.t <= b.t for a, b in itertools.pairwise(at)):
        raise ValueError(f"noise levels t = {', '.join(f'{each.t:g}' for each in at)}; expected ones that fall to 0")
    scale = math.hypot(at[0].alpha, at[0].sigma)
    parts = [scale * each for each in (noise, class_noise) if each is not None]

    def ask(state: Sequence[Tensor], level: NoiseLevel) -> Prediction:
        tokens = {CLASS_TOKENS: state[1]} if len(state) > 1 else {}
        return predict(state[0], level, {**conditioning, **tokens})

    for number, (here, there) in enumerate(itertools.pairwise(at), 1):
        prediction = ask(parts, here)
        yield State(here, parts[0], parts[1] if len(parts) > 1 else None, prediction)
        slopes = _slopes(prediction, len(parts))
        reached = _moved(parts, slopes, here, there)
        if sampler == "heun" and there.sigma > 0:
            ahead = _slopes(ask(reached, there), len(parts))
            mean = [(a + b) / 2 for a, b in zip(slopes, ahead, strict=True)]
            reached = _moved(parts, mean, here, there)
        parts = reached
        bad = ~torch.stack([part.flatten(1).isfinite().all(1) for part in parts]).all(0)
        if bad.any():
            raise ValueError(
                f"latents are NaN or infinite after step {number} of {len(at) - 1}, from t = {here.t:.3f} to "
                f"{there.t:.3f}, for {first_five(flagged(names, bad.tolist()))}"
            )
    yield State(at[-1], parts[0], parts[1] if len(parts) > 1 else None, None)


def _slopes(prediction: Prediction, parts: int) -> list[Tensor]:
    """Dy/dt = eps - x0, of latents and of class tokens where there are any."""
    slopes = [prediction.eps - prediction.x0]
    if parts > 1:
        assert prediction.class_tokens is not None  # the model reads them
        slopes.append(prediction.class_tokens.eps - prediction.class_tokens.x0)
    return slopes


def _moved(parts: Sequence[Tensor], slopes: Sequence[Tensor], here: NoiseLevel, there: NoiseLevel) -> list[Tensor]:
    """x_s of x_t: y moves by (s - t) times its slope."""
    into, out_of = there.alpha + there.sigma, here.alpha + here.sigma
    return [into * (part / out_of + (there.t - here.t) * slope) for part, slope in zip(parts, slopes, strict=True)]
