"""Contributions of layers: a planted pattern is found, what is written nowhere counts for nothing."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_models import STUDY
from test_runs import Place
from test_sample_scripts import Study
from torch import Tensor, nn

import contributions
from contributions import Ablations, measured_removals, spread, table_rows
from contributions import contributions as write_contributions
from diffalign import models
from diffalign.dynamics.spectra import Bands
from diffalign.io.headers import StoreError
from diffalign.io.trajectory_files import Chunk, write_trajectories
from diffalign.models import Denoiser, Prediction, find_family
from diffalign.noise import NoiseLevel
from diffalign.randomness import one_each
from diffalign.sampling.runs import Files
from diffalign.sampling.trajectories import State
from diffalign.specs import Compute

STEPS = 4
LEVELS = tuple(NoiseLevel(1 - t, t, t) for t in np.linspace(1, 0, STEPS + 1))
NAMES = [f"class_{label}_{n:05d}" for label in (0, 1) for n in range(3)]
LAYERS = {"b0": "b0", "stripes": "b1", "b2": "b2"}
SIDE = 16
ROWS = torch.tensor([1.0, -1.0]).repeat(SIDE // 2)[:, None]


@dataclass(frozen=True, eq=False)
class Small:
    """In the place of a `Run`: Euler's method from keyed noise, with all calls of a step within `around`."""

    denoiser: Denoiser
    decode: Callable[[Tensor], Tensor]
    levels: Sequence[NoiseLevel]
    groups: Mapping[str, str]
    guided: bool = False

    def states(
        self,
        names: Sequence[str],
        seed: int | Sequence[int],
        around: Callable[[int], AbstractContextManager[object]] | None = None,
    ) -> Iterator[State]:
        side, channels = self.denoiser.only_side or SIDE, self.denoiser.latent_channels
        draws = [torch.Generator().manual_seed(1000 * own + NAMES.index(name)) for own, name in one_each(seed, names)]
        x = torch.stack([torch.randn(channels, side, side, generator=draw) for draw in draws])
        conditioning = self.conditioning(names)
        for step, (here, there) in enumerate(pairwise(self.levels)):
            with around(step) if around else nullcontext():
                found = self.denoiser.predict(x, here, conditioning)
                if self.guided:
                    null = {key: torch.full_like(value, 1000) for key, value in conditioning.items()}
                    without = self.denoiser.predict(x, here, null)
                    found = Prediction(2 * found.x0 - without.x0, 2 * found.eps - without.eps)
            yield State(here, x, None, found)
            x = there.alpha * found.x0 + there.sigma * found.eps
        yield State(self.levels[-1], x, None, None)

    def conditioning(self, names: Sequence[str]) -> dict[str, Tensor]:
        return {"labels": torch.tensor([int(name.split("_")[1]) for name in names])}


class Writer(nn.Module):
    """Adds to its stream (B, 6, H, W) what a function of it gives, in the channels that are seen or the others."""

    def __init__(self, write: Callable[[Tensor], Tensor], seen: bool) -> None:
        super().__init__()
        self.write, self.seen = write, seen

    def forward(self, h: Tensor) -> Tensor:
        added, nothing = self.write(h[:, :3]), torch.zeros_like(h[:, :3])
        return h + torch.cat([added, nothing] if self.seen else [nothing, added], 1)


