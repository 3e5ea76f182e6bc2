"""Figures of denoising dynamics and the table of emergence, of trajectories and tables that are made up."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm
from PIL import Image
from test_figures import check_pictures, legible  # noqa: F401  (a fixture)

from diffalign.alignment.trainings import mean_over_trainings
from diffalign.dynamics import times as times_of
from diffalign.dynamics.features import FEATURES
from diffalign.figures import dynamics
from diffalign.io import tables
from diffalign.io.headers import StoreError
from diffalign.io.trajectory_files import Chunk, first_of_groups, write_trajectories
from diffalign.noise import NoiseLevel, linear
from diffalign.randomness import keyed
from dynamics_curves_figure import dynamics_curves_figure
from emergence_figure import emergence_figure
from emergence_table import emergence_table
from layer_statistics_figure import layer_statistics_figure
from layer_steps_figure import Grid, _aligned, layer_steps_figure
from spectra_figure import _crossing, spectra_figure
from trajectory_animation import trajectory_animation
from trajectory_sheet_figure import trajectory_sheet_figure
from wavelet_figure import _coefficients, wavelet_figure

SEEDS, SAMPLES, SIDE, STATES, LEVELS = (0, 1, 2), 6, 32, 26, 3
T = np.linspace(1, 0, STATES)
NOISE_LEVELS = tuple(NoiseLevel(*linear(float(t)), float(t)) for t in T)
LOG_SNR = [level.log_snr for level in NOISE_LEVELS]
SIT, REPA, GAUSSIAN = "digits.sit", "digits.sit.repa", "digits.gaussian"
CONFIGURATION, OTHER = "heun25", "euler25-g2"
LAYERS = ("embed", *(f"b{i}" for i in range(6)))
SHOWN = ("edge_density", "texture_contrast", "shape_ssim", "color_spread")
# powers of latents, from which bands, wavelets and spectra follow as for a Gaussian prior
POWERS = {"energy_low": 60.0, "energy_mid": 3.0, "energy_high": 0.3, "energy_corner": 0.1}
WAVELETS = {"wavelet_0": 80.0, "wavelet_1": 8.0, "wavelet_2": 1.0, "wavelet_3": 0.15}
# of features: first and last value, and where in t the change is
ENDS: Mapping[str, tuple[float, float, float]] = {
    "edge_density": (0.01, 0.12, 0.35),
    "edge_sharpness": (0.02, 0.21, 0.3),
    "texture_contrast": (4.0, 190.0, 0.25),
    "texture_homogeneity": (0.95, 0.62, 0.3),
    "texture_entropy": (1.1, 2.6, 0.2),
    "texture_energy": (0.001, 0.03, 0.4),
    "shape_ssim": (0.2, 1.0, 0.6),
    "shape_iou": (0.3, 1.0, 0.65),
    "color_lightness": (12.0, 18.0, 0.8),
    "color_a": (0.4, -0.2, 0.75),
    "color_b": (0.3, 0.1, 0.75),
    "color_spread": (3.0, 21.0, 0.55),
    "color_distance": (9.0, 0.0, 0.6),
    "saturation": (0.02, 0.06, 0.5),
    "ssim": (0.1, 1.0, 0.35),
    "psnr": (11.0, 48.1, 0.3),
    "learned_distance": (0.7, 0.0, 0.4),
}


def gaussian_energy(power: float) -> np.ndarray:
    """Of the estimate under a prior of this power: α² S² / (α² S + σ²)."""
    return ((1 - T) * power) ** 2 / ((1 - T) ** 2 * power + T**2)


def feature_curve(name: str, later: float) -> np.ndarray:
    first, last, middle = ENDS[name]
    middle += 0.1 * math.log(later)
    rise = 1 / (1 + np.exp((T - middle) / 0.07))
    rise = (rise - rise[0]) / (rise[-1] - rise[0])
    return first + (last - first) * rise


def true_curves(later: float) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Domain, kind, measure and values over states. later: a factor of powers; below 1 all comes later."""
    for domain in ("latents", "images"):
        scale = later * (1 if domain == "latents" else 0.4)
        # latents are smaller, and have one level less
        wavelets = dict(list(WAVELETS.items())[: 3 if domain == "latents" else 4])
        for kind, powers in (("band", POWERS), ("wavelet", wavelets)):
            for measure, power in powers.items():
                yield domain, kind, measure, gaussian_energy(scale * power)
        yield domain, "slope", "slope", -3.2 + 1.4 * (1 - T) ** 2
    for name, feature in FEATURES.items():
        yield "images", feature.kind, name, feature_curve(name, later)


