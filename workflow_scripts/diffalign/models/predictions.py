"""What a network of a diffusion model gives, as estimates of image and noise: one function a parameterisation.

Each takes the output of the network, noisy latents x_t = α x0 + σ ε of the same shape, and their noise level, and
returns a `Prediction` with x_t = α x0 + σ eps. Arithmetic is float32 whatever the network ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from diffalign.models.protocol import Prediction
from diffalign.noise import NoiseLevel


def from_noise(output: Tensor, x_t: Tensor, level: NoiseLevel) -> Prediction:
    """The output estimates ε (Ho et al. 2020). Raises ValueError where α is 0, so that x_t holds no image."""
    if level.alpha == 0:
        raise ValueError("a model that predicts noise says nothing of the image at t = 1, where there is noise alone")
    eps = output.float()
    return Prediction((x_t.float() - level.sigma * eps) / level.alpha, eps)


def from_image(output: Tensor, x_t: Tensor, level: NoiseLevel) -> Prediction:
    """The output estimates x0. Raises ValueError where σ is 0, so that x_t holds no noise."""
    if level.sigma == 0:
        raise ValueError("a model that predicts images says nothing of the noise at t = 0, where there is none")
    x0 = output.float()
    return Prediction(x0, (x_t.float() - level.alpha * x0) / level.sigma)


def from_angle(output: Tensor, x_t: Tensor, level: NoiseLevel) -> Prediction:
    """The output estimates v = α ε - σ x0, where α² + σ² = 1 (Salimans and Ho 2022, appendix D)."""
    v, noisy = output.float(), x_t.float()
    return Prediction(level.alpha * noisy - level.sigma * v, level.alpha * v + level.sigma * noisy)


def from_velocity(
    output: Tensor, x_t: Tensor, level: NoiseLevel, slopes: tuple[float, float] = (-1.0, 1.0)
) -> Prediction:
    """The output estimates the velocity α' x0 + σ' ε (Lipman et al. 2023, Ma et al. 2024).

    slopes: α' and σ' in the clock that the velocity is of; (-1, 1), ε - x0, on the linear path from image to noise.
    Two equations, of x_t and of the velocity, for two unknowns, x0 and ε.
    """
    velocity, noisy = output.float(), x_t.float()
    d_alpha, d_sigma = slopes
    determinant = level.alpha * d_sigma - level.sigma * d_alpha
    x0 = (d_sigma * noisy - level.sigma * velocity) / determinant
    return Prediction(x0, (level.alpha * velocity - d_alpha * noisy) / determinant)


Conversion = Callable[[Tensor, Tensor, NoiseLevel], Prediction]

# by the word that schedulers of diffusers have for it; those of flow matching have none
CONVERSIONS: Mapping[str, Conversion] = {
    "epsilon": from_noise,
    "sample": from_image,
    "v_prediction": from_angle,
    "flow_prediction": from_velocity,
}
