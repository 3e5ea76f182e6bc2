"""One protocol for all diffusion models: predictions at any noise level, against each family's own conventions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from test_latent_transformers import checkpoint, model_of, published
from test_models import STUDY

from diffalign import models
from diffalign.extraction.taps import Taps
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Denoiser, Prediction, all_families, find_family, schedules
from diffalign.noise import NoiseLevel

CPU = torch.device("cpu")
FLOWS = ("sit", "repa", "reg", "lightningdit")
PIPELINES = ("flux", "pixart", "sana", "lumina", "qwenimage")
# without conditioning
CLOSED = ("gaussian", "powerlaw")
NAMES = (*FLOWS, *CLOSED, "dit", "sd1", "sd2", "sd2turbo", "sd3", *PIPELINES)
TEXTS = ["", "a photo of a cat", "a cat that sleeps on a wall"]


@dataclass(frozen=True)
class Case:
    """A model, its checkpoint, three noisy latents and two conditionings of each."""

    name: str
    folder: Path
    denoiser: Denoiser
    x_t: torch.Tensor
    conditioning: Mapping[str, torch.Tensor]
    other: Mapping[str, torch.Tensor]

    def predict(self, level: str, denoiser: Denoiser | None = None) -> Prediction:
        asked = denoiser or self.denoiser
        return asked.predict(self.x_t, asked.level(level), self.conditioning)

    def load(self) -> Denoiser:
        return models.load_denoiser(STUDY.models[self.name], self.folder, CPU)


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    model, folder = STUDY.models[name], tmp_path_factory.mktemp(name)
    family = find_family(model.family)
    if family.has_weights:
        family.make_miniature(model.miniature, folder, 0)
    denoiser = models.load_denoiser(model, folder, CPU)
    random = torch.Generator().manual_seed(1)
    side = denoiser.only_side or 8
    x_t = torch.randn(3, denoiser.latent_channels, side, side, generator=random)
    if family.conditioned_on == "labels":
        one, other = ({"labels": torch.tensor(labels)} for labels in ([1, 7, 1000], [2, 8, 3]))
    elif family.conditioned_on is None:
        one, other = {}, {}
    else:
        embedded = family.embed_prompts(model, folder, TEXTS, CPU)
        one = {key: value for key, value in embedded.items() if key != "text"}
        other = {key: value.roll(1, 0) for key, value in one.items()}
    if denoiser.class_token_width:
        tokens = torch.randn(3, denoiser.class_token_width, generator=random)
        one, other = {**one, "class_tokens": tokens}, {**other, "class_tokens": tokens}
    return Case(name, folder, denoiser, x_t, one, other)


def test_every_diffusion_family_is_here() -> None:
    assert set(NAMES) == {*FLOWS, *CLOSED, *OWN}
    diffusion = {name for name, family in all_families().items() if family.reads == "latents"}
    assert {STUDY.models[name].family for name in NAMES} == diffusion


@pytest.mark.parametrize("level", ["t0", "t0.2", "t0.5", "t0.9"])
def test_noisy_latents_are_image_and_noise(case: Case, level: str) -> None:
    found, at = case.predict(level), case.denoiser.level(level)
    assert found.x0.shape == found.eps.shape == case.x_t.shape
    assert found.x0.dtype == found.eps.dtype == torch.float32
    assert not found.x0.requires_grad
    scale = max(1.0, float(found.x0.abs().max()), float(found.eps.abs().max()))
    assert (at.alpha * found.x0 + at.sigma * found.eps - case.x_t).abs().max() <= 1e-6 * scale
    assert found.x0.isfinite().all()
    tokens = found.class_tokens
    assert (tokens is None) == (case.denoiser.class_token_width is None)
    if tokens is not None:
        again = at.alpha * tokens.x0 + at.sigma * tokens.eps
        assert torch.allclose(again, case.conditioning["class_tokens"], atol=1e-5)


def test_levels_of_one_load_are_those_of_loads_of_their_own(case: Case) -> None:
    first, second, again = (case.predict(level) for level in ("t0.2", "t0.7", "t0.2"))
    for level, found in (("t0.2", first), ("t0.7", second), ("t0.2", again)):
        alone = case.predict(level, case.load())
        assert torch.equal(found.x0, alone.x0)
        assert torch.equal(found.eps, alone.eps)
    assert not torch.allclose(first.x0, second.x0, atol=1e-3)


def test_conditioning_and_image_matter_and_no_other_image_does(case: Case) -> None:
    level = case.denoiser.level("t0.5")
    found = case.denoiser.predict(case.x_t, level, case.conditioning)
    other = case.denoiser.predict(case.x_t, level, case.other)
    changed = (found.x0 - other.x0).abs().flatten(1).amax(1)
    assert ((changed > 1e-4) == (case.name not in CLOSED)).all(), changed
    row = {key: value[1:2] for key, value in case.conditioning.items()}
    alone = case.denoiser.predict(case.x_t[1:2], level, row)
    assert torch.allclose(alone.x0, found.x0[1:2], atol=1e-4)


def test_taps_see_a_prediction_as_they_see_an_extraction(case: Case) -> None:
    layers = dict(list(STUDY.models[case.name].layers.items())[:3])
    level = case.denoiser.level("t0.5")
    batch = {"names": ["a", "b", "c"], "latents": case.x_t, **case.conditioning}
    with torch.no_grad(), Taps(case.denoiser.module, layers, case.denoiser.tokens) as taps:
        extracted = taps.run(lambda: case.denoiser.at(level).forward(batch))
        recorded = taps.record(lambda: case.denoiser.predict(case.x_t, level, case.conditioning))
    for alias, tokens in extracted.items():
        assert torch.equal(recorded[alias][0], tokens)


def test_latents_of_another_shape_are_refused(case: Case) -> None:
    level, channels = case.denoiser.level("t0.5"), case.denoiser.latent_channels
    with pytest.raises(ValueError, match=rf"latents of shape .*; expected \(B, {channels}, H, W\)"):
        case.denoiser.predict(torch.zeros(3, channels + 1, 8, 8), level, case.conditioning)
    if case.denoiser.multiple > 1:
        with pytest.raises(ValueError, match=f"multiples of {case.denoiser.multiple}"):
            case.denoiser.predict(torch.zeros(3, channels, 9, 9), level, case.conditioning)


def raw_output(case: Case, level: NoiseLevel) -> torch.Tensor:
    """What the network itself returned in a prediction, before its pipeline or its family touched it."""
    kept: list[Any] = []
    handle = case.denoiser.module.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        case.denoiser.predict(case.x_t, level, case.conditioning)
    finally:
        handle.remove()
    (output,) = kept
    return output[0] if isinstance(output, tuple) else getattr(output, "sample", output)


def flow_step(config: Mapping[str, Any], folder: Path, level: NoiseLevel, v: torch.Tensor, x_t: torch.Tensor) -> Any:
    """The one step from σ to 0 of diffusers' flow matching."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[level.sigma])
    return scheduler.step(v, scheduler.timesteps[0], x_t).prev_sample


