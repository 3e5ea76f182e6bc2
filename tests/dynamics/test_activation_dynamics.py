"""Activations along stored trajectories, from files to tables: SiT, REG with class tokens, and a UNet with words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import pytest
import torch
from test_latent_transformers import checkpoint, model_of

import activation_dynamics as script
from diffalign import models
from diffalign.dynamics.activations import MEASURES, statistics
from diffalign.dynamics.readouts import MAPS, Moments, exchanged, folds, token_maps
from diffalign.io.headers import StoreError
from diffalign.io.pooled_files import read_pooled
from diffalign.io.trajectory_files import Chunk, write_trajectories
from diffalign.models import Denoiser, Prediction
from diffalign.models.text_encoders import write_clip
from diffalign.models.tokens import spatial_tokens
from diffalign.noise import NoiseLevel
from diffalign.specs import Compute, Model, Weights

CPU = torch.device("cpu")
SEEDS = (0, 3)
PROMPTS = ["a cat", "the cat sleeps"]
TABLES = ("activations", "associations", "readouts", "attention")


@dataclass(frozen=True)
class Study:
    """Files of random trajectories: three states of twelve samples of two seeds, in chunks of five and seven."""

    folder: Path
    model: Model
    denoiser: Denoiser
    conditioning: Mapping[str, torch.Tensor]
    groups: Mapping[str, str]
    levels: tuple[NoiseLevel, ...]
    prompts: tuple[str, ...] = ()

    @property
    def run(self) -> Any:
        """What `prepare` gives, as far as activations need it."""
        order = list(self.groups)

        def conditioning(names: list[str]) -> dict[str, torch.Tensor]:
            rows = [order.index(name) for name in names]
            return {key: values[rows] for key, values in self.conditioning.items()}

        return SimpleNamespace(
            denoiser=self.denoiser,
            levels=self.levels,
            groups=self.groups,
            conditioning=conditioning,
            facts={"torch": "2"},
        )

    @property
    def recipe(self) -> dict[str, Any]:
        configuration = {"name": "plain", "start": "noise", "prompts": list(self.prompts)}
        return {
            "format": 1,
            "model": self.model.recipe(),
            "autoencoder": {"name": "vae"},
            "configuration": configuration,
        }

    def arrays(self, seed: int) -> dict[str, np.ndarray]:
        random, shape = np.random.default_rng(seed), (len(self.groups), len(self.levels))
        side = self.denoiser.only_side or 8
        latents = random.standard_normal((*shape, self.denoiser.latent_channels, side, side)).astype(np.float32)
        images = random.random((*shape, 16, 16, 3)).astype(np.float16)
        arrays = {"latents": latents, "x0": latents, "images": images, "x0_images": images}
        if self.denoiser.class_token_width is not None:
            arrays["class_tokens"] = random.standard_normal((*shape, self.denoiser.class_token_width)).astype(
                np.float32
            )
        return arrays

    def write(self) -> None:
        (self.folder / "recipe.json").write_text(json.dumps(self.recipe))
        names, rows = tuple(self.groups), []
        made_of = {key: value for key, value in self.recipe.items() if key != "format"}
        for seed in SEEDS:
            arrays = self.arrays(seed)
            parts = [
                Chunk(names[some], {key: array[some] for key, array in arrays.items()})
                for some in (slice(0, 5), slice(5, 12))
            ]
            write_trajectories(self.folder / str(seed), parts, self.groups, self.levels, {**made_of, "seed": seed})
            random = np.random.default_rng(10 + seed)
            for name in names:
                for step in range(len(self.levels)):
                    for feature in ("edge_density", "energy_low"):
                        value = {"measure": feature, "value": random.random()}
                        rows += [
                            {"seed": seed, "sample": name, "step": step, "of": of, "domain": domain, **value}
                            for of, domain in (("x0", "images"), ("x_t", "images"), ("x0", "latents"))
                        ]
        pd.DataFrame(rows).sample(frac=1, random_state=0).to_parquet(self.folder / "measures.parquet")

    def measure(
        self, monkeypatch: pytest.MonkeyPatch, batch_size: int = 4, memory_mb: int = 100, words: tuple[str, ...] = ()
    ) -> dict[str, pd.DataFrame]:
        monkeypatch.setattr(script, "prepare", lambda *_: self.run)
        out = self.folder / f"out_{batch_size}_{memory_mb}"
        outputs = {f"{name}_{kind}": out / f"{name}.{kind}" for name in TABLES for kind in ("tsv", "parquet")}
        outputs |= {"pooled": out / "pooled.safetensors", "recipe": out / "activations.json"}
        files = SimpleNamespace(weights=self.folder)
        script.activation_dynamics(
            self.folder / "recipe.json",
            files,
            [self.folder / str(seed) for seed in reversed(SEEDS)],
            self.folder / "measures.parquet",
            script.Settings(words, 99, (1.0, 100.0), 0),
            outputs,
            Compute("cpu", batch_size, 0, memory_mb),
        )
        assert all(path.is_file() for path in outputs.values())
        return {name: pd.read_parquet(outputs[f"{name}_parquet"]) for name in TABLES}


def of_classes(name: str, folder: Path) -> Study:
    """SiT or REG of random weights, as published, with ten classes."""
    model = model_of(name)
    denoiser = models.load_denoiser(model, checkpoint(name, folder), CPU)
    groups = {f"class_{label}_{n:05d}": f"class_{label}" for label in range(4) for n in range(3)}
    levels = (denoiser.level("t0.9"), denoiser.level("t0.5"), replace(denoiser.level("t0"), alpha=1.0, sigma=0.0))
    conditioning = {"labels": torch.tensor([n // 3 for n in range(12)])}
    made = Study(folder, model, denoiser, conditioning, groups, levels)
    made.write()
    return made


@pytest.fixture(scope="module")
def sit(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return of_classes("sit", tmp_path_factory.mktemp("sit"))


def tokens_by_hand(study: Study, seed: int, step: int, path: str) -> torch.Tensor:
    """Tokens of a module from one pass over all samples."""
    arrays, caught = study.arrays(seed), {}
    handle = study.denoiser.module.get_submodule(path).register_forward_hook(
        lambda _, __, output: caught.update(tokens=study.denoiser.tokens(output))
    )
    given = dict(study.conditioning)
    if "class_tokens" in arrays:
        given["class_tokens"] = torch.from_numpy(arrays["class_tokens"][:, step])
    with torch.no_grad():
        study.denoiser.run(torch.from_numpy(arrays["latents"][:, step]), study.levels[step], given)
    handle.remove()
    return caught["tokens"]


@pytest.mark.parametrize("name", ["sit", "reg"])
def test_tables_are_those_of_one_pass_by_hand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = of_classes(name, tmp_path)
    found = study.measure(monkeypatch)
    pooled = read_pooled(tmp_path / "out_4_100" / "pooled.safetensors")
    assert pooled.names == tuple(f"{seed}/{sample}" for seed in SEEDS for sample in study.groups)
    assert pooled.groups == tuple(study.groups.values()) * 2
    assert (pooled.layers, pooled.steps, pooled.levels) == (("embed", "b0"), (0, 1), study.levels)
    for depth, (layer, path) in enumerate(study.model.layers.items()):
        for step in (0, 1):
            tokens = {seed: tokens_by_hand(study, seed, step, path) for seed in SEEDS}
            both = torch.cat([tokens[seed].mean(dim=1) for seed in SEEDS])
            np.testing.assert_allclose(pooled.values(step, layer), both, atol=1e-5)
            table = found["activations"].query("layer == @layer and step == @step").set_index("measure")
            side = round(tokens[0].shape[1] ** 0.5)
            of_seeds = [statistics(tokens[seed], (side, side)) for seed in SEEDS]
            assert set(table.index) == set(of_seeds[0])
            for measure, row in table.iterrows():
                means = [values[measure].mean() for values in of_seeds]
                assert row["mean"] == pytest.approx(np.mean(means), rel=1e-4, abs=1e-9)
                assert row["low"] <= row["mean"] <= row["high"]
                assert (row["depth"], row["seeds"], row["samples"]) == (depth, 2, 12)
                assert row["t"] == study.levels[step].t
            r2 = _read_outs(study, tokens, (side, side))
            table = found["readouts"].query("layer == @layer and step == @step").set_index("map")
            for i, each in enumerate(MAPS):
                assert table.loc[each, "r2"] == pytest.approx(r2[:, i].mean(), abs=1e-4)
                assert table.loc[each, "shuffled"] == pytest.approx(r2[:, 3 + i].mean(), abs=1e-4)
    assert found["attention"].empty
    assert (found["activations"]["model"] == name).all()
    assert (found["activations"]["configuration"] == "plain").all()


def _read_outs(study: Study, tokens: Mapping[int, torch.Tensor], grid: tuple[int, int]) -> np.ndarray:
    names = list(study.groups)
    fold, other = folds(names, list(study.groups.values()), 0), exchanged(names, 0)
    found = []
    for seed in SEEDS:
        maps = token_maps(study.arrays(seed)["images"][:, -1].astype(np.float32), {grid})[grid]
        moments = Moments(*tokens[seed].shape[1:], 6, CPU)
        moments.add(tokens[seed], torch.from_numpy(np.concatenate([maps, maps[other]], axis=2)), fold)
        found.append(moments.held_out((1.0, 100.0)))
    return np.stack(found)


def test_correlations_are_with_the_next_change(sit: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature whose change from step 1 to 2 is the norm of b0 at step 1."""
    study = replace(sit, folder=tmp_path)
    study.write()
    measures = pd.read_parquet(tmp_path / "measures.parquet")
    for seed in SEEDS:
        norms = statistics(tokens_by_hand(study, seed, 1, "blocks.0"), None)["norm"]
        for name, norm in zip(study.groups, norms, strict=True):
            chosen = (
                "of == 'x0' and domain == 'images' and measure == 'edge_density' and seed == @seed and sample == @name"
            )
            of_sample = measures.query(chosen.replace("@name", repr(name)))
            for step, value in ((1, 5.0), (2, 5.0 + norm)):
                measures.loc[of_sample.index[of_sample["step"] == step], "value"] = value
    measures.to_parquet(tmp_path / "measures.parquet")
    table = study.measure(monkeypatch)["associations"]
    assert set(table["feature"]) == {"edge_density", "energy_low"}
    assert (table["n"] == 24).all()
    cell = table.query("layer == 'b0' and step == 1 and activation == 'norm' and feature == 'edge_density'").iloc[0]
    assert cell["rho"] == pytest.approx(1)
    assert cell["p"] == cell["p_family"] == pytest.approx(0.01)
    # massive activations: there are none, so ranks are constant
    assert table.query("activation == 'massive'")["rho"].isna().all()
    assert table.query("activation == 'norm'")["rho"].notna().all()
    assert len(table) == 2 * 2 * len(MEASURES) * 2 - 2 * 2 * 2 * _absent(table)


