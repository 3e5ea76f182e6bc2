"""Integration from noise to latents, where the answer is known in closed form."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_latent_transformers import checkpoint, model_of
from test_models import STUDY

from diffalign import models
from diffalign.models import Denoiser, Prediction, find_family
from diffalign.noise import NoiseLevel, linear
from diffalign.sampling.trajectories import State, first_level, guided, levels, trajectory

CPU = torch.device("cpu")
# of Gaussian data
MEAN, SPREAD = 0.3, 0.5


def on_linear(t: float) -> NoiseLevel:
    alpha, sigma = linear(t)
    return NoiseLevel(alpha, sigma, t)


def preserving_variance(t: float) -> NoiseLevel:
    alpha, sigma = linear(t)
    norm = math.hypot(alpha, sigma)
    return NoiseLevel(alpha / norm, sigma / norm, t)


PATHS = {"linear": on_linear, "variance-preserving": preserving_variance}


def gaussian(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
    """The exact posterior means of x0 ~ N(MEAN, SPREAD²) and of the noise."""
    variance = level.alpha**2 * SPREAD**2 + level.sigma**2
    centred = x_t - level.alpha * MEAN
    return Prediction(MEAN + level.alpha * SPREAD**2 / variance * centred, level.sigma / variance * centred)


def latents_of(
    noise: torch.Tensor, path: Callable[[float], NoiseLevel], steps: int, sampler: str, first: float = 1.0
) -> torch.Tensor:
    at = [path(first * (1 - step / steps)) for step in range(steps + 1)]
    *_, last = trajectory(gaussian, at, noise, {}, [str(i) for i in range(len(noise))], sampler)
    return last.latents


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_order_of_the_method(path: str, sampler: str, order: int) -> None:
    # the flow of a Gaussian is affine: z standard deviations from the mean stay z
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64).view(5, 1, 1, 1)
    exact = MEAN + SPREAD * noise
    errors = [
        float((latents_of(noise, PATHS[path], steps, sampler) - exact).abs().max()) for steps in (16, 32, 64, 128)
    ]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders[-1] == pytest.approx(order, abs=0.15), (errors, orders)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("path", PATHS)
def test_samples_have_the_mean_and_the_variance_of_the_data(path: str) -> None:
    noise = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = latents_of(noise, PATHS[path], 25, "heun")
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(SPREAD, rel=0.02)


@pytest.mark.parametrize("path", PATHS)
def test_an_euler_step_is_that_of_ddim(path: str) -> None:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    at = [PATHS[path](t) for t in (0.9, 0.4, 0.0)]
    first, second, last = trajectory(gaussian, at, noise, {}, list("abc"), "euler")
    assert first.prediction is not None
    assert second.prediction is not None
    step = at[1].alpha * first.prediction.x0 + at[1].sigma * first.prediction.eps
    torch.testing.assert_close(second.latents, step)
    torch.testing.assert_close(last.latents, second.prediction.x0)
    assert last.prediction is None
    assert [state.level for state in (first, second, last)] == at
    # where α is not 0, the first state has the variance of x_t
    scale = math.hypot(at[0].alpha, at[0].sigma)
    torch.testing.assert_close(first.latents, scale * noise)


def test_the_two_paths_of_one_model_end_alike() -> None:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    ends = [latents_of(noise, path, 8, "heun") for path in PATHS.values()]
    torch.testing.assert_close(*ends)


def diffused(path: Callable[[float], NoiseLevel], noise: torch.Tensor, steps: int) -> list[State]:
    random = torch.Generator().manual_seed(1)
    at = [path(1 - step / steps) for step in range(steps + 1)]
    drawn = {step: [torch.randn(noise.shape, generator=random)] for step in range(steps)}
    names = [str(i) for i in range(len(noise))]
    return list(trajectory(gaussian, at, noise, {}, names, "sde", step_noise=drawn.__getitem__))


@pytest.mark.parametrize("path", PATHS)
def test_the_sde_has_the_marginals_of_the_path(path: str) -> None:
    noise = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    states = diffused(PATHS[path], noise, 200)
    for state in states[::40]:
        alpha, sigma = state.level.alpha, state.level.sigma
        assert float(state.latents.mean()) == pytest.approx(alpha * MEAN, abs=0.02)
        assert float(state.latents.std()) == pytest.approx(math.hypot(alpha * SPREAD, sigma), rel=0.02)
    # nothing of the first noise is left, unlike on the ODE
    first, last = noise.flatten(), states[-1].latents.flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, last]))[0, 1])) < 0.03


def test_steps_of_the_sde_are_of_first_order_and_their_variance_is_that_of_its_coefficients() -> None:
    def last_variance(steps: int) -> float:
        """Of the discrete product of coefficients: each step is x_s = a x_t + b + c z."""
        variance, at = 1.0, [on_linear(1 - step / steps) for step in range(steps + 1)]
        for here, there in zip(at, at[1:], strict=False):
            of_all = here.alpha**2 * SPREAD**2 + here.sigma**2
            kept = there.sigma * here.alpha / (there.alpha * here.sigma)
            slope = (there.alpha * here.alpha * SPREAD**2 + there.sigma * kept * here.sigma) / of_all
            variance = slope**2 * variance + there.sigma**2 * (1 - kept**2)
        return variance

    noise = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    for steps in (5, 20):
        found = float(diffused(on_linear, noise, steps)[-1].latents.var())
        assert found == pytest.approx(last_variance(steps), rel=0.04)
    errors = [abs(last_variance(steps) - SPREAD**2) for steps in (100, 200, 400)]
    assert [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)] == pytest.approx([1, 1], abs=0.1)


def test_the_last_step_of_the_sde_is_without_noise_and_noise_is_needed() -> None:
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    *_, before, last = diffused(on_linear, noise, 4)
    assert before.prediction is not None
    assert torch.equal(last.latents, before.prediction.x0)
    with pytest.raises(ValueError, match="sampler 'sde' needs the noise of its steps"):
        list(trajectory(gaussian, [on_linear(1.0), on_linear(0.0)], noise, {}, list("abc"), "sde"))


@pytest.mark.parametrize(("sampler", "expected"), [("euler", [0, 1, 2]), ("heun", [0, 0, 1, 1, 2])])
def test_every_call_of_a_step_is_made_within_it(sampler: str, expected: list[int]) -> None:
    seen: list[int] = []
    within: list[int] = []
    entered: list[int] = []

    @contextmanager
    def around(step: int) -> Iterator[None]:
        entered.append(step)
        within.append(step)
        yield
        within.clear()

    def noted(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
        seen.extend(within)
        return gaussian(x_t, level, conditioning)

    at, noise = [on_linear(t) for t in (1.0, 0.6, 0.3, 0.0)], torch.ones(1, 1, 1, 1)
    list(trajectory(guided(noted, {}, 2.0), at, noise, {}, ["a"], sampler, around=around))
    # guidance asks twice
    assert seen == [step for step in expected for _ in range(2)]
    assert not within
    # once a step, so that a removal knows the number of a call within it
    assert entered == [0, 1, 2]


def test_sit_ends_where_its_published_sampler_ends(tmp_path: Path) -> None:
    """Euler steps of Ma et al. (2024): the velocity is the drift, guided in all channels, from noise to data."""
    denoiser = models.load_denoiser(model_of("sit"), checkpoint("sit", tmp_path), CPU)
    noise, labels = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 7])
    null = torch.tensor([denoiser.classes] * 2)
    for scale in (1.0, 4.0):
        predict = guided(denoiser.predict, {"labels": null}, scale)
        *_, last = trajectory(predict, levels(denoiser, 10), noise, {"labels": labels}, list("ab"), "euler")
        x = noise
        with torch.no_grad():
            for step in range(10):
                # its network runs from noise at 0 to data at 1
                clock = torch.full((4,), step / 10)
                both = denoiser.module(torch.cat([x, x]), clock, torch.cat([labels, null]))
                asked, unasked = both.chunk(2)
                x = x + 0.1 * (unasked + scale * (asked - unasked))
        assert (last.latents - x).abs().max() <= 1e-5 * max(1.0, float(x.abs().max()))


def test_guidance_extrapolates_from_the_model_without_conditioning() -> None:
    level, x_t = on_linear(0.4), torch.ones(2, 1, 1, 1)

    def predict(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
        eps = conditioning["labels"].view(-1, 1, 1, 1).float()
        x0 = (x_t - level.sigma * eps) / level.alpha
        return Prediction(x0, eps, Prediction(2 * x0, 3 * eps))

    null, asked = {"labels": torch.tensor([10, 10])}, {"labels": torch.tensor([1, 4])}
    for scale in (0.0, 1.0, 2.5):
        found = guided(predict, null, scale)(x_t, level, asked)
        expected = 10 + scale * (asked["labels"] - 10).view(-1, 1, 1, 1)
        torch.testing.assert_close(found.eps, expected)
        torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, x_t)
        assert found.class_tokens is not None
        torch.testing.assert_close(found.class_tokens.eps, 3 * expected)
    assert guided(predict, null, 1) is predict


def states_of(denoiser: Denoiser, at: Sequence[NoiseLevel], names: Sequence[str]) -> list[State]:
    side = denoiser.only_side or 8
    noise = torch.randn(len(names), denoiser.latent_channels, side, side, generator=torch.Generator().manual_seed(0))
    asked = {"labels": torch.arange(len(names))}
    return list(trajectory(denoiser.predict, at, noise, asked, names, "euler"))


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_steps_of_a_flow_are_steps_along_its_velocity(path: str, tmp_path: Path) -> None:
    denoiser = models.load_denoiser(model_of("sit", path=path), checkpoint("sit", tmp_path), CPU)
    latents = torch.zeros(1, 4, 8, 8)
    assert first_level(denoiser, latents, {"labels": torch.tensor([0])}) == 1.0
    at = levels(denoiser, 4)
    assert [level.t for level in at] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    states = states_of(denoiser, at, list("abc"))
    assert torch.equal(states[0].latents, states_of(denoiser, at, list("abc"))[0].latents)
    if path == "linear":
        # SiT's own clock runs to data, and so does its velocity
        for here, there in zip(states, states[1:], strict=False):
            clock = torch.full((3,), 1 - here.level.t)
            velocity = denoiser.module(here.latents, clock, torch.arange(3))
            torch.testing.assert_close(there.latents, here.latents + 0.25 * velocity, atol=1e-5, rtol=1e-5)


def miniature(name: str, folder: Path) -> Denoiser:
    model = STUDY.models[name]
    find_family(model.family).make_miniature(model.miniature, folder, 0)
    return models.load_denoiser(model, folder, CPU)


def test_a_model_of_noise_begins_at_the_first_level_of_its_schedule(tmp_path: Path) -> None:
    denoiser, family = miniature("sd1", tmp_path), find_family(STUDY.models["sd1"].family)
    prompts = family.embed_prompts(STUDY.models["sd1"], tmp_path, ["", "a cat", "a dog"], CPU)
    prompts.pop("text")
    null, asked = ({key: value[rows] for key, value in prompts.items()} for rows in ([0, 0], [1, 2]))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="says nothing of the image at t = 1"):
        denoiser.predict(latents, denoiser.level("t1"), asked)
    first = first_level(denoiser, latents, asked)
    # the published schedule ends at α² = 0.0047
    assert first == pytest.approx(1 / (1 + math.sqrt(0.00466 / (1 - 0.00466))), abs=1e-3)
    last = denoiser.level("t1").timestep
    assert denoiser.level(f"t{first!r}").timestep == last
    assert denoiser.level(f"t{first - 1e-6!r}").timestep < last
    at = levels(denoiser, 4, first)
    ends = []
    for scale in (1.0, 4.0):
        *_, end = trajectory(guided(denoiser.predict, null, scale), at, latents, asked, list("ab"), "heun")
        ends.append(end.latents)
    assert not torch.allclose(*ends, atol=1e-3)
    # latents of the wrong shape are no question of the level
    with pytest.raises(ValueError, match="expected .B, 4, H, W."):
        denoiser.predict(latents[:, :3], at[0], asked)


def test_levels_of_discrete_steps_are_the_nearest(tmp_path: Path) -> None:
    denoiser = miniature("dit", tmp_path)
    latents = torch.zeros(1, denoiser.latent_channels, denoiser.only_side or 8, denoiser.only_side or 8)
    first = first_level(denoiser, latents, {"labels": torch.tensor([0])})
    at = levels(denoiser, 5, first)
    assert [level.t for level in at] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0], abs=0.01)
    assert (at[0].timestep, at[-1].t) == (999, 0)
    assert all(state.latents.isfinite().all() for state in states_of(denoiser, at, list("ab")))


def test_latents_that_are_no_numbers_stop_the_trajectory() -> None:
    def breaks(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
        found = gaussian(x_t, level, conditioning)
        if level.t < 0.7:
            found.x0[1] = torch.nan
        return found

    at = [on_linear(1 - step / 4) for step in range(5)]
    with pytest.raises(ValueError, match=r"after step 3 of 4, from t = 0\.500 to 0\.250, for class_1_00000$"):
        list(trajectory(breaks, at, torch.ones(2, 1, 1, 1), {}, ["class_0_00000", "class_1_00000"], "euler"))


def test_what_is_no_sampler_and_no_grid_is_refused() -> None:
    noise = torch.ones(1, 1, 1, 1)
    at = [on_linear(t) for t in (1.0, 0.5, 0.0)]
    with pytest.raises(ValueError, match="unknown sampler 'ddpm'; allowed: euler, heun, sde"):
        list(trajectory(gaussian, at, noise, {}, ["a"], "ddpm"))
    for wrong in (at[:2], at[::-1], at[:1], [at[0], at[0], at[2]]):
        with pytest.raises(ValueError, match="noise levels t = .*; expected ones that fall to 0"):
            list(trajectory(gaussian, wrong, noise, {}, ["a"], "euler"))
