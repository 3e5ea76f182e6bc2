"""Frequencies and features along trajectories, from folders to tables."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import image_dynamics as script
from diffalign.dynamics import measures
from diffalign.dynamics.features import FEATURES, OF_A_MODEL, features
from diffalign.dynamics.measures import Measuring
from diffalign.dynamics.spectra import BANDS, Bands, band_energies, error_spectrum, rapsd, slope, wavelet_energies
from diffalign.extraction.inputs import pixels
from diffalign.extraction.readers import Reader
from diffalign.io.checkpoints import describe
from diffalign.io.headers import StoreError
from diffalign.io.trajectory_files import KIND, Chunk, write_trajectories
from diffalign.models import load
from diffalign.models.families import timm_vision
from diffalign.noise import NoiseLevel
from diffalign.specs import Compute, ImageInput, Model, Weights

Array = NDArray[Any]
MEASURING = Measuring(Bands(), "hann", "db2", 2)
TABLES = ("curves", "spectra", "times", "order")
COMPUTE = Compute("cpu", 8, 0)
VIT = Model(
    "vit",
    "timm_vision",
    Weights("miniature"),
    {"b0": "blocks.0", "b1": "blocks.1"},
    "b1",
    ImageInput(32, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    miniature={
        "architecture": "vit_tiny_patch16_224",
        "img_size": 32,
        "patch_size": 16,
        "embed_dim": 12,
        "depth": 2,
        "num_heads": 2,
    },
)


def levels(steps: int) -> tuple[NoiseLevel, ...]:
    return tuple(NoiseLevel(1 - t, t, t) for t in np.linspace(1, 0, steps + 1))


def smooth(draws: np.random.Generator, shape: Sequence[int]) -> Array:
    """Fields with power 1/f², standard deviation 1, over the last two axes."""
    radius = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))
    radius[0, 0] = 1
    field = np.fft.ifft2(np.fft.fft2(draws.standard_normal(shape)) / radius).real
    return field / field.std(axis=(-2, -1), keepdims=True)


def tensors(seed: int, names: Sequence[str], steps: int, size: tuple[int, int]) -> dict[str, Array]:
    """States of samples: x_t with noise of their own, and an estimate whose fine parts come later than coarse ones.

    Latents have half the size.
    """
    made: dict[str, list[Array]] = {"latents": [], "x0": [], "images": [], "x0_images": []}
    t = np.linspace(1, 0, steps + 1)[:, None, None, None]
    for name in names:
        draws = np.random.default_rng([seed, *name.encode()])
        latents = smooth(draws, (2, size[0] // 2, size[1] // 2))
        made["latents"].append((1 - t) * latents + t * draws.standard_normal(latents.shape))
        made["x0"].append(estimate(latents, t))
        image = 0.5 + 0.15 * smooth(draws, (3, *size))
        noisy = (1 - t) * image + t * (0.5 + 0.3 * draws.standard_normal(image.shape))
        for key, states in (("images", noisy), ("x0_images", 0.5 + estimate(image - 0.5, t))):
            made[key].append(np.moveaxis(np.clip(states, 0, 1), 1, -1))
    kinds = {"latents": np.float32, "x0": np.float32, "images": np.float16, "x0_images": np.float16}
    return {key: np.stack(made[key]).astype(dtype) for key, dtype in kinds.items()}


def estimate(clean: Array, t: Array) -> Array:
    """Every mode, times (1 - t)^(1 + 20 f): coarse ones rise first."""
    height, width = clean.shape[-2:]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return np.fft.ifft2(np.fft.fft2(clean) * (1 - t) ** (1 + 20 * radius)).real


def recipe(**other: Any) -> dict[str, Any]:
    return {"model": {"name": "digits.sit", "step": 300}, "configuration": {"name": "heun6"}, **other}


def write(
    folder: Path,
    seed: int,
    names: Sequence[str] = ("a0", "a1", "b0", "b1", "b2"),
    steps: int = 6,
    size: tuple[int, int] = (16, 24),
    chunk: int = 2,
    **other: Any,
) -> Path:
    made = tensors(seed, names, steps, size)
    chunks = (
        Chunk(tuple(names[at : at + chunk]), {key: each[at : at + chunk] for key, each in made.items()})
        for at in range(0, len(names), chunk)
    )
    groups = {name: f"class_{name[0]}" for name in names}
    write_trajectories(folder / str(seed), chunks, groups, levels(steps), recipe(seed=seed, **other))
    return folder / str(seed)


def outputs(folder: Path) -> dict[str, Path]:
    files = {f"{table}_{kind}": folder / f"{table}.{kind}" for table in TABLES for kind in ("tsv", "parquet")}
    of_jobs = {key: folder / f"{key}.parquet" for key in ("measures", "seed_times")}
    return {**files, **of_jobs, "recipe": folder / "images.json"}


def run(folders: Sequence[Path], into: Path, threads: int = 1, **given: Any) -> dict[str, pd.DataFrame]:
    reference, measuring = given.get("reference"), given.get("measuring", MEASURING)
    script.image_dynamics(folders, reference, measuring, 0, outputs(into), COMPUTE, threads)
    return {key: pd.read_parquet(into / f"{key}.parquet") for key in (*TABLES, "measures", "seed_times")}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path, dict[str, pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("dynamics")
    folders = [write(folder, seed) for seed in (4, 0, 2)]
    return folders, folder / "out", run(folders, folder / "out")


def of(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for key, value in where.items():
        table = table[table[key] == value]
    return table


def test_measures_are_those_of_every_state(study: Any) -> None:
    table = study[2]["measures"]
    assert list(table) == ["seed", "sample", "group", "step", "of", "domain", "measure", "value"]
    assert sorted(table["seed"].unique()) == [0, 2, 4]
    assert not table["value"].isna().any()
    made = tensors(2, ("a0", "a1", "b0", "b1", "b2"), 6, (16, 24))
    for kind, tensor in (("x_t", "images"), ("x0", "x0_images")):
        images = made[tensor][3].astype(np.float32)
        mine = of(table, seed=2, sample="b1", of=kind, domain="images")
        assert set(mine["group"]) == {"class_b"}
        planes = np.moveaxis(images, -1, 1)
        frequencies, power = rapsd(planes, "hann")
        expected = {
            **(features(images, images[-1], Bands()) if kind == "x0" else {}),
            **{
                f"energy_{band}": each
                for band, each in zip(BANDS, band_energies(planes, Bands(), "none").T, strict=True)
            },
            **{f"wavelet_{n}": each for n, each in enumerate(wavelet_energies(planes, "db2", 2).T)},
            "slope": slope(frequencies, power)[0],
        }
        assert set(mine["measure"]) == set(expected)
        for measure, values in expected.items():
            np.testing.assert_allclose(of(mine, measure=measure).sort_values("step")["value"], values, rtol=1e-12)
    latents = of(table, seed=2, sample="b1", of="x0", domain="latents")
    wavelets = wavelet_energies(made["x0"][3], "db2", 2)
    np.testing.assert_allclose(
        of(latents, measure="wavelet_1").sort_values("step")["value"], wavelets[:, 1], rtol=1e-12
    )
    assert not set(latents["measure"]) & set(FEATURES)


def test_bands_and_wavelets_add_up_to_the_energy_of_the_image(study: Any) -> None:
    table = study[2]["measures"]
    sums = {
        name: of(table, domain="latents")[lambda rows, name=name: rows["measure"].str.startswith(name)]
        .groupby(["seed", "sample", "of", "step"], observed=True)["value"]
        .sum()
        for name in ("energy_", "wavelet_")
    }
    np.testing.assert_allclose(sums["energy_"], sums["wavelet_"], rtol=1e-6)
    x_t = tensors(0, ("a1",), 6, (16, 24))["latents"][0]
    energy = np.square(x_t.astype(np.float64)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(sums["energy_"].loc[0, "a1", "x_t"], energy, rtol=1e-6)


def test_tables_agree_with_measures_and_have_their_columns(study: Any) -> None:
    _, folder, found = study
    for name in TABLES:
        columns = getattr(script, name.upper())
        assert list(found[name]) == list(columns)
        assert set(found[name]["model"]) == {"digits.sit@300"}
        assert set(found[name]["configuration"]) == {"heun6"}
        assert len(pd.read_csv(folder / f"{name}.tsv", sep="\t")) == len(found[name])
    curves = found["curves"]
    by_seed = found["measures"].groupby(["of", "domain", "measure", "step", "seed"], observed=True)["value"].mean()
    for row in curves.sample(60, random_state=0).to_dict("records"):
        seeds = by_seed.loc[row["of"], row["domain"], row["measure"], row["step"]].to_numpy()
        assert row["mean"] == pytest.approx(seeds.mean())
        # t of 2 degrees of freedom
        assert row["high"] - row["mean"] == pytest.approx(4.302653 * seeds.std(ddof=1) / math.sqrt(3), rel=1e-5)
        assert row["low"] <= row["mean"] <= row["high"]
        assert (row["seeds"], row["samples"]) == (3, 5)
        assert row["t"] == pytest.approx(1 - row["step"] / 6)
        assert row["kind"] == measures.kind(row["measure"])
    assert (curves["log_snr"].iloc[0], curves["log_snr"].iloc[6]) == (-math.inf, math.inf)


def test_times_are_those_of_the_estimate(study: Any) -> None:
    found = study[2]
    times, seeds = found["times"], found["seed_times"]
    statistics = {kind: set(rows["statistic"]) for kind, rows in times.groupby("kind")}
    both, one = {"emergence", "half_rise"}, {"stabilisation"}
    kinds = ("slope", "edges", "texture", "shape", "color", "similarity")
    assert statistics == {"band": both, "wavelet": both, **dict.fromkeys(kinds, one)}
    assert (times["t"].between(0, 1)).all()
    assert (times["low"] <= times["t"]).all()
    for row in times.to_dict("records"):
        where = {key: row[key] for key in ("domain", "measure", "statistic")}
        mine = of(seeds, **where)
        assert list(mine["seed"]) == [0, 2, 4]
        assert mine["t"].mean() == pytest.approx(row["t"])
        assert row["step"] == pytest.approx(6 * (1 - row["t"]))
        expected = (
            2 * math.log((1 - row["t"]) / row["t"]) if 0 < row["t"] < 1 else math.copysign(math.inf, 0.5 - row["t"])
        )
        assert row["log_snr"] == pytest.approx(expected)
    low, high = (
        of(times, domain="latents", measure=f"energy_{band}", statistic="half_rise") for band in ("low", "high")
    )
    assert low["t"].item() > high["t"].item()


def test_half_rise_is_where_the_known_estimate_passes_it(tmp_path: Path) -> None:
    found = run([write(tmp_path, 0, names=("a", "b"), steps=60, size=(32, 32))], tmp_path)
    times = of(found["times"], domain="latents", statistic="half_rise").set_index("measure")["t"]
    # energies of a mode are (1 - t)^(2 + 40 f), half of the last where t = 1 - 2^(-1 / (2 + 40 f))
    assert times["energy_corner"] == pytest.approx(1 - 2 ** (-1 / (2 + 40 * 0.55)), abs=0.01)
    assert times["energy_low"] == pytest.approx(1 - 2 ** (-1 / (2 + 40 * 0.0625)), abs=0.01)
    emergence = of(found["times"], domain="latents", statistic="emergence").set_index("measure")["t"]
    assert emergence["energy_low"] == pytest.approx(1 - 0.9 ** (1 / (2 + 40 * 0.0625)), abs=0.01)


def test_the_order_of_bands_and_wavelets_is_from_coarse_to_fine(study: Any) -> None:
    order = study[2]["order"]
    agreement = order[order["measures"].notna()]
    assert len(agreement) == 9
    bands = of(agreement, domain="latents", family="bands", statistic="half_rise")
    assert bands["measures"].item() == "energy_low<energy_mid<energy_high<energy_corner"
    assert bands["kendalls_w"].item() > 0.95
    assert bands["p"].item() == pytest.approx(1 / 2000)
    wavelets = of(agreement, domain="latents", family="wavelets", statistic="half_rise")
    assert wavelets["measures"].item() == "wavelet_0<wavelet_1<wavelet_2"
    features_order = of(agreement, domain="images", family="features")["measures"].item()
    assert len(features_order.replace("=", "<").split("<")) == len(FEATURES) - len(OF_A_MODEL)
    contrasts = of(order, domain="latents", family="bands", statistic="half_rise", first="energy_low")
    assert list(contrasts["second"]) == ["energy_mid", "energy_high", "energy_corner"]
    assert (contrasts["low"] > 0).all()
    assert (contrasts["p"] < 0.05).all()
    assert contrasts["kendalls_w"].isna().all()
    seeds = study[2]["seed_times"]
    half = {
        band: of(seeds, domain="latents", measure=f"energy_{band}", statistic="half_rise")["t"].to_numpy()
        for band in ("low", "high")
    }
    difference = of(contrasts, second="energy_high")["difference"].item()
    assert difference == pytest.approx((half["low"] - half["high"]).mean())


def test_spectra_are_means_over_samples_and_seeds_and_latents_have_a_floor(study: Any) -> None:
    spectra = study[2]["spectra"]
    names = ("a0", "a1", "b0", "b1", "b2")
    made = {seed: tensors(seed, names, 6, (16, 24)) for seed in (0, 2, 4)}
    latents = np.concatenate([each["latents"][:, 2] for each in made.values()])
    frequencies, power = rapsd(latents, "hann")
    mine = of(spectra, of="x_t", domain="latents", step=2)
    np.testing.assert_allclose(mine["frequency"], frequencies)
    np.testing.assert_allclose(mine["power"], power.mean(axis=0))
    images = np.moveaxis(np.concatenate([each["x0_images"] for each in made.values()]), -1, 2).astype(np.float32)
    _, error = error_spectrum(images[:, 4], images[:, -1], "hann")
    np.testing.assert_allclose(of(spectra, of="error", domain="images", step=4)["power"], error.mean(axis=0), rtol=1e-5)
    assert of(spectra, domain="images")["floor"].isna().all()
    t = 1 - 2 / 6
    assert of(spectra, of="x_t", domain="latents", step=2)["floor"].to_numpy() == pytest.approx(t**2)
    for kind in ("x0", "error"):
        assert of(spectra, of=kind, domain="latents", step=2)["floor"].to_numpy() == pytest.approx((t / (1 - t)) ** 2)
        assert of(spectra, of=kind, domain="latents", step=0)["floor"].isna().all()
        assert (of(spectra, of=kind, domain="latents", step=6)["floor"] == 0).all()
    # pure noise has the power of its floor
    pure = of(spectra, of="x_t", domain="latents", step=0)
    assert np.average(pure["power"][1:]) == pytest.approx(pure["floor"].iloc[0], rel=0.15)


@pytest.mark.parametrize(("chunk", "threads", "block"), [(1, 2, 2000), (3, 1, None)])
def test_nothing_depends_on_chunks_threads_or_blocks(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, threads: int, block: int | None
) -> None:
    if block is not None:
        monkeypatch.setattr(script, "_BLOCK", block)
    # neither on the order in which seeds are given
    found = run([write(tmp_path, seed, chunk=chunk) for seed in (0, 2, 4)], tmp_path / "out", threads)
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, study[2][name], check_exact=False, rtol=1e-12)


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    found = run([write(tmp_path, 7)], tmp_path)
    for name in ("curves", "times"):
        assert found[name][["low", "high"]].isna().all(axis=None)
    contrasts = found["order"][found["order"]["first"].notna()]
    assert contrasts[["low", "high", "p"]].isna().all(axis=None)
    assert contrasts["difference"].notna().all()
    assert json.loads((tmp_path / "images.json").read_text())["interval"].startswith("none")


def test_latents_that_are_small_or_odd_have_fewer_measures(tmp_path: Path) -> None:
    found = run([write(tmp_path, 0, size=(12, 28))], tmp_path)["measures"]
    latents = set(of(found, domain="latents")["measure"])
    # 6 x 14
    assert {each for each in latents if each.startswith("wavelet")} == {"wavelet_0", "wavelet_1"}
    assert "slope" not in latents
    assert "slope" in set(of(found, domain="images")["measure"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("vit")
    (folder / "vit").mkdir()
    timm_vision.make_miniature(VIT.miniature, folder / "vit", 0)
    describe(folder / "vit.json", folder / "vit", {"source": "file"})
    content = {"format": 1, "bundle": "vit", "model": VIT.recipe(), "noise": None, "conditioning": None}
    (folder / "recipe.json").write_text(json.dumps(content))
    return Reader(folder / "recipe.json", folder / "vit", folder / "vit.json", "b0")


def test_learned_distance_is_that_of_the_features_of_png_files(tmp_path: Path, reference: Reader) -> None:
    names = ("a0", "b0")
    found = run([write(tmp_path, 1, names=names, size=(32, 32))], tmp_path, reference=reference)
    mine = of(found["measures"], measure="learned_distance", sample="b0").sort_values("step")
    assert set(mine["domain"]) == {"images"}
    features_of = tokens(reference, tensors(1, names, 6, (32, 32))["x0_images"][1]).mean(axis=1)
    cosine = features_of @ features_of[-1] / np.linalg.norm(features_of, axis=1) / np.linalg.norm(features_of[-1])
    np.testing.assert_allclose(of(mine, of="x0")["value"], 1 - cosine, atol=1e-6)
    assert of(mine, of="x0")["value"].iloc[-1] == pytest.approx(0, abs=1e-9)
    assert not len(of(mine, of="x_t"))
    assert of(found["times"], measure="learned_distance")["kind"].item() == "similarity"
    written = json.loads((tmp_path / "images.json").read_text())
    assert written["reference"]["layer"] == "b0"
    assert written["reference"]["weights"]["source"] == "file"


def tokens(reference: Reader, images: Array) -> Array:
    """What block 0 gives of each image (N, T, D), run by itself and written as bytes, without the class token."""
    loaded = load(VIT, reference.weights, torch.device("cpu"))
    caught: list[Array] = []
    block = loaded.module.get_submodule("blocks.0")
    block.register_forward_hook(lambda module, given, output: caught.append(loaded.tokens(output).numpy()))
    with torch.inference_mode():
        for image in np.rint(images.astype(np.float32) * 255).astype(np.uint8):
            loaded.forward({"pixels": pixels(image, VIT.input)[None], "names": ["one"]})
    return np.concatenate(caught)


def rewritten(folder: Path, tensor: str, row: int, step: int, value: float) -> None:
    """A chunk with one value replaced, as a disk or another program may leave it."""
    path = folder / "chunk_0001.safetensors"
    arrays = load_file(path)
    arrays[tensor][row, step].flat[3] = value
    save_file(arrays, path, KIND.metadata())


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("x0", math.nan, r"x0 of b1 are not finite at step 4 of 6, t = 0.333"),
        ("images", math.inf, r"images of b1 are not in \[0, 1\] at step 4 of 6"),
        ("x0_images", -0.25, r"x0_images of b1 are not in \[0, 1\] at step 4 of 6"),
    ],
)
def test_bad_values_are_named_by_tensor_step_and_sample(
    tmp_path: Path, tensor: str, value: float, message: str
) -> None:
    folder = write(tmp_path, 0)
    rewritten(folder, tensor, 1, 4, value)
    with pytest.raises(ValueError, match=message):
        run([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seeds_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path, 0)
    others: Mapping[str, tuple[dict[str, Any], str]] = {
        "samples": ({"names": ("a0", "a1", "b0", "b1", "c9")}, r"other samples than .*: b2, c9"),
        "levels": ({"steps": 5}, "other noise levels"),
        "model": ({"model": {"name": "sit"}}, "of another model"),
        "configuration": ({"configuration": {"name": "euler"}}, "of another configuration"),
    }
    for name, (given, message) in others.items():
        with pytest.raises(StoreError, match=message):
            run([first, write(tmp_path / name, 1, **given)], tmp_path / "out")
    with pytest.raises(ValueError, match="seeds repeat: 0, 0"):
        run([first, first], tmp_path / "out")
    with pytest.raises(ValueError, match="no trajectories"):
        run([], tmp_path / "out")


def test_one_step_and_sides_that_wavelets_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one step from noise to image"):
        run([write(tmp_path / "one", 0, steps=1)], tmp_path / "out")
    with pytest.raises(ValueError, match=r"3 wavelet levels of images of 12 x 24.*at most 2"):
        run(
            [write(tmp_path / "sides", 0, size=(12, 24))],
            tmp_path / "out",
            measuring=replace(MEASURING, wavelet_levels=3),
        )
    with pytest.raises(ValueError, match=r"images of 6 x 8 pixels; features need"):
        run(
            [write(tmp_path / "small", 0, size=(6, 8))],
            tmp_path / "out",
            measuring=replace(MEASURING, wavelet_levels=1),
        )


def test_parameters_of_the_rule_say_how_frequencies_are_measured() -> None:
    given = {"bands": {"low": 0.1, "mid": 0.3}, "window": "none", "wavelet": "haar", "wavelet_levels": 1}
    assert Measuring.from_parameters(given) == Measuring(Bands(0.1, 0.3), "none", "haar", 1)
    with pytest.raises(KeyError):
        measures.kind("unknown")