def _absent(table: pd.DataFrame) -> int:
    """Measures that no layer has, such as bands without a frequency on the grid."""
    return len(set(MEASURES) - set(table["activation"]))


def test_nothing_depends_on_batches_or_memory(sit: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sit.measure(monkeypatch)
    other = sit.measure(monkeypatch, batch_size=5, memory_mb=0)
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, other[name], rtol=1e-4, atol=1e-6)


def test_layers_are_taken_in_parts_that_fit() -> None:
    widths, grids = {"a": (4, 3), "b": (4, 3), "c": (5, 900), "d": (4, 3)}, dict.fromkeys("abd", (2, 2))
    study = script.Study(SimpleNamespace(groups={}), "noise", {}, dict.fromkeys("abcd", ""), CPU, 1, widths, grids)
    size = Moments.size(4, 3)
    assert script._in_parts(study, 3 * size) == [["a", "b", "c", "d"]]
    # a layer without a grid has no sums, and one that does not fit is alone
    assert script._in_parts(study, 2 * size) == [["a", "b", "c"], ["d"]]
    assert script._in_parts(study, 0) == [["a"], ["b"], ["c"], ["d"]]


def test_samples_are_exchanged_within_their_class_or_photograph() -> None:
    def of(start: str, groups: dict[str, str], seeds: int = 2) -> list[str]:
        return script.strata_of(
            script.Study(SimpleNamespace(groups=groups), start, dict.fromkeys(range(seeds)), {}, CPU, 1)
        )

    assert of("noise", {"x": "cat", "y": "cat"}) == ["0/cat", "0/cat", "1/cat", "1/cat"]
    # of a model that is conditioned on nothing
    assert of("noise", {"x": "x", "y": "y"}, 1) == ["0/all", "0/all"]
    assert of("noising", {"x": "x", "y": "y"}) == ["x", "y", "x", "y"]


