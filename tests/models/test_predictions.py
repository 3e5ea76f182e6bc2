"""Estimates of image and noise from every kind of output, on both paths."""

import math
from collections.abc import Callable

import pytest
import torch

from diffalign.models.predictions import CONVERSIONS, from_angle, from_image, from_noise, from_velocity
from diffalign.noise import NoiseLevel, on_path, path_slopes

X0, EPS = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
UNIT = NoiseLevel(0.8, 0.6, 0.0)
LINEAR = NoiseLevel(0.7, 0.3, 0.0)


@pytest.mark.parametrize(
    ("convert", "output", "level"),
    [
        (from_noise, EPS, UNIT),
        (from_noise, EPS, LINEAR),
        (from_image, X0, UNIT),
        (from_angle, 0.8 * EPS - 0.6 * X0, UNIT),
        (from_velocity, EPS - X0, LINEAR),
    ],
)
def test_a_perfect_output_gives_image_and_noise(
    convert: Callable[..., object], output: torch.Tensor, level: NoiseLevel
) -> None:
    x_t = level.alpha * X0 + level.sigma * EPS
    found = convert(output, x_t, level)
    assert torch.allclose(found.x0, X0, atol=1e-5)
    assert torch.allclose(found.eps, EPS, atol=1e-5)
    # a wrong one still splits x_t into two parts
    wrong = convert(output.half() + 1, x_t, level)
    assert wrong.x0.dtype == wrong.eps.dtype == torch.float32
    assert torch.allclose(level.alpha * wrong.x0 + level.sigma * wrong.eps, x_t, atol=1e-5)
    assert not torch.allclose(wrong.x0, X0, atol=0.1) or not torch.allclose(wrong.eps, EPS, atol=0.1)


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("towards_data", [False, True])
@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_velocity_is_the_derivative_of_the_path(path: str, towards_data: bool, t: float) -> None:
    alpha, sigma, tau = on_path(path, t)
    d_alpha, d_sigma = path_slopes(path, alpha, sigma)
    if path == "cosine":
        step = 1e-6
        ahead, behind = (math.pi / 2 * (tau + change) for change in (step, -step))
        assert d_alpha == pytest.approx((math.cos(ahead) - math.cos(behind)) / (2 * step), abs=1e-6)
        assert d_sigma == pytest.approx((math.sin(ahead) - math.sin(behind)) / (2 * step), abs=1e-6)
    else:
        assert (d_alpha, d_sigma) == (-1, 1)
    sign = -1 if towards_data else 1
    slopes = (sign * d_alpha, sign * d_sigma)
    level = NoiseLevel(alpha, sigma, tau)
    found = from_velocity(slopes[0] * X0 + slopes[1] * EPS, alpha * X0 + sigma * EPS, level, slopes)
    assert torch.allclose(found.x0, X0, atol=1e-5)
    assert torch.allclose(found.eps, EPS, atol=1e-5)
    with pytest.raises(ValueError, match="unknown path 'edm'; allowed: linear, cosine"):
        path_slopes("edm", 1.0, 0.0)


def test_where_an_output_says_nothing_of_the_other_half_is_an_error() -> None:
    with pytest.raises(ValueError, match="predicts noise says nothing of the image at t = 1"):
        from_noise(EPS, EPS, NoiseLevel(0.0, 1.0, 999))
    with pytest.raises(ValueError, match="predicts images says nothing of the noise at t = 0"):
        from_image(X0, X0, NoiseLevel(1.0, 0.0, 0))
    # at the other end nothing is divided by nothing
    assert torch.equal(from_noise(EPS, X0, NoiseLevel(1.0, 0.0, 0)).x0, X0)
    assert torch.equal(from_velocity(EPS - X0, EPS, NoiseLevel(0.0, 1.0, 1)).eps, EPS)
    assert set(CONVERSIONS) == {"epsilon", "sample", "v_prediction", "flow_prediction"}