def image_tables(folder: Path, model: str, configuration: str, later: float) -> dict[str, Path]:
    """Tables of `image_dynamics`: curves, times and seed_times; every sample and seed has a pace of its own."""
    identity = {"model": model, "configuration": configuration}
    curves, times, seed_times = [], [], []
    for domain, kind, measure, values in true_curves(later):
        of_seed = {}
        for seed in SEEDS:
            rows = []
            for sample in range(SAMPLES):
                pace = 1 + 0.12 * keyed(seed, measure, f"{sample}").standard_normal()
                rows.append(np.interp(np.clip(1 - (1 - T) * pace, 0, 1), T[::-1], values[::-1]))
            of_seed[seed] = np.array(rows)
        by_seed = np.stack([rows.mean(axis=0) for rows in of_seed.values()])
        for step, t in enumerate(T):
            mean = mean_over_trainings(by_seed[:, step])
            place = {**identity, "step": step, "t": t, "log_snr": LOG_SNR[step], "of": "x0", "domain": domain}
            what = {"kind": kind, "measure": measure, "mean": mean.value, "low": mean.low, "high": mean.high}
            curves.append({**place, **what, "seeds": len(SEEDS), "samples": SAMPLES})
        statistics = {"band": ("emergence", "half_rise"), "wavelet": ("emergence", "half_rise")}
        for statistic in statistics.get(kind, ("stabilisation",)):
            at = np.stack([getattr(times_of, statistic)(rows, T) for rows in of_seed.values()])
            mean = mean_over_trainings(at.mean(axis=1))
            named = {**identity, "domain": domain, "kind": kind, "measure": measure, "statistic": statistic}
            seed_times += [
                {**named, "seed": seed, "t": own, "samples": SAMPLES}
                for seed, own in zip(SEEDS, at.mean(axis=1), strict=True)
            ]
            times.append(
                named
                | {"t": mean.value, "low": mean.low, "high": mean.high, "log_snr": 0.0, "step": 25 * (1 - mean.value)}
                | {"spread": at.std(), "seeds": len(SEEDS), "samples": SAMPLES}
            )
    folder.mkdir(parents=True)
    written = {name: folder / f"{name}.parquet" for name in ("curves", "times", "seed_times")}
    for name, rows in (("curves", curves), ("times", times), ("seed_times", seed_times)):
        pd.DataFrame(rows).to_parquet(written[name])
    return written


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Path]]:
    """Tables of two models and their reference in one configuration, and of one model in another."""
    folder = tmp_path_factory.mktemp("images")
    later = {
        (SIT, CONFIGURATION): 1.0,
        (REPA, CONFIGURATION): 1.6,
        (GAUSSIAN, CONFIGURATION): 0.5,
        (SIT, OTHER): 0.7,
    }
    return {place: image_tables(folder / "-".join(place), *place, power) for place, power in later.items()}