def test_other_trajectories_and_measures_are_refused(
    sit: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(sit, folder=tmp_path)
    study.write()
    changed = {**study.recipe, "configuration": {**study.recipe["configuration"], "steps": 7}}
    (tmp_path / "recipe.json").write_text(json.dumps(changed))
    with pytest.raises(StoreError, match="of other configuration than asked for"):
        study.measure(monkeypatch)
    (tmp_path / "recipe.json").write_text(json.dumps(study.recipe))
    measures = pd.read_parquet(tmp_path / "measures.parquet")
    measures.query("sample != 'class_1_00001'").to_parquet(tmp_path / "measures.parquet")
    with pytest.raises(StoreError, match="measures are of other samples or steps"):
        study.measure(monkeypatch)
    measures.to_parquet(tmp_path / "measures.parquet")
    with pytest.raises(StoreError, match="2 folders of trajectories are of 1 seeds"):
        script._trajectories([tmp_path / "0"] * 2, study.recipe, study.run)
    with torch.no_grad():
        broken = study.denoiser.module.blocks[0].mlp.fc2.bias
        broken += torch.inf
        try:
            with pytest.raises(
                ValueError, match=r"layer b0, step 0: activations are NaN or infinite for class_0_00000"
            ):
                study.measure(monkeypatch)
        finally:
            broken.zero_()


def of_prompts(folder: Path) -> Study:
    """A UNet with two stages, of prompts whose tokens are letters."""
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
    ).eval()
    write_clip(folder, "", 1, width=8, projection=False)
    model = Model("unet", "diffusers_unet", Weights("file"), {"mid": "mid_block", "down0": "down_blocks.0"}, "mid")

    def run(x_t: torch.Tensor, level: NoiseLevel, conditioning: Mapping[str, torch.Tensor]) -> Any:
        return net(x_t, level.timestep, encoder_hidden_states=conditioning["prompt_embeds"])

    def tokens(output: Any) -> torch.Tensor:
        return spatial_tokens(output[0] if isinstance(output, tuple) else output)

    unused = Prediction(torch.zeros(0), torch.zeros(0))
    denoiser = Denoiser(net, lambda _: NoiseLevel(1, 0, 0), run, lambda *_: unused, tokens, 4)
    groups = {f"prompt_{n}_{i:05d}": PROMPTS[n] for n in range(2) for i in range(6)}
    embeds = torch.randn(2, 77, 12, generator=torch.Generator().manual_seed(1)).repeat_interleave(6, dim=0)
    levels = (NoiseLevel(0.3, 0.9, 700), NoiseLevel(0.8, 0.6, 300), NoiseLevel(1, 0, 0))
    made = Study(folder, model, denoiser, {"prompt_embeds": embeds}, groups, levels, tuple(PROMPTS))
    made.write()
    return made


