"""Statistics of activations: known answers, grids of tokens, and passes over stored states."""

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from torch import nn

from diffalign.dynamics.activations import MEASURES, check_finite, replaying, statistics, token_grid
from diffalign.models import Denoiser, Prediction
from diffalign.noise import NoiseLevel


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_known_answers() -> None:
    tokens = normal(3, 64, 5) * 2 + 1
    found = statistics(tokens, (8, 8))
    x = tokens.double().numpy()
    np.testing.assert_allclose(found["norm"], np.linalg.norm(x, axis=2).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["energy"], x.var(axis=1).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["kurtosis"], kurtosis(x.reshape(3, -1), axis=1), rtol=1e-9)
    assert (found["massive"] == 0).all()
    assert all(values.shape == (3,) and values.dtype == np.float64 for values in found.values())
    assert set(found) == set(MEASURES)


@pytest.mark.parametrize("grid", [(8, 8), (7, 7), (4, 6), (3, 5), (2, 2)])
def test_bands_add_up_to_the_energy(grid: tuple[int, int]) -> None:
    found = statistics(normal(2, grid[0] * grid[1], 6) + 100, grid)
    bands = [values for key, values in found.items() if key.startswith("energy_")]
    np.testing.assert_allclose(sum(bands), found["energy"], rtol=1e-4)
    # a band that no frequency of the grid lies in is not there, and every other one holds energy
    assert all((values > 0).all() for values in bands)


def test_a_wave_lies_in_its_band() -> None:
    """Two, four and six waves along 16 tokens are 1/8, 1/4 and 3/8 cycles per token; both at 1/2 are in the corner."""
    column, row = np.meshgrid(np.arange(16), np.arange(16))
    for waves, band in ((2, "low"), (4, "mid"), (6, "high")):
        tokens = torch.tensor(np.cos(2 * np.pi * waves * row / 16)).reshape(1, 256, 1).float()
        found = statistics(tokens, (16, 16))
        assert found[f"energy_{band}"][0] == pytest.approx(0.5, rel=1e-5)
        assert found["energy"][0] == pytest.approx(0.5, rel=1e-5)
    tokens = torch.tensor((-1.0) ** (row + column)).reshape(1, 256, 1).float()
    assert statistics(tokens, (16, 16))["energy_corner"][0] == pytest.approx(1)


def test_massive_activations_are_large_twice() -> None:
    tokens = normal(4, 16, 8).clamp(-1, 1) * 0.05
    tokens[0, 3, 2] = 150.0  # above 100, and above 1000 medians
    tokens[0, 9, 2] = -300.0
    tokens[1, 0, 0] = 90.0  # above 1000 medians, but not 100
    tokens[2] *= 10000  # above 100, but not 1000 medians
    np.testing.assert_array_equal(statistics(tokens, None)["massive"], [2 / 128, 0, 0, 0])


def test_constant_activations_are_finite() -> None:
    for value in (0.0, 0.1, 1e6):
        found = statistics(torch.full((2, 9, 4), value), (3, 3))
        assert all(np.isfinite(values).all() for values in found.values())
        assert (found["kurtosis"] == 0).all()
        np.testing.assert_allclose(found["energy"], 0, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    tokens = normal(5, 36, 7)
    whole = statistics(tokens, (6, 6))
    for i in range(5):
        for key, values in statistics(tokens[i : i + 1], (6, 6)).items():
            assert values[0] == pytest.approx(whole[key][i], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("tokens", "sides", "grid"),
    [
        (64, (8, 8), (8, 8)),
        (16, (8, 8), (4, 4)),
        (8, (8, 16), (2, 4)),
        (25, (9, 9), (5, 5)),  # a stage of a UNet that rounds up
        (65, (8, 8), None),  # a class token beside patches
        (18, (8, 16), None),
        (1, (8, 8), None),
        (4, (4, 2), None),  # neither 4 x 2 cells nor square latents
    ],
)
def test_grids_of_tokens(tokens: int, sides: tuple[int, int], grid: tuple[int, int] | None) -> None:
    assert token_grid(tokens, *sides) == grid


def test_tokens_without_a_grid_give_no_spectrum() -> None:
    assert set(statistics(normal(2, 65, 3), None)) == {"norm", "energy", "kurtosis", "massive"}
    with pytest.raises(ValueError, match="65 tokens do not fill a grid of 8 x 8"):
        statistics(normal(2, 65, 3), (8, 8))
    with pytest.raises(ValueError, match=r"tokens have shape \(2, 3\)"):
        statistics(normal(2, 3), None)


class Net(nn.Module):
    """Two layers over pixels as tokens, of which the second one is never reached without the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x.flatten(2).transpose(1, 2)))


def test_passes_over_states_give_tokens_of_every_layer() -> None:
    net, level = Net(), NoiseLevel(0.5, 0.5, 0.5)
    denoiser = Denoiser(
        net, lambda _: level, lambda x, *_: net(x), lambda *_: Prediction(*[torch.zeros(0)] * 2), _same, 2
    )
    x_t = normal(4, 2, 3, 3)
    expected = net(x_t).detach()
    with replaying(denoiser, {"a": "first", "b": "second"}) as replay:
        found = replay(x_t, level, {})
        assert {key: tuple(tokens.shape) for key, tokens in found.items()} == {"a": (4, 9, 3), "b": (4, 9, 2)}
        assert not found["a"].requires_grad
        torch.testing.assert_close(found["b"], expected)
        torch.testing.assert_close(replay(x_t[:1], level, {})["a"], found["a"][:1])
    assert not net.first._forward_hooks
    pooled = Denoiser(net, lambda _: level, lambda x, *_: net(x), denoiser.convert, lambda tokens: tokens.mean(1), 2)
    with replaying(pooled, {"a": "first"}) as replay, pytest.raises(ValueError, match=r"layer a: gave tokens of shape"):
        replay(x_t, level, {})


def _same(tokens: torch.Tensor) -> torch.Tensor:
    return tokens


def test_undefined_activations_are_named() -> None:
    tokens = normal(3, 4, 2)
    check_finite(tokens, "b0", 7, ["x", "y", "z"])
    tokens[1, 2, 0] = torch.inf
    with pytest.raises(ValueError, match="layer b0, step 7: activations are NaN or infinite for y"):
        check_finite(tokens, "b0", 7, ["x", "y", "z"])