@pytest.fixture(scope="module")
def emerged(
    studied: Mapping[tuple[str, str], Mapping[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    outputs = outputs_of(tmp_path_factory.mktemp("emergence"))
    emergence_table(*inputs_of(studied), {SIT: GAUSSIAN, REPA: GAUSSIAN}, outputs)
    return outputs


def inputs_of(studied: Mapping[Any, Mapping[str, Path]]) -> tuple[list[Path], list[Path]]:
    """Times, and times of seeds in another order."""
    listed = list(studied.values())
    return [each["times"] for each in listed], [each["seed_times"] for each in listed[::-1]]


def outputs_of(folder: Path) -> dict[str, Path]:
    return {
        f"{name}_{kind}": folder / f"{name}.{kind}" for name in ("times", "contrasts") for kind in ("tsv", "parquet")
    }


def pictures_of(folder: Path) -> list[Path]:
    return [folder / "figure.png", folder / "figure.pdf"]


# --- trajectories ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trajectories(tmp_path_factory.mktemp("trajectories"), colored=True)


@pytest.fixture(scope="module")
def grey_trajectories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trajectories(tmp_path_factory.mktemp("grey"), colored=False)


def made_trajectories(folder: Path, colored: bool) -> Path:
    """Crops of a photograph that are blurred as a model's estimates are, in two chunks."""
    from scipy.ndimage import gaussian_filter
    from skimage import data, transform

    photograph = transform.resize(data.astronaut()[:300, 60:360], (2 * SIDE, 3 * SIDE), anti_aliasing=True)
    names = [f"class_{i % 3}_{i // 3:05d}" for i in range(SAMPLES)]
    groups = {name: name[:7] for name in names}
    made = {}
    for i, name in enumerate(sorted(names)):
        clean = photograph[i // 3 * SIDE :, i % 3 * SIDE :][:SIDE, :SIDE]
        clean = clean if colored else np.repeat(clean.mean(axis=-1, keepdims=True), 3, axis=-1)
        noise = keyed(0, "noise", name).standard_normal(clean.shape)
        estimates = [gaussian_filter(clean, (8 * t**1.5, 8 * t**1.5, 0)) for t in T]
        states = [np.clip((1 - t) * clean + t * (0.5 + 0.3 * noise), 0, 1) for t in T]
        made[name] = np.stack(states), np.stack(estimates)

    def chunks() -> Iterator[Chunk]:
        for part in (sorted(names)[:4], sorted(names)[4:]):
            images, estimates = (np.stack([made[name][i] for name in part]).astype(np.float16) for i in (0, 1))
            latents = images.transpose(0, 1, 4, 2, 3).astype(np.float32)
            arrays = {"latents": latents, "x0": latents, "images": images, "x0_images": estimates}
            yield Chunk(tuple(part), arrays)

    recipe = {"seed": 0, "model": {"name": SIT}, "configuration": {"name": CONFIGURATION}}
    write_trajectories(folder / "0", chunks(), groups, NOISE_LEVELS, recipe)
    return folder / "0"


@pytest.mark.parametrize("count", [2, 4])
def test_the_sheet(count: int, trajectories: Path, tmp_path: Path) -> None:
    trajectory_sheet_figure(trajectories, {"low": 0.0625, "mid": 0.25}, count, pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_a_sheet_of_a_miniature_without_colour(grey_trajectories: Path, tmp_path: Path) -> None:
    trajectory_sheet_figure(grey_trajectories, {"low": 0.0625, "mid": 0.25}, 1, pictures_of(tmp_path), True)
    check_pictures(pictures_of(tmp_path))


@pytest.mark.parametrize(("count", "miniature"), [(6, False), (2, True)])
def test_the_animation(count: int, miniature: bool, trajectories: Path, tmp_path: Path) -> None:
    trajectory_animation(trajectories, count, tmp_path / "animation.gif", miniature)
    with Image.open(tmp_path / "animation.gif") as animation:
        assert animation.n_frames == STATES
        frames, durations = [], []
        for frame in range(STATES):
            animation.seek(frame)
            frames.append(np.asarray(animation.convert("L")))
            durations.append(animation.info["duration"])
    assert durations[-1] > 10 * durations[0] > 0
    assert all(frame.shape == frames[0].shape for frame in frames)
    assert all((a != b).any() for a, b in zip(frames, frames[1:], strict=False))
    assert not plt.get_fignums()


@pytest.mark.parametrize("levels", [1, 3])
def test_the_pyramid(levels: int, trajectories: Path, tmp_path: Path) -> None:
    wavelet_figure(trajectories, "db2", levels, pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_sides_that_levels_do_not_divide_are_refused(trajectories: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"6 levels of wavelets need sides that 64 divides; these are \(32, 32\)"):
        wavelet_figure(trajectories, "db2", 6, pictures_of(tmp_path), False)


def test_details_lie_where_the_pyramid_says() -> None:
    stripes = np.tile([0.0, 1.0], (16, 8))[None]
    to_right, downwards, both = (float(np.abs(each).max()) for each in _coefficients(stripes, "haar", 1)[1])
    assert to_right > 0.9
    assert max(downwards, both) < 1e-12
    parts = _coefficients(keyed(0, "image", "0").standard_normal((2, 16, 16)), "db2", 2)
    assert [part.shape for part in parts] == [(1, 2, 4, 4), (3, 2, 4, 4), (3, 2, 8, 8)]


def test_bands_add_up_to_the_image_less_its_mean() -> None:
    images = keyed(0, "image", "0").standard_normal((3, 12, 15))
    parts = dynamics.band_passed(images, 0.1, 0.3)
    assert list(parts) == ["low", "mid", "high"]
    np.testing.assert_allclose(sum(parts.values()), images - images.mean(axis=(1, 2), keepdims=True), atol=1e-12)
    # 4 cycles in 16 pixels, with its mirror images one wave; an edge belongs to the band below it
    wave = np.cos(2 * np.pi * 0.25 * (np.arange(16) + 0.5))[None, None, :] * np.ones((1, 16, 1))
    assert np.abs(dynamics.band_passed(wave, 0.1, 0.25)["mid"] - wave).max() < 1e-12
    assert np.abs(dynamics.band_passed(wave, 0.1, 0.24)["high"] - wave).max() < 1e-12


def test_samples_are_of_different_groups_first() -> None:
    names, groups = ("c", "a", "b", "d"), ("one", "one", "two", "two")
    assert first_of_groups(names, groups, 3) == ["a", "b", "c"]


def test_steps_are_spread_evenly_in_t() -> None:
    assert dynamics.spread_steps(T, 6) == [0, 5, 10, 15, 20, 25]
    assert dynamics.spread_steps([1.0, 0.9, 0.8, 0.1, 0.0], 3) == [0, 2, 4]
    assert dynamics.spread_steps([1.0, 0.0], 8) == [0, 1]


# --- spectra --------------------------------------------------------------------------------------------------------


def spectra_table(folder: Path, model: str, domains: Sequence[str], exponent: float, side: int = SIDE) -> Path:
    frequencies = np.arange(side // 2) / side
    power = 40 * np.maximum(frequencies * 32, 0.5) ** -exponent
    rows = []
    for domain in domains:
        for step, level in enumerate(NOISE_LEVELS):
            a2, s2 = level.alpha**2, level.sigma**2
            found = {
                "x_t": a2 * power + s2,
                "x0": a2 * power**2 / (a2 * power + s2),
                "error": s2 * power / (a2 * power + s2),
            }
            for of, values in found.items():
                floor = s2 if of == "x_t" else s2 / a2 if a2 else math.nan
                spread = np.exp(0.1 * keyed(step, of, model).standard_normal(len(frequencies)))
                rows += [
                    {"model": model, "configuration": CONFIGURATION, "step": step, "t": level.t}
                    | {"log_snr": level.log_snr, "of": of, "domain": domain}
                    | {"frequency": frequency, "power": value, "floor": floor if domain == "latents" else math.nan}
                    for frequency, value in zip(frequencies, values * spread, strict=True)
                ]
    path = folder / f"{model}.tsv"
    tables.write_tsv(pd.DataFrame(rows), path)
    return path


@pytest.mark.parametrize("domain", ["latents", "images"])
def test_the_spectra_figure(domain: str, tmp_path: Path) -> None:
    model = spectra_table(tmp_path, SIT, ("latents", "images"), 2.2)
    reference = spectra_table(tmp_path, GAUSSIAN, ("latents", "images"), 2.0)
    spectra_figure(model, reference, domain, pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_spectra_of_the_one_frequency_of_small_latents(tmp_path: Path) -> None:
    # four positions a side
    model, reference = (spectra_table(tmp_path, name, ("latents",), 2.2, side=4) for name in (SIT, GAUSSIAN))
    spectra_figure(model, reference, "latents", pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_spectra_of_a_miniature_without_a_reference(tmp_path: Path) -> None:
    model = spectra_table(tmp_path, SIT, ("images",), 2.2, side=128)
    spectra_figure(model, None, "images", pictures_of(tmp_path), True)
    check_pictures(pictures_of(tmp_path))
    with pytest.raises(StoreError, match="no row has domain = latents; there is: images"):
        spectra_figure(model, None, "latents", pictures_of(tmp_path), True)


def test_a_layer_without_a_part_has_a_row_of_its_own_that_is_empty() -> None:
    whole = ("embed", "b0", "b1")
    grid = Grid(np.array([1.0, 0.5, 0.0]), ("b0", "b1"), np.arange(4.0).reshape(2, 2), np.ones((2, 2), bool))
    aligned = _aligned(grid, whole)
    assert aligned.layers == whole
    np.testing.assert_array_equal(aligned.values, [[np.nan, np.nan], [0, 1], [2, 3]])
    np.testing.assert_array_equal(aligned.marked, [[False, False], [True, True], [True, True]])
    with pytest.raises(ValueError, match="layers b1 are not among embed, b0"):
        _aligned(grid, whole[:2])


def test_cells_of_which_none_is_marked_add_nothing_to_a_panel() -> None:
    axes = plt.figure().add_subplot()
    dynamics.marked_cells(axes, np.array([0.0, 1.0, 2.0]), np.zeros((3, 2), bool))
    assert not axes.lines
    dynamics.marked_cells(axes, np.array([0.0, 1.0, 2.0]), np.ones((3, 2), bool))
    assert len(axes.lines) == 1
    plt.close(axes.figure.figure)


def test_the_floor_is_crossed_where_powers_are_equal() -> None:
    frequencies = np.array([0.1, 0.2, 0.4])
    final = pd.DataFrame({0: [9.0, 9.0, 9.0], 1: [100.0, 25.0, 6.25]}, index=frequencies)
    floor = pd.DataFrame({0: [50.0, 50.0, 50.0], 1: [1000.0] * 3, 2: [0.0] * 3, 3: [np.inf] * 3}, index=frequencies)
    # power falls with the square of frequency: 50 is halfway in logarithms
    np.testing.assert_allclose(_crossing(floor, final), [0.1 * math.sqrt(2), np.nan, np.nan, np.nan])


# --- curves ---------------------------------------------------------------------------------------------------------


def test_the_curves(studied: Mapping[tuple[str, str], Mapping[str, Path]], tmp_path: Path) -> None:
    of, reference = studied[SIT, CONFIGURATION], studied[GAUSSIAN, CONFIGURATION]
    dynamics_curves_figure(of["curves"], of["times"], reference["curves"], pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_curves_of_one_seed_that_begin_in_the_middle(
    studied: Mapping[tuple[str, str], Mapping[str, Path]], tmp_path: Path
) -> None:
    of = studied[SIT, CONFIGURATION]
    curves = pd.read_parquet(of["curves"])
    late = curves[(curves["t"] <= 0.6) & ~curves["measure"].isin(["learned_distance", "slope"])]
    late = late[(late["domain"] == "images")].assign(low=math.nan, high=math.nan, seeds=1)
    late.to_parquet(tmp_path / "curves.parquet")
    times = pd.read_parquet(of["times"]).assign(low=math.nan, high=math.nan)
    times[times["t"] < 0.6].to_parquet(tmp_path / "times.parquet")
    dynamics_curves_figure(tmp_path / "curves.parquet", tmp_path / "times.parquet", None, pictures_of(tmp_path), True)
    check_pictures(pictures_of(tmp_path))


# --- layers ---------------------------------------------------------------------------------------------------------


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    tables.write_tsv(pd.DataFrame(list(rows)), path)
    return path


def layer_tables(folder: Path, layers: Sequence[str] = LAYERS) -> dict[str, Path]:
    """Correlations are largest in one layer, contributions in another."""
    random = np.random.default_rng(0)
    identity = {"model": SIT, "configuration": CONFIGURATION}
    cells = [(depth, layer, step) for depth, layer in enumerate(layers) for step in range(STATES - 1)]
    associations, readouts, contributions = [], [], []
    middle = len(layers) / 2
    for i, feature in enumerate(SHOWN):
        for depth, layer, step in cells:
            near = np.exp(-((depth - middle - 1) ** 2) / 3 - (T[step] - 0.3 - 0.12 * i) ** 2 / 0.03)
            rho = float(np.clip(0.75 * near * (-1) ** i + 0.08 * random.standard_normal(), -1, 1))
            associations.append(
                {**identity, "layer": layer, "depth": depth, "step": step, "t": T[step], "activation": "energy"}
                | {"feature": feature, "rho": rho, "p": 0.5, "p_family": 0.002 if abs(rho) > 0.4 else 0.6}
                | {"q": 0.5, "n": 192}
            )
    for i, kind in enumerate(("edges", "texture", "shape")):
        for depth, layer, step in cells:
            r2 = 0.8 * (1 - T[step] * (1 - 0.3 * i)) * np.exp(-((depth - middle) ** 2) / 14)
            r2 += 0.02 * random.standard_normal() - 0.03
            readouts.append(
                {**identity, "layer": layer, "depth": depth, "step": step, "t": T[step], "map": kind, "r2": r2}
                | {"low": r2 - 0.04, "high": r2 + 0.04, "shuffled": 0.01, "seeds": 3, "samples": 96}
            )
    for part in ("layer", "attention", "mlp"):
        for depth, layer in enumerate(layers):
            for window, (first, last) in enumerate(((0, 8), (9, 16), (17, 24))):
                for i, measure in enumerate((*SHOWN, *POWERS)):
                    size = (1.4 if part == "layer" else 0.7) * np.exp(-((depth - 1) ** 2) / 2) * (1 + window * i / 4)
                    size = float(size + 0.1 * random.random())
                    effect = -0.8 * size
                    contributions.append(
                        {**identity, "layer": layer, "depth": depth, "part": part, "window": window}
                        | {"first_step": first, "last_step": last, "t_from": T[first], "t_to": T[last + 1]}
                        | {"method": "zero", "measure": measure, "effect": effect, "low": effect - 0.3}
                        | {"high": effect + 0.3, "size": size, "seeds": 3, "samples": 48}
                    )
    made = {"associations": associations, "readouts": readouts, "contributions": contributions}
    return {name: write(rows, folder / f"{name}.tsv") for name, rows in made.items()}


def test_layers_by_steps(tmp_path: Path) -> None:
    # the first and the last row have no map, and the first no correlation
    rows = ("energy_low", *SHOWN)
    layer_steps_figure(layer_tables(tmp_path), rows, "energy", "zero", pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_many_layers_of_a_miniature_without_interventions(tmp_path: Path) -> None:
    found = layer_tables(tmp_path, [f"b{i}" for i in range(24)])
    del found["contributions"]
    layer_steps_figure(found, SHOWN[:2], "energy", None, pictures_of(tmp_path), True)
    # tokens on no grid have no read-outs
    readouts = pd.read_csv(found["readouts"], sep="\t")
    tables.write(readouts.iloc[:0], found["readouts"], tmp_path / "readouts.parquet")
    assert [tables.has_rows(found[name]) for name in found] == [True, False]
    assert not tables.has_rows(tmp_path / "readouts.parquet")
    layer_steps_figure(found, SHOWN[:1], "energy", None, pictures_of(tmp_path), True)
    check_pictures(pictures_of(tmp_path))


def test_what_layers_cannot_be_drawn_with_is_named(tmp_path: Path) -> None:
    found = layer_tables(tmp_path)
    outputs = pictures_of(tmp_path)
    with pytest.raises(StoreError, match="no row has activation = norm; there is: energy"):
        layer_steps_figure(found, SHOWN, "norm", "zero", outputs, False)
    with pytest.raises(ValueError, match="no table has a row of the feature 'psnr'"):
        layer_steps_figure({"associations": found["associations"]}, ("psnr",), "energy", "zero", outputs, False)
    with pytest.raises(ValueError, match="tables times; expected some of associations, readouts, contributions"):
        layer_steps_figure({"times": found["associations"]}, SHOWN, "energy", "zero", outputs, False)


@pytest.mark.parametrize("aligned", [True, False])
def test_layer_statistics(aligned: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    identity = {"model": SIT, "configuration": CONFIGURATION}
    activations, alignment = [], []
    scales = {"norm": 12.0, "energy": 3.0, "energy_low": 2.0, "energy_mid": 0.7, "energy_high": 0.3, "massive": 0.001}
    for depth, layer in enumerate(LAYERS):
        for step in range(STATES):
            place = {**identity, "layer": layer, "depth": depth, "step": step, "t": T[step], "log_snr": LOG_SNR[step]}
            for measure, scale in scales.items():
                mean = scale * np.exp(0.7 * depth * (measure != "massive")) * (1 + T[step])
                activations.append({**place, "measure": measure, "mean": mean, "low": mean, "high": mean})
            kurtosis = 3 * depth * (1 - T[step]) - 0.3
            activations.append({**place, "measure": "kurtosis", "mean": kurtosis, "low": kurtosis, "high": kurtosis})
            if depth:
                score = 0.5 * np.exp(-((depth - 4) ** 2) / 5) * (1 - T[step]) + 0.02 * random.random()
                alignment.append(
                    {**place, "metric": "cknna", "score": score, "calibrated": max(0.0, score - 0.05)}
                    | {"maximum_p": 0.01 if step % 2 else 0.4}
                    | {"reference": "digits.vit", "reference_layer": "final", "n": 192, "k": 10}
                )
    rows = [{**row, "seeds": 3, "samples": 192} for row in activations]
    table, beside = write(rows, tmp_path / "activations.tsv"), write(alignment, tmp_path / "alignment.tsv")
    layer_statistics_figure(table, beside if aligned else None, 0.05, pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


# --- emergence ------------------------------------------------------------------------------------------------------


def test_the_figure_of_emergence(emerged: Mapping[str, Path], tmp_path: Path) -> None:
    emergence_figure(emerged["times_tsv"], pictures_of(tmp_path), False)
    check_pictures(pictures_of(tmp_path))


def test_emergence_of_one_miniature_without_features(emerged: Mapping[str, Path], tmp_path: Path) -> None:
    table = pd.read_parquet(emerged["times_parquet"])
    bands = table[(table["model"] == SIT) & (table["kind"] == "band")].assign(low=math.nan, high=math.nan, seeds=1)
    bands.to_parquet(tmp_path / "times.parquet")
    emergence_figure(tmp_path / "times.parquet", pictures_of(tmp_path), True)
    check_pictures(pictures_of(tmp_path))


def test_times_and_contrasts_of_all_models(
    studied: Mapping[tuple[str, str], Mapping[str, Path]], emerged: Mapping[str, Path]
) -> None:
    times = pd.read_csv(emerged["times_tsv"], sep="\t", keep_default_na=False, na_values=[""])
    measured = [pd.read_parquet(each["times"]) for each in studied.values()]
    assert len(times) == sum(map(len, measured))
    assert times["t"].to_numpy() == pytest.approx(pd.concat(measured)["t"].to_numpy())
    assert set(times.loc[times["model"] == GAUSSIAN, "reference"].isna()) == {True}
    assert set(times.loc[times["model"] != GAUSSIAN, "reference"]) == {GAUSSIAN}
    contrasts = pd.read_parquet(emerged["contrasts_parquet"])
    pairs = contrasts.drop_duplicates(["comparison", "model", "configuration", "other", "other_configuration"])
    assert list(pairs[["comparison", "model", "other", "other_configuration"]].itertuples(index=False, name=None)) == [
        ("models", SIT, REPA, CONFIGURATION),
        ("configurations", SIT, SIT, OTHER),
        ("reference", SIT, GAUSSIAN, CONFIGURATION),
        ("reference", REPA, GAUSSIAN, CONFIGURATION),
    ]
    # more power appears earlier: REPA has most, the reference least
    rises = contrasts[contrasts["measure"].eq("energy_mid") & contrasts["statistic"].eq("half_rise")]
    signs = rises.groupby("comparison")["difference"].agg(["min", "max"])
    assert signs.loc["models", "max"] < 0
    assert signs.loc["reference", "min"] > 0
    assert signs.loc["configurations", "min"] > 0
    assert (contrasts["q"] >= contrasts["p"] - 1e-12).all()
    one = rises[(rises["comparison"] == "models") & (rises["domain"] == "latents")].iloc[0]
    first, second = (_half_rise(studied[model, CONFIGURATION]["seed_times"]) for model in (SIT, REPA))
    mean = mean_over_trainings(np.array([first[seed] - second[seed] for seed in SEEDS]))
    assert (one["difference"], one["low"], one["high"]) == pytest.approx((mean.value, mean.low, mean.high))


def _half_rise(seed_times: Path) -> dict[int, float]:
    """Of the mid band of latents, seed by seed."""
    table = pd.read_parquet(seed_times)
    chosen = (table["statistic"] == "half_rise") & (table["measure"] == "energy_mid") & (table["domain"] == "latents")
    return dict(zip(table.loc[chosen, "seed"], table.loc[chosen, "t"], strict=True))


def test_mistakes_of_emergence_are_named(studied: Mapping[tuple[str, str], Mapping[str, Path]], tmp_path: Path) -> None:
    times, seed_times = inputs_of(studied)
    outputs = outputs_of(tmp_path)
    with pytest.raises(ValueError, match=f"'digits.none' has no times; there are those of {SIT}, {REPA}"):
        emergence_table(times, seed_times, {SIT: "digits.none"}, outputs)
    with pytest.raises(StoreError, match=f"of {SIT}/{OTHER} there is only one of times and times of seeds"):
        emergence_table(times, seed_times[1:], {}, outputs)
    with pytest.raises(StoreError, match="times.parquet: lacks the columns seed; it has"):
        emergence_table(times, times, {}, outputs)
    with pytest.raises(StoreError, match=f"expected one model and configuration of its own, not {SIT}/{CONFIGURATION}"):
        emergence_table([*times, times[0]], seed_times, {}, outputs)
    both = tmp_path / "both.parquet"
    pd.concat(map(pd.read_parquet, times[:2])).to_parquet(both)
    with pytest.raises(StoreError, match=f"not {SIT}/{CONFIGURATION}; {REPA}/{CONFIGURATION}"):
        emergence_table([both, *times[2:]], seed_times, {}, outputs)
    lacking = tmp_path / "lacking.parquet"
    table = pd.read_parquet(times[0])
    table[table["measure"] != "psnr"].to_parquet(lacking)
    with pytest.raises(StoreError, match="1 times are not of seeds and of all, first: images, similarity, psnr, stab"):
        emergence_table([lacking, *times[1:]], seed_times, {}, outputs)


# --- the axis of noise levels ---------------------------------------------------------------------------------------


def test_noise_levels_and_log_snr_are_one_axis() -> None:
    for level in NOISE_LEVELS:
        assert dynamics.t_of(level.log_snr) == pytest.approx(level.t)
    figure, axes = plt.subplots()
    dynamics.noise_axis(axes, [0.6, 0.3, 0.0], 1.4, above=True)
    assert axes.get_xlim() == (0.6, 0.0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "0.25", "0"]
    (top,) = axes.child_axes
    assert [label.get_text() for label in top.get_xticklabels()] == ["0", "2", "4", "∞"]
    plt.close(figure)


def test_cells_meet_between_noise_levels() -> None:
    np.testing.assert_allclose(dynamics.edges([1.0, 0.6, 0.0]), [1, 0.8, 0.3, 0])
    np.testing.assert_allclose(dynamics.window_edges([1.0, 0.5], [0.6, 0.1]), [1, 0.55, 0.1])


def test_labels_of_measures() -> None:
    assert [dynamics.label_of(f"wavelet_{i}", 3) for i in range(4)] == [
        "approximation",
        "details 3 (coarse)",
        "details 2",
        "details 1 (fine)",
    ]
    assert dynamics.label_of("energy_corner") == "corner band"
    assert dynamics.label_of("psnr") == FEATURES["psnr"].label
    with pytest.raises(ValueError, match="wavelet_1 needs the number of levels"):
        dynamics.label_of("wavelet_1")


def test_a_map_keeps_missing_cells_grey() -> None:
    figure, axes = plt.subplots()
    values = np.array([[1.0, np.nan]])
    mesh = dynamics.noise_map(axes, np.array([1, 0.5, 0]), np.array([0.0, 1.0]), values, LogNorm(1, 10), "viridis")
    assert np.ma.getmaskarray(mesh.get_array()).ravel().tolist() == [False, True]
    plt.close(figure)