def test_words_of_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = of_prompts(tmp_path)
    found = study.measure(monkeypatch, words=("cat",))
    table = found["attention"]
    modules = {
        "down0": "down_blocks.0.attentions.0.transformer_blocks.0.attn2",
        "mid": "mid_block.attentions.0.transformer_blocks.0.attn2",
    }
    # parts of a layer have its name, others their own; in order of calls
    layers = list(table.sort_values("depth")["layer"].unique())
    assert layers[:2] == list(modules)
    assert layers[2].startswith("up_blocks.1.attentions.0")
    assert set(table["measure"]) == {"share", "entropy", *MAPS}
    assert table["mean"].notna().all()
    share = table.query("measure == 'share' and layer == 'mid' and step == 1").iloc[0]
    module, caught = study.denoiser.module.get_submodule(modules["mid"]), {}
    handle = module.register_forward_pre_hook(
        lambda _, given, named: caught.update(x=given[0], **named), with_kwargs=True
    )
    expected = []
    for seed in SEEDS:
        with torch.no_grad():
            x_t = torch.from_numpy(study.arrays(seed)["latents"][:, 1])
            study.denoiser.run(x_t, study.levels[1], study.conditioning)
        q = module.head_to_batch_dim(module.to_q(caught["x"]))
        k = module.head_to_batch_dim(module.to_k(caught["encoder_hidden_states"]))
        heads = module.get_attention_scores(q, k).unflatten(0, (12, -1)).mean(dim=1)
        # "a cat" after the first token: a, c, a, t; "the cat sleeps": t, h, e, c, a, t
        of_word = [heads[:6, :, 2:5].sum(dim=2), heads[6:, :, 4:7].sum(dim=2)]
        expected.append(float(torch.cat(of_word).detach().mean()))
    handle.remove()
    assert share["mean"] == pytest.approx(np.mean(expected), rel=1e-4)
    assert (share["seeds"], share["samples"]) == (2, 12)
    with pytest.raises(ValueError, match="'a cat' has no word 'dog'; its words: a, cat"):
        study.measure(monkeypatch, words=("dog",))


