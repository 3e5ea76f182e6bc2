"""How trajectories begin, and their noise levels: from noise, from noised photographs, or photographs being noised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor

from diffalign.models import Denoiser
from diffalign.noise import NoiseLevel
from diffalign.sampling.trajectories import Around, Predict, State, check_finite, levels

STARTS = ("noise", "img2img", "noising")


def levels_of(denoiser: Denoiser, start: str, steps: int, first: float, strength: float | None) -> list[NoiseLevel]:
    """Noise levels of `steps` steps in t to 0: from `first`, where the model can begin; of img2img from the strength.

    Raises ValueError for another start, and for a strength that is no t in (0, first].
    """
    if start not in STARTS:
        raise ValueError(f"unknown start '{start}'; allowed: {', '.join(STARTS)}")
    if start != "img2img":
        return levels(denoiser, steps, first)
    if strength is None or not 0 < strength <= first:
        raise ValueError(f"strength {strength}; expected t in (0, {first:.3f}], beyond which the model cannot begin")
    return levels(denoiser, steps, strength)


def noised(clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """x_t = α z + σ ε of latents z and standard normal noise, (B, C, H, W) both."""
    return level.alpha * clean + level.sigma * noise


def noising(
    predict: Predict,
    at: Sequence[NoiseLevel],
    clean: Tensor,
    noise: Tensor,
    conditioning: Mapping[str, Tensor],
    names: Sequence[str],
    around: Around = nullcontext,
) -> Iterator[State]:
    """The same images at every noise level, with the same noise, and the model's estimates there; no sampler runs.

    at: from noise to t = 0, where the state is `clean` itself. around: entered around the call of the model for each
    state. Raises ValueError that names the step and the first five images where estimates are NaN or infinite.
    """
    for step, level in enumerate(at[:-1]):
        x_t = noised(clean, noise, level)
        with around(step):
            prediction = predict(x_t, level, conditioning)
        check_finite([x_t, prediction.x0], names, step + 1, at)
        yield State(level, x_t, None, prediction)
    yield State(at[-1], clean, None, None)
