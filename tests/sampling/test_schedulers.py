"""Trajectories by schedulers of diffusers: they end where the pipelines end, and states are at their levels."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.dit import pipeline_dit
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img
from test_models import STUDY

from diffalign import models
from diffalign.models import Denoiser, Prediction, find_family, schedules
from diffalign.noise import NoiseLevel
from diffalign.sampling.schedulers import Timetable, from_latents, from_noise, generators, scheduled, timetable
from diffalign.sampling.starts import noised
from diffalign.sampling.trajectories import State, guided

CPU = torch.device("cpu")
NAMES = ["a", "b"]
# of a short prompt: the tensors that a pipeline takes, and their shapes
EMBEDS = {
    "sd1": {"prompt_embeds": (8, 32)},
    "sd2": {"prompt_embeds": (8, 32)},
    "sd3": {"prompt_embeds": (8, 64), "pooled_prompt_embeds": (64,)},
    "flux": {"prompt_embeds": (8, 64), "pooled_prompt_embeds": (32,)},
}
PARTS = ("vae", "safety_checker", "feature_extractor", "image_encoder")
ENCODERS = ("", "_2", "_3")
OWN = None
STOCHASTIC = ("DDPMScheduler", "EulerAncestralDiscreteScheduler")


@dataclass(frozen=True)
class Case:
    name: str
    folder: Path
    denoiser: Denoiser
    noise: torch.Tensor
    asked: Mapping[str, torch.Tensor]
    null: Mapping[str, torch.Tensor]
    read: dict[str, Any] = field(default_factory=dict)

    def table(self, kind: str | None, steps: int, strength: float | None = None) -> Timetable:
        assert self.denoiser.scheduler is not None
        one = {key: value[:1] for key, value in self.asked.items()}
        return timetable(self.denoiser.scheduler(steps, 8, one, kind), 0.0, strength)

    def states(self, table: Timetable, scale: float, first: torch.Tensor, **given: Any) -> list[State]:
        predict = guided(self.denoiser.predict, self.null, scale)
        return list(scheduled(table, predict, first, self.asked, NAMES, generators(NAMES, self.name, 0), **given))

    def scheduler(self, kind: str | None) -> Any:
        """Read from the folder by diffusers alone."""
        where = self.folder / "scheduler"
        return schedules.scheduler_of(self.folder) if kind is None else getattr(diffusers, kind).from_pretrained(where)

    def pipeline(self, of: str, kind: str | None) -> Any:
        absent = {f"{part}{suffix}": None for part in ("text_encoder", "tokenizer") for suffix in ENCODERS}
        taken = {**dict.fromkeys(PARTS), **(absent if self.name == "sd3" else dict(list(absent.items())[::3]))}
        if self.name not in self.read:
            self.read[self.name] = getattr(diffusers, of).from_pretrained(self.folder, **taken)
        # the constructor sees to what schedulers of older checkpoints do not say
        parts = {**self.read[self.name].components, "scheduler": self.scheduler(kind)}
        made = getattr(diffusers, of)(**parts, **({} if self.name == "sd3" else {"requires_safety_checker": False}))
        made.set_progress_bar_config(disable=True)
        return made


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def find(name: str) -> Case:
        if name not in made:
            model, folder = STUDY.models[name], tmp_path_factory.mktemp(name)
            find_family(model.family).make_miniature(model.miniature, folder, 0)
            if name == "dit":
                # latents are never clipped to [-1, 1]; the constructors of other pipelines see to it themselves
                diffusers.DDIMScheduler(beta_end=0.02, beta_schedule="linear", clip_sample=False).save_pretrained(
                    folder / "scheduler"
                )
            denoiser = models.load_denoiser(model, folder, CPU)
            random = torch.Generator().manual_seed(1)
            noise = torch.randn(2, denoiser.latent_channels, 8, 8, generator=random)
            if name == "dit":
                asked, null = ({"labels": torch.tensor(labels)} for labels in ([3, 7], [1000, 1000]))
            else:
                asked, null = (
                    {key: torch.randn(2, *shape, generator=random) for key, shape in EMBEDS[name].items()}
                    for _ in range(2)
                )
            made[name] = Case(name, folder, denoiser, noise, asked, null)
        return made[name]

    return find


class Recorder(torch.nn.Module):
    """In the place of an autoencoder: it keeps the latents that it is to decode."""

    config = SimpleNamespace(scaling_factor=1.0, block_out_channels=(1, 1))
    device, dtype = CPU, torch.float32

    def decode(self, latents: torch.Tensor) -> Any:
        self.latents = latents
        return SimpleNamespace(sample=latents)


def of_pipeline(
    case: Case, kind: str | None, steps: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """The final latents of the pipeline of diffusers, from the same noise and conditioning."""
    drawing = generators(NAMES, case.name, 0)
    if case.name == "dit":
        net = diffusers.DiTTransformer2DModel.from_pretrained(case.folder / "transformer")
        pipeline = diffusers.DiTPipeline(net, Recorder(), case.scheduler(kind))
        pipeline.set_progress_bar_config(disable=True)
        monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda shape, **_: case.noise)
        pipeline([3, 7], scale, num_inference_steps=steps)
        return pipeline.vae.latents
    pipeline = case.pipeline("StableDiffusion3Pipeline" if case.name == "sd3" else "StableDiffusionPipeline", kind)
    found: torch.Tensor = pipeline(
        **case.asked,
        **{f"negative_{key}": value for key, value in case.null.items()},
        latents=case.noise.clone(),
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        generator=drawing if kind in STOCHASTIC else None,
        output_type="latent",
    ).images
    return found


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


VP = (OWN, "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler")
GRID = [
    *(("sd1", kind, 5.0) for kind in VP),
    *(("sd1", kind, 1.0) for kind in VP[:2]),
    *(("sd1", kind, 5.0) for kind in ("EulerAncestralDiscreteScheduler", "DDPMScheduler", "LMSDiscreteScheduler")),
    ("sd1", "UniPCMultistepScheduler", 5.0),
    *(("sd2", kind, 5.0) for kind in (OWN, "EulerDiscreteScheduler", "PNDMScheduler")),
    ("sd2", OWN, 1.0),
    *(("sd3", OWN, scale) for scale in (1.0, 5.0)),
    ("sd3", "FlowMatchHeunDiscreteScheduler", 5.0),
    *(("dit", OWN, scale) for scale in (1.0, 5.0)),
    # that pipeline cannot run schedulers that scale the input of the model: it steps from what they scaled
    ("dit", "DPMSolverMultistepScheduler", 5.0),
]


@pytest.mark.parametrize(("name", "kind", "scale"), GRID)
def test_the_last_latents_are_those_of_the_pipeline(
    name: str, kind: str | None, scale: float, cases: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases(name)
    table = case.table(kind, 4)
    states = case.states(table, scale, from_noise(table, case.noise))
    assert_close(states[-1].latents, of_pipeline(case, kind, 4, scale, monkeypatch))
    # PNDM begins with steps of Runge and Kutta where the configuration does not say that it skips them
    begins = 3 if (name, kind) == ("sd2", "PNDMScheduler") else 0
    assert len(states) == len(table.levels) == 5 + begins
    assert states[-1].prediction is None
    assert (states[-1].level.alpha, states[-1].level.sigma) == (1.0, 0.0)
    for state, level in zip(states[:-1], table.levels, strict=False):
        assert state.level == level
        assert state.prediction is not None
        # what was predicted there is of the state in the scale that the model reads
        again = level.alpha * state.prediction.x0 + level.sigma * state.prediction.eps
        assert_close(again, state.latents)
    # x_t is as noisy as its level says: at the first there is hardly anything but noise
    expected = table.levels[0].sigma if hasattr(table.scheduler, "sigmas") else 1.0
    assert float(states[0].latents.std() / case.noise.std()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_img2img_is_that_of_the_pipeline(
    kind: str, cases: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases("sd1")
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    whole = case.table(kind, 10)
    # the pipeline's strength is a share of steps: 6 of 10 are left
    at = whole.levels[4].t
    table = case.table(kind, 10, at - 0.01)
    assert table.levels == whole.levels[4:]
    first = from_latents(table, noised(clean, case.noise, table.levels[0]))
    states = case.states(table, 5.0, first)
    assert_close(states[0].latents, noised(clean, case.noise, table.levels[0]))
    pipeline = case.pipeline("StableDiffusionImg2ImgPipeline", kind)
    monkeypatch.setattr(pipeline_stable_diffusion_img2img, "randn_tensor", lambda *_, **__: case.noise)
    expected = pipeline(
        image=clean,
        strength=0.6,
        prompt_embeds=case.asked["prompt_embeds"],
        negative_prompt_embeds=case.null["prompt_embeds"],
        num_inference_steps=10,
        guidance_scale=5.0,
        output_type="latent",
    ).images
    assert_close(states[-1].latents, expected)


def exact(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
    """A model that knows the one image that there is: zero."""
    return Prediction(torch.zeros_like(x_t), x_t / level.sigma)


@pytest.mark.parametrize("name", ["sd1", "sd3"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_every_state_is_at_its_level(name: str, strength: float | None, cases: Callable[[str], Case]) -> None:
    case = cases(name)
    own = schedules.scheduler_of(case.folder)
    for kind in schedules.compatible(own):
        if kind in STOCHASTIC:
            continue
        table = case.table(kind, 8, strength)
        clean = torch.zeros_like(case.noise)
        first = from_latents(table, noised(clean, case.noise, table.levels[0]))
        states = list(scheduled(table, exact, first, {}, NAMES, generators(NAMES, name, 0)))
        for state in states[:-1]:
            # around the image that it always knew, latents are the noise times σ, at every step of every method
            torch.testing.assert_close(state.latents, state.level.sigma * case.noise, atol=1e-3, rtol=1e-3, msg=kind)


def test_calls_that_look_ahead_belong_to_the_step_that_they_are_made_for(cases: Callable[[str], Case]) -> None:
    case = cases("sd1")
    for kind, expected in (
        ("PNDMScheduler", [0, 0, 1, 2, 3]),
        ("HeunDiscreteScheduler", [0, 0, 1, 1, 2, 2, 3]),
        ("EulerDiscreteScheduler", [0, 1, 2, 3]),
    ):
        seen: list[int] = []
        entered: list[int] = []
        asked: list[float] = []

        @contextmanager
        def around(step: int, entered: list[int] = entered) -> Iterator[None]:
            entered.append(step)
            yield

        def counted(
            x_t: torch.Tensor,
            level: NoiseLevel,
            conditioning: Mapping[str, torch.Tensor],
            asked: list[float] = asked,
            seen: list[int] = seen,
            entered: list[int] = entered,
        ) -> Prediction:
            asked.append(level.t)
            seen.append(entered[-1])
            return exact(x_t, level, conditioning)

        table = case.table(kind, 4)
        drawing = generators(NAMES, "sd1", 0)
        first = from_noise(table, case.noise)
        states = list(scheduled(table, counted, first, {}, NAMES, drawing, around))
        assert seen == expected
        # both calls of a step are within one
        assert entered == sorted(set(expected))
        assert len(asked) == len(expected)
        assert [state.level.t for state in states] == sorted({*asked, 0.0}, reverse=True)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_noise_of_steps_depends_on_no_other_sample(kind: str, cases: Callable[[str], Case]) -> None:
    case = cases("sd1")
    table = case.table(kind, 4)

    def third(names: list[str], model: str = "sd1", seed: int = 0) -> torch.Tensor:
        """The third state, after two steps with noise; at the end this model leaves none of it."""
        first = from_noise(table, case.noise[[NAMES.index(name) for name in names]])
        states = scheduled(table, exact, first, {}, names, generators(names, model, seed))
        return next(itertools.islice(states, 2, None)).latents

    whole = third(NAMES)
    torch.testing.assert_close(torch.cat([third(["a"]), third(["b"])]), whole)
    torch.testing.assert_close(third(["b", "a"]), whole.flip(0))
    for other in (third(NAMES, seed=1), third(NAMES, "other")):
        assert (other - whole).abs().flatten(1).amax(1).min() > 0.1


def test_time_steps_that_depend_on_the_size_are_the_pipeline_s(cases: Callable[[str], Case]) -> None:
    case = cases("flux")
    assert case.denoiser.scheduler is not None
    one = {key: value[:1] for key, value in case.asked.items()}
    found = {side: timetable(case.denoiser.scheduler(4, side, one, None), 0.0).levels for side in (8, 64)}
    for side, levels in found.items():
        # flux shifts by a line in the number of tokens (calculate_shift): σ / (1 - σ) is e^μ times that of the grid
        mu = 0.5 + ((side // 2) ** 2 - 256) * (1.15 - 0.5) / (4096 - 256)
        for level, grid in zip(levels[:-1], (1.0, 0.75, 0.5, 0.25), strict=True):
            assert level.t == pytest.approx(math.exp(mu) / (math.exp(mu) + 1 / grid - 1), abs=1e-5)
            assert level.timestep == pytest.approx(1000 * level.sigma, rel=1e-5)
    table = timetable(case.denoiser.scheduler(3, 8, one, None), 0.0)
    states = case.states(table, 1.0, from_noise(table, case.noise))
    assert len(states) == 4
    # an Euler step along the velocity
    for here, there in zip(states, states[1:], strict=False):
        assert here.prediction is not None
        velocity = here.prediction.eps - here.prediction.x0
        assert_close(there.latents, here.latents + (there.level.sigma - here.level.sigma) * velocity)


def test_a_scheduler_that_the_pipeline_lacks_is_refused_with_those_that_it_has(cases: Callable[[str], Case]) -> None:
    with pytest.raises(
        ValueError, match=r"'KDPM2DiscreteScheduler' is no scheduler .* with its PNDMScheduler: DDIMSch"
    ):
        cases("sd1").table("KDPM2DiscreteScheduler", 4)
    listed = "FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler$"
    with pytest.raises(
        ValueError, match=rf"'DDIMScheduler' is no .* with its FlowMatchEulerDiscreteScheduler: {listed}"
    ):
        cases("sd3").table("DDIMScheduler", 4)
    with pytest.raises(ValueError, match="'nothing' is no scheduler"):
        cases("dit").table("nothing", 4)
    with pytest.raises(ValueError, match=r"with its FlowMatchEulerDiscreteScheduler: FlowMatchEulerDiscreteScheduler$"):
        cases("flux").table("FlowMatchHeunDiscreteScheduler", 4)


def test_too_few_steps_and_levels_that_do_not_fall_are_refused(cases: Callable[[str], Case]) -> None:
    case = cases("sd1")
    with pytest.raises(
        ValueError, match=r"1 step of DDIMScheduler is left from t = 0\.04. on; dynamics need at least 2"
    ):
        case.table("DDIMScheduler", 4, 0.01)
    scheduler = case.scheduler("DDIMScheduler")
    scheduler.set_timesteps(4)
    scheduler.timesteps = scheduler.timesteps.flip(0)
    with pytest.raises(ValueError, match="DDIMScheduler has noise levels .* expected ones that fall"):
        timetable(scheduler, 0.0)


def test_latents_that_are_no_numbers_stop_the_trajectory(cases: Callable[[str], Case]) -> None:
    def breaks(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Prediction:
        found = exact(x_t, level, conditioning)
        if level.t < 0.5:
            found.eps[1] = torch.nan
        return found

    case = cases("sd1")
    table = case.table("DDIMScheduler", 4)
    drawing = generators(NAMES, "sd1", 0)
    with pytest.raises(ValueError, match=r"NaN or infinite after step 3 of 4, from t = 0\.4.* to 0\.0.*, for b$"):
        list(scheduled(table, breaks, case.noise, {}, NAMES, drawing))