def ddim_step(config: Mapping[str, Any], folder: Path, level: NoiseLevel, v: torch.Tensor, x_t: torch.Tensor) -> Any:
    """The image that DDIM sees on the way, on the schedule of the checkpoint."""
    scheduler = diffusers.DDIMScheduler.from_config(config, clip_sample=False)
    scheduler.set_timesteps(1000)
    return scheduler.step(v, int(level.timestep), x_t).pred_original_sample


def own_step(config: Mapping[str, Any], folder: Path, level: NoiseLevel, v: torch.Tensor, x_t: torch.Tensor) -> Any:
    """The image that the checkpoint's own scheduler, Euler or DPM-Solver, sees at its 80th of 100 steps."""
    scheduler = schedules.scheduler_of(folder)
    scheduler.set_timesteps(100)
    if hasattr(scheduler, "convert_model_output"):
        scheduler._step_index = 80
        return scheduler.convert_model_output(v, sample=x_t)
    sigma = scheduler.sigmas[80]
    scheduler.is_scale_input_called = True
    return scheduler.step(v, scheduler.timesteps[80], x_t * (1 + sigma**2) ** 0.5).pred_original_sample


# by name: the step, the level, and what the pipeline of diffusers does to the network's output
OWN: dict[str, tuple[Callable[..., Any], str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "dit": (ddim_step, "t0.5", lambda output: output[:, :4]),
    "sd1": (ddim_step, "s20", lambda output: output),
    "sd2": (ddim_step, "s20", lambda output: output),
    "sd2turbo": (own_step, "s20", lambda output: output),
    "sd3": (flow_step, "s20", lambda output: output),
    "flux": (flow_step, "t0.3", lambda output: diffusers.FluxPipeline._unpack_latents(output, 64, 64, 8)),
    "qwenimage": (
        flow_step,
        "t0.3",
        lambda output: diffusers.QwenImagePipeline._unpack_latents(output, 64, 64, 8)[:, :, 0],
    ),
    "lumina": (flow_step, "s20", lambda output: -output),
    "pixart": (own_step, "s20", lambda output: output.chunk(2, dim=1)[0]),
    "sana": (own_step, "s20", lambda output: output),
}


@pytest.mark.parametrize("case", list(OWN), indirect=True)
def test_the_image_is_that_of_the_family_s_own_scheduler(case: Case) -> None:
    step, at, of_pipeline = OWN[case.name]
    level = case.denoiser.level(at)
    config = json.loads((case.folder / "scheduler" / "scheduler_config.json").read_text())
    output = of_pipeline(raw_output(case, level))
    expected = step(config, case.folder, level, output, case.x_t)
    found = case.denoiser.predict(case.x_t, level, case.conditioning)
    scale = max(1.0, float(expected.abs().max()))
    assert (found.x0 - expected).abs().max() <= 1e-5 * scale
    # not only to rounding: the network has its say
    assert not torch.allclose(found.x0, case.x_t, atol=0.05)


@pytest.mark.parametrize("name", FLOWS)
def test_velocities_point_where_the_published_samplers_go(name: str, tmp_path: Path) -> None:
    _, tensors = published(name)
    denoiser = models.load_denoiser(model_of(name), checkpoint(name, tmp_path), CPU)
    for row, clock in enumerate(tensors["input.t"].tolist()):
        # t = 1 is data for SiT and LightningDiT, noise for REPA and REG
        to_data = name in ("sit", "lightningdit")
        sigma = 1 - clock if to_data else clock
        x_t, v = tensors["input.latent"][row : row + 1], tensors["output.sample"][row : row + 1]
        conditioning = {"labels": tensors["input.label"][row : row + 1]}
        if name == "reg":
            conditioning["class_tokens"] = tensors["input.cls_token"][row : row + 1]
        found = denoiser.predict(x_t, NoiseLevel(1 - sigma, sigma, clock), conditioning)
        # a single Euler step from here to data
        expected = x_t + (1 - clock) * v if to_data else x_t - clock * v
        assert torch.allclose(found.x0, expected, atol=2e-5)
        if name == "reg":
            assert found.class_tokens is not None
            expected = conditioning["class_tokens"] - clock * tensors["output.cls"][row : row + 1]
            assert torch.allclose(found.class_tokens.x0, expected, atol=2e-5)


def test_latents_are_in_the_scale_that_the_model_reads(tmp_path: Path) -> None:
    # a multiplier scales latents before noise; predictions are of those, and know nothing of it
    folder = checkpoint("lightningdit", tmp_path)
    one, two = (models.load_denoiser(model_of("lightningdit", latent_multiplier=by), folder, CPU) for by in (1.0, 0.5))
    x_t = torch.randn(1, one.latent_channels, one.only_side, one.only_side)
    conditioning = {"labels": torch.tensor([0])}
    found = [each.predict(x_t, each.level("t0.4"), conditioning) for each in (one, two)]
    assert torch.equal(found[0].x0, found[1].x0)


def test_lower_precision_predicts_in_float32(tmp_path: Path) -> None:
    model = model_of("repa")
    folder = checkpoint("repa", tmp_path)
    full, half = (models.load_denoiser(replace(model, precision=name), folder, CPU) for name in ("float32", "bfloat16"))
    x_t = torch.randn(2, 4, 8, 8)
    of = [each.predict(x_t, each.level("t0.5"), {"labels": torch.tensor([0, 1])}) for each in (full, half)]
    assert of[1].x0.dtype == torch.float32
    assert not torch.equal(of[0].x0, of[1].x0)
    assert torch.allclose(of[0].x0, of[1].x0, atol=0.1)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (partial(diffusers.DDIMScheduler, prediction_type="flow"), "prediction_type 'flow' on a variance-preserving"),
        (
            partial(diffusers.DPMSolverMultistepScheduler, prediction_type="epsilon", use_flow_sigmas=True),
            "prediction_type 'epsilon' on flow matching is not known here",
        ),
    ],
)
def test_a_kind_of_prediction_that_is_not_known_is_refused(
    scheduler: Callable[[], Any], words: str, tmp_path: Path
) -> None:
    model = STUDY.models["sd1"]
    find_family(model.family).make_miniature(model.miniature, tmp_path, 0)
    scheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/scheduler: {words}"):
        models.load_denoiser(model, tmp_path, CPU)