def test_seeds_are_those_that_have_a_value() -> None:
    over = script._over_seeds(np.array([0.2, np.nan, 0.4]))
    assert over["seeds"] == 2
    assert over["mean"] == pytest.approx(0.3)
    assert script._over_seeds(np.full(3, np.nan)) == pytest.approx(
        {"mean": np.nan, "low": np.nan, "high": np.nan, "seeds": 0}, nan_ok=True
    )


def test_a_seed_without_a_value_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three seeds one has no R² of its first map, and one no correlation of its first word with it."""
    names = {f"n{i}": f"n{i}" for i in range(5)}
    levels = (NoiseLevel(0.3, 0.9, 700), NoiseLevel(1, 0, 0))
    run = SimpleNamespace(groups=names, levels=levels)
    study = script.Study(run, "noise", dict.fromkeys(range(3)), {"mid": "mid_block"}, CPU, 1)
    r2 = np.tile(np.arange(3.0)[:, None], (1, 2 * len(MAPS)))
    r2[1, 0] = np.nan
    r2[:, 1] = np.nan
    made = script.Measured(np.empty(0), {}, {(0, "mid"): r2})
    rows = {row["map"]: row for row in script._readouts(study, made, {})}
    first, second, third = (rows[each] for each in MAPS)
    assert (first["seeds"], second["seeds"], third["seeds"]) == (2, 0, 3)
    # t of one degree of freedom for two seeds: mean 1, sd sqrt(2)
    assert first["high"] == pytest.approx(1 + 12.7062, abs=1e-3)
    assert np.isnan(second["r2"])
    values = np.ones((3, 1, len(script.OF_WORDS)))
    values[2, 0, -1] = np.nan
    monkeypatch.setattr(script, "of_words", lambda *_: {("mid_block.attn2", 0): values})
    words = {row["measure"]: row for row in script._attention(study, script.Words(("cat",), {}), {})}
    assert (words["share"]["seeds"], words[MAPS[-1]]["seeds"]) == (3, 2)
    assert {row["samples"] for row in words.values()} == {5}


def test_few_samples_have_no_read_outs(sit: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(
        sit,
        folder=tmp_path,
        groups={"a": "class_0", "b": "class_0"},
        conditioning={"labels": torch.zeros(2, dtype=torch.long)},
    )
    monkeypatch.setattr(Study, "write", _write_two)
    few.write()
    found = few.measure(monkeypatch)
    assert found["readouts"].empty
    assert not found["activations"].empty


def _write_two(study: Study) -> None:
    (study.folder / "recipe.json").write_text(json.dumps(study.recipe))
    made_of = {key: value for key, value in study.recipe.items() if key != "format"}
    for seed in SEEDS:
        parts = [Chunk(tuple(study.groups), study.arrays(seed))]
        write_trajectories(study.folder / str(seed), parts, study.groups, study.levels, {**made_of, "seed": seed})
    rows = [
        {"seed": seed, "sample": name, "step": step, "of": "x0", "domain": "images", "measure": "ssim", "value": 0.5}
        for seed in SEEDS
        for name in study.groups
        for step in range(3)
    ]
    pd.DataFrame(rows).to_parquet(study.folder / "measures.parquet")