class Net(nn.Module):
    """Three layers, of which only the middle one writes stripes where the image is read from."""

    def __init__(self, stripes: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.b0 = Writer(torch.tanh, seen=False)
        self.b1 = Writer(stripes, seen=True)
        self.b2 = Writer(torch.sin, seen=False)

    def forward(self, x: Tensor) -> Tensor:
        smooth = nn.functional.interpolate(nn.functional.avg_pool2d(x, 8), (SIDE, SIDE), mode="bilinear")
        return self.b2(self.b1(self.b0(torch.cat([0.2 * smooth, smooth], 1))))[:, :3]


def small(stripes: Callable[[Tensor], Tensor]) -> Small:
    net = Net(stripes)

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Tensor:
        return net(x_t)

    def convert(output: Tensor, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return Prediction(output, (x_t - level.alpha * output) / level.sigma)

    denoiser = Denoiser(net, lambda _: LEVELS[0], run, convert, lambda o: o.flatten(2), 3)
    groups = {name: name[:7] for name in NAMES}
    return Small(denoiser, lambda z: (0.5 + z / 4).clamp(0, 1), LEVELS, groups)


def varied(h: Tensor) -> Tensor:
    return ((0.3 + 0.1 * torch.tanh(4 * h.mean((1, 2, 3), keepdim=True))) * ROWS).expand_as(h)


def constant(h: Tensor) -> Tensor:
    return (0.3 * ROWS).expand_as(h)


def table(run: Any, layers: Mapping[str, str] = LAYERS, batch_size: int = 4, **asked: Any) -> pd.DataFrame:
    ablations = replace(Ablations(1, len(NAMES), ("layer",), ("zero",)), **asked)
    members = spread(run.groups, ablations.samples)
    measured = measured_removals(run, layers, [3, 5], members, ablations, Bands(), batch_size)
    return pd.DataFrame(table_rows(measured, run))


def test_the_layer_that_writes_stripes_is_the_top_contribution_and_others_do_nothing() -> None:
    found = table(small(varied))
    high = found[found.measure == "energy_high"].set_index("layer")
    assert high.effect.abs().idxmax() == "stripes"
    assert high.effect["stripes"] < -5
    assert high.high["stripes"] < -5
    assert high["size"]["stripes"] >= abs(high.effect["stripes"])
    others = found[found.layer != "stripes"]
    assert (others.change == 0).all()
    assert (others["size"].dropna() == 0).all()
    # of stripes alone, what is coarse stays
    low = found[(found.measure == "energy_low") & (found.layer == "stripes")]
    assert abs(low.effect.item()) < 0.2
    assert set(found.seeds) == {2}
    assert set(found.samples) == {len(NAMES)}


def test_the_mean_of_a_constant_pattern_changes_nothing_and_its_absence_does() -> None:
    found = table(small(constant), methods=("zero", "mean"))
    changes = found.pivot_table(index=["layer", "method"], columns="measure", values="change")
    assert changes.loc[("stripes", "mean")].abs().max() < 1e-5
    assert changes.loc[("stripes", "zero"), "energy_high"] < -3
    of_varied = table(small(varied), methods=("mean",))
    mean = of_varied[(of_varied.layer == "stripes") & (of_varied.measure == "energy_high")]
    # every sample has the mean stripe, so that only what varied is gone
    assert 0.1 < mean["size"].item() < 2


def test_windows_say_when_and_only_the_last_step_counts_here() -> None:
    found = table(small(varied), windows=STEPS)
    stripes = found[(found.layer == "stripes") & (found.measure == "energy_high")].set_index("window")
    assert list(stripes.first_step) == list(stripes.last_step) == list(range(STEPS))
    assert np.allclose(stripes.t_from, [1, 0.75, 0.5, 0.25])
    assert np.allclose(stripes.t_to, [0.75, 0.5, 0.25, 0])
    # the result is the estimate of the last step; coarse input hides the stripes of earlier ones
    assert stripes.effect[STEPS - 1] < -5
    assert stripes.effect[: STEPS - 1].abs().max() < 0.5


def test_effects_are_changes_over_the_sd_of_unablated_samples() -> None:
    run = small(varied)
    found = table(run)
    members = spread(run.groups, len(NAMES))
    base = dict(zip((3, 5), contributions.results(run, members, (3, 5), 6), strict=True))
    energies = np.concatenate([contributions.measures(each, each, Bands())["energy_high"] for each in base.values()])
    row = found[(found.measure == "energy_high") & (found.layer == "stripes")].iloc[0]
    assert row.sd == pytest.approx(energies.std(ddof=1))
    assert row.effect == pytest.approx(row.change / row.sd)
    # two images: exchange with another sample of the seed
    moved = np.concatenate(
        [contributions.measures(np.roll(each, 1, axis=0), each, Bands())["ssim"] - 1 for each in base.values()]
    )
    ssim = found[(found.measure == "ssim") & (found.layer == "stripes")].iloc[0]
    assert ssim.sd == pytest.approx(np.sqrt(np.square(moved).mean() / 2))
    assert ssim.effect < 0


def test_a_measure_that_no_sample_varies_in_has_a_change_and_no_effect() -> None:
    found = table(small(lambda h: (0.8 * ROWS).expand_as(h) - h))
    row = found[(found.measure == "energy_high") & (found.layer == "stripes")].iloc[0]
    assert row.sd == 0
    assert np.isnan(row.effect)
    assert np.isnan(row["size"])
    assert row.change < -3


def test_results_do_not_depend_on_batches() -> None:
    one, other = (table(small(varied), batch_size=size, methods=("zero", "mean")) for size in (1, 6))
    numbers = one.select_dtypes("number").columns
    assert np.allclose(one[numbers], other[numbers], atol=1e-4, equal_nan=True)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("sit")
    model = STUDY.models["sit"]
    small_one = replace(
        model,
        architecture={**model.architecture, "depth": 3},
        miniature={**model.miniature, "depth": 3, "hidden_size": 24, "num_heads": 2},
    )
    find_family("sit").make_miniature({**small_one.architecture, **small_one.miniature}, folder, 0)
    denoiser = models.load_denoiser(small_one, folder, torch.device("cpu"))
    groups = {name: name[:7] for name in NAMES}
    return Small(denoiser, lambda z: torch.sigmoid(z[:, :3]), LEVELS, groups, guided=True)


def test_a_transformer_has_layers_attention_and_mlp(transformer: Small) -> None:
    layers = {"embed": "embedder", "b0": "blocks.0", "b2": "blocks.2", "final": "final_layer"}
    found = table(
        transformer, layers, samples=3, windows=2, parts=("layer", "attention", "mlp"), methods=("zero", "mean")
    )
    removed = found[["layer", "part", "window", "method"]].drop_duplicates()
    assert len(removed) == (1 + 2 * 3) * 2 * 2
    assert set(found.layer) == {"embed", "b0", "b2"}
    assert list(found.drop_duplicates("layer").depth) == [0, 1, 2]
    assert len(found) == len(removed) * (4 + 16)
    psnr = found[found.measure == "psnr"].set_index(["layer", "part", "window", "method"])
    # the embedder is the identity
    assert (psnr.change[psnr.index.get_level_values("layer") == "embed"] == 0).all()
    assert (psnr.change[psnr.index.get_level_values("layer") != "embed"] < 0).all()
    assert np.isfinite(found[["effect", "size", "change"]].to_numpy()[found.sd > 0]).all()


def test_means_are_recorded_again_where_not_all_fit(transformer: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"b0": "blocks.0", "b1": "blocks.1", "b2": "blocks.2"}
    at_once = table(transformer, layers, samples=2, methods=("mean",))
    passes: list[int] = []
    recorded = contributions._recorded

    def counted(run: Any, seed: int, group: Any, batch_size: int) -> Any:
        passes.append(len(group))
        return recorded(run, seed, group, batch_size)

    monkeypatch.setattr(contributions, "_recorded", counted)
    # a target: 16 tokens x 24 numbers, at most two guided estimates of 2 calls, 8 bytes, 4 steps
    monkeypatch.setattr(contributions, "_MEANS_BYTES", 2 * (16 * 24) * (2 * 2) * 8 * STEPS)
    pd.testing.assert_frame_equal(table(transformer, layers, samples=2, methods=("mean",)), at_once)
    assert passes == [2, 1, 2, 1]


def test_samples_are_dealt_over_groups() -> None:
    groups = {"c": "x", "a": "x", "b": "x", "d": "y", "e": "z"}
    assert spread(groups, 4) == ["a", "d", "e", "b"]
    assert spread(groups, 5) == ["a", "d", "e", "b", "c"]
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"ablations of {count} samples, but each seed has 5"):
            spread(groups, count)


def test_images_that_become_nan_name_the_removal_and_the_sample() -> None:
    run = small(varied)
    broken = replace(run, decode=lambda z: torch.where(z.abs().amax() < 1.05, torch.nan, (0.5 + z / 4).clamp(0, 1)))
    with pytest.raises(ValueError, match=r"images are NaN or infinite at step 4, for class_0_00000, class_1_00000"):
        contributions.results(broken, spread(run.groups, 6), [3], 6)


RECIPE = {
    "format": 1,
    "model": {"name": "tiny", "family": "sit", "weights": {"source": "none"}, "layers": LAYERS, "step": 7},
    "configuration": {"name": "plain", "start": "noise"},
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    run = small(varied)
    monkeypatch.setattr(contributions, "prepare", lambda content, given, device: run)
    monkeypatch.setattr(contributions.Model, "from_recipe", lambda recipe: replace(STUDY.models["sit"], layers=LAYERS))
    folders = []
    for seed in (5, 3):
        latents = np.zeros((len(NAMES), STEPS + 1, 3, 2, 2), np.float32)
        images = np.zeros((len(NAMES), STEPS + 1, 2, 2, 3), np.float16)
        chunk = Chunk(tuple(NAMES), {"latents": latents, "x0": latents, "images": images, "x0_images": images})
        folders.append(tmp_path / str(seed))
        write_trajectories(folders[-1], [chunk], run.groups, LEVELS, {**RECIPE, "seed": seed})
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    outputs = {"contributions_tsv": tmp_path / "c.tsv", "contributions_parquet": tmp_path / "c.parquet"}
    return {
        "recipe": tmp_path / "recipe.json",
        "files": Files(*[tmp_path] * 4, (), tmp_path, tmp_path),
        "folders": folders,
        "ablations": Ablations(2, 4, ("layer",), ("zero",)),
        "bands": Bands(),
        "outputs": {**outputs, "recipe": tmp_path / "c.json"},
        "compute": Compute("cpu", 4, 0),
    }


def test_tables_and_recipe_of_a_job(files: dict[str, Any]) -> None:
    write_contributions(**files)
    found = pd.read_parquet(files["outputs"]["contributions_parquet"])
    assert list(found.columns) == list(contributions.COLUMNS)
    assert set(found.configuration) == {"plain"}
    again = pd.read_csv(files["outputs"]["contributions_tsv"], sep="\t")
    assert len(again) == len(found) == 3 * 2 * 20
    recipe = contributions.KIND.read_json(files["outputs"]["recipe"])
    assert recipe["seeds"] == [3, 5]
    assert recipe["samples"] == ["class_0_00000", "class_1_00000", "class_0_00001", "class_1_00001"]
    assert recipe["left_out"] == []


def test_noising_and_other_trajectories_are_refused(files: dict[str, Any]) -> None:
    noising = {**RECIPE, "configuration": {"name": "plain", "start": "noising"}}
    other = {**RECIPE, "configuration": {"name": "other", "start": "noise"}}
    files["recipe"].write_text(json.dumps(other))
    with pytest.raises(StoreError, match=r"5 is of another configuration than .*recipe.json"):
        write_contributions(**files)
    files["recipe"].write_text(json.dumps(noising))
    with pytest.raises(ValueError, match="noising makes no images"):
        write_contributions(**files)


def test_a_configuration_from_its_files(tmp_path: Path) -> None:
    study = Study(tmp_path / "files")
    study.prepare()
    place = Place(study)
    settings = {"start": "noise", "sampler": "heun", "guidance": 2.0, "classes": [1, 3], "samples": 3}
    stored = [place.written("sit", tmp_path / str(seed), seed=seed, **settings) for seed in (3, 5)]
    recipe = place.recipe("sit", **settings)
    recipe["model"]["layers"] = {"b0": "blocks.0", "final": "final_layer"}
    for each in stored:
        # the recipe of trajectories is that of the configuration
        assert each.recipe["configuration"] == recipe["configuration"]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    outputs = {"contributions_tsv": tmp_path / "c.tsv", "contributions_parquet": tmp_path / "c.parquet"}
    given = {
        "recipe": tmp_path / "recipe.json",
        "files": place.files("sit"),
        "folders": [each.folder for each in stored],
        "ablations": Ablations(1, 2, ("layer", "mlp"), ("zero", "mean")),
        "bands": Bands(),
        "outputs": {**outputs, "recipe": tmp_path / "c.json"},
        "compute": Compute("cpu", 2, 0),
    }
    with pytest.raises(StoreError, match="is of another model than"):
        write_contributions(**given)
    (tmp_path / "recipe.json").write_text(json.dumps(place.recipe("sit", **settings)))
    write_contributions(**given)
    found = pd.read_parquet(outputs["contributions_parquet"])
    assert set(found.layer) == {"embed", "b0"}
    assert len(found.drop_duplicates(["layer", "part", "window", "method"])) == 3 * 2
    psnr = found[(found.measure == "psnr") & (found.layer != "embed")]
    assert (psnr.change < 0).mean() > 0.9
    left_out = contributions.KIND.read_json(given["outputs"]["recipe"])["left_out"]
    assert left_out == [{"layer": "embed", "part": "mlp", "reason": "embedder has no mlp of its own"}]
    # made again with the same noise
    run = place.run("sit", **settings)
    again = contributions.results(run, list(run.groups), [5], 2)[0]
    assert np.abs(again - stored[1].final_images()).max() < 2e-3
