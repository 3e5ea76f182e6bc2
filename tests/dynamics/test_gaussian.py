"""The denoiser in closed form, and through it the way from a sampler to the times at which frequencies appear."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_study import load, mistakes
from torch import Tensor

import latent_spectrum
from diffalign import models
from diffalign.dynamics.orders import contrasts, kendalls_w, order
from diffalign.dynamics.spectra import BANDS, Bands, band_energies, rapsd, slope
from diffalign.dynamics.times import emergence, half_rise
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.checkpoints import describe, verify
from diffalign.io.headers import StoreError
from diffalign.io.latents import Latents, write_shard
from diffalign.io.manifest import Image, write_manifest
from diffalign.models import Denoiser, find_family
from diffalign.models.networks.gaussian import FittedArchitecture, FittedGaussian, fitted, opposite, state_of
from diffalign.noise import NoiseLevel
from diffalign.sampling.trajectories import first_level, guided, levels, trajectory
from diffalign.specs import Model, Weights

CPU = torch.device("cpu")
LAYERS = {"estimate": "estimate", "noise": "noise"}
SIDE = 16


def fitted_model(**changes: object) -> Model:
    given = {"latents": "vae", "path": "linear", "noise": "t0.5", **changes}
    return Model("own.gaussian", "gaussian", Weights("latents"), LAYERS, "estimate", **given)


def power_law(exponent: float = 2.0, **changes: object) -> Model:
    law = {"in_channels": 3, "exponent": exponent}
    return replace(fitted_model(**changes), family="power_law", weights=Weights("none"), architecture=law)


def normal(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_power(channels: int, side: int, seed: int = 0) -> Tensor:
    """Powers from 1e-3 to 1e3 without any order, the same at opposite frequencies."""
    drawn = 10 ** (6 * torch.rand(channels, side, side, generator=torch.Generator().manual_seed(seed)) - 3)
    return (drawn + opposite(drawn)) / 2


def checkpoint(folder: Path, mean: Tensor, power: Tensor) -> Denoiser:
    save_file(state_of(mean, power), folder / "model.safetensors")
    return models.load_denoiser(fitted_model(), folder, CPU)


@pytest.fixture
def denoiser(tmp_path: Path) -> Denoiser:
    return checkpoint(tmp_path, torch.tensor([0.3, -1.0, 2.0]), some_power(3, SIDE))


def by_matrices(denoiser: Denoiser, x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """Posterior means by linear algebra: covariances over positions in place of frequencies."""
    mean, power = denoiser.module.mean.double(), denoiser.module.power.double()
    found: list[tuple[Tensor, Tensor]] = []
    for channel in range(len(mean)):
        # the covariance of two positions depends on their distance, around the edges
        covariance = torch.fft.ifft2(power[channel]).real
        places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
        apart = (places[:, None] - places) % SIDE
        sigma_x = covariance[apart[..., 0], apart[..., 1]]
        total = level.alpha**2 * sigma_x + level.sigma**2 * torch.eye(SIDE**2, dtype=torch.float64)
        centred = x_t[:, channel].flatten(1).T - level.alpha * mean[channel]
        solved = torch.linalg.solve(total, centred)
        x0, eps = mean[channel] + level.alpha * sigma_x @ solved, level.sigma * solved
        found.append((x0.T.view(-1, SIDE, SIDE), eps.T.view(-1, SIDE, SIDE)))
    return torch.stack([x0 for x0, _ in found], 1), torch.stack([eps for _, eps in found], 1)


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_estimates_are_the_posterior_means_of_linear_algebra(t: float, path: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, torch.tensor([0.3, -1.0]), some_power(2, SIDE))
    denoiser = models.load_denoiser(fitted_model(path=path), tmp_path, CPU)
    x_t, level = normal((4, 2, SIDE, SIDE)), denoiser.level(f"t{t}")
    found = denoiser.predict(x_t, level, {})
    x0, eps = by_matrices(denoiser, x_t, level)
    torch.testing.assert_close(found.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.eps, eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, x_t)


def test_both_ends_are_exact(denoiser: Denoiser) -> None:
    x_t = normal((2, 3, SIDE, SIDE)).float()
    noise = denoiser.predict(x_t, denoiser.level("t1"), {})
    assert torch.equal(noise.x0, denoiser.module.mean.view(1, 3, 1, 1).expand_as(x_t))
    torch.testing.assert_close(noise.eps, x_t)
    clean = denoiser.predict(x_t, denoiser.level("t0"), {})
    torch.testing.assert_close(clean.x0, x_t)
    assert torch.equal(clean.eps, torch.zeros_like(x_t))
    assert noise.x0.dtype == clean.x0.dtype == torch.float32
    assert first_level(denoiser, x_t, {}) == 1


def test_frequencies_without_power_are_the_mean_until_there_is_no_noise(tmp_path: Path) -> None:
    power = some_power(1, SIDE)
    power[0, 3, 4] = power[0, -3, -4] = 0
    denoiser = checkpoint(tmp_path, torch.zeros(1), power)
    x_t = normal((2, 1, SIDE, SIDE))
    estimate = torch.fft.fft2(denoiser.predict(x_t, denoiser.level("t0.001"), {}).x0)
    assert float(estimate[:, 0, 3, 4].abs().max()) < 1e-12
    assert float(estimate[:, 0, 4, 3].abs().min()) > 1e-3
    torch.testing.assert_close(denoiser.predict(x_t, denoiser.level("t0"), {}).x0, x_t)


def flow(denoiser: Denoiser, noise: Tensor, steps: int, sampler: str) -> tuple[np.ndarray, list[Tensor], list[Tensor]]:
    """T of every state, x_t and x̂0 (the last state itself)."""
    at = levels(denoiser, steps)
    names = [str(row) for row in range(len(noise))]
    states = list(trajectory(denoiser.predict, at, noise, {}, names, sampler))
    estimates = [state.latents if state.prediction is None else state.prediction.x0 for state in states]
    return np.array([level.t for level in at]), [state.latents for state in states], estimates


def gains(power: Tensor, at: Sequence[NoiseLevel], sampler: str) -> list[Tensor]:
    """What each state's frequency is of that of the noise: the product of the sampler's own coefficients.

    Of a frequency with power S, x̂0 = a x_t and ε̂ = b x_t with a = αS/(α²S + σ²) and b = σ/(α²S + σ²). In
    y = x_t/(α + σ) a step of Euler is y_s = y_t + (s - t)(ε̂ - x̂0).
    """

    def slope_of(level: NoiseLevel) -> Tensor:
        return (level.sigma - level.alpha * power) / (level.alpha**2 * power + level.sigma**2)

    def scale(level: NoiseLevel) -> float:
        return level.alpha + level.sigma

    product = [torch.full_like(power, math.hypot(at[0].alpha, at[0].sigma))]
    for here, there in zip(at, at[1:], strict=False):
        step = there.t - here.t
        factor = scale(there) * (1 / scale(here) + step * slope_of(here))
        if sampler == "heun" and there.sigma > 0:
            factor = scale(there) * (1 / scale(here) + step / 2 * (slope_of(here) + slope_of(there) * factor))
        product.append(product[-1] * factor)
    return product


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_band_energies_are_those_of_the_sampler_s_own_coefficients(
    sampler: str, path: str, steps: int, tmp_path: Path
) -> None:
    power = some_power(2, SIDE)
    checkpoint(tmp_path, torch.zeros(2), power)
    denoiser = models.load_denoiser(fitted_model(path=path), tmp_path, CPU)
    noise, at = normal((3, 2, SIDE, SIDE)), levels(denoiser, steps)
    _, states, estimates = flow(denoiser, noise, steps, sampler)
    spectrum = (torch.fft.fft2(noise).abs().square() / SIDE**4).numpy()
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
    edges = [0, *(each + 1e-9 for each in (1 / 16, 1 / 4, 1 / 2)), 1]
    inside = [(radius >= low) & (radius < high) for low, high in zip(edges, edges[1:], strict=False)]
    inside[0] |= radius == 0
    factors = gains(power.double(), at, sampler)
    for level, factor, x_t, x0 in zip(at, factors, states, estimates, strict=True):
        shrunk = factor * (level.alpha * power / (level.alpha**2 * power + level.sigma**2))
        for gain, found in ((factor, x_t), (shrunk, x0)):
            expected = [((gain.square().numpy() * spectrum)[..., band].sum(axis=-1)).mean(axis=1) for band in inside]
            energies = band_energies(found.numpy(), Bands(), "none")
            # a single step of Euler goes to the mean, 0, but for rounding
            assert energies == pytest.approx(np.stack(expected, axis=1), rel=1e-6, abs=1e-24)


def waves(folder: Path, powers: Sequence[float], steps: int, sampler: str) -> tuple[np.ndarray, np.ndarray]:
    """T, and the energies of x̂0 of frequencies with these powers, one a channel, whose noise has energy 1."""
    flat = torch.tensor(powers).view(-1, 1, 1).expand(-1, SIDE, SIDE)
    denoiser = checkpoint(folder, torch.zeros(len(powers)), flat)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = torch.from_numpy(math.sqrt(2) * np.cos(2 * np.pi * (2 * x + 3 * y)))
    t, _, estimates = flow(denoiser, wave.expand(1, len(powers), -1, -1), steps, sampler)
    return t, np.stack([each[0].square().mean((1, 2)).numpy() for each in estimates], axis=1)


@pytest.mark.parametrize(("sampler", "rate"), [("euler", 1), ("heun", 2)])
def test_energies_come_to_the_continuum_at_the_order_of_the_sampler(sampler: str, rate: int, tmp_path: Path) -> None:
    powers = np.array([0.2, 3.0, 20.0])[:, None]
    errors = []
    for steps in (100, 200, 400):
        t, found = waves(tmp_path, powers[:, 0].tolist(), steps, sampler)
        exact = (1 - t) ** 2 * powers**2 / ((1 - t) ** 2 * powers + t**2)
        errors.append(np.abs(found - exact).max(axis=1) / powers[:, 0])
    assert np.log2(errors[1] / errors[2]) == pytest.approx(np.full(3, rate), abs=0.15)
    assert (errors[2] < 0.02).all()


@pytest.mark.parametrize(("sampler", "tolerance"), [("euler", 0.01), ("heun", 2e-4)])
def test_low_frequencies_emerge_first_at_times_that_can_be_computed(
    sampler: str, tolerance: float, tmp_path: Path
) -> None:
    powers = [100.0, 9.0, 1.0, 0.1]
    t, energies = waves(tmp_path, powers, 600, sampler)
    root = np.sqrt(powers)
    assert emergence(energies, t) == pytest.approx(root / (root + 3), abs=tolerance)
    assert half_rise(energies, t) == pytest.approx(root / (1 + root), abs=tolerance)
    assert (np.diff(emergence(energies, t)) < 0).all()


def test_bands_of_a_power_law_emerge_from_low_to_high_in_every_sample(tmp_path: Path) -> None:
    denoiser = models.load_denoiser(power_law(2.0), tmp_path, CPU)
    times, names = [], []
    for seed in (0, 1):
        t, _, estimates = flow(denoiser, normal((6, 3, 32, 32), seed).float(), 40, "heun")
        energies = np.stack([band_energies(each.numpy(), Bands(), "none") for each in estimates], axis=-1)
        times.append(np.stack([emergence(energies[:, band], t) for band in range(4)], axis=1))
        names += [f"{seed}/{row}" for row in range(6)]
    every = np.concatenate(times)
    assert order(every, BANDS) == "low<mid<high<corner"
    agreed = kendalls_w(every, names, 0)
    assert agreed.w > 0.95
    assert agreed.p < 0.01
    by_seed = {band: {seed: times[seed][:, i].mean() for seed in (0, 1)} for i, band in enumerate(BANDS)}
    first = contrasts(by_seed)[0]
    assert (first.first, first.second) == ("low", "mid")
    assert first.difference > 0


def test_samples_have_the_mean_and_power_of_the_prior(tmp_path: Path) -> None:
    mean, power = torch.tensor([0.5, -2.0]), some_power(2, 8).clamp(0.1, 10)
    denoiser = checkpoint(tmp_path, mean, power)
    _, states, _ = flow(denoiser, normal((1000, 2, 8, 8)), 40, "heun")
    of_mean, of_power = fitted([states[-1]])
    torch.testing.assert_close(of_mean, mean.double(), atol=0.05, rtol=0)
    # 1000 squares of a complex normal have a standard error of 3.2 %, those of a real one of 4.5 %
    torch.testing.assert_close(of_power, power.double(), rtol=0.2, atol=0)


def test_guidance_changes_nothing_without_conditioning(denoiser: Denoiser) -> None:
    x_t, level = normal((2, 3, SIDE, SIDE)), denoiser.level("t0.6")
    plain = denoiser.predict(x_t, level, {})
    torch.testing.assert_close(guided(denoiser.predict, {}, 4.0)(x_t, level, {}).x0, plain.x0)
    assert denoiser.classes is None


def test_a_power_law_has_its_slope_and_unit_variance_at_every_size(tmp_path: Path) -> None:
    denoiser = models.load_denoiser(power_law(1.5, latent_multiplier=0.5), tmp_path, CPU)
    for height, width in ((8, 8), (32, 32), (24, 48), (9, 7), (1, 1)):
        mean, half = denoiser.module.prior(height, width)
        assert not mean.any()
        assert half.shape == (3, height, width // 2 + 1)
        full = torch.fft.fft2(torch.fft.irfft2(half, s=(height, width))).real
        assert full.mean((1, 2)).tolist() == pytest.approx([0.25] * 3)
    _, half = denoiser.module.prior(32, 32)
    rows = half[0, 1:17, 0]
    assert (rows[1:] / rows[0]).tolist() == pytest.approx([k**-1.5 for k in range(2, 17)])
    assert half[0, 0, 0] == half[0, 1, 0]
    # samples have it, too; the ring's inner edge is its name, so slopes are a little flatter
    _, states, _ = flow(models.load_denoiser(power_law(1.5), tmp_path, CPU), normal((10, 3, 64, 64)), 25, "heun")
    values, _ = slope(*rapsd(states[-1].numpy(), "none"))
    assert values.mean() == pytest.approx(-1.5, abs=0.1)
    assert float(states[-1].square().mean()) == pytest.approx(1, rel=0.15)


def test_an_architecture_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for law, words in (
        ({"in_channels": 4}, "missing key 'exponent'"),
        ({"in_channels": 4, "exponent": 2, "input_size": 8}, "unknown key 'input_size'"),
        ({"in_channels": 4, "exponent": 0.0}, "exponent: expected a positive number, got 0.0"),
        ({"in_channels": 4, "exponent": True}, "exponent: expected a positive number, got True"),
        ({"in_channels": 4.0, "exponent": 2.5}, "in_channels: expected a positive whole number, got 4.0"),
    ):
        with pytest.raises(CheckpointError, match=f"models.own.gaussian.architecture: {words}"):
            models.load_denoiser(replace(power_law(), architecture=law), tmp_path, CPU)


def test_what_is_no_power_of_latents_is_refused(tmp_path: Path) -> None:
    mean, power = torch.zeros(2), some_power(2, 8)

    def refused(words: str, **changes: Tensor) -> None:
        save_file({"mean": mean, "power": power, **changes}, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=words):
            models.load_denoiser(fitted_model(), tmp_path, CPU)

    refused(r"mean \(3,\) and power \(2, 8, 8\); expected \(C,\) and \(C, S, S\)", mean=torch.zeros(3))
    refused(r"power \(2, 8, 4\)", power=power[..., :4].contiguous())
    refused("or power is negative", power=-power)
    refused("NaN or infinite", mean=torch.tensor([0, math.nan]))
    lopsided = power.clone()
    lopsided[0, 1, 2] *= 2
    refused("power differs by .* between opposite frequencies", power=lopsided)
    refused("unexpected", weight=power.clone())
    denoiser = checkpoint(tmp_path, mean, power)
    with pytest.raises(ValueError, match="with sides 8 that are"):
        denoiser.predict(normal((1, 2, 4, 4)), denoiser.level("t0.5"), {})
    with pytest.raises(ValueError, match="no img2img strength 's20'"):
        denoiser.level("s20")


def test_the_fit_is_the_mean_periodogram_in_any_batches() -> None:
    latents = 1.5 + normal((10, 3, 6, 6))
    mean, power = fitted([latents])
    torch.testing.assert_close(mean, latents.mean((0, 2, 3)))
    centred = latents - mean[:, None, None]
    torch.testing.assert_close(power, torch.fft.fft2(centred).abs().square().mean(0) / 36)
    # white noise of variance 1 has power 1
    assert float(power.mean()) == pytest.approx(float(centred.square().mean()))
    for size in (1, 3, 7):
        again = fitted(latents.split(size))
        torch.testing.assert_close(again[0], mean)
        torch.testing.assert_close(again[1], power)
    # all images are alike: no power, and rounding leaves no negative one
    _, none = fitted([torch.full((4, 1, 6, 6), 0.1)])
    assert float(none.min()) >= 0
    assert float(none.max()) < 1e-12
    with pytest.raises(ValueError, match="no latents"):
        fitted([])
    with pytest.raises(ValueError, match=r"shapes \(3, 6, 6\) and \(3, 5, 5\)"):
        fitted([latents, latents[..., :5, :5]])
    with pytest.raises(ValueError, match="NaN or infinite"):
        fitted([latents * math.nan])


def test_miniatures_are_seeded_and_load(tmp_path: Path) -> None:
    family = find_family("gaussian")
    size = {"in_channels": 4, "input_size": 8}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        family.make_miniature(size, tmp_path / name, seed)
    first, same, other = (load_file(tmp_path / name / "model.safetensors")["power"] for name in "abc")
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert models.load_denoiser(fitted_model(), tmp_path / "a", CPU).latent_channels == 4
    net = FittedGaussian(FittedArchitecture(4, 8))
    assert set(net.state_dict()) == {"mean", "power"}


@pytest.fixture
def encoded(tmp_path: Path) -> dict[str, Any]:
    """Latents of 12 images in two shards, with their statistics, manifest and records."""
    rows = [Image(f"image{i:02d}", "", -1, "", "", "", "") for i in range(12)]
    latents = normal((12, 2, 8, 8)).float() * torch.tensor([3.0, 0.5]).view(2, 1, 1) + 4
    shards = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_shard(shards[0], rows[:7], [latents[:7]])
    write_shard(shards[1], rows[7:], [latents[7:]])
    statistics = {"mean": torch.full((1, 2, 1, 1), 4.5), "std": torch.tensor([3.0, 0.5]).view(1, 2, 1, 1)}
    torch.save(statistics, tmp_path / "latents_stats.pt")
    write_manifest(tmp_path / "manifest.tsv", tmp_path / "dataset.json", rows, {"dataset": "mine"})
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"weights")
    describe(tmp_path / "vae.json", tmp_path / "vae", {"source": "miniature"})
    return {
        "spec": {"name": "own.gaussian", "latents": "vae", "latent_multiplier": 2.0},
        "shards": shards,
        "statistics": tmp_path / "latents_stats.pt",
        "autoencoder_record": tmp_path / "vae.json",
        "manifest": tmp_path / "manifest.tsv",
        "dataset_json": tmp_path / "dataset.json",
        "folder": tmp_path / "checkpoint",
        "record": tmp_path / "weights.json",
    }


def test_weights_are_the_mean_and_power_of_latents_as_the_model_reads_them(
    encoded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    latent_spectrum.latent_spectrum(**encoded)
    read = Latents(encoded["shards"], encoded["statistics"], 2.0)
    mean, power = fitted([torch.stack([read[name] for name in sorted(read)])])
    assert mean.tolist() == pytest.approx([-2 * 0.5 / 3, -2], abs=0.2)
    state = load_file(encoded["folder"] / "model.safetensors")
    # nothing of a single image is there
    assert set(state) == {"mean", "power"}
    torch.testing.assert_close(state["mean"], mean.float())
    torch.testing.assert_close(state["power"], power.float())
    denoiser = models.load_denoiser(fitted_model(), encoded["folder"], CPU)
    assert (denoiser.latent_channels, denoiser.only_side) == (2, 8)
    record = verify(encoded["record"], encoded["folder"])
    told = {"source": "latents", "latents": "vae", "latent_multiplier": 2.0, "count": 12}
    assert told.items() <= record.items()
    assert record["images"]["dataset"] == "mine"
    assert record["autoencoder_weights"]["source"] == "miniature"
    # in whatever batches they are read
    monkeypatch.setattr(latent_spectrum, "_BATCH", 5)
    latent_spectrum.latent_spectrum(**{**encoded, "folder": encoded["folder"].with_name("again")})
    again = load_file(encoded["folder"].with_name("again") / "model.safetensors")
    torch.testing.assert_close(again["power"], state["power"])


def test_latents_that_have_no_spectrum_are_refused(encoded: dict[str, Any], tmp_path: Path) -> None:
    names = [f"image{i:02d}" for i in range(12)]
    rows = [Image(name, "", -1, "", "", "", "") for name in names]

    def refused(words: str, *parts: Tensor) -> None:
        for at, part in enumerate(parts):
            write_shard(encoded["shards"][at], rows[6 * at : 6 * at + 6], list(part.split(3)))
        with pytest.raises(StoreError, match=words):
            latent_spectrum.latent_spectrum(**encoded)
        assert not encoded["folder"].exists()

    latents = normal((12, 2, 8, 8)).float()
    refused("sides 4, 8; a spectrum is of one", latents[:6], latents[6:, :, :4, :4])
    latents[7, 0, 1, 2] = math.inf
    refused("NaN or infinite for image07", latents[:6], latents[6:])
    write_shard(encoded["shards"][1], rows[6:11], [latents[6:11]])
    with pytest.raises(StoreError, match="image11"):
        latent_spectrum.latent_spectrum(**encoded)


def entry(**changes: Any) -> dict[str, Any]:
    plain = {
        "family": "gaussian",
        "weights": {"from": "latents", "dataset": "photographs"},
        "latents": "sdvae",
        "noise": "t0.3",
        "path": "linear",
        "layers": LAYERS,
        "default_layer": "estimate",
    }
    return {"models": {"own.gaussian": {**plain, **changes}}}


def test_an_entry_needs_no_conditioning_and_its_names_have_none() -> None:
    study = load(entry())
    model = study.models["own.gaussian"]
    assert (model.weights.source, model.weights.dataset) == ("latents", "photographs")
    assert study.bundle("own.gaussian-t0.5_noise") == "own.gaussian-t0.5"
    assert study.bundle("own.gaussian-cosine") == "own.gaussian-t0.3-cosine"
    assert Model.from_recipe(model.recipe()).weights == model.weights
    catalogued = study.models["powerlaw"]
    assert (catalogued.weights.source, catalogued.conditionings) == ("none", ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {"from": "latents", "dataset": "photograph"}}, "weights.dataset: unknown dataset 'photograph'"),
        ({"weights": {"from": "none"}}, "models of 'gaussian' have weights"),
        ({"conditionings": ["uncond"]}, "conditionings: means nothing for this model of family 'gaussian'"),
        ({"embeddings": {"mine": "a.npz"}}, "embeddings: means nothing for this model of family 'gaussian'"),
        ({"path": None}, "family 'gaussian' needs the key 'path'"),
        ({"latents": "dinov2"}, "'dinov2' has, or takes, no layer 'latent'"),
        ({"architecture": {"in_channels": 4}}, "architecture: means nothing for family 'gaussian'"),
        ({"family": "power_law"}, "nothing of family 'power_law' is learned; say {from: none}"),
        (
            {"weights": {"from": "folder", "folder": "x", "dataset": "photographs"}},
            "weights.dataset: means nothing for weights from 'folder', but from latents",
        ),
        (
            {"family": "sit", "architecture": {"depth": 1}, "conditionings": ["uncond"]},
            "weights: from 'latents' is for families that are fitted to latents: gaussian",
        ),
    ],
)
def test_mistakes_of_an_entry(changes: dict[str, Any], words: str) -> None:
    assert words in mistakes(entry(**changes))
